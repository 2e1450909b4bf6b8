"""The same commands on libvirt's networks and on ours, each in a network namespace: what virsh says is the same."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support import hosteld, libvirtd_system, netns
from support.additions import without_additions
from support.netns import Party

pytestmark = [
    pytest.mark.requires_tool("nft"),
    pytest.mark.requires_tool("dnsmasq"),
    pytest.mark.requires_tool("busybox"),
    pytest.mark.requires_tool("libvirtd"),
    pytest.mark.requires_tool("virsh"),
    pytest.mark.requires_tool("ip6tables"),
    pytest.mark.skipif(os.geteuid() != 0, reason="a bridge is made by root"),
]
UUID = "7fb1b3c8-0dd5-4d36-8e6c-9f9b3d2a4b11"
PORT = "d6fc0c9f-8a0c-4b0f-8b57-0c5f3ffe3d11"
MAC = "52:54:00:00:00:0a"
NETWORK = f"""<network><name>lan</name><uuid>{UUID}</uuid><forward mode='nat'/><bridge name='hbr0' stp='off'/>
<mac address='52:54:00:11:22:33'/><domain name='lan.test'/>
<ip address='192.168.77.1' prefix='24'><dhcp><range start='192.168.77.20' end='192.168.77.40'/></dhcp></ip>
<portgroup name='fast' default='yes'><bandwidth><inbound average='1000'/></bandwidth></portgroup></network>"""
COMMANDS = f"""
net-define DIR/lan.xml
net-dhcp-leases lan
net-port-list lan
net-start lan
net-start lan
net-info lan
net-dumpxml lan
net-dhcp-leases lan
net-port-list lan
net-port-create lan DIR/port.xml
net-port-create lan DIR/bad.xml
net-port-create lan DIR/plugged.xml
net-port-list lan
net-port-list lan --uuid
net-port-list lan --uuid --table
net-port-dumpxml lan {PORT}
net-port-dumpxml lan {UUID}
net-dumpxml lan
net-update lan add ip-dhcp-host DIR/host.xml --live
net-dumpxml lan
net-dumpxml lan --inactive
!lease
net-dhcp-leases lan
net-dhcp-leases lan --mac {MAC.upper()}
net-dhcp-leases lan --mac 52:54:00:00:00:0b
net-dhcp-leases lan --mac nonsense
net-port-delete lan {PORT}
net-port-delete lan {PORT}
net-create DIR/other.xml
net-create DIR/taken.xml
net-event --list
net-event lan --event lifecycle --timeout 1
net-event lan
net-event --event nonsense
net-destroy lan
net-destroy lan
net-port-list lan
net-destroy other
net-undefine lan
net-list --all
""".split("\n")[1:-1]
FILES = {
    "lan.xml": NETWORK,
    "host.xml": f"<host mac='{MAC}' ip='192.168.77.30' name='thirty'/>",
    "port.xml": (
        f"<networkport><uuid>{PORT}</uuid><owner><name>g</name><uuid>{UUID}</uuid></owner><mac address='{MAC}'/>"
        "</networkport>"
    ),
    "plugged.xml": (
        f"<networkport><uuid>{UUID}</uuid><owner><name>g</name><uuid>{UUID}</uuid></owner><mac address='{MAC}'/>"
        "<plug type='network' bridge='hbr0'/></networkport>"
    ),
    "bad.xml": "<networkport/>",
    "other.xml": "<network><name>other</name><bridge name='obr'/><ip address='10.9.0.1' prefix='24'/></network>",
    "taken.xml": "<network><name>taken</name><bridge name='tbr'/><ip address='192.168.77.5' prefix='24'/></network>",
}
# libvirtd brings no network `default` here, where nobody has installed one; it forgets who is plugged in when the
# document changes.
EXPLAINED = {"39 net-list --all", "19 net-dumpxml lan"}
# Real virsh fails without saying why, and with success.
LOUD = {f"16 net-port-dumpxml lan {UUID}", f"27 net-port-delete lan {PORT}"}


@pytest.fixture(scope="module")
def files() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="hostel-net-") as path:
        Path(path).chmod(0o755)
        for name, text in FILES.items():
            (Path(path) / name).write_text(text)
        yield Path(path)


def answers(virsh: Callable[[list[str]], subprocess.CompletedProcess[str]], files: Path) -> dict[str, list[str]]:
    """What each command answers, by its place; times and what was made up are any."""
    found = {}
    party = None
    for place, command in enumerate(COMMANDS):
        if command == "!lease":
            party = Party("cable", mac=MAC, bridge="hbr0")
            party.lease(files, name="one")
            deadline = time.monotonic() + 20  # dnsmasq tells a helper of libvirt's, and waits for nothing
            while MAC not in virsh(["net-dhcp-leases", "lan"]).stdout:
                assert time.monotonic() < deadline, "the lease is not told"
                time.sleep(0.1)
            continue
        done = virsh(command.replace("DIR", str(files)).split())
        text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "TIME", done.stdout + without_additions(done.stderr))
        text = re.sub(r"52:54:00(?!:00:00:0|:11:22:33)(:[0-9a-f]{2}){3}", "MAC", text)
        text = re.sub(r"(?<=<uuid>)(?!7fb1|d6fc)[-0-9a-f]{36}", "UUID", text)
        found[f"{place} {command}"] = [str(done.returncode), *text.split()]
    if party is not None:
        party.close()
    return found


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, env={**os.environ, "LC_ALL": "C", "TZ": "UTC"}
    )


def shown(different: dict[str, tuple[list[str], list[str]]]) -> str:
    return "\n".join(f"{name}\n  {one}\n  {two}" for name, (one, two) in different.items())


def test_virsh_says_the_same_of_our_networks(files: Path) -> None:
    with netns.alone(), libvirtd_system.running(drivers=("network", "storage", "secret")) as uri:
        socket = uri.partition("socket=")[2]
        theirs = answers(lambda words: run("virsh", "-c", f"network+unix:///system?socket={socket}", *words), files)
    with netns.alone(), hosteld.process() as daemon:
        ours = answers(lambda words: run("virsh", "-c", daemon.uri("qemu:///system"), *words), files)
    different = {name: (ours[name], theirs[name]) for name in theirs if ours[name] != theirs[name]}
    assert set(different) == EXPLAINED, shown(different)


def test_our_virsh_says_the_same_of_libvirts_networks(files: Path) -> None:
    with netns.alone(), libvirtd_system.running(drivers=("network", "storage", "secret", "qemu")) as uri:
        theirs = answers(lambda words: run("virsh", "-c", uri, *words), files)
        ours = answers(lambda words: run(sys.executable, "-m", "hostel", "virsh", "-c", uri, *words), files)
    different = {name: (ours[name], theirs[name]) for name in theirs if ours[name] != theirs[name]}
    assert set(different) == LOUD, shown(different)
    for name in LOUD:
        assert (ours[name][0], theirs[name][0]) == ("1", "0")

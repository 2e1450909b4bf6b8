"""Direct interfaces with ports of external switches, which nothing here speaks for: root's libvirtd and ours."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import pytest

from support import hosteld, libvirtd_system, netns
from support.virsh import real_lines

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.requires_tool("libvirtd"),
    pytest.mark.requires_tool("virsh"),
    pytest.mark.skipif(os.geteuid() != 0, reason="a macvtap is made by root"),
]
DOMAIN: Final = (
    "<domain type='qemu'><name>NAME</name><memory unit='MiB'>16</memory><os><type machine='pc'>hvm</type></os>"
    "<devices><emulator>/usr/bin/qemu-system-x86_64</emulator><memballoon model='none'/><interface type='direct'>"
    "<mac address='52:54:00:00:00:0a'/><source dev='uplink' mode='vepa'/>PORT</interface></devices></domain>"
)
QBG: Final = "<virtualport type='802.1Qbg'><parameters managerid='1' typeid='2' typeidversion='3'/></virtualport>"
PORTS: Final = {
    "bridged": QBG,
    "profiled": "<virtualport type='802.1Qbh'><parameters profileid='fast'/></virtualport>",
    "midonet": "<virtualport type='midonet'><parameters interfaceid='0b2d64da-3d0e-431e-afdd-804415d6ebbb'/>"
    "</virtualport>",
    "without": "",
}
REFUSED: Final = "error: internal error: sending of PortProfileRequest failed."


@pytest.fixture
def uris() -> Iterator[tuple[str, str]]:
    with netns.alone():
        subprocess.run(["ip", "link", "add", "uplink", "type", "bridge"], check=True)
        with hosteld.process() as ours, libvirtd_system.running(drivers=("qemu",)) as theirs:
            yield ours.uri("qemu:///session"), theirs


def _answers(uri: str, folder: Path) -> list[tuple[str, str]]:
    lines = [f"{verb} {name}" for name in PORTS for verb in ("create", "domiflist", "destroy")]
    found = real_lines(uri, [re.sub(r"^create (\w+)", rf"create {folder}/\1.xml --paused", line) for line in lines])
    # What went wrong with the switch, and the first free name, is each one's own.
    return [tuple(re.sub(r"(Request failed\.).*|macvtap\d+", r"\1", text) for text in said) for said in found]  # type: ignore[misc]


def test_a_switch_that_nobody_speaks_with_refuses_as_with_libvirt(uris: tuple[str, str], tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    for name, port in PORTS.items():
        (tmp_path / f"{name}.xml").write_text(DOMAIN.replace("NAME", name).replace("PORT", port))
    with ThreadPoolExecutor(2) as pool:
        ours, theirs = pool.map(lambda uri: _answers(uri, tmp_path), uris)
    assert ours == theirs
    assert [REFUSED in said[1] for said in ours[::3]] == [True, True, False, False]
    links = subprocess.run(["ip", "-brief", "link"], capture_output=True, text=True, check=True).stdout
    assert "macvtap" not in links

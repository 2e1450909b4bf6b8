"""Sockets between machines and their host, which have a CID and a port, beside QEMU's."""

from __future__ import annotations

import json
import shlex
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.daemon import OURS, THEIRS, daemon
from support.scene import Command, Step, compare, run

pytestmark = [pytest.mark.requires_tool("qemu-storage-daemon"), pytest.mark.requires_tool("qemu-img")]
ANY = str(2**32 - 1)  # CID


def has_sockets() -> bool:
    try:
        with socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM):
            return True
    except (AttributeError, OSError):
        return False


def reaches_itself() -> bool:
    """Whether the host's own CID, 1, leads anywhere."""
    try:
        with socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM) as server, socket.socket(socket.AF_VSOCK) as client:
            server.bind((socket.VMADDR_CID_ANY, socket.VMADDR_PORT_ANY))
            server.listen()
            client.settimeout(5)
            client.connect((1, server.getsockname()[1]))
            return True
    except (AttributeError, OSError):
        return False


SOCKETS = pytest.mark.skipif(not has_sockets(), reason="this host has no AF_VSOCK")


def at(cid: str, port: str) -> dict[str, Any]:
    return {"type": "vsock", "data": {"cid": cid, "port": port}}


def device(name: str, cid: str, port: str, *, server: bool) -> Command:
    data = {"addr": at(cid, port), "server": server, **({"wait": False} if server else {})}
    return run("chardev-add", id=name, backend={"type": "socket", "data": data})


@SOCKETS
def test_servers_disks_and_character_devices_are_told_of_cids_and_ports(tmp_path: Path) -> None:
    disk = {"driver": "nbd", "node-name": "n"}
    steps: list[Step] = [
        run("nbd-server-start", addr=at("x", "9")),
        run("nbd-server-start", addr=at("-1", "9")),
        run("nbd-server-start", addr=at("4294967296", "9")),
        run("nbd-server-start", addr=at("3", "")),
        run("nbd-server-start", addr=at("9" * 5000, "9")),
        run("nbd-server-start", addr={"type": "vsock", "data": {"cid": "3"}}),
        run("nbd-server-start", addr=at("77", "9")),
        run("nbd-server-start", addr=at(ANY, "49901")),
        run("nbd-server-stop"),
        device("c", "x", "9", server=True),
        device("c", "77", "9", server=True),
        device("c", "77", "9", server=False),
        device("c", ANY, "49902", server=True),
        run("query-chardev"),
        run("qom-get", path="/chardevs/c", property="addr"),
        *(
            run("blockdev-add", **disk, server={"type": "vsock", "cid": cid, "port": port})
            for cid, port in (("x", "9"), ("3", "x"), ("77", "9"))
        ),
    ]
    compare(tmp_path, (), (), steps)


@SOCKETS
@pytest.mark.parametrize(
    ("options", "has_hint"),
    [
        ("server.type=vsock", False),
        ("server.type=vsock,server.cid=3", False),
        ("server.type=vsock,server.cid=3,server.port=x", False),
        ("server.type=vsock,server.cid=,server.port=1", False),
        ("server.type=vsock,server.cid=3,server.port=1,server.path=x", False),
        ("server.type=vsock,server.cid=77,server.port=1", True),
    ],
)
def test_a_client_says_what_is_wrong_with_an_address(tmp_path: Path, options: str, has_hint: bool) -> None:
    words = shlex.split(f"info --image-opts driver=nbd,{options}")
    done = [
        subprocess.run([*tool, *words], cwd=tmp_path, capture_output=True, text=True, timeout=60)
        for tool in (["qemu-img"], [sys.executable, "-m", "hostel", "qemu-img"])
    ]
    real, ours = (each.stderr.splitlines() for each in done)
    assert (done[1].returncode, ours[0]) == (done[0].returncode, real[0])
    assert ("modprobe" in "".join(ours[1:])) == has_hint


@pytest.mark.skipif(not reaches_itself(), reason="this host cannot be reached at its own CID (modprobe vsock_loopback)")
@pytest.mark.parametrize("tool", [OURS, THEIRS], ids=["ours", "theirs"])
def test_a_disk_is_read_over_such_a_socket(tmp_path: Path, tool: tuple[str, ...]) -> None:
    (tmp_path / "disk").write_bytes(b"disk" * 4096)
    words = (
        "--blockdev",
        "file,node-name=f,filename=disk",
        "--nbd-server",
        f"addr.type=vsock,addr.cid={ANY},addr.port=49903",
    )
    with daemon(tmp_path, *words, "--export", "nbd,id=e,node-name=f,name=n", tool=tool):
        name = json.dumps({"driver": "nbd", "export": "n", "server": {"type": "vsock", "cid": "1", "port": "49903"}})
        convert = ["convert", "-O", "raw", f"json:{name}", "copy"]
        for client in (["qemu-img"], [sys.executable, "-m", "hostel", "qemu-img"]):
            subprocess.run([*client, *convert], cwd=tmp_path, check=True, timeout=60)
            assert (tmp_path / "copy").read_bytes() == b"disk" * 4096

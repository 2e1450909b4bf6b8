"""Images of a Gluster volume, beside real qemu-img."""

from __future__ import annotations

import concurrent.futures
import random
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.gluster import GlusterServer, gluster_server, may_serve

pytestmark = [
    pytest.mark.requires_tool("qemu-img"),
    pytest.mark.requires_tool("glusterd"),
    pytest.mark.requires_tool("block-gluster.so"),
    pytest.mark.skipif(not may_serve(), reason="the server's network takes root"),
]

OURS = [sys.executable, "-m", "hostel"]
MIB = 1 << 20
SERVER = "server.0.type=inet,server.0.host=10.99.0.1,server.0.port=24007"
LINES = [
    "info URL/disk.raw",
    "info --output=json URL/disk.raw",
    "map --output=json -f raw URL/disk.raw",
    "info gluster+tcp://10.99.0.1:24007/disks//disk.raw",
    "info gluster+unix:///disks/disk.raw?socket=SOCKET",
    "info gluster+rdma://10.99.0.1/disks/disk.raw",
    "info URL/nothing-here",
    "info gluster://10.99.0.1/nothing/disk.raw",
    "info gluster://10.99.0.1:1/disks/disk.raw",
    "info gluster://10.99.0.1/disks",
    "info gluster+unix:///disks/disk.raw",
    "info URL/disk.raw?socket=x",
    f"info --image-opts driver=gluster,volume=disks,path=disk.raw,{SERVER}",
    f"info --image-opts driver=raw,file.driver=gluster,file.volume=disks,file.path=disk.raw,"
    f"file.{SERVER.replace(',', ',file.')},file.debug=2",
    "info --image-opts driver=gluster,volume=disks,path=disk.raw,server.0.type=unix,server.0.path=SOCKET",
    "info --image-opts driver=gluster,volume=disks,path=disk.raw,server.0.type=inet,server.0.host=10.99.0.1,"
    f"server.0.port=1,{SERVER.replace('server.0', 'server.1')}",
    f"info --image-opts driver=gluster,volume=disks,path=nothing,{SERVER}",
    "info --image-opts driver=gluster,volume=disks,path=disk.raw",
    f"info --image-opts driver=gluster,path=disk.raw,{SERVER}",
    f"info --image-opts driver=gluster,volume=disks,{SERVER}",
    "info --image-opts driver=gluster,volume=disks,path=x,server.0.host=y",
    "info --image-opts driver=gluster,volume=disks,path=x,server.0.type=vsock",
    "info --image-opts driver=gluster,volume=disks,path=x,server.0.type=inet,server.0.host=y",
    "info --image-opts driver=gluster,volume=disks,path=x,server.0.type=unix,server.0.path=y,server.0.socket=z",
    f"info --image-opts driver=gluster,volume=disks,path=x,{SERVER},server.0.to=9",
    f"info --image-opts driver=gluster,volume=disks,path=x,{SERVER},server.0.ipv4=on",
    f"info --image-opts driver=gluster,volume=disks,path=x,{SERVER}0000",
    f"info --image-opts driver=gluster,volume=disks,path=disk.raw,{SERVER},colour=red",
    "create -f raw -o help URL/new",
    "create -f qcow2 -o help URL/new",
    "create -f raw URL/nowhere/x 1M",
    "create -f raw -o preallocation=metadata URL/x 1M",
    "resize -f raw --preallocation=full --shrink URL/disk.raw 1M",
    "resize -f raw --preallocation=metadata URL/disk.raw 9M",
]


@pytest.fixture(scope="module")
def server() -> Iterator[GlusterServer]:
    with tempfile.TemporaryDirectory(prefix="gluster") as work, gluster_server(Path(work)) as server:
        yield server


@pytest.fixture(scope="module")
def content(server: GlusterServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("content") / "disk.raw"
    data = bytearray(3 * MIB + 700)
    data[MIB : 2 * MIB] = random.Random(1).randbytes(MIB)
    data[-700:] = random.Random(2).randbytes(700)
    path.write_bytes(data)
    must(server, *OURS, "qemu-img", "convert", "-f", "raw", "-O", "raw", path, f"{server.url}/disk.raw")
    return path


def said(server: GlusterServer, *words: object) -> tuple[int, str, str]:
    done: subprocess.CompletedProcess[str] = server.run(*words)
    # The library tells what it does, with the time.
    told = re.sub(r"^\[\d{4}-\d\d-\d\d [^\n]*\n", "", done.stderr, flags=re.MULTILINE)
    return done.returncode, done.stdout, told


def must(server: GlusterServer, *words: object) -> str:
    code, out, told = said(server, *words)
    assert code == 0, out + told
    return out


@pytest.fixture(scope="module")
def theirs(server: GlusterServer, content: Path) -> dict[str, tuple[int, str, str]]:
    """What real qemu-img says; all at once, since each time it waits for ten seconds before it ends."""
    with concurrent.futures.ThreadPoolExecutor(len(LINES)) as pool:
        answers = pool.map(lambda line: said(server, "qemu-img", *spelled(server, line)), LINES)
        return dict(zip(LINES, answers, strict=True))


def spelled(server: GlusterServer, line: str) -> list[str]:
    return line.replace("URL", server.url).replace("SOCKET", str(server.socket)).split()


@pytest.mark.parametrize("line", LINES)
def test_tools_agree(server: GlusterServer, theirs: dict[str, tuple[int, str, str]], line: str) -> None:
    assert said(server, *OURS, "qemu-img", *spelled(server, line)) == theirs[line]


def test_what_is_written_lies_in_the_volume_when_the_tool_has_ended(server: GlusterServer, content: Path) -> None:
    copy = (server.folder / "disk.raw").read_bytes()
    assert copy == content.read_bytes().ljust(-(-content.stat().st_size // 512) * 512, b"\0")
    must(server, *OURS, "qemu-img", "convert", "-O", "qcow2", f"{server.url}/disk.raw", f"{server.url}/copy.qcow2")
    must(server, "qemu-img", "check", server.folder / "copy.qcow2")
    must(server, "qemu-img", "compare", "-F", "qcow2", server.folder / "disk.raw", server.folder / "copy.qcow2")


def test_a_disk_is_used_in_place(server: GlusterServer) -> None:
    name, path = f"{server.url}/used.qcow2", server.folder / "used.qcow2"
    for words in (
        ["qemu-img", "create", "-q", "-f", "qcow2", name, "64M"],
        ["qemu-io", "-c", "write -P 7 1M 3M", "-c", "write -z 2M 64k", "-c", "discard 3M 64k", "-c", "flush", name],
        ["qemu-img", "snapshot", "-c", "first", name],
        ["qemu-io", "-c", "write -P 9 1M 1M", name],
        ["qemu-img", "snapshot", "-a", "first", name],
        ["qemu-img", "resize", "-q", name, "96M"],
    ):
        must(server, *OURS, *words)
    must(server, "qemu-img", "check", path)
    read = must(server, "qemu-io", "-r", "-c", "read -P 7 1M 1M", "-c", "read -P 0 2M 64k", path)
    assert "verification failed" not in read


def test_space_is_reserved_and_given_back(server: GlusterServer) -> None:
    for mode in ("off", "falloc", "full"):
        name, path = f"{server.url}/{mode}.raw", server.folder / f"{mode}.raw"
        must(server, *OURS, "qemu-img", "create", "-q", "-f", "raw", "-o", f"preallocation={mode}", name, "8M")
        assert (path.stat().st_size, path.stat().st_blocks * 512 >= 8 * MIB) == (8 * MIB, mode != "off")
    commands = ["-c", "write -P 3 0 8M", "-c", "write -z -u 0 2M", "-c", "write -z 2M 1M", "-c", "discard 4M 1M"]
    must(server, *OURS, "qemu-io", "-f", "raw", *commands, f"{server.url}/full.raw")
    path = server.folder / "full.raw"
    expected = bytes(3 * MIB) + b"\3" * MIB + bytes(MIB) + b"\3" * (3 * MIB)
    assert path.read_bytes() == expected
    assert 4 * MIB <= path.stat().st_blocks * 512 < 6 * MIB


def test_an_overlay_names_its_base_relative_to_itself(server: GlusterServer, content: Path) -> None:
    for start, end in ((server.url, ""), ("gluster+unix:///disks", f"?socket={server.socket}")):
        name = f"{start}/top.qcow2{end}"
        words = ["create", "-q", "-f", "qcow2", "-b", "disk.raw", "-F", "raw", name]
        must(server, *OURS, "qemu-img", *words)
        must(server, *OURS, "qemu-img", "compare", "-f", "raw", content, name)


def test_the_library_writes_its_log_where_it_is_told_to(server: GlusterServer, tmp_path: Path) -> None:
    log = tmp_path / "log"
    options = f"driver=gluster,volume=disks,path=nothing,{SERVER},debug=9,logfile={log}"
    assert said(server, *OURS, "qemu-img", "info", "--image-opts", options)[0] == 1
    assert log.stat().st_size

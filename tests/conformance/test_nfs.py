"""Images on an NFS server, beside real qemu-img."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.nfs import NfsServer, may_serve, nfs_server

pytestmark = [
    pytest.mark.requires_tool("qemu-img"),
    pytest.mark.requires_tool("ganesha.nfsd"),
    pytest.mark.requires_tool("rpcbind"),
    pytest.mark.requires_tool("nfs-ls"),
    pytest.mark.requires_tool("block-nfs.so"),
    pytest.mark.skipif(not may_serve(), reason="the server's network takes root"),
]

OURS = [sys.executable, "-m", "hostel"]
MIB = 1 << 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    content = bytearray(3 * MIB + 700)
    content[MIB : 2 * MIB] = random.Random(1).randbytes(MIB)
    content[-700:] = random.Random(2).randbytes(700)
    (folder / "disk.raw").write_bytes(content)
    return folder


@pytest.fixture(scope="module")
def server(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NfsServer]:
    with nfs_server(folder, tmp_path_factory.mktemp("ganesha")) as server:
        yield server


def both(server: NfsServer, *words: str) -> list[tuple[int, str, str]]:
    results = []
    for tool in (OURS, []):
        done = server.run(*tool, *(word.replace("URL", server.url) for word in words))
        results.append((done.returncode, done.stdout, done.stderr))
    return results


@pytest.mark.parametrize(
    "line",
    [
        "info URL/disk.raw",
        "info --output=json URL/disk.raw",
        "info URL/disk.raw?uid=0&gid=0",
        "map --output=json -f raw URL/disk.raw",
        "info URL/nothing-here",
        "info nfs://127.0.0.1/elsewhere/disk.raw",
        "info URL/disk.raw?colour=1",
        "info URL/disk.raw?uid=x",
        "info URL/disk.raw?uid=",
        "info nfs:///exp/disk.raw",
        "info --image-opts driver=nfs,path=/exp/disk.raw",
        "info --image-opts driver=nfs,server.type=inet,server.host=127.0.0.1,path=/exp/disk.raw",
        "info --image-opts driver=raw,file.driver=nfs,file.server.type=inet,file.server.host=127.0.0.1,"
        "file.path=/exp/disk.raw,file.user=3",
        "create -f qcow2 URL/nowhere/x.qcow2 1M",
    ],
)
def test_tools_agree(server: NfsServer, line: str) -> None:
    ours, theirs = both(server, "qemu-img", *line.split())
    assert ours == theirs


def test_each_reads_what_the_other_wrote(server: NfsServer, folder: Path) -> None:
    content = (folder / "disk.raw").read_bytes()
    for index, (writer, reader) in enumerate([(OURS, []), ([], OURS)]):
        name = f"{server.url}/copy{index}.qcow2"
        done = server.run(*writer, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", f"{server.url}/disk.raw", name)
        assert done.returncode == 0, done.stderr
        for words in (["check", name], ["compare", "-f", "raw", "-F", "qcow2", folder / "disk.raw", name]):
            done = server.run(*reader, "qemu-img", *words)
            assert done.returncode == 0, done.stdout + done.stderr
        done = server.run(*writer, "qemu-img", "convert", "-O", "raw", name, f"{server.url}/back{index}.raw")
        assert done.returncode == 0, done.stderr
        assert (folder / f"back{index}.raw").read_bytes() == content.ljust(-(-len(content) // 512) * 512, b"\0")


def test_a_disk_is_used_in_place(server: NfsServer, folder: Path) -> None:
    name = f"{server.url}/used.qcow2"
    for words in (
        ["qemu-img", "create", "-q", "-f", "qcow2", name, "64M"],
        ["qemu-io", "-c", "write -P 7 1M 3M", "-c", "write -z 2M 64k", "-c", "discard 3M 64k", "-c", "flush", name],
        ["qemu-img", "snapshot", "-c", "first", name],
        ["qemu-io", "-c", "write -P 9 1M 1M", name],
        ["qemu-img", "snapshot", "-a", "first", name],
        ["qemu-img", "resize", "-q", name, "96M"],
    ):
        done = server.run(*OURS, *words)
        assert done.returncode == 0, done.stdout + done.stderr
    for words in (
        ["qemu-img", "check", name],
        ["qemu-io", "-r", "-c", "read -P 7 1M 1M", "-c", "read -P 0 2M 64k", "-c", "read -P 0 3M 64k", name],
    ):
        done = server.run(*words)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "verification failed" not in done.stdout


def test_an_overlay_names_its_base_relative_to_itself(server: NfsServer) -> None:
    # QEMU takes the overlay itself for a directory, and does not find the base.
    server.run(
        "qemu-img", "create", "-q", "-f", "qcow2", "-b", "disk.raw", "-F", "raw", f"{server.url}/top.qcow2", "3M"
    )
    done = server.run(*OURS, "qemu-img", "info", "--backing-chain", "--output=json", f"{server.url}/top.qcow2")
    assert done.returncode == 0, done.stderr
    assert [image["filename"] for image in json.loads(done.stdout)] == [
        f"{server.url}/top.qcow2",
        f"{server.url}/disk.raw",
    ]


def test_version_4_which_qemu_does_not_speak(server: NfsServer, folder: Path) -> None:
    name = f"{server.url}/disk.raw?version=4"
    done = server.run(*OURS, "qemu-img", "compare", "-f", "raw", "-F", "raw", name, folder / "disk.raw")
    assert done.returncode == 0, done.stderr

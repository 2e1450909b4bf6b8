"""Images of a Ceph cluster, beside real qemu-img."""

from __future__ import annotations

import base64
import concurrent.futures
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostel.block import blockdev, creating, graph, objects
from support.ceph import Ceph, cluster, may_run

pytestmark = [
    pytest.mark.requires_tool("qemu-img"),
    pytest.mark.requires_tool("ceph-mon"),
    pytest.mark.requires_tool("ceph-osd"),
    pytest.mark.requires_tool("rbd"),
    pytest.mark.requires_tool("block-rbd.so"),
    pytest.mark.skipif(not may_run(), reason="a cluster takes root"),
]

OURS = [sys.executable, "-m", "hostel", "qemu-img"]
THEIRS = ["qemu-img"]
MIB = 1 << 20


@pytest.fixture(scope="module")
def ceph() -> Iterator[Ceph]:
    with tempfile.TemporaryDirectory(prefix="ceph") as work, cluster(Path(work)) as ceph:
        ceph.run("rbd", "create", "disk", "--size", "8M", "--object-size", "1M")
        ceph.run("rbd", "snap", "create", "disk@first")
        ceph.run("rbd", "namespace", "create", "rbd/space")
        ceph.run("rbd", "create", "rbd/space/inner", "--size", "3M")
        yield ceph


@pytest.fixture(autouse=True)
def _configured(ceph: Ceph, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CEPH_CONF", str(ceph.configuration))


@pytest.fixture
def content(tmp_path: Path) -> Path:
    path = tmp_path / "content.raw"
    data = bytearray(20 * MIB)
    data[MIB : 3 * MIB] = random.Random(1).randbytes(2 * MIB)
    data[17 * MIB + 300 : 18 * MIB] = random.Random(2).randbytes(MIB - 300)
    path.write_bytes(data)
    return path


def run(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(list(map(str, words)), capture_output=True, text=True, timeout=60, check=False)


def must(*words: object) -> str:
    done = run(*words)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def both(*words: object) -> list[tuple[int, str, str]]:
    return [(done.returncode, done.stdout, done.stderr) for done in (run(*tool, *words) for tool in (OURS, THEIRS))]


@pytest.mark.parametrize(
    "line",
    [
        "info rbd:rbd/disk",
        "info --output=json rbd:rbd/disk",
        "info rbd:rbd/disk@first",
        "info rbd:rbd/space/inner",
        "info rbd:rbd/disk:conf=CONF:id=admin:rados_mon_op_timeout=7",
        "info rbd:rbd/di\\sk:conf=CONF",
        "info rbd:rbd/disk@nothing",
        "info rbd:rbd/nothing",
        "info rbd:rbd/nowhere/inner",
        "info rbd:nothing/disk",
        "info rbd:disk",
        "info rbd:",
        "info rbd:rbd/disk:conf",
        "info rbd:rbd/disk:conf=/nothing",
        "info rbd:rbd/disk:colour=red",
        "info --image-opts driver=rbd,pool=rbd,image=disk",
        "info --output=json --image-opts driver=rbd,pool=rbd,image=disk",
        "info --image-opts driver=raw,file.driver=rbd,file.pool=rbd,file.image=disk,file.conf=CONF,file.user=admin",
        "info --image-opts driver=rbd,pool=rbd,image=disk,server.0.host=127.0.0.1,server.0.port=PORT,"
        "auth-client-required.0=cephx",
        'info json:{"driver":"rbd","pool":"rbd","image":"disk","server":[{"host":"127.0.0.1","port":"PORT"}]}',
        "info --image-opts driver=rbd,pool=rbd",
        "info --image-opts driver=rbd,image=disk",
        "info --image-opts driver=rbd,pool=rbd,image=disk,colour=red",
        "info --image-opts driver=rbd,pool=rbd,image=disk,server.0.host=127.0.0.1",
        "info --image-opts driver=rbd,pool=rbd,image=disk,server.1.host=127.0.0.1,server.1.port=1",
        "info --image-opts driver=rbd,pool=rbd,image=disk,encrypt.format=rot13",
        "info --image-opts driver=rbd,pool=rbd,image=disk,encrypt.format=luks",
        "info --image-opts driver=rbd,pool=rbd,image=disk,key-secret=nothing",
        "map --output=json -f raw rbd:rbd/disk",
        "snapshot -l rbd:rbd/disk",
        "resize -f raw rbd:rbd/disk@first 20M",
        "resize -f raw --preallocation=full rbd:rbd/disk 30M",
        "create -f raw rbd:rbd/disk 1M",
        "create -f qcow2 rbd:rbd/disk 1M",
        "create -f raw -o help rbd:rbd/new",
        "create -f qcow2 -o help rbd:rbd/new",
        "create -f raw -o cluster_size=3000 rbd:rbd/new 1M",
        "create -f raw -o cluster_size=2048 rbd:rbd/new 1M",
        "create -f raw -o encrypt.format=luks rbd:rbd/new 1M",
    ],
)
def test_tools_agree(ceph: Ceph, line: str) -> None:
    line = line.replace("CONF", str(ceph.configuration)).replace("PORT", ceph.monitor.partition(":")[2])
    ours, theirs = both(*line.split())
    assert ours == theirs


@pytest.mark.parametrize(("writer", "reader"), [(OURS, THEIRS), (THEIRS, OURS)])
@pytest.mark.parametrize("format", ["raw", "qcow2"])
def test_each_reads_what_the_other_wrote(content: Path, writer: list[str], reader: list[str], format: str) -> None:
    name = f"rbd:rbd/{format}-{len(writer)}"
    must(*writer, "convert", "-f", "raw", "-O", format, content, name)
    must(*reader, "compare", "-f", "raw", "-F", format, content, name)
    ours, theirs = both("map", "--output=json", "-f", format, name)
    assert ours == theirs
    if format == "qcow2":
        must(*reader, "check", name)


def test_an_image_has_objects_of_the_size_that_was_asked_for(ceph: Ceph) -> None:
    must(*OURS, "create", "-f", "raw", "-o", "cluster_size=64k", "rbd:rbd/small", "10M")
    assert json.loads(ceph.run("rbd", "info", "small", "--format=json"))["object_size"] == 65536


def test_a_disk_is_used_in_place() -> None:
    name = "rbd:rbd/used"
    for words in (
        ["qemu-img", "create", "-q", "-f", "qcow2", name, "64M"],
        ["qemu-io", "-c", "write -P 7 1M 3M", "-c", "write -z 2M 64k", "-c", "discard 3M 64k", "-c", "flush", name],
        ["qemu-img", "resize", "-q", name, "96M"],
    ):
        must(*OURS[:-1], *words)
    must(*THEIRS, "check", name)
    read = must("qemu-io", "-r", "-c", "read -P 7 1M 1M", "-c", "read -P 0 2M 64k", "-c", "read -P 0 3M 64k", name)
    assert "verification failed" not in read


def test_zeroes_give_space_back_where_they_may(ceph: Ceph) -> None:
    name = "rbd:rbd/zeroed"
    must(*OURS, "create", "-q", "-f", "raw", "-o", "cluster_size=1M", name, "8M")
    io = [*OURS[:-1], "qemu-io", "-f", "raw"]
    must(*io, "-c", "write -P 1 0 8M", "-c", "write -z -u 0 2M", "-c", "write -z 2M 2M", "-c", "discard 5M 1M", name)
    used = [each["offset"] // MIB for each in json.loads(ceph.run("rbd", "diff", "zeroed", "--format=json"))]
    assert used == [2, 3, 4, 6, 7]
    read = must("qemu-io", "-r", "-f", "raw", "-c", "read -P 0 0 4M", "-c", "read -P 1 4M 1M", name)
    assert "verification failed" not in read


def test_threads_that_make_an_image_grow_never_shrink_it() -> None:
    with creating.create("rbd:rbd/grown") as node, concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda index: node.pwrite(index * 4096, bytes([index + 1]) * 4096), reversed(range(64))))
    with graph.open("rbd:rbd/grown", "raw") as node:
        assert node.length == 64 * 4096
        assert bytes(node.read(0, node.length)) == b"".join(bytes([index + 1]) * 4096 for index in range(64))


def test_snapshots_are_the_clusters_own(ceph: Ceph) -> None:
    name = "rbd:rbd/kept"
    must(*OURS, "create", "-q", "-f", "raw", name, "8M")
    io = [*OURS[:-1], "qemu-io", "-f", "raw"]
    must(*io, "-c", "write -P 1 0 1M", name)
    must(*OURS, "snapshot", "-c", "one", name)
    must(*io, "-c", "write -P 2 0 1M", name)
    must(*OURS, "resize", "-q", "-f", "raw", name, "9M")
    assert [each["name"] for each in json.loads(ceph.run("rbd", "snap", "ls", "kept", "--format=json"))] == ["one"]
    ours, theirs = both("snapshot", "-l", name)
    assert ours == theirs
    assert "verification failed" not in must(*io, "-r", "-c", "read -P 1 0 1M", f"{name}@one")
    done = run(*io, "-c", "write 0 512", f"{name}@one")
    assert (done.returncode, "rbd snapshots are read-only" in done.stderr) == (1, True)
    must(*OURS, "snapshot", "-a", "one", name)
    assert "verification failed" not in must("qemu-io", "-r", "-f", "raw", "-c", "read -P 1 0 1M", name)
    assert json.loads(must(*THEIRS, "info", "--output=json", name))["virtual-size"] == 8 * MIB
    must(*OURS, "snapshot", "-d", "one", name)
    assert json.loads(ceph.run("rbd", "snap", "ls", "kept", "--format=json")) == []


def test_an_image_that_librbd_encrypts(content: Path) -> None:
    secret = ["--object", "secret,id=s,data=twelve-12345"]
    options = "encrypt.format=luks,encrypt.key-secret=s"
    must(*OURS, "create", "-q", *secret, "-f", "raw", "-o", options, "rbd:rbd/secret", "10M")
    objects.add("s", objects.Secret(b"twelve-12345"))
    try:
        place = {"driver": "rbd", "pool": "rbd", "image": "secret"}
        encryption = {"encrypt.format": "luks", "encrypt.key-secret": "s"}
        with graph.open(blockdev.from_options({**place, **encryption}), read_only=False) as node:
            node.resize(20 * MIB)
            node.pwrite(0, memoryview(content.read_bytes()))
    finally:
        objects.remove("s")
    source = f"driver=raw,file.filename={content}"
    must(*THEIRS, "compare", *secret, "--image-opts", source, f"driver=rbd,pool=rbd,image=secret,{options}")


def test_a_key_by_its_secret_and_the_rights_that_it_gives(ceph: Ceph, tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(base64.b64decode(ceph.keys["client.reader"]))
    secret = ["--object", f"secret,id=k,file={tmp_path / 'key'}"]
    opened = (
        "driver=rbd,pool=rbd,image=disk,conf=/dev/null,user=reader,key-secret=k,"
        f"server.0.host=127.0.0.1,server.0.port={ceph.monitor.partition(':')[2]}"
    )
    info = json.loads(must(*OURS, "info", "--output=json", *secret, "--image-opts", opened))
    assert info["virtual-size"] == 8 * MIB
    done = run(*OURS, "resize", *secret, "--image-opts", opened, "9M")
    assert done.returncode == 1
    assert "Operation not permitted" in done.stderr


def test_a_key_in_a_name_is_used_and_never_shown(ceph: Ceph) -> None:
    monitor = ceph.monitor.replace(":", "\\:")
    name = f"rbd:rbd/disk:conf=/dev/null:id=admin:key={ceph.keys['client.admin']}:mon_host={monitor}"
    assert ceph.keys["client.admin"] not in must(*OURS, "info", name)
    begun = time.monotonic()
    wrong = base64.b64encode(base64.b64decode(ceph.keys["client.admin"])[:-1] + b"x").decode()
    name = name.replace(ceph.keys["client.admin"], wrong).replace("disk:", "disk:rados_mon_op_timeout=2:")
    done = run(*OURS, "info", f"{name}:client_mount_timeout=2")
    assert (done.returncode, "error connecting" in done.stderr, wrong in done.stderr) == (1, True, False)
    assert time.monotonic() - begun < 30
    assert "disk" in os.linesep.join(done.stderr.splitlines())

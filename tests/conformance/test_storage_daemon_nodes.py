"""Commands about nodes, beside QEMU's storage daemon: how far they were written, and who hears of it."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.scene import Command, Event, Step, compare, qemu_io, run

pytestmark = [pytest.mark.requires_tool("qemu-storage-daemon"), pytest.mark.requires_tool("qemu-img")]

NBD = ("--nbd-server", "addr.type=unix,addr.path=nbd.sock")


def test_nodes_count_how_far_they_are_written_and_what_was_discarded(tmp_path: Path) -> None:
    prepare = (
        "qemu-img create -q -f qcow2 base.qcow2 4M",
        "qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 top.qcow2",
        "qemu-img create -q -f qcow2 -o data_file=data.raw external.qcow2 1M",
        "qemu-img create -q -f raw a.raw 4M",
        "qemu-img create -q -f raw b.raw 4M",
    )
    words = [
        *("--blockdev", "qcow2,node-name=q,file.driver=file,file.filename=top.qcow2,discard=unmap"),
        *("--blockdev", "file,node-name=f,filename=a.raw,discard=unmap"),
        *("--blockdev", "raw,node-name=r,file=f,discard=unmap"),
        *("--blockdev", "qcow2,node-name=x,file.driver=file,file.filename=external.qcow2"),
        *("--blockdev", "blkverify,node-name=v,raw.driver=file,raw.filename=b.raw,test.driver=null-co"),
        *NBD,
        *("--export", "nbd,id=e,node-name=q,name=q,writable=on"),
        *("--export", "nbd,id=f,node-name=r,name=r,writable=on"),
    ]
    nodes = run("query-blockstats", query_nodes=True)
    steps: list[Step] = [
        run("query-blockstats"),
        run("query-blockstats", query_nodes=1),
        nodes,
        qemu_io("q", "write 0 128k", "write 2M 192k", "discard 2M 128k"),
        qemu_io("r", "write 0 512", "write 8k 8k", "discard 0 64k", "read 0 4M"),
        nodes,
        qemu_io("r", "write -z 64k 64k", "write 0 64k"),
        nodes,
    ]
    compare(tmp_path, prepare, words, steps)


def test_a_write_beyond_a_threshold_is_told_once(tmp_path: Path) -> None:
    words = [
        *("--blockdev", "file,node-name=f,filename=a.raw,discard=unmap"),
        *("--blockdev", "raw,node-name=r,file=f,discard=unmap"),
        *NBD,
        *("--export", "nbd,id=e,node-name=r,name=r,writable=on"),
    ]
    mib = 1 << 20
    told = Event("BLOCK_WRITE_THRESHOLD")
    steps = [
        *(run("block-set-write-threshold", node_name=name, write_threshold=mib) for name in ("f", "r", "none")),
        run("block-set-write-threshold", node_name="f"),
        run("query-named-block-nodes", flat=True),
        qemu_io("r", "write 0 1M", "read 1M 1M"),
        qemu_io("r", "write 1023k 2k", "write 2M 1M"),
        told,
        told,
        run("query-named-block-nodes", flat=True),
        *(
            step
            for command in ("write -z 1M 1k", "discard 1M 64k", "write 1M 512")
            for step in (
                run("block-set-write-threshold", node_name="f", write_threshold=mib),
                qemu_io("r", command),
                told,
            )
        ),
        run("block-set-write-threshold", node_name="r", write_threshold=mib),
        run("block-set-write-threshold", node_name="r", write_threshold=0),
        run("block-set-write-threshold", node_name="f", write_threshold=4 * mib),
        qemu_io("r", "write 0 4M"),
        run("block-set-write-threshold", node_name="f", write_threshold=-1),
        run("block-set-write-threshold", node_name="f", write_threshold=1 << 64),
    ]
    compare(tmp_path, ["qemu-img create -q -f raw a.raw 4M"], words, steps)


def reopened(*options: dict[str, object]) -> Command:
    return "blockdev-reopen", {"options": [{k.replace("_", "-"): v for k, v in each.items()} for each in options]}


def overlay(**options: object) -> Command:
    return reopened({"driver": "qcow2", "node-name": "o", "backing": "base", "file": "of", **options})


def window(**options: object) -> Command:
    return reopened({"driver": "raw", "node-name": "r", "file": "f", **options})


def file(**options: object) -> dict[str, object]:
    return {"driver": "file", "node-name": "f", "filename": "a.raw", **options}


def null(**options: object) -> Command:
    return reopened({"driver": "null-co", "node-name": "n", "size": 1 << 20, **options})


NODES = run("query-named-block-nodes", flat=True)
REOPENED: list[Step] = [
    ("blockdev-reopen", {}),
    ("blockdev-reopen", {"options": 3}),
    ("blockdev-reopen", {"options": [3]}),
    reopened({}),
    reopened({"driver": "qcow2"}),
    reopened({"driver": "qcow2", "file": "of"}),
    reopened({"driver": "qcow2", "file": "of", "node-name": "none"}),
    reopened({"driver": "none", "node-name": "o"}),
    # an overlay: its options, its file's, and what it stands on
    overlay(),
    reopened({"driver": "qcow2", "node-name": "o", "file": "of"}),
    reopened({"driver": "raw", "node-name": "o", "file": "of"}),
    overlay(file={"driver": "file", "filename": "o.qcow2", "node-name": "of"}),
    overlay(file={"driver": "file", "filename": "none.qcow2", "node-name": "of"}),
    overlay(foo=1),
    overlay(read_only=1),
    *(overlay(**{name: "none"}) for name in ("discard", "detect_zeroes", "overlap_check", "file", "backing")),
    overlay(detect_zeroes="unmap"),
    overlay(discard="unmap", detect_zeroes="on", cache={"direct": False, "no-flush": True}),
    NODES,
    overlay(lazy_refcounts=True, l2_cache_size=1 << 20, overlap_check="all"),
    overlay(encrypt={"format": "luks"}),
    NODES,
    overlay(read_only=True),
    qemu_io("o", "write -P 9 0 64k", "read -P 9 0 64k", "read -P 1 64k 64k"),
    overlay(backing=None),
    NODES,
    qemu_io("o", "read -P 9 0 64k", "read -P 0 64k 64k"),
    overlay(backing="base2"),
    NODES,
    qemu_io("o", "read -P 9 0 64k", "read -P 2 64k 64k", "write -P 8 1M 64k"),
    overlay(backing="o"),
    overlay(file="o"),
    overlay(backing="base"),
    run("blockdev-del", node_name="base"),
    run("blockdev-del", node_name="base2"),
    # a base for writing and for reading, with the file that was opened for it alone
    *(
        step
        for read_only in (True, False, True)
        for step in (
            reopened(
                {
                    "driver": "qcow2",
                    "node-name": "base3",
                    "file": {"driver": "file", "filename": "base3.qcow2"},
                    "read-only": read_only,
                }
            ),
            NODES,
        )
    ),
    # windows of a file
    *(window(**given) for given in ({"offset": 512}, {"offset": 5 << 20}, {"offset": 512, "size": 1024})),
    NODES,
    *(window(**given) for given in ({"size": 1000}, {"size": 8 << 20}, {}, {"file": "n"})),
    NODES,
    window(),
    qemu_io("r", "read -P 5 0 1M", "write -P 6 0 64k"),
    # a file: for reading only, past the cache; together with what lies in it
    window(read_only=True),
    reopened({"driver": "raw", "node-name": "r", "file": "f"}, file(read_only=True)),
    *(reopened(file(**given)) for given in ({"filename": "b.raw"}, {"locking": "off"}, {"aio": "threads"})),
    reopened(file(cache={"direct": True})),
    NODES,
    qemu_io("r", "read -P 6 0 64k", "write -P 7 1k 512"),
    reopened(file(filename="none"), {"driver": "null-co", "node-name": "n", "size": 1 << 20}),
    reopened(file()),
    # what cannot change
    null(),
    null(size=2 << 20),
    reopened({"driver": "null-co", "node-name": "n"}),
    null(read_only=True),
    reopened({"driver": "copy-on-read", "node-name": "c", "file": "n"}),
    # limits
    *(
        reopened({"driver": "throttle", "node-name": "t", "file": "n", **group})
        for group in ({"throttle-group": "h"}, {"throttle-group": "none"}, {})
    ),
    NODES,
]


def test_nodes_are_opened_again_as_by_qemu(tmp_path: Path) -> None:
    prepare = (
        "qemu-img create -q -f qcow2 base.qcow2 4M",
        "qemu-img create -q -f qcow2 base2.qcow2 4M",
        "qemu-img create -q -f qcow2 base3.qcow2 4M",
        "qemu-io -f qcow2 -c 'write -P 1 0 1M' base.qcow2",
        "qemu-io -f qcow2 -c 'write -P 2 0 1M' base2.qcow2",
        "qemu-img create -q -f raw a.raw 4M",
        "qemu-io -f raw -c 'write -P 5 0 4M' a.raw",
        "qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 o.qcow2",
    )
    words = [
        *("--blockdev", "qcow2,node-name=base,file.driver=file,file.filename=base.qcow2"),
        *("--blockdev", "qcow2,node-name=base2,file.driver=file,file.filename=base2.qcow2"),
        *("--blockdev", "qcow2,node-name=base3,file.driver=file,file.filename=base3.qcow2"),
        *("--blockdev", "qcow2,node-name=o,file.driver=file,file.node-name=of,file.filename=o.qcow2,backing=base"),
        *("--blockdev", "file,node-name=f,filename=a.raw"),
        *("--blockdev", "raw,node-name=r,file=f"),
        *("--blockdev", "null-co,node-name=n,size=1048576"),
        *("--object", "throttle-group,id=g"),
        *("--object", "throttle-group,id=h,x-iops-total=9"),
        *("--blockdev", "throttle,node-name=t,throttle-group=g,file=n"),
        *("--blockdev", "copy-on-read,node-name=c,file=n"),
        *NBD,
        *("--export", "nbd,id=e,node-name=o,name=o,writable=on"),
        *("--export", "nbd,id=f,node-name=r,name=r,writable=on"),
    ]
    compare(tmp_path, prepare, words, REOPENED)
    for line in ("qemu-img check -q o.qcow2", "qemu-img check -q base2.qcow2"):
        subprocess.run(line.split(), cwd=tmp_path / "ours", check=True, timeout=60)


def test_a_disk_of_a_server_is_opened_again_on_its_connection(tmp_path: Path) -> None:
    for name in ("a", "b"):
        subprocess.run(["qemu-img", "create", "-q", "-f", "raw", name, "1M"], cwd=tmp_path, check=True, timeout=60)
    disk: dict[str, object] = {
        "driver": "nbd",
        "node-name": "n",
        "server": {"type": "unix", "path": str(tmp_path / "a.sock")},
    }
    fixed: dict[str, object] = {
        **disk,
        "node-name": "f",
        "read-only": True,
        "server": {"type": "unix", "path": str(tmp_path / "b.sock")},
    }
    below: dict[str, object] = {"driver": "raw", "node-name": "r", "file": {**disk, "node-name": "m"}}
    steps: list[Step] = [
        ("blockdev-add", disk),
        reopened(disk),
        reopened({**disk, "read-only": True, "cache": {"direct": True, "no-flush": True}}),
        NODES,
        *(reopened({**disk, name: value}) for name, value in (("export", "x"), ("reconnect-delay", 3))),
        reopened({**disk, "server": {"type": "unix", "path": "other"}}),
        reopened(disk),
        NODES,
        ("blockdev-add", fixed),
        *(reopened({**fixed, **how}) for how in ({}, {"detect-zeroes": "on"}, {"read-only": False})),
        reopened({**fixed, "read-only": False, "auto-read-only": True}),
        NODES,
        ("blockdev-add", below),
        reopened({**below, "read-only": True}),
        reopened({**below, "file": "m"}),
        NODES,
    ]
    with contextlib.ExitStack() as stack:
        for name, words in (("a", ["-e", "8"]), ("b", ["-r"])):
            command = ["qemu-nbd", "-t", "-f", "raw", *words, "-k", str(tmp_path / f"{name}.sock"), name]
            stack.enter_context(started(command, tmp_path / f"{name}.sock", tmp_path))
        compare(tmp_path, (), (), steps)


@contextlib.contextmanager
def started(command: list[str], sock: Path, folder: Path) -> Iterator[None]:
    with subprocess.Popen(command, cwd=folder) as process:
        try:
            until = time.monotonic() + 20
            while not sock.exists():
                assert process.poll() is None
                assert time.monotonic() < until
                time.sleep(0.02)
            yield
        finally:
            process.kill()

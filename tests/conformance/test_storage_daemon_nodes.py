"""Commands about nodes, beside QEMU's storage daemon: how far they were written, and who hears of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.scene import Event, compare, qemu_io, run

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
    steps = [
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

"""What a storage daemon shows of its nodes, and how it refuses what cannot be done with them, beside QEMU's."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from support.daemon import OURS, THEIRS, daemon
from support.image import real_qemu_img
from support.scene import Command, Step, compare, qemu_io, run

pytestmark = [pytest.mark.requires_tool(tool) for tool in ("qemu-storage-daemon", "qemu-img", "qemu-io")]

NBD = ("--nbd-server", "addr.type=unix,addr.path=nbd.sock")
GROUP = ("--object", "throttle-group,id=g")
TOOLS = [pytest.param(OURS, id="ours"), pytest.param(THEIRS, id="theirs")]
IMAGES = (
    "qemu-img create -q -f qcow2 base.qcow2 1M",
    "qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 mid.qcow2",
    "qemu-img create -q -f qcow2 -b mid.qcow2 -F qcow2 top.qcow2",
    "qemu-img create -q -f qcow2 other.qcow2 1M",
    "qemu-img create -q -f raw flat.raw 1M",
)
NODES = run("query-named-block-nodes")
FLAT = run("query-named-block-nodes", flat=True)


def file(name: str) -> dict[str, str]:
    return {"driver": "file", "filename": name}


def add(name: str, **options: object) -> Command:
    return run("blockdev-add", driver="qcow2", node_name=name, file=file(f"{name}.qcow2"), **options)


def over(driver: str, name: str, node: str, **options: object) -> Command:
    return run("blockdev-add", driver=driver, node_name=name, file=node, **options)


def test_nodes_are_called_by_what_opens_them(tmp_path: Path) -> None:
    mid = {"driver": "qcow2", "node-name": "mid", "file": file("mid.qcow2")}
    steps: list[Step] = [
        add("base", backing=None),
        add("top", backing={**mid, "backing": "base"}),
        NODES,
        add("other"),
        run("blockdev-reopen", options=[{"driver": "qcow2", "node-name": "mid", "file": "mid-file", "backing": None}]),
        over("throttle", "t", "top", throttle_group="g"),
        over("copy-on-read", "c", "t"),
        over("compress", "z", "other"),
        run("blockdev-add", driver="raw", node_name="flat", file=file("flat.raw"), offset=512, size=65536),
        NODES,
        FLAT,
        run("query-blockstats", query_nodes=True),
        run("blockdev-del", node_name="c"),
        run("blockdev-snapshot-sync", node_name="top", snapshot_file="new.qcow2", snapshot_node_name="new"),
        NODES,
    ]
    compare(tmp_path, IMAGES, GROUP, steps)


def test_copies_of_a_quorum_are_called_by_what_opens_them(tmp_path: Path) -> None:
    steps: list[Step] = [
        add("base"),
        add("top", backing=None),
        add("other"),
        run("blockdev-add", driver="quorum", node_name="q", vote_threshold=1, children=["top", "other"]),
        over("throttle", "t", "q", throttle_group="g"),
        NODES,
        run("x-blockdev-change", parent="q", node="base"),
        run("x-blockdev-change", parent="q", child="children.0"),
        NODES,
        FLAT,
    ]
    compare(tmp_path, IMAGES, GROUP, steps)


@pytest.mark.parametrize("tool", TOOLS)
def test_a_job_and_a_bitmap_hide_nothing_of_their_node(tmp_path: Path, tool: Sequence[str]) -> None:
    for name in ("base.qcow2", "top.qcow2", "other.qcow2"):
        real_qemu_img("create", "-q", "-f", "qcow2", tmp_path / name, "1M")
    with daemon(tmp_path, tool=tool) as running:
        monitor = running.monitor
        for name, options in (("base", {}), ("other", {}), ("top", {"backing": "base", "detect-zeroes": "on"})):
            monitor.command("blockdev-add", driver="qcow2", node_name=name, file=file(f"{name}.qcow2"), **options)
        monitor.command("block-dirty-bitmap-add", node="base", name="b")
        monitor.command("blockdev-mirror", device="top", target="other", sync="full", job_id="j", filter_node_name="f")
        monitor.wait_for("BLOCK_JOB_READY")
        shown = {node["node-name"]: node for node in monitor.command("query-named-block-nodes")}
    assert [shown[name]["detect_zeroes"] for name in ("top", "f", "base")] == ["on", "off", "off"]
    below = shown["top"]["image"]["backing-image"]
    assert (below["format"], below["format-specific"]["type"], below["filename"]) == ("qcow2", "qcow2", "base.qcow2")


def test_a_filter_has_no_bitmaps_of_what_it_lies_on(tmp_path: Path) -> None:
    prepare = (*IMAGES, "qemu-img bitmap --add other.qcow2 kept")
    steps: list[Step] = [
        add("other"),
        over("throttle", "t", "other", throttle_group="g"),
        run("block-dirty-bitmap-clear", node="t", name="kept"),
        run("block-dirty-bitmap-add", node="t", name="kept"),
        run("block-dirty-bitmap-add", node="t", name="new", persistent=True),
        run("block-dirty-bitmap-merge", node="t", target="kept", bitmaps=[{"node": "other", "name": "kept"}]),
        run("block-export-add", type="nbd", id="e", node_name="t", writable=True),
        qemu_io("t", "write 0 64k"),
        *(run("x-debug-block-dirty-bitmap-sha256", node=node, name="kept") for node in ("t", "other")),
        run("block-dirty-bitmap-remove", node="t", name="kept"),
        *(run("x-debug-block-dirty-bitmap-sha256", node=node, name="kept") for node in ("t", "other")),
    ]
    compare(tmp_path, prepare, (*NBD, *GROUP), steps)


def test_what_stands_below_an_image_goes_by_its_cache(tmp_path: Path) -> None:
    mid = {"driver": "qcow2", "node-name": "mid", "file": file("mid.qcow2")}
    steps: list[Step] = [
        add("top", cache={"no-flush": True}, backing=mid),
        FLAT,
        run("blockdev-del", node_name="top"),
        add("top", cache={"no-flush": True}, backing={**mid, "cache": {"no-flush": False}}),
        FLAT,
    ]
    compare(tmp_path, IMAGES, NBD, steps)


@pytest.mark.parametrize("tool", TOOLS)
def test_a_snapshot_of_a_disk_without_a_guest_counts_no_instructions(tmp_path: Path, tool: Sequence[str]) -> None:
    real_qemu_img("create", "-q", "-f", "qcow2", tmp_path / "other.qcow2", "1M")
    with daemon(tmp_path, tool=tool) as running:
        running.monitor.command("blockdev-add", driver="qcow2", node_name="n", file=file("other.qcow2"))
        running.monitor.command("blockdev-snapshot-internal-sync", device="n", name="s")
        running.stop()
    [snapshot] = json.loads(real_qemu_img("info", "--output=json", tmp_path / "other.qcow2"))["snapshots"]
    assert "icount" not in snapshot

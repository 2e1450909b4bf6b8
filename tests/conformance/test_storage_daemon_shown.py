"""What a storage daemon shows of its nodes, and how it refuses what cannot be done with them, beside QEMU's."""

from __future__ import annotations

import contextlib
import json
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from support.daemon import OURS, THEIRS, daemon, listens
from support.image import real_qemu_img
from support.scene import Client, Command, Event, Step, compare, qemu_io, run

pytestmark = [pytest.mark.requires_tool(tool) for tool in ("qemu-storage-daemon", "qemu-img", "qemu-io", "qemu-nbd")]

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


def test_options_that_change_what_is_read_are_part_of_names(tmp_path: Path) -> None:
    encrypt = (
        "qemu-img create -q --object secret,id=s,data=123456 -f qcow -o encryption=on,encrypt.key-secret=s k.qcow 1M"
    )
    key = {"format": "aes", "key-secret": "s"}
    log = {"log": file("log"), "log-append": False, "log-sector-size": 4096, "log-super-update-interval": 5}
    steps: list[Step] = [
        run("object-add", qom_type="secret", id="s", data="123456"),
        run("blockdev-add", driver="qcow", node_name="k", file=file("k.qcow"), encrypt=key),
        run("blockdev-add", driver="blklogwrites", node_name="w", file=file("flat.raw"), **log),
        FLAT,
    ]
    compare(tmp_path, (*IMAGES, encrypt, "touch log"), (), steps)


def test_a_quorum_is_not_taken_into_itself(tmp_path: Path) -> None:
    steps: list[Step] = [
        add("other"),
        run("blockdev-add", driver="quorum", node_name="q", vote_threshold=1, children=["other"]),
        run("x-blockdev-change", parent="q", node="q"),
        over("throttle", "t", "q", throttle_group="g"),
        run("x-blockdev-change", parent="q", node="t"),
        run("block-export-add", type="nbd", id="e", node_name="t", writable=True),
        qemu_io("t", "write -P 7 0 64k", "read -P 7 0 64k"),
        FLAT,
    ]
    compare(tmp_path, IMAGES, (*NBD, *GROUP), steps)


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


def test_what_is_said_when_a_node_with_bitmaps_is_opened_again_is_part_of_its_name(tmp_path: Path) -> None:
    flat = {"driver": "raw", "node-name": "flat", "file": "flat-file"}
    steps: list[Step] = [
        run("blockdev-add", **{**flat, "file": {**file("flat.raw"), "node-name": "flat-file"}}),
        run("block-dirty-bitmap-add", node="flat", name="b"),
        run("blockdev-reopen", options=[{**flat, "offset": 0}]),
        FLAT,
        run("blockdev-reopen", options=[flat]),
        FLAT,
    ]
    compare(tmp_path, IMAGES, (), steps)


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


def test_hints_of_a_backup_are_checked(tmp_path: Path) -> None:
    wrong: tuple[dict[str, Any], ...] = (
        {"max-workers": 0}, {"max-workers": 1 << 31}, {"max-chunk": -1}, {"max-chunk": 4096}, {"max-chunk": "1"},
        {"use-copy-range": 1}, {"more": 1},
    )  # fmt: skip
    good = {"use-copy-range": True, "max-workers": 4, "max-chunk": 1 << 20}
    backup = {"job_id": "j", "device": "base", "target": "other", "sync": "full"}
    steps: list[Step] = [
        add("base"),
        add("other"),
        *(run("blockdev-backup", **backup, x_perf=perf) for perf in wrong),
        run("blockdev-backup", **backup, x_perf=good),
        Event("BLOCK_JOB_COMPLETED"),
        run("transaction", actions=[{"type": "blockdev-backup", "data": {**_dashed(backup), "x-perf": wrong[0]}}]),
    ]
    compare(tmp_path, IMAGES, NBD, steps, events=False)


def test_hints_of_a_backup_are_checked_after_what_is_said_of_bitmap_and_target(tmp_path: Path) -> None:
    backup = {"job_id": "j", "device": "base", "target": "other", "sync": "full"}
    other_mistakes: tuple[dict[str, Any], ...] = (
        {"target": "base"},
        {"bitmap": "none", "bitmap_mode": "always"},
        {"bitmap": "m"},
        {"bitmap": "m", "bitmap_mode": "never"},
        {"bitmap_mode": "always"},
        {"sync": "none", "bitmap": "m", "bitmap_mode": "always"},
        {"sync": "incremental", "bitmap": "m", "bitmap_mode": "always"},
        {"filter_node_name": "other"},
        {"job_id": "-"},
        {"target": "larger"},
        {"target": "nosuch"},
    )
    steps: list[Step] = [
        *(add(name) for name in ("base", "other", "larger")),
        run("block-dirty-bitmap-add", node="base", name="m"),
        *(
            run("blockdev-backup", **{**backup, **mistake}, x_perf=perf)
            for perf in ({"max-workers": 0}, {"max-chunk": -1})
            for mistake in other_mistakes
        ),
        *(
            run("blockdev-backup", **{**backup, **mistake}, x_perf={"max-chunk": 4096})
            for mistake in other_mistakes
            if mistake.get("job_id") != "-"
        ),
    ]
    compare(tmp_path, (*IMAGES, "qemu-img create -q -f qcow2 larger.qcow2 2M"), NBD, steps, events=False)


def _dashed(given: dict[str, Any]) -> dict[str, Any]:
    return {key.replace("_", "-"): value for key, value in given.items()}


def test_the_first_of_several_reasons_is_told(tmp_path: Path) -> None:
    mid = {"driver": "qcow2", "node-name": "mid", "file": file("mid.qcow2"), "backing": None}
    backup = {"job_id": "j", "device": "other", "target": "top"}
    mirrors: tuple[dict[str, Any], ...] = (
        {"target": "base", "sync": "full", "replaces": "nosuch"},
        {"target": "base", "sync": "incremental", "replaces": "base"},
        {"target": "base", "sync": "incremental"},
        {"target": "other", "sync": "full", "buf_size": -1},
        {"target": "base", "sync": "full", "replaces": "base", "buf_size": -1},
    )
    steps: list[Step] = [
        add("top", backing=mid, read_only=True),
        add("base"),
        add("other"),
        run("blockdev-del", node_name="mid"),
        run("blockdev-del", node_name="nosuch"),
        run("block_resize", node_name="top", size=2 << 20),
        run("blockdev-backup", **backup, sync="full"),
        run("blockdev-backup", **backup, sync="incremental", bitmap="nosuch", bitmap_mode="always"),
        run("blockdev-backup", **backup, sync="incremental", bitmap="nosuch"),
        run("blockdev-backup", **backup, sync="bitmap", bitmap="nosuch"),
        run("blockdev-backup", **backup, sync="bitmap"),
        run("blockdev-mirror", device="mid", target="other", sync="full", job_id="m", granularity=1000),
        run("blockdev-mirror", device="other", target="other", sync="full", job_id="m", replaces="base"),
        run("blockdev-mirror", device="other", target="other", sync="full", job_id="m"),
        *(run("blockdev-mirror", device="other", job_id="m", **given) for given in mirrors),
        over("throttle", "t", "other", throttle_group="g"),
        run("blockdev-mirror", device="t", target="other", sync="full", job_id="m"),
        run("blockdev-mirror", device="other", target="t", sync="full", job_id="m"),
        run("blockdev-del", node_name="t"),
        run("block_resize", node_name="base", size=512 << 10),
        run("blockdev-mirror", device="other", target="top", sync="full", job_id="m", replaces="base"),
        run("block_resize", node_name="base", size=1 << 20),
        run("blockdev-mirror", device="base", target="other", sync="full", job_id="m"),
        Event("BLOCK_JOB_READY"),
        run("blockdev-del", node_name="other"),
        run("blockdev-del", node_name="base"),
    ]
    compare(tmp_path, IMAGES, (*NBD, *GROUP), steps, events=False)


def test_a_copy_is_not_exported_as_what_may_grow(tmp_path: Path) -> None:
    steps: list[Step] = [
        add("base"),
        add("other"),
        run("blockdev-add", driver="quorum", node_name="q", vote_threshold=1, children=["base", "other"]),
        run("block-export-add", type="fuse", id="e", node_name="base", mountpoint="flat.raw", growable=True),
        run("block_resize", node_name="base", size=2 << 20),
    ]
    compare(tmp_path, IMAGES, NBD, steps)


def test_a_bitmap_that_records_may_be_told_to_where_nothing_is_written(tmp_path: Path) -> None:
    prepare = (*IMAGES, "qemu-img bitmap --add other.qcow2 b")
    kept = run("x-debug-block-dirty-bitmap-sha256", node="other", name="b")
    steps: list[Step] = [
        add("other", read_only=True),
        run("block-dirty-bitmap-enable", node="other", name="b"),
        kept,
        run("blockdev-del", node_name="other"),
        add("other", read_only=True),
        kept,
    ]
    compare(tmp_path, prepare, NBD, steps)
    for side in ("ours", "real"):
        real_qemu_img("check", tmp_path / side / "other.qcow2")


@pytest.mark.parametrize("tool", TOOLS)
def test_a_snapshot_of_a_disk_without_a_guest_counts_no_instructions(tmp_path: Path, tool: Sequence[str]) -> None:
    real_qemu_img("create", "-q", "-f", "qcow2", tmp_path / "other.qcow2", "1M")
    with daemon(tmp_path, tool=tool) as running:
        running.monitor.command("blockdev-add", driver="qcow2", node_name="n", file=file("other.qcow2"))
        running.monitor.command("blockdev-snapshot-internal-sync", device="n", name="s")
        running.stop()
    [snapshot] = json.loads(real_qemu_img("info", "--output=json", tmp_path / "other.qcow2"))["snapshots"]
    assert "icount" not in snapshot


def test_a_group_is_not_deleted_under_those_who_wait_for_it(tmp_path: Path) -> None:
    steps: list[Step] = [
        add("other"),
        over("throttle", "t", "other", throttle_group="g"),
        run("object-del", id="g"),
        run("qom-get", path="g", property="limits"),
        run("blockdev-del", node_name="t"),
        run("object-del", id="g"),
        run("object-del", id="g"),
    ]
    compare(tmp_path, IMAGES, GROUP, steps)


def test_a_part_ends_where_what_it_is_a_part_of_does(tmp_path: Path) -> None:
    flat = {"driver": "raw", "node-name": "flat", "file": "flat-file"}
    steps: list[Step] = [
        run("blockdev-add", **{**flat, "file": {**file("flat.raw"), "node-name": "flat-file"}}),
        over("raw", "part", "flat", offset=512 << 10, size=512 << 10),
        run("block-export-add", type="nbd", id="e", node_name="part", writable=True),
        qemu_io("part", "write -P 7 0 512k"),
        run("block-export-del", id="e", mode="hard"),
        run("blockdev-reopen", options=[{**flat, "offset": 4096}]),
        FLAT,
        run("block-export-add", type="nbd", id="f", node_name="part", name="again"),
        Client(("qemu-io", "-r", *qemu_io("again", "read -P 7 0 508k", "read 508k 4k").words[1:])),
    ]
    compare(tmp_path, IMAGES, NBD, steps)


def test_what_a_raw_disk_is_a_part_of_is_not_resized_below_it(tmp_path: Path) -> None:
    steps: list[Step] = [
        add("base"),
        add("other"),
        over("raw", "all", "base"),
        over("raw", "part", "other", size=65536),
        *(run("block_resize", node_name=name, size=2 << 20) for name in ("base", "other", "all", "part")),
        run("block-export-add", type="fuse", id="e", node_name="other", mountpoint="flat.raw", growable=True),
    ]
    compare(tmp_path, IMAGES, NBD, steps)


def test_a_raw_disk_that_begins_within_a_file_ends_with_it(tmp_path: Path) -> None:
    steps: list[Step] = [
        run("blockdev-add", driver="raw", node_name="flat", file=file("flat.raw"), offset=4096),
        run("block_resize", node_name="flat", size=2 << 20),
        FLAT,
        run("block-export-add", type="nbd", id="e", node_name="flat", writable=True),
        qemu_io("flat", "write -P 7 2093056 4k", "read -P 7 2093056 4k", "write 2M 512"),
        run("block-export-del", id="e", mode="hard"),
        run("blockdev-reopen", options=[{"driver": "raw", "node-name": "flat", "file": "none"}]),
    ]
    compare(tmp_path, IMAGES, NBD, steps)
    for side in ("ours", "real"):
        assert (tmp_path / side / "flat.raw").stat().st_size == (2 << 20) + 4096


def test_options_are_refused_by_their_types_and_names_in_the_order_of_opening(tmp_path: Path) -> None:
    top = {"driver": "qcow2", "node-name": "top"}
    named = {**file("other.qcow2"), "node-name": "other-file"}
    wrong = {"driver": "null-co", "size": "1G"}
    mid = {"driver": "qcow2", "node-name": "mid", "file": file("mid.qcow2")}
    steps: list[Step] = [
        run("blockdev-add", **{**top, "file": {**file("top.qcow2"), "node-name": "top-file"}, "backing": mid}),
        run("blockdev-reopen", options=[{**top, "file": "top-file"}]),
        run("blockdev-add", driver="qcow2", node_name="other", file=named),
        run("blockdev-add", driver="qcow2", node_name="other", file=named),
        run("blockdev-add", driver="qcow2", node_name="top", file=named),
        run("blockdev-add", driver="qcow2", node_name="top", file=file("base.qcow2"), backing=mid),
        run("blockdev-add", driver="qcow2", node_name="x", file=file("base.qcow2"), lazy_refcounts="on"),
        run("blockdev-add", driver="qcow2", node_name="x", file=file("base.qcow2"), l2_cache_size="64k"),
        run("blockdev-add", driver="qcow2", node_name="x", file=file("base.qcow2"), l2_cache_size=True),
        run("blockdev-add", driver="quorum", node_name="x", vote_threshold=1, children=["top", wrong]),
        run("blockdev-add", driver="quorum", node_name="x", vote_threshold=1, children=["top", {"driver": "raw"}]),
        run("blockdev-reopen", options=[{"driver": "qcow2", "node-name": "other", "lazy-refcounts": 1, "file": "f"}]),
        run("blockdev-reopen", options=[{"driver": "qcow2", "node-name": "other", "cache-size": "1", "file": "f"}]),
    ]
    compare(tmp_path, IMAGES, (), steps)


def test_an_action_that_takes_no_part_in_a_group_is_refused_in_its_turn(tmp_path: Path) -> None:
    backup = {"device": "base", "target": "other", "sync": "full", "job-id": "j"}
    actions = [
        {"type": "blockdev-backup", "data": backup},
        {"type": "block-dirty-bitmap-add", "data": {"node": "base", "name": "b"}},
    ]
    grouped = {"completion-mode": "grouped"}
    steps: list[Step] = [
        add("base"),
        add("other"),
        run("transaction", actions=actions, properties=grouped),
        run("transaction", actions=[{"type": "abort", "data": {}}, actions[1]], properties=grouped),
        run("query-jobs"),
    ]
    compare(tmp_path, IMAGES, (), steps)


def test_a_query_does_not_wait_for_a_request_that_hangs(tmp_path: Path) -> None:
    for line in ("qemu-img create -q -f qcow2 disk.qcow2 1M", "qemu-io -f qcow2 -c 'write 0 1M' disk.qcow2"):
        subprocess.run(shlex.split(line), cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
    below, refused = tmp_path / "below.sock", "Requests to node 'q' do not come to an end"
    nodes = (
        ("--blockdev", f"nbd,node-name=n,server.type=unix,server.path={below}"),
        ("--blockdev", "qcow2,node-name=q,file=n"),
        ("--export", "nbd,id=e,node-name=q"),
    )
    reading = ["qemu-io", "-f", "raw", "-r", "-c", "read 0 64k", "nbd+unix:///q?socket=nbd.sock"]
    with contextlib.ExitStack() as stack:
        served = stack.enter_context(started(tmp_path, ["qemu-nbd", "-f", "raw", "-t", "-k", below, "disk.qcow2"]))
        until = time.monotonic() + 20
        while not listens(below):
            assert time.monotonic() < until
            time.sleep(0.02)
        words = [word for option in (nodes[:2], [NBD], nodes[2:]) for pair in option for word in pair]
        running = stack.enter_context(daemon(tmp_path, *words))
        served.send_signal(signal.SIGSTOP)
        stack.callback(served.send_signal, signal.SIGCONT)  # before the daemon's end, which waits for the request
        stack.enter_context(started(tmp_path, reading))
        while True:
            answer = running.monitor.send('{"execute": "query-named-block-nodes"}')
            if "error" in answer:
                break
            assert time.monotonic() < until
            time.sleep(0.02)
        assert answer["error"]["desc"] == refused
        assert running.monitor.command("query-block-exports")[0]["id"] == "e"
        served.send_signal(signal.SIGCONT)
        names = [node["node-name"] for node in running.monitor.command("query-named-block-nodes")]
        assert names == ["q", "n"]


@contextlib.contextmanager
def started(folder: Path, words: Sequence[str | Path]) -> Iterator[subprocess.Popen[bytes]]:
    """A program that runs for the length of a block."""
    with subprocess.Popen(words, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_file_is_not_emptied_for_a_group_that_cannot_be(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(b"precious data")
    backup = {"device": "z", "target": str(precious), "format": "raw", "sync": "full", "job-id": "j"}
    actions = [
        {"type": "drive-backup", "data": backup},
        {"type": "block-dirty-bitmap-add", "data": {"node": "z", "name": "b"}},
    ]
    name, grouped = run("transaction", actions=actions, properties={"completion-mode": "grouped"})
    with daemon(tmp_path, "--blockdev", "null-co,node-name=z,size=1M", tool=OURS) as running:
        answer = running.monitor.send(json.dumps({"execute": name, "arguments": grouped}))
    refused = "Action 'block-dirty-bitmap-add' does not support Transaction property completion-mode = grouped"
    assert answer["error"]["desc"] == refused
    assert precious.read_bytes() == b"precious data"


@pytest.mark.parametrize(
    "action",
    [
        ("drive-backup", {"device": "other", "target": "precious", "format": "raw", "sync": "full", "job-id": "j"}),
        ("blockdev-snapshot-sync", {"node-name": "other", "snapshot-file": "precious", "snapshot-node-name": "o"}),
    ],
)
def test_a_file_is_not_emptied_for_a_transaction_that_is_aborted(
    tmp_path: Path, action: tuple[str, dict[str, str]]
) -> None:
    (kind, data), abort = action, {"type": "abort", "data": {}}
    node = next(iter(data))
    name, aborted = run("transaction", actions=[{"type": kind, "data": data}, abort])
    steps: list[Step] = [
        add("other"),
        (name, aborted),
        run("transaction", actions=[{"type": kind, "data": {**data, node: "none"}}, abort]),
        FLAT,
    ]
    compare(tmp_path, IMAGES, (), steps)
    precious = tmp_path / "precious"
    precious.write_bytes(b"precious data")
    with daemon(tmp_path, "--blockdev", "null-co,node-name=other,size=1M", tool=OURS) as running:
        answer = running.monitor.send(json.dumps({"execute": name, "arguments": aborted}))
    assert answer["error"]["desc"] == "Transaction aborted using Abort action"
    assert precious.read_bytes() == b"precious data"


def test_an_overlay_is_opened_as_the_node_is_whose_place_it_takes(tmp_path: Path) -> None:
    def snapshot(node: str, name: str) -> Command:
        return run("blockdev-snapshot-sync", node_name=node, snapshot_file=f"{name}.new", snapshot_node_name=name)

    steps: list[Step] = [
        add("base", cache={"direct": True}),
        snapshot("base", "above"),
        FLAT,
        snapshot("base", "beside"),  # what is below an overlay is only read
        run("block-export-add", type="nbd", id="e", node_name="beside", writable=True),
        add("other", read_only=True, cache={"no-flush": True}),
        snapshot("other", "reading"),
        FLAT,
    ]
    compare(tmp_path, IMAGES, NBD, steps)


def test_each_overlay_says_that_what_is_below_it_cannot_be_opened(tmp_path: Path) -> None:
    prepare = (*IMAGES, "qemu-img create -q -f qcow2 -b top.qcow2 -F qcow2 new.qcow2", "rm base.qcow2")
    steps: list[Step] = [
        add("new"),
        add("mid"),
        add("top", backing={"driver": "qcow2", "file": file("mid.qcow2"), "node-name": "mid"}),
    ]
    compare(tmp_path, prepare, (), steps)


def test_a_bitmap_that_is_used_stays_so_where_its_node_is_opened_again(tmp_path: Path) -> None:
    other = {"driver": "qcow2", "node-name": "other", "file": "other-file"}
    steps: list[Step] = [
        run("blockdev-add", **{**other, "file": {**file("other.qcow2"), "node-name": "other-file"}}),
        run("block-dirty-bitmap-add", node="other", name="b", persistent=True, disabled=True),
        run("block-export-add", type="nbd", id="e", node_name="other", bitmaps=["b"]),
        run("blockdev-reopen", options=[{**other, "discard": "unmap", "lazy-refcounts": True}]),
        run("block-dirty-bitmap-remove", node="other", name="b"),
        run("block-dirty-bitmap-clear", node="other", name="b"),
        run("block-export-del", id="e", mode="hard"),
        Event("BLOCK_EXPORT_DELETED"),
        run("block-dirty-bitmap-remove", node="other", name="b"),
    ]
    compare(tmp_path, IMAGES, NBD, steps)


def test_a_quorum_with_a_bitmap_takes_copies_in_and_leaves_them_out(tmp_path: Path) -> None:
    steps: list[Step] = [
        add("base"),
        add("other"),
        run("blockdev-add", driver="quorum", node_name="q", vote_threshold=1, children=["base"]),
        run("block-dirty-bitmap-add", node="q", name="b"),
        run("x-blockdev-change", parent="q", node="other"),
        run("block-export-add", type="nbd", id="e", node_name="q", writable=True),
        qemu_io("q", "write -P 7 0 64k"),
        run("x-blockdev-change", parent="q", child="children.0"),
        FLAT,
        run("block-dirty-bitmap-remove", node="q", name="b"),
        qemu_io("q", "read -P 7 0 64k"),
    ]
    compare(tmp_path, IMAGES, NBD, steps)

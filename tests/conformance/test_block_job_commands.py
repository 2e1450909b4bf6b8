"""The same commands about jobs to our storage daemon and to QEMU's: the same answers, errors and events."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from support.daemon import OURS, THEIRS, daemon
from support.image import real_qemu_img

pytestmark = [pytest.mark.requires_tool(tool) for tool in ("qemu-img", "qemu-io", "qemu-storage-daemon")]

# A command with its arguments, an event to wait for, or seconds to let pass.
Command = tuple[str, dict[str, Any]]
Step = Command | str | float

MIRROR: Command = ("blockdev-mirror", {"job-id": "j", "device": "disk", "target": "t", "sync": "full"})
MANUAL = {"auto-finalize": False, "auto-dismiss": False}
BACKUP = {"job-id": "j", "device": "disk", "target": "t"}
STREAM = {"job-id": "j", "device": "disk"}


def _act(*actions: Command, **more: Any) -> Step:
    return "transaction", {"actions": [{"type": kind, "data": data} for kind, data in actions], **more}


OVERLAY: Command = ("blockdev-snapshot", {"node": "disk", "overlay": "t"})
SYNC: dict[str, Any] = {"node-name": "disk", "snapshot-file": "new.qcow2", "snapshot-node-name": "new"}
INTERNAL = "blockdev-snapshot-internal-sync"
DELETE = "blockdev-snapshot-delete-internal-sync"
SCENES: dict[str, list[Step]] = {
    "mirror": [
        MIRROR,
        "BLOCK_JOB_READY",
        ("block-job-complete", {"device": "j"}),
        "BLOCK_JOB_COMPLETED",
        ("query-block-exports", {}),
    ],
    "mirror without pivot": [MIRROR, "BLOCK_JOB_READY", ("block-job-cancel", {"device": "j"}), "BLOCK_JOB_COMPLETED"],
    "mirror by force": [MIRROR, "BLOCK_JOB_READY", ("job-cancel", {"id": "j"}), "BLOCK_JOB_CANCELLED"],
    "mirror by hand": [
        (MIRROR[0], {**MIRROR[1], **MANUAL}),
        "BLOCK_JOB_READY",
        ("job-pause", {"id": "j"}),
        0.4,
        ("query-jobs", {}),
        ("query-block-jobs", {}),
        ("job-pause", {"id": "j"}),
        ("block-job-cancel", {"device": "j"}),
        ("job-resume", {"id": "j"}),
        ("job-resume", {"id": "j"}),
        0.4,
        ("job-finalize", {"id": "j"}),
        ("job-dismiss", {"id": "j"}),
        ("job-complete", {"id": "j"}),
        "BLOCK_JOB_PENDING",
        ("query-jobs", {}),
        ("job-complete", {"id": "j"}),
        ("job-finalize", {"id": "j"}),
        "BLOCK_JOB_COMPLETED",
        ("query-jobs", {}),
        ("job-dismiss", {"id": "j"}),
        ("query-jobs", {}),
    ],
    "stream": [("block-stream", STREAM), "BLOCK_JOB_COMPLETED"],
    "stream to a base": [("block-stream", {**STREAM, "base": "base.qcow2"}), "BLOCK_JOB_COMPLETED"],
    "commit": [
        ("block-commit", STREAM),
        "BLOCK_JOB_READY",
        ("job-complete", {"id": "j"}),
        "BLOCK_JOB_COMPLETED",
    ],
    "commit within": [("block-commit", {**STREAM, "top": "middle.qcow2"}), "BLOCK_JOB_COMPLETED"],
    "refusals of stream and commit": [
        *(
            ("block-stream", {**STREAM, **given})
            for given in (
                {"base": "nope"},
                {"device": "nope"},
                {"job-id": "1"},
                {"base": "base.qcow2", "bottom": "x"},
                {"base-node": "t"},
                {"bottom": "t"},
                {"backing-file": "x"},
                {"speed": -1},
            )
        ),
        ("block-stream", {"device": "disk"}),
        *(
            ("block-commit", {**STREAM, **given})
            for given in (
                {"device": "nope"},
                {"top": "nope"},
                {"base": "nope"},
                {"base-node": "t"},
                {"base": "top.qcow2"},
                {"top": "middle.qcow2", "base": "middle.qcow2"},
                {"top": "middle.qcow2", "top-node": "disk"},
                {"backing-file": "x"},
                {"device": "t"},
            )
        ),
    ],
    "refusals of mirror and backup": [
        *(
            (MIRROR[0], {**MIRROR[1], **given})
            for given in (
                {"target": "disk"},
                {"granularity": 100},
                {"granularity": 1000},
                {"sync": "incremental"},
                {"speed": -1},
                {"replaces": "r"},
                {"buf-size": -1},
            )
        ),
        ("block-dirty-bitmap-add", {"node": "disk", "name": "b"}),
        *(
            ("blockdev-backup", {**BACKUP, **given})
            for given in (
                {"sync": "full", "target": "disk"},
                {"sync": "full", "target": "small"},
                {"sync": "bitmap"},
                {"sync": "incremental", "bitmap": "none"},
                {"sync": "full", "bitmap-mode": "never"},
                {"sync": "bitmap", "bitmap": "b"},
                {"sync": "full", "bitmap": "b", "bitmap-mode": "never"},
                {"sync": "none", "bitmap": "b", "bitmap-mode": "always"},
                {"sync": "incremental", "bitmap": "b", "bitmap-mode": "always"},
            )
        ),
        *((command, {"id": "nope"}) for command in ("job-complete", "job-cancel", "block-job-dismiss")),
        ("block-job-cancel", {"device": "nope"}),
        ("block-job-set-speed", {"device": "nope", "speed": 1}),
    ],
    "drive-mirror": [
        ("drive-mirror", {"job-id": "j", "device": "disk", "target": "new.qcow2", "sync": "top"}),
        "BLOCK_JOB_READY",
        ("drive-mirror", {"job-id": "k", "device": "nope", "target": "more.qcow2", "sync": "full"}),
        ("block-job-complete", {"device": "j"}),
        "BLOCK_JOB_COMPLETED",
    ],
    "drive-mirror in vain": [
        *(
            ("drive-mirror", {"job-id": "j", "device": "disk", "sync": "full", **given})
            for given in (
                {"target": "none/new.qcow2"},
                {"target": "none", "mode": "existing"},
                {"target": "new.x", "format": "nope"},
                {"target": "new.qcow2", "replaces": "t"},
                {"sync": "full"},
            )
        ),
    ],
    "drive-mirror of what is written from now on": [
        ("drive-mirror", {"job-id": "j", "device": "disk", "target": "new.qcow2", "sync": "none", "node-name": "new"}),
        "BLOCK_JOB_READY",
        ("block-job-complete", {"device": "j"}),
        "BLOCK_JOB_COMPLETED",
        ("blockdev-del", {"node-name": "disk"}),
        (OVERLAY[0], {"node": "disk", "overlay": "small"}),
    ],
    "an overlay": [
        OVERLAY,
        ("query-block-exports", {}),
        (OVERLAY[0], {"node": "disk", "overlay": "small"}),
        ("blockdev-del", {"node-name": "disk"}),
        ("blockdev-snapshot-sync", {**SYNC, "node-name": "t"}),
        ("blockdev-del", {"node-name": "t"}),
        ("block-commit", {"job-id": "j", "device": "new", "base-node": "disk"}),
        "BLOCK_JOB_READY",
        ("job-complete", {"id": "j"}),
        "BLOCK_JOB_COMPLETED",
        ("query-block-exports", {}),
        ("blockdev-del", {"node-name": "new"}),
        ("blockdev-del", {"node-name": "t"}),
        ("blockdev-del", {"node-name": "disk"}),
    ],
    "an overlay of what nobody uses": [
        ("blockdev-snapshot-sync", {**SYNC, "node-name": "r"}),
        ("blockdev-del", {"node-name": "new"}),
        ("blockdev-del", {"node-name": "r"}),
    ],
    "overlays in vain": [
        *(
            (OVERLAY[0], {"node": "disk", **given})
            for given in (
                {"overlay": "nope"},
                {"node": "nope", "overlay": "t"},
                {"overlay": "r"},
                {"overlay": "disk"},
                {},
            )
        ),
        ("blockdev-snapshot-sync", {"device": "disk", "snapshot-file": "new.qcow2"}),
        ("blockdev-snapshot-sync", {"node-name": "disk", "snapshot-file": "new.qcow2"}),
        ("blockdev-snapshot-sync", {"snapshot-file": "new.qcow2"}),
        *(
            ("blockdev-snapshot-sync", {**SYNC, **given})
            for given in (
                {"snapshot-node-name": "t"},
                {"snapshot-file": "none/new.qcow2"},
                {"format": "nope"},
                {"format": "raw", "snapshot-file": "new.raw"},
                {"mode": "existing"},
            )
        ),
        _act(OVERLAY, ("abort", {})),
        _act(OVERLAY, ("block-dirty-bitmap-add", {"node": "t", "name": "b"}), ("abort", {})),
        _act(OVERLAY, ("blockdev-snapshot", {"node": "t", "overlay": "r"})),
        _act(OVERLAY, properties={"completion-mode": "grouped"}),
    ],
    "refusals of an overlay while a job runs": [MIRROR, "BLOCK_JOB_READY", OVERLAY],
    "overlays at one moment": [
        _act(
            ("blockdev-snapshot-sync", SYNC),
            ("block-dirty-bitmap-add", {"node": "new", "name": "b"}),
            (INTERNAL, {"device": "r", "name": "x"}),
        ),
        _act(
            ("blockdev-snapshot-sync", {**SYNC, "snapshot-file": "more.qcow2"}),
            ("block-dirty-bitmap-add", {"node": "new", "name": "b"}),
        ),
        ("block-dirty-bitmap-add", {"node": "new", "name": "b"}),
    ],
    "internal snapshots": [
        (INTERNAL, {"device": "disk", "name": "x"}),
        *(
            (INTERNAL, given)
            for given in (
                {"device": "disk", "name": "x"},
                {"device": "disk", "name": ""},
                {"device": "nope", "name": "x"},
                {"device": "r", "name": "x"},
                {"device": "disk"},
            )
        ),
        _act((INTERNAL, {"device": "disk", "name": "y"}), ("abort", {})),
        *(
            (DELETE, given)
            for given in (
                {"device": "disk"},
                {"device": "disk", "name": "y"},
                {"device": "disk", "name": "x", "id": "7"},
                {"device": "disk", "id": "7"},
                {"device": "r", "id": "1"},
                {"device": "nope", "id": "1"},
            )
        ),
        OVERLAY,
        (INTERNAL, {"device": "disk", "name": "z"}),
        (DELETE, {"device": "disk", "name": "x"}),
    ],
    "names of filters": [
        *((MIRROR[0], {**MIRROR[1], "filter-node-name": name}) for name in ("disk", "1x", "", "a" * 32, "#x")),
        ("blockdev-backup", {**BACKUP, "sync": "full", "filter-node-name": "t"}),
        ("block-stream", {**STREAM, "filter-node-name": "t"}),
        ("block-commit", {**STREAM, "filter-node-name": "t"}),
        (MIRROR[0], {**MIRROR[1], "filter-node-name": "a" * 31}),
        "BLOCK_JOB_READY",
        ("blockdev-del", {"node-name": "a" * 31}),
        ("blockdev-add", {"driver": "null-co", "node-name": "a" * 31}),
        ("job-cancel", {"id": "j"}),
        "BLOCK_JOB_CANCELLED",
        ("blockdev-add", {"driver": "null-co", "node-name": "a" * 31}),
    ],
    "drive-backup": [
        ("drive-backup", {"job-id": "j", "device": "disk", "target": "new.qcow2", "sync": "full"}),
        "BLOCK_JOB_COMPLETED",
        ("drive-backup", {"job-id": "j", "device": "disk", "target": "more.qcow2", "sync": "top"}),
        "BLOCK_JOB_COMPLETED",
        ("drive-backup", {"job-id": "j", "device": "disk", "target": "new.qcow2", "sync": "full", "mode": "existing"}),
        "BLOCK_JOB_COMPLETED",
    ],
    "drive-backup of what is overwritten": [
        ("drive-backup", {"job-id": "j", "device": "disk", "target": "new.qcow2", "sync": "none"}),
        0.3,
        ("query-block-jobs", {}),
        ("job-cancel", {"id": "j"}),
        "BLOCK_JOB_CANCELLED",
    ],
    "refusals of drive-backup": [
        *(
            ("drive-backup", {"job-id": "j", "device": "disk", "sync": "full", **given})
            for given in (
                {"target": "none/new.qcow2"},
                {"target": "none", "mode": "existing"},
                {"target": "new.x", "format": "nope"},
                {"target": "new.raw", "format": "raw", "sync": "top"},
                {"target": "new.qcow2", "sync": "incremental"},
                {"target": "new.qcow2", "device": "nope"},
                {"sync": "full"},
            )
        ),
        _act(
            ("drive-backup", {"job-id": "j", "device": "disk", "sync": "full", "target": "new.qcow2"}),
            ("abort", {}),
        ),
    ],
    "change-backing-file": [
        *(
            ("change-backing-file", {"device": "disk", **given})
            for given in (
                {"image-node-name": "disk", "backing-file": "./middle.qcow2"},
                {"image-node-name": "nope", "backing-file": "x"},
                {"image-node-name": "t", "backing-file": "x"},
                {"device": "nope", "image-node-name": "disk", "backing-file": "x"},
                {"image-node-name": "r", "device": "r", "backing-file": "x"},
                {"backing-file": "x"},
            )
        ),
    ],
    "sums of bitmaps": [
        ("block-dirty-bitmap-add", {"node": "disk", "name": "b"}),
        ("x-debug-block-dirty-bitmap-sha256", {"node": "disk", "name": "b"}),
        ("x-debug-block-dirty-bitmap-sha256", {"node": "disk", "name": "nope"}),
        ("x-debug-block-dirty-bitmap-sha256", {"node": "nope", "name": "b"}),
        ("x-debug-block-dirty-bitmap-sha256", {"node": "disk"}),
    ],
    "query-block": [("query-block", {}), ("query-block", {"x": 1})],
    "a mirror of another size": [(MIRROR[0], {**MIRROR[1], "target": "small"}), "BLOCK_JOB_COMPLETED"],
    "bitmaps": [
        *(
            ("block-dirty-bitmap-add", {"node": "disk", **given})
            for given in (
                {"name": ""},
                {"name": "b", "granularity": 100},
                {"name": "b"},
                {"name": "b"},
                {"name": "p", "persistent": True, "node": "r"},
                {"name": "p", "node": "nope"},
            )
        ),
        ("block-dirty-bitmap-clear", {"node": "disk", "name": "none"}),
        ("block-dirty-bitmap-remove", {"node": "none", "name": "none"}),
        ("block-dirty-bitmap-merge", {"node": "disk", "target": "b", "bitmaps": ["none"]}),
        ("block-dirty-bitmap-disable", {"node": "disk", "name": "b"}),
        (
            "transaction",
            {
                "actions": [
                    {"type": "block-dirty-bitmap-enable", "data": {"node": "disk", "name": "b"}},
                    {"type": "abort", "data": {}},
                ]
            },
        ),
        ("transaction", {"actions": [{"type": "none", "data": {}}]}),
        ("block-dirty-bitmap-remove", {"node": "disk", "name": "b"}),
    ],
}


def _play(folder: Path, steps: Sequence[Step], tool: Sequence[str]) -> tuple[list[Any], list[Any]]:
    """The answers, and the events."""
    folder.mkdir()
    below: list[str] = []
    for name, pattern in (("base", "write -P 1 0 2M"), ("middle", "write -P 2 1M 1M"), ("top", "write -P 3 2M 1M")):
        real_qemu_img("create", "-q", "-f", "qcow2", *below, folder / f"{name}.qcow2", "4M")
        words = ["qemu-io", "-f", "qcow2", "-c", pattern, str(folder / f"{name}.qcow2")]
        subprocess.run(words, check=True, capture_output=True, timeout=60)
        below = ["-b", f"{name}.qcow2", "-F", "qcow2"]
    nodes = []
    for name, file, format, size in (("t", "t", "qcow2", "4M"), ("small", "s", "qcow2", "1M"), ("r", "r", "raw", "4M")):
        real_qemu_img("create", "-q", "-f", format, folder / file, size)
        nodes.append(f"driver={format},node-name={name},file.driver=file,file.filename={file}")
    nodes.append("driver=qcow2,node-name=disk,file.driver=file,file.filename=top.qcow2")
    words = [word for node in nodes for word in ("--blockdev", node)]
    words += ["--nbd-server", "addr.type=unix,addr.path=nbd.sock"]
    words += ["--export", "type=nbd,id=e,node-name=disk,name=d,writable=on"]
    answers: list[Any] = []
    events: list[Any] = []
    with daemon(folder, *words, tool=tool) as running:
        for step in steps:
            if isinstance(step, float):
                time.sleep(step)
            elif isinstance(step, str):
                event = running.monitor.wait_for(step)
                events.append((step, event["data"]))
            else:
                answer = running.monitor.send(json.dumps({"execute": step[0], "arguments": step[1]}))
                answers.append((step, answer))
        time.sleep(0.2)
        running.monitor.send('{"execute": "query-version"}')
        events += [(event["event"], event.get("data")) for event in running.monitor.events]
    return answers, events


def _without_pauses(events: list[Any]) -> list[Any]:
    states = [each for each in events if each[0] != "JOB_STATUS_CHANGE" or each[1]["status"] != "paused"]
    return [each for before, each in zip([None, *states], states, strict=False) if each != before]


@pytest.mark.parametrize("scene", SCENES)
def test_jobs_answer_and_tell_as_those_of_qemu(tmp_path: Path, scene: str) -> None:
    ours = _play(tmp_path / "ours", SCENES[scene], OURS)
    theirs = _play(tmp_path / "theirs", SCENES[scene], THEIRS)
    for mine, other in zip(ours[0], theirs[0], strict=True):
        assert mine == other
    if scene.startswith("drive-backup"):  # QEMU's pauses while it puts its filter in
        assert _without_pauses(ours[1]) == _without_pauses(theirs[1])
    elif not scene.startswith(("refusals", "names")):  # of which QEMU tells that a job was created, and is no more
        assert ours[1] == theirs[1]


FILTERS: dict[str, Command] = {
    "mirror_top": MIRROR,
    "copy-before-write": ("blockdev-backup", {**BACKUP, "sync": "full"}),
    "copy-on-read": ("block-stream", STREAM),
    "commit_top": ("block-commit", {**STREAM, "top": "middle.qcow2"}),
}


@pytest.mark.parametrize("driver", FILTERS)
def test_a_filter_is_shown_under_the_name_that_it_was_given(tmp_path: Path, driver: str) -> None:
    name, arguments = FILTERS[driver]
    steps: list[Step] = [
        (name, {**arguments, "filter-node-name": "flt", "speed": 1}),
        ("query-named-block-nodes", {"flat": True}),
        ("job-cancel", {"id": "j"}),
        "BLOCK_JOB_CANCELLED",  # told when the job has left the graph
        ("query-named-block-nodes", {"flat": True}),
    ]
    found = []
    for folder, tool in ((tmp_path / "ours", OURS), (tmp_path / "theirs", THEIRS)):
        answers, _ = _play(folder, steps, tool)
        during, after = ({node["node-name"]: node for node in answers[at][1]["return"]} for at in (1, 3))
        assert "flt" not in after
        shown = during["flt"]
        shown.pop("dirty-bitmaps", None)  # QEMU's filter has unnamed ones of its own
        shown["image"].pop("actual-size")
        if driver == "copy-on-read":  # there the name tells what the filter is
            del shown["file"], shown["image"]["filename"]
        found.append(shown)
    assert found[0] == found[1]
    assert found[0]["drv"] == driver


@pytest.mark.parametrize("given", [{}, {"backing-file": "other"}])
def test_a_stream_to_the_image_right_below_records_the_name_that_it_has(tmp_path: Path, given: dict[str, str]) -> None:
    recorded = []
    for folder, tool in ((tmp_path / "ours", OURS), (tmp_path / "theirs", THEIRS)):
        folder.mkdir()
        (folder / "base").write_bytes(bytes(1 << 20))
        real_qemu_img("create", "-q", "-f", "qcow2", "-b", "base", "-F", "raw", folder / "top")
        nodes = (
            "driver=raw,node-name=b,offset=4096,file.driver=file,file.filename=base",
            "driver=qcow2,node-name=d,backing=b,file.driver=file,file.filename=top",
        )
        with daemon(folder, *(word for node in nodes for word in ("--blockdev", node)), tool=tool) as running:
            command = {"job-id": "j", "device": "d", "base-node": "b", **given}
            running.monitor.send(json.dumps({"execute": "block-stream", "arguments": command}))
            assert "error" not in running.monitor.wait_for("BLOCK_JOB_COMPLETED")["data"]
        information = json.loads(real_qemu_img("info", "-U", "--output=json", folder / "top"))
        recorded.append((information["backing-filename"], information["backing-filename-format"]))
    assert recorded[0] == recorded[1]

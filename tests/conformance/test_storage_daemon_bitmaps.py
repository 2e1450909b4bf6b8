"""Bitmaps that the storage daemon's NBD exports show, beside the real one's: which, when, and that they are in use."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from support.daemon import OURS, THEIRS, daemon

pytestmark = [pytest.mark.requires_tool("qemu-storage-daemon"), pytest.mark.requires_tool("qemu-img")]


def ask_for(name: str, /, **arguments: Any) -> str:
    return json.dumps(
        {"execute": name, "arguments": {key.replace("_", "-"): value for key, value in arguments.items()}}
    )


def _offered(name: str, *bitmaps: object, writable: bool = False) -> str:
    return ask_for(
        "block-export-add", type="nbd", id=name, node_name="a", name=name, writable=writable, bitmaps=bitmaps
    )


# Bitmaps of an overlay in memory, and one that its backing file keeps; what is no command is the map of an export.
BITMAPS = [
    ask_for("blockdev-add", driver="qcow2", node_name="a", file={"driver": "file", "filename": "o.qcow2"}),
    ask_for("nbd-server-start", addr={"type": "unix", "data": {"path": "nbd.sock"}}),
    ask_for("block-dirty-bitmap-add", node="a", name="t", disabled=True),
    ask_for("block-dirty-bitmap-add", node="a", name="te", granularity=65536),
    _offered("e1", "t"),
    _offered("e2", "te"),
    _offered("e2", "no"),
    _offered("e3", "te", "b0", writable=True),
    _offered("e4", "te", writable=True),
    ask_for("block-dirty-bitmap-remove", node="a", name="t"),
    ask_for("block-dirty-bitmap-clear", node="a", name="te"),
    ask_for("block-dirty-bitmap-disable", node="a", name="te"),
    ask_for("block-dirty-bitmap-add", node="a", name="m"),
    ask_for("block-dirty-bitmap-merge", node="a", target="m", bitmaps=["te"]),
    ask_for("block-dirty-bitmap-merge", node="a", target="te", bitmaps=["m"]),
    "e1 t",
    "e3 te",
    "e3 b0",
    "write",
    "e3 te",
    ask_for("block-export-del", id="e1"),
    ask_for("block-export-del", id="e3", mode="hard"),
    _offered("e5", {"node": "a", "name": "m"}),
    _offered("e6", {"node": "a", "name": "no"}),
    "e5 m",
]


@pytest.mark.requires_tool("nbdinfo")
@pytest.mark.requires_tool("qemu-io")
def test_the_bitmaps_of_exports_are_those_of_the_moment_and_in_use(tmp_path: Path) -> None:
    answers: dict[str, list[object]] = {}
    for name, tool in (("real", THEIRS), ("ours", OURS)):
        work = tmp_path / name
        work.mkdir()
        for line in (
            "create -q -f qcow2 a.qcow2 4M",
            "bitmap --add -g 64k a.qcow2 b0",
            "create -q -f qcow2 -b a.qcow2 -F qcow2 o.qcow2",
        ):
            subprocess.run(["qemu-img", *line.split()], check=True, timeout=60, cwd=work)

        def ask(text: str, work: Path = work) -> object:
            export, _, bitmap = text.partition(" ")
            if text == "write":
                words = ["qemu-io", "-f", "raw", "-c", "write -q 2M 64k", f"nbd+unix:///e3?socket={work}/nbd.sock"]
            else:
                words = ["nbdinfo", f"--map=qemu:dirty-bitmap:{bitmap}", f"nbd+unix:///{export}?socket={work}/nbd.sock"]
            return subprocess.run(words, check=True, timeout=60, capture_output=True, text=True).stdout.split()

        with daemon(work, tool=tool) as running:
            answers[name] = [running.monitor.send(text) if text.startswith("{") else ask(text) for text in BITMAPS]
            assert running.stop() == 0
    pairs = zip(BITMAPS, answers["real"], answers["ours"], strict=True)
    assert [(text, real, ours) for text, real, ours in pairs if ours != real] == []
    assert "dirty" in str(answers["ours"][BITMAPS.index("write") + 1])


def _backup(sync: str, **more: str) -> str:
    return ask_for("blockdev-backup", job_id="j", device="a", target="t", sync=sync, bitmap="b0", **more)


# Disabling one, and adding one, are refused here: real ones lose what was asked for when the daemon ends.
READ_ONLY = [
    ask_for(
        "blockdev-add", driver="qcow2", node_name="a", read_only=True, file={"driver": "file", "filename": "a.qcow2"}
    ),
    ask_for("blockdev-add", driver="file", node_name="t", filename="t.raw"),
    ask_for("block-dirty-bitmap-add", node="a", name="te"),
    ask_for("block-dirty-bitmap-merge", node="a", target="te", bitmaps=["b0"]),
    ask_for("block-dirty-bitmap-clear", node="a", name="b0"),
    ask_for("block-dirty-bitmap-enable", node="a", name="b0"),
    ask_for("block-dirty-bitmap-merge", node="a", target="b0", bitmaps=["te"]),
    ask_for("block-dirty-bitmap-remove", node="a", name="b0"),
    _backup("full", bitmap_mode="always"),
    _backup("full", bitmap_mode="on-success"),
    _backup("bitmap", bitmap_mode="always"),
    _backup("incremental"),
    _backup("bitmap", bitmap_mode="never"),
]


def test_bitmaps_of_an_image_that_is_only_read_are_refused_before_a_backup_begins(tmp_path: Path) -> None:
    answers: dict[str, list[object]] = {}
    for name, tool in (("real", THEIRS), ("ours", OURS)):
        work = tmp_path / name
        work.mkdir()
        for line in ("create -q -f qcow2 a.qcow2 1M", "bitmap --add a.qcow2 b0", "create -q -f raw t.raw 1M"):
            subprocess.run(["qemu-img", *line.split()], check=True, timeout=60, cwd=work)
        with daemon(work, tool=tool) as running:
            answers[name] = [running.monitor.send(text) for text in READ_ONLY]
            assert running.stop() == 0
    pairs = zip(READ_ONLY, answers["real"], answers["ours"], strict=True)
    assert [(text, real, ours) for text, real, ours in pairs if ours != real] == []

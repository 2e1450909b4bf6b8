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


def _merge(node: str, target: str, *bitmaps: object) -> str:
    return ask_for("block-dirty-bitmap-merge", node=node, target=target, bitmaps=bitmaps)


def _of(node: str, name: str) -> dict[str, str]:
    return {"node": node, "name": name}


def _together(*actions: tuple[str, dict[str, Any]]) -> str:
    return ask_for("transaction", actions=[{"type": kind, "data": data} for kind, data in actions])


def _node(name: str, *, read_only: bool = False, **more: Any) -> str:
    file = {"driver": "file", "filename": f"{name}.qcow2"}
    return ask_for("blockdev-add", driver="qcow2", node_name=name, file=file, read_only=read_only, **more)


_REMOVE = "block-dirty-bitmap-remove"
# On an image that is only read, one that is half as long, and one with a bitmap that was in use when its program ended.
CHANGES = [
    _node("a", read_only=True),
    _node("s"),
    _node("i"),
    _node("o", backing=None),
    ask_for("block-dirty-bitmap-add", node="a", name="te"),
    ask_for("block-dirty-bitmap-add", node="s", name="te"),
    ask_for("block-dirty-bitmap-add", node="s", name="fine", granularity=512),
    _merge("a", "b", "no"),
    _merge("a", "b", _of("no", "b")),
    _merge("a", "b", _of("s", "no")),
    _merge("a", "b", "te", "no"),
    _merge("a", "no", "no"),
    _merge("a", "te", "b", "no"),
    _merge("a", "te", _of("s", "b"), "no"),
    _merge("a", "te", "b", _of("s", "b")),
    _merge("s", "b", _of("a", "b")),
    _merge("s", "te", _of("a", "b")),
    _merge("s", "fine", "b"),
    _merge("i", "b", "no"),
    _merge("i", "ok", "b"),
    _merge("i", "b", "ok"),
    ask_for("block-dirty-bitmap-enable", node="i", name="b"),
    ask_for("block-dirty-bitmap-disable", node="i", name="b"),
    _together((_REMOVE, _of("s", "b")), ("block-dirty-bitmap-clear", _of("s", "b"))),
    _together((_REMOVE, _of("s", "te")), (_REMOVE, _of("s", "te"))),
    _together((_REMOVE, _of("s", "b")), ("block-dirty-bitmap-merge", {"node": "s", "target": "te", "bitmaps": ["b"]})),
    *(ask_for("x-debug-block-dirty-bitmap-sha256", node=node, name=name) for node in "as" for name in ("b", "te")),
    ask_for("x-debug-block-dirty-bitmap-sha256", node="s", name="fine"),
    _together((_REMOVE, _of("s", "b")), ("blockdev-snapshot", {"node": "s", "overlay": "o"}), ("abort", {})),
    ask_for("block-dirty-bitmap-clear", node="s", name="te"),
    _together(
        (_REMOVE, _of("s", "b")), (_REMOVE, _of("s", "te")), ("blockdev-snapshot", {"node": "s", "overlay": "o"})
    ),
    ask_for("block-dirty-bitmap-clear", node="s", name="b"),
    ask_for("block-dirty-bitmap-clear", node="s", name="te"),
]


@pytest.mark.requires_tool("qemu-io")
def test_changes_of_bitmaps_that_cannot_be_are_refused_as_a_whole(tmp_path: Path) -> None:
    answers: dict[str, list[object]] = {}
    for name, tool in (("real", THEIRS), ("ours", OURS)):
        work = tmp_path / name
        work.mkdir()
        for image, size in {"a": "8M", "s": "4M", "i": "4M", "o": "4M"}.items():
            subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", f"{image}.qcow2", size], timeout=60, cwd=work)
            if image != "o":
                subprocess.run(["qemu-img", "bitmap", "--add", f"{image}.qcow2", "b"], timeout=60, cwd=work)
            how = ["-c", "write 64k 1M", *(["-c", "sigraise 9"] if image == "i" else [])]
            subprocess.run(["qemu-io", *how, f"{image}.qcow2"], timeout=60, cwd=work, capture_output=True)
        subprocess.run(["qemu-img", "bitmap", "--add", "i.qcow2", "ok"], check=True, timeout=60, cwd=work)
        with daemon(work, tool=tool) as running:
            answers[name] = [running.monitor.send(text) for text in CHANGES]
            assert running.stop() == 0
    pairs = zip(CHANGES, answers["real"], answers["ours"], strict=True)
    assert [(text, real, ours) for text, real, ours in pairs if ours != real] == []
    assert "inconsistent" in str(answers["ours"])


@pytest.mark.parametrize("mode", ["always", "on-success", "never"])
def test_an_image_is_not_opened_read_only_while_a_backup_is_to_write_its_bitmap(tmp_path: Path, mode: str) -> None:
    """QEMU 7.2 opens it, and stores the bitmap as it is then, and not to record: what the job leaves is lost."""
    for line in (
        "create -q -f qcow2 a.qcow2 8M",
        "bitmap --add a.qcow2 b0",
        "bitmap --add a.qcow2 other",
        "create -q -f raw t.raw 8M",
    ):
        subprocess.run(["qemu-img", *line.split()], check=True, timeout=60, cwd=tmp_path)
    subprocess.run(["qemu-io", "-c", "write -q 0 8M", "a.qcow2"], check=True, timeout=60, cwd=tmp_path)
    with daemon(tmp_path) as running:
        for text in (_node("a"), ask_for("blockdev-add", driver="file", node_name="t", filename="t.raw")):
            assert running.monitor.send(text) == {"return": {}}
        running.monitor.command(
            "blockdev-backup", job_id="j", device="a", target="t", sync="bitmap", bitmap="b0", bitmap_mode=mode, speed=1
        )
        options = json.loads(_node("a", read_only=True))["arguments"]
        answer = running.monitor.send(json.dumps({"execute": "blockdev-reopen", "arguments": {"options": [options]}}))
        refusal = "Bitmap 'b0' is currently in use by another operation and cannot be made readonly"
        assert (refusal in str(answer)) is (mode != "never")
        assert ("return" in answer) is (mode == "never")
        running.monitor.command("block-job-set-speed", device="j", speed=0)
        assert "error" not in running.monitor.wait_for("BLOCK_JOB_COMPLETED")["data"]
        assert running.stop() == 0
    with daemon(tmp_path, tool=THEIRS) as judge:
        judge.monitor.send(_node("a", read_only=True))
        [node] = [each for each in judge.monitor.command("query-named-block-nodes") if each["node-name"] == "a"]
        found = {each["name"]: (each["count"], each["recording"]) for each in node["dirty-bitmaps"]}
        assert found == {"b0": (8 << 20 if mode == "never" else 0, True), "other": (8 << 20, True)}

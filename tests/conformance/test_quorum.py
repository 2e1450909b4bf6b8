"""A quorum in the storage daemon beside QEMU's: what is read, which events tell of it, how its copies come and go."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from support.daemon import OURS, THEIRS, Daemon, daemon

pytestmark = [pytest.mark.requires_tool("qemu-storage-daemon"), pytest.mark.requires_tool("qemu-io")]
KiB = 1024
COPIES = "abc"


def copies(folder: Path) -> None:
    """Three copies of which ``b`` has another first page, and all another second one."""
    for number, name in enumerate(COPIES):
        content = bytearray(b"\1" * 64 * KiB)
        content[4 * KiB : 8 * KiB] = bytes((number,)) * 4 * KiB
        if name == "b":
            content[: 4 * KiB] = b"\2" * 4 * KiB
        (folder / f"{name}.raw").write_bytes(content)


def copy(name: str, **fault: Any) -> dict[str, Any]:
    """A copy, of which every request of a kind fails."""
    file = {"driver": "file", "filename": f"{name}.raw", "node-name": f"{name}-file" if fault else name}
    if not fault:
        return file
    return {"driver": "blkdebug", "node-name": name, "image": file, "inject-error": [fault]}


READ, WRITE = {"event": "read_aio", "errno": 5}, {"event": "write_aio", "errno": 5}
CASES: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]] = {
    "two of three": ({"vote-threshold": 2}, [copy("a"), copy("b"), copy("c")]),
    "all": ({"vote-threshold": 3}, [copy("a"), copy("b"), copy("c")]),
    "any, and the last wins": ({"vote-threshold": 1}, [copy("a"), copy("b")]),
    "what lost is written": ({"vote-threshold": 2, "rewrite-corrupted": True}, [copy("a"), copy("b"), copy("c")]),
    "the first": ({"vote-threshold": 2, "read-pattern": "fifo"}, [copy("a"), copy("b"), copy("c")]),
    "the first that can be read": (
        {"vote-threshold": 1, "read-pattern": "fifo"},
        [copy("a", **READ), copy("b")],
    ),
    "none can be read": (
        {"vote-threshold": 1, "read-pattern": "fifo"},
        [copy("a", **READ), copy("b", **{**READ, "errno": 28})],
    ),
    "two errors, and the last counts": (
        {"vote-threshold": 2},
        [copy("a", **READ), copy("b", **{**READ, "errno": 28}), copy("c")],
    ),
    "one cannot be written": ({"vote-threshold": 2}, [copy("a", **WRITE), copy("b"), copy("c")]),
    "two cannot be written": (
        {"vote-threshold": 2},
        [copy("a", **WRITE), copy("b", **{**WRITE, "errno": 28}), copy("c")],
    ),
}  # fmt: skip


def told(running: Daemon) -> list[str]:
    """The events so far, without their times."""
    running.monitor.command("query-version")
    events, running.monitor.events = running.monitor.events, []
    return [json.dumps({**event, "timestamp": None}, sort_keys=True) for event in events]


def use(folder: Path, *lines: str, writing: bool = True) -> tuple[str, str]:
    """Work on the export; what the tool says, without times and places."""
    words = [word for line in lines for word in ("-c", line)]
    done = subprocess.run(
        ["qemu-io", *([] if writing else ["-r"]), "-f", "raw", *words, f"nbd+unix:///q?socket={folder / 'nbd.sock'}"],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    return re.sub(r"ops; .*", "", done.stdout), done.stderr


@pytest.mark.parametrize("case", CASES)
def test_votes_and_what_is_told_of_them(tmp_path: Path, case: str) -> None:
    options, children = CASES[case]
    found = []
    for name, tool in (("theirs", THEIRS), ("ours", OURS)):
        folder = tmp_path / name
        folder.mkdir()
        copies(folder)
        with daemon(folder, tool=tool) as running:
            monitor = running.monitor
            quorum = {"driver": "quorum", "node-name": "q", "children": children, **options}
            monitor.command("blockdev-add", **quorum)
            monitor.command("nbd-server-start", addr={"type": "unix", "data": {"path": "nbd.sock"}})
            monitor.command("block-export-add", type="nbd", id="e", node_name="q", writable=True)
            seen: list[Any] = [use(folder, "read -v 512 16"), told(running)]
            # QEMU's server ends the connection when it cannot read: each has one of its own.
            lines = ("read -v 4k 16", "write -P 9 16k 8k", "write -z 20k 1k", "read -v 16k 16", "read -v 0 16")
            seen.extend(use(folder, line) for line in lines)
            assert running.stop() == 0
        found.append((seen, [(folder / f"{each}.raw").read_bytes() for each in COPIES]))
    assert found[1] == found[0]


def null(name: str, **more: Any) -> dict[str, Any]:
    return {"driver": "null-co", "node-name": name, "size": 1 << 20, **more}


def change(**arguments: str) -> tuple[str, dict[str, Any]]:
    return "x-blockdev-change", arguments


def export(name: str, node: str) -> tuple[str, dict[str, Any]]:
    return "block-export-add", {"type": "nbd", "id": name, "node-name": node, "writable": True}


CHANGES: list[tuple[str, dict[str, Any]]] = [
    *(("blockdev-add", null(f"n{number}")) for number in range(4)),
    ("blockdev-add", null("ro", **{"read-only": True})),
    ("blockdev-add", {"driver": "quorum", "node-name": "q", "vote-threshold": 2, "children": ["n0", "n1", null("i")]}),
    ("query-named-block-nodes", {}),
    change(parent="q"),
    change(parent="q", child="children.0", node="n2"),
    change(parent="nosuch", child="children.0"),
    change(parent="q", child="children.9"),
    change(parent="q", node="nosuch"),
    change(parent="q", node="n0"),
    change(parent="n0", node="n2"),
    change(parent="q", node="n2"),
    ("query-named-block-nodes", {"flat": True}),
    change(parent="q", child="children.2"),
    change(parent="q", child="children.1"),
    change(parent="q", child="children.0"),
    ("query-named-block-nodes", {"flat": True}),
    ("blockdev-del", {"node-name": "i"}),
    ("blockdev-del", {"node-name": "n1"}),
    ("blockdev-del", {"node-name": "n0"}),
    change(parent="q", node="n3"),
    change(parent="q", child="children.4"),
    ("nbd-server-start", {"addr": {"type": "unix", "data": {"path": "nbd.sock"}}}),
    export("n0", "n0"),
    export("n3", "n3"),
    change(parent="q", node="n3"),
    export("q", "q"),
    change(parent="q", node="ro"),
    ("blockdev-add", {"driver": "quorum", "node-name": "v", "vote-threshold": 2, "blkverify": True,
                      "children": [null("v0"), null("v1")]}),
    change(parent="v", node="ro"),
    change(parent="v", child="children.0"),
    ("blockdev-add", {"driver": "quorum", "node-name": "w", "vote-threshold": 1, "rewrite-corrupted": True,
                      "read-only": True, "children": [null("w0", **{"read-only": True})]}),
    ("blockdev-add", {"driver": "quorum", "node-name": "w", "vote-threshold": 1,
                      "children": [null("w0"), null("w1", size=4096)]}),
    ("block_resize", {"node-name": "q", "size": 4096}),
]  # fmt: skip


def test_copies_come_and_go(tmp_path: Path) -> None:
    answers = []
    for tool in (THEIRS, OURS):
        with daemon(tmp_path, tool=tool) as running:
            texts = [json.dumps({"execute": name, "arguments": arguments}) for name, arguments in CHANGES]
            answers.append([running.monitor.send(text) for text in texts])
            assert running.stop() == 0
    pairs = zip(CHANGES, *answers, strict=True)
    assert [(change, theirs, ours) for change, theirs, ours in pairs if ours != theirs] == []


def test_a_copy_of_another_size_is_not_taken_in(tmp_path: Path) -> None:
    # QEMU takes it in, and every request that reaches beyond its end fails in it.
    with daemon(tmp_path) as running:
        running.monitor.command("blockdev-add", **null("small", size=4096))
        running.monitor.command("blockdev-add", driver="quorum", node_name="q", vote_threshold=1, children=[null("a")])
        answer = running.monitor.send(
            json.dumps({"execute": "x-blockdev-change", "arguments": {"parent": "q", "node": "small"}})
        )
        assert answer["error"]["desc"] == "Node 'small' has 4096 bytes, and the copies have 1048576"
        assert running.stop() == 0


def test_events_come_no_more_than_once_a_second(tmp_path: Path) -> None:
    copies(tmp_path)
    with daemon(tmp_path) as running:
        monitor = running.monitor
        children = [copy("a"), copy("b"), copy("c")]
        monitor.command("blockdev-add", driver="quorum", node_name="q", vote_threshold=2, children=children)
        monitor.command("nbd-server-start", addr={"type": "unix", "data": {"path": "nbd.sock"}})
        monitor.command("block-export-add", type="nbd", id="e", node_name="q")
        use(tmp_path, *(f"read {offset} 16" for offset in (0, 512, 1024, 1536)), writing=False)
        assert monitor.wait_for("QUORUM_REPORT_BAD")["data"]["sector-num"] == 0
        # Of those that came meanwhile only the last is told of.
        assert monitor.wait_for("QUORUM_REPORT_BAD")["data"]["sector-num"] == 3
        assert running.stop() == 0

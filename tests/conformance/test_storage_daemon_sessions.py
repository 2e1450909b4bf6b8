"""Sessions at random with the storage daemon and with QEMU's: what succeeds, what there is then, the disks in the end.

Which of several mistakes in a command is told first may differ; whether there is one may not.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.daemon import OURS, THEIRS, Monitor, daemon
from support.scene import Command, run

pytestmark = [pytest.mark.requires_tool(tool) for tool in ("qemu-storage-daemon", "qemu-img", "qemu-io")]

SOAK = int(os.environ.get("HOSTEL_SOAK", "1"))
STEPS = 30
# Each with its format, and what it records to stand on.
IMAGES = {
    "base.qcow2": ("qcow2", ""),
    "mid.qcow2": ("qcow2", "base.qcow2"),
    "top.qcow2": ("qcow2", "mid.qcow2"),
    "empty.qcow2": ("qcow2", ""),
    "flat.raw": ("raw", ""),
    "other.qed": ("qed", ""),
    "over.qcow2": ("qcow2", "other.qed"),
}
KEPT = ("node-name", "drv", "ro", "dirty-bitmaps", "detect_zeroes", "cache")
CACHES = ({"direct": True}, {"no-flush": True}, {"direct": True, "no-flush": True})


class Session:
    """What is said, by a seed alone: it is the same whatever is answered."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.open: dict[str, str] = {}
        self.flat = False

    def commands(self) -> Iterator[Command]:
        """One after the other."""
        kinds = (self.add, self.remove, self.bitmap, self.overlay, self.job, self.resize, self.bitmaps, self.snapshot)
        for number in range(STEPS):
            kind = self.add if len(self.open) < 3 else self.rng.choices(kinds, (5, 3, 5, 2, 8, 2, 3, 3))[0]
            yield kind(number)

    def node(self) -> str:
        """One that may be there."""
        return self.rng.choice(list(self.open))

    def add(self, number: int) -> Command:
        """An image that is not open, alone, on what it records, or on another node."""
        # QEMU opens a raw file twice as long as nobody writes to it; ours locks what is open for writing.
        names = [each for each in IMAGES if each not in self.open.values() and (each != "flat.raw" or not self.flat)]
        filename = self.rng.choice(names or ["top.qcow2"])
        self.flat |= filename == "flat.raw"
        format = IMAGES[filename][0]
        options: dict[str, Any] = {"file": {"driver": "file", "filename": filename}}
        if format == "qcow2":
            options["backing"] = self.rng.choice([None, *self.open])
        if self.rng.random() < 0.2:
            options["read-only"] = True
        if self.rng.random() < 0.2:
            options["cache"] = self.rng.choice(CACHES)
        name = f"n{number}"
        self.open[name] = filename
        return run("blockdev-add", driver=format, node_name=name, **options)

    def remove(self, number: int) -> Command:
        """A node, which may be in use."""
        name = self.node()
        self.open.pop(name)
        return run("blockdev-del", node_name=name)

    def bitmap(self, number: int) -> Command:
        """A change of one bitmap."""
        verb = self.rng.choice(("add", "add", "remove", "clear", "enable", "disable"))
        return run(f"block-dirty-bitmap-{verb}", node=self.node(), name=self.rng.choice("xy"))

    def bitmaps(self, number: int) -> Command:
        """A transaction that may fail in its middle."""
        name = self.node()
        verbs = self.rng.choices(("add", "clear", "disable"), k=2)
        actions = [{"type": f"block-dirty-bitmap-{verb}", "data": {"node": name, "name": "z"}} for verb in verbs]
        return run("transaction", actions=actions)

    def overlay(self, number: int) -> Command:
        """One node on another."""
        return run("blockdev-snapshot", node=self.node(), overlay=self.node())

    def snapshot(self, number: int) -> Command:
        """A new overlay of a node, which may be below another one."""
        below, name = self.node(), f"n{number}"
        self.open[name] = f"{name}.qcow2"
        return run("blockdev-snapshot-sync", node_name=below, snapshot_file=f"{name}.qcow2", snapshot_node_name=name)

    def resize(self, number: int) -> Command:
        """To one of two sizes."""
        return run("block_resize", node_name=self.node(), size=self.rng.choice((1 << 20, 3 << 19)))

    def job(self, number: int) -> Command:
        """One that is taken to its end before the next command."""
        kind, device = self.rng.choice(("mirror", "backup", "commit")), self.node()
        common = {"device": device, "job_id": f"j{number}", "auto_dismiss": False}
        if kind == "commit":
            return run("block-commit", **common)
        return run(f"blockdev-{kind}", target=self.node(), sync="full", **common)


def images(folder: Path) -> None:
    """Small ones, each with data of its own."""
    folder.mkdir()
    for number, (name, (format, below)) in enumerate(IMAGES.items()):
        backing = ["-b", below, "-F", IMAGES[below][0]] if below else []
        write = f"write -P {number + 1} {number * 96}k 96k"
        for words in (
            ["qemu-img", "create", "-q", "-f", format, *backing, name, "1M"],
            ["qemu-io", "-f", format, "-c", write, name],
        ):
            subprocess.run(words, cwd=folder, check=True, capture_output=True, timeout=60)


def perform(monitor: Monitor, command: Command) -> list[Any]:
    """A command's outcome, that of its job, and what there is afterwards."""
    name, arguments = command
    answer = monitor.send(json.dumps({"execute": name, "arguments": arguments}))
    outcome: list[Any] = [answer["error"]["class"] if "error" in answer else "done"]
    if "job-id" in arguments and "error" not in answer:
        outcome.append(finish(monitor, arguments["job-id"]))
    nodes = monitor.command("query-named-block-nodes", flat=True)
    for each in nodes:
        for bitmap in each.get("dirty-bitmaps", ()):
            bitmap.pop("count")  # whether zeroes are written again is a tool's own choice
        each.get("dirty-bitmaps", []).sort(key=json.dumps)
    named = [{key: each.get(key) for key in KEPT} for each in nodes if not each["node-name"].startswith("#")]
    return [*outcome, sorted(named, key=json.dumps), monitor.command("query-jobs")]


def finish(monitor: Monitor, job: str) -> str | None:
    """Take a job to its end; why it failed."""
    until = time.monotonic() + 60
    while True:
        [found] = monitor.command("query-jobs")
        if found["status"] == "ready":
            monitor.send(json.dumps({"execute": "job-complete", "arguments": {"id": job}}))
        if found["status"] == "concluded":
            monitor.command("job-dismiss", id=job)
            return str(found.get("error", ""))
        assert time.monotonic() < until, found
        time.sleep(0.01)


def disk(folder: Path, name: str) -> bytes | None:
    """What a disk reads as for real ``qemu-img``; None where nothing that it records can be found."""
    words = ["qemu-img", "convert", "-f", IMAGES[name][0], "-O", "raw", name, "read"]
    done = subprocess.run(words, cwd=folder, check=False, capture_output=True, timeout=60)
    return (folder / "read").read_bytes() if done.returncode == 0 else None


@pytest.mark.parametrize("seed", range(4 * SOAK))
def test_a_session_goes_as_with_qemu(tmp_path: Path, seed: int) -> None:
    said: list[Command] = []
    with contextlib.ExitStack() as stack:
        monitors = []
        for name, tool in (("ours", OURS), ("theirs", THEIRS)):
            images(tmp_path / name)
            monitors.append(stack.enter_context(daemon(tmp_path / name, tool=tool)).monitor)
        for command in Session(seed).commands():
            said.append(command)
            ours, theirs = (perform(monitor, command) for monitor in monitors)
            assert ours == theirs, said[-8:]
    for name, (format, _) in IMAGES.items():
        assert disk(tmp_path / "ours", name) == disk(tmp_path / "theirs", name), (name, said)
        if format != "raw":
            check = ["qemu-img", "check", "-q", "-f", format, name]
            subprocess.run(check, cwd=tmp_path / "ours", check=True, capture_output=True, timeout=60)

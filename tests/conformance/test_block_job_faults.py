"""Reads and writes that fail under jobs, through ``blkdebug``: our storage daemon and QEMU's do the same about them."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from support.daemon import OURS, THEIRS, daemon
from support.image import real_qemu_img

pytestmark = [pytest.mark.requires_tool(tool) for tool in ("qemu-img", "qemu-io", "qemu-storage-daemon")]

EIO, ENOSPC = 5, 28
NAMES = ("base", "middle", "top", "t")
POLICIES = ("report", "ignore", "stop", "enospc")
# What starts the job, whether it has a policy for each side, and whether it becomes ready.
JOBS: dict[str, tuple[str, dict[str, Any], bool]] = {
    "mirror": ("blockdev-mirror", {"target": "t", "sync": "full"}, True),
    "backup": ("blockdev-backup", {"target": "t", "sync": "full"}, False),
    "stream": ("block-stream", {}, False),
    "commit": ("block-commit", {"top-node": "middle", "base-node": "base"}, False),
    "active commit": ("block-commit", {"base-node": "base"}, True),
}
READS = {"mirror": "top", "backup": "top", "stream": "base", "commit": "middle", "active commit": "top"}
WRITES = {"mirror": "t", "backup": "t", "stream": "top", "commit": "base", "active commit": "base"}
CASES = [
    (kind, event, code, policy)
    for kind in JOBS
    for event, code in (("read_aio", EIO), ("write_aio", EIO), ("write_aio", ENOSPC))
    for policy in POLICIES
]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A chain with a little data in each image, and a target."""
    folder = tmp_path_factory.mktemp("images")
    below: list[str] = []
    for number, name in enumerate(NAMES):
        real_qemu_img("create", "-q", "-f", "qcow2", *(below if name != "t" else []), folder / name, "1M")
        if name != "t":
            write = f"write -P {number + 1} {number * 64}k 64k"
            subprocess.run(
                ["qemu-io", "-f", "qcow2", "-c", write, str(folder / name)], check=True, capture_output=True, timeout=60
            )
        below = ["-b", name, "-F", "qcow2"]
    return folder


def _nodes(faulty: str, event: str, code: int) -> list[str]:
    """Options that open the images, one file of which fails once."""
    words: list[str] = []
    for name, below in zip(NAMES, (None, "base", "middle", None), strict=True):
        node: dict[str, Any] = {"driver": "qcow2", "node-name": name, "file": {"driver": "file", "filename": name}}
        if name == faulty:
            error = {"event": event, "errno": code, "once": True}
            node["file"] = {"driver": "blkdebug", "image": node["file"], "inject-error": [error]}
        words += ["--blockdev", json.dumps({**node, "backing": below})]
    return words


def _play(images: Path, folder: Path, tool: Sequence[str], kind: str, event: str, code: int, policy: str) -> list[Any]:
    """What is told of the job, and what it says of itself where it stops."""
    command, arguments, becomes_ready = JOBS[kind]
    faulty = (READS if event == "read_aio" else WRITES)[kind]
    sides = ("on-source-error", "on-target-error") if "target" in arguments else ("on-error",)
    told: list[Any] = []
    shutil.copytree(images, folder)
    words = _nodes(faulty, event, code)
    with daemon(folder, *words, tool=tool) as running:
        monitor = running.monitor
        monitor.command(command, job_id="j", device="top", **arguments, **dict.fromkeys(sides, policy))
        until = time.monotonic() + 60
        while time.monotonic() < until:
            [*found] = monitor.command("query-block-jobs")
            if not found:
                break
            # QEMU's may be told to pause, and not have come to it yet.
            if found[0]["io-status"] != "ok" and found[0]["status"] != "running":
                told.append((found[0]["io-status"], found[0]["status"], found[0]["paused"]))
                monitor.command("job-resume", id="j")
            if becomes_ready and found[0]["ready"]:
                monitor.command("job-complete", id="j")
                monitor.wait_for("BLOCK_JOB_COMPLETED")
                break
            time.sleep(0.05)
        monitor.command("query-version")
        told += [
            (each["event"], {key: each["data"].get(key) for key in ("operation", "action", "error")})
            for each in monitor.events
            if each["event"] in ("BLOCK_JOB_ERROR", "BLOCK_JOB_COMPLETED")
        ]
    checked = subprocess.run(
        ["qemu-img", "check", "-q", "-f", "qcow2", str(folder / faulty)], check=False, capture_output=True, timeout=60
    )
    return [*told, checked.returncode]


@pytest.mark.parametrize(("kind", "event", "code", "policy"), CASES)
def test_a_job_does_about_a_failure_what_that_of_qemu_does(
    images: Path, tmp_path: Path, kind: str, event: str, code: int, policy: str
) -> None:
    ours = _play(images, tmp_path / "ours", OURS, kind, event, code, policy)
    theirs = _play(images, tmp_path / "theirs", THEIRS, kind, event, code, policy)
    assert ours == theirs

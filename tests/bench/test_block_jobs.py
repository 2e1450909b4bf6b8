"""How long block jobs take beside QEMU's storage daemon: until ready, or done. Reported, never judged here."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from bench.rivals import LENGTH, MIB, ROUNDS, Bench, Row, write_random
from support.daemon import OURS, THEIRS, daemon
from support.image import real_qemu_img

pytestmark = [
    pytest.mark.requires_tool("qemu-img"),
    pytest.mark.requires_tool("qemu-storage-daemon"),
    pytest.mark.slow,
]

SIZE = LENGTH // 2
# The command, what it takes, and the event that ends it.
JOBS: dict[str, tuple[str, dict[str, Any], str]] = {
    "mirror": ("blockdev-mirror", {"target": "target", "sync": "full"}, "BLOCK_JOB_READY"),
    "backup": ("blockdev-backup", {"target": "target", "sync": "full"}, "BLOCK_JOB_COMPLETED"),
    "stream": ("block-stream", {}, "BLOCK_JOB_COMPLETED"),
    "active commit": ("block-commit", {}, "BLOCK_JOB_READY"),
}


@pytest.fixture(scope="module")
def images(scratch: Path) -> Path:
    write_random(scratch / "data.raw", SIZE)
    real_qemu_img("convert", "-f", "raw", "-O", "qcow2", scratch / "data.raw", scratch / "data.qcow2")
    return scratch


def _run(folder: Path, tool: tuple[str, ...], kind: str, format: str) -> float:
    """Seconds of one job, on images made anew where it writes to them."""
    command, arguments, end = JOBS[kind]
    top, below, target = folder / f"data.{format}", None, folder / "target"
    if kind == "stream":
        top, below = folder / "top", top
    elif kind == "active commit":
        top, below = folder / "top", target
    for path in (folder / "top", target):
        path.unlink(missing_ok=True)
    real_qemu_img("create", "-q", "-f", format, target, str(SIZE))
    if below is not None:
        real_qemu_img("create", "-q", "-f", "qcow2", "-b", below, "-F", format, folder / "top")
        format = "qcow2"
    if kind == "active commit":
        real_qemu_img("convert", "-n", "-f", "raw", "-O", "qcow2", folder / "data.raw", folder / "top")
    words = ["--blockdev", f"driver={format},node-name=top,file.driver=file,file.filename={top}"]
    if "target" in arguments:
        words += ["--blockdev", f"driver={format},node-name=target,file.driver=file,file.filename={target}"]
    with daemon(folder, *words, tool=tool) as running:
        start = time.perf_counter()
        running.monitor.command(command, job_id="j", device="top", **arguments)
        running.monitor.wait_for(end)
        return time.perf_counter() - start


@pytest.mark.parametrize("format", ["raw", "qcow2"])
@pytest.mark.parametrize("kind", JOBS)
def test_job(bench: Bench, images: Path, kind: str, format: str) -> None:
    best = {OURS: float("inf"), THEIRS: float("inf")}
    for _ in range(ROUNDS):
        for tool in best:
            best[tool] = min(best[tool], _run(images, tool, kind, format))
    bench.rows.append(Row(f"{kind}, {format}, {SIZE // MIB} MiB", best[OURS], best[THEIRS], 0, 0))

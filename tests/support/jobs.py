"""Block jobs in tests: chains with known content, a guest that writes, and jobs that are made to go step by step."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from hostel.block import graph
from hostel.block.jobs.event import JobEvent
from hostel.block.jobs.job import Job, JobSettings
from hostel.block.jobs.policy import OnError
from hostel.block.jobs.state import JobStatus
from hostel.block.node import BlockNode
from support import images

KIB = 1024
SIZE = 1024 * KIB
CLUSTER = 64 * KIB
_MOST_STEPS = 10_000


def chain(
    folder: Path, depth: int, *, size: int = SIZE, seed: int = 1, options: str = "cluster_size=64k"
) -> list[Path]:
    """Overlays one above the other, the lowest first, each with data and zeroes of its own."""
    rng = random.Random(seed)
    paths: list[Path] = []
    for level in range(depth):
        path = folder / f"layer{level}.qcow2"
        below = paths[-1] if paths else None
        images.make(path, size, options=options, backing=below, backing_format="qcow2")
        images.write(path, "qcow2", images.scatter(rng, size, 6))
        paths.append(path)
    return paths


def empty(path: Path, size: int = SIZE, *, format: str = "qcow2", options: str = "") -> BlockNode:
    """A new image, open for writing."""
    images.make(path, size, format=format, options=options)
    return graph.open(str(path), format, read_only=False, cache=images.UNSAFE)


def opened(path: Path, format: str = "qcow2", *, read_only: bool = False) -> BlockNode:
    """An image with its chain."""
    return graph.open(str(path), format, read_only=read_only, cache=images.UNSAFE)


def status_of(job: Job) -> JobStatus:
    """How a job is by now: whoever checks types takes an attribute for what it was when it was looked at last."""
    return job.status


class Heard:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.events: list[JobEvent] = []

    def __call__(self, event: JobEvent) -> None:
        self.events.append(event)

    def names(self) -> list[str]:
        """What happened, without the changes of state."""
        return [event.name for event in self.events if event.name != "JOB_STATUS_CHANGE"]

    def states(self) -> list[str]:
        """The states that were gone through."""
        return [event.data["status"] for event in self.events if event.name == "JOB_STATUS_CHANGE"]


def settings(name: str = "job0", heard: Heard | None = None, *, policy: OnError = OnError.REPORT) -> JobSettings:
    """Settings with one policy for both sides."""
    return JobSettings(name, listener=heard, on_source_error=policy, on_target_error=policy)


def step(job: Job, until: Callable[[], bool]) -> None:
    """Advance a job until something is so."""
    for _ in range(_MOST_STEPS):
        if until():
            return
        job.advance()
    raise AssertionError(f"job {job.id} stays {job.status.value}")


def run(job: Job) -> None:
    """Take a job to its end; one that becomes ready is told to complete."""
    job.start()
    step(job, lambda: job.is_over or job.info()["ready"])
    if not job.is_over:
        job.complete()
        step(job, lambda: job.is_over)


def content(node: BlockNode) -> bytes:
    """All bytes."""
    return bytes(node.read(0, node.length))

"""Jobs that cannot leave the graph in the end, or write their bitmap: nobody is kept from what they had, or misled."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostel.block import draining
from hostel.block.bitmap import DirtyBitmap
from hostel.block.jobs.backup import BackupJob, BackupSettings, BackupSync, BitmapMode
from hostel.block.jobs.bitmaps import RecordingBitmap, add_bitmap
from hostel.block.jobs.job import Job
from hostel.block.jobs.mirror import MirrorJob, MirrorSettings, Sync
from hostel.block.node import BlockNode
from hostel.block.powers import BitmapStore
from hostel.errors import BlockError
from support import jobs

KINDS = ("backup", "mirror")
UNIT = jobs.CLUSTER


@pytest.fixture
def source(tmp_path: Path) -> Iterator[BlockNode]:
    [path] = jobs.chain(tmp_path, 1)
    with jobs.opened(path) as node:
        yield node


@pytest.fixture
def target(tmp_path: Path) -> Iterator[BlockNode]:
    with jobs.empty(tmp_path / "target.qcow2") as node:
        yield node


def copied(
    kind: str, source: BlockNode, target: BlockNode, bitmap: RecordingBitmap, sync: str, mode: BitmapMode
) -> Job:
    """A job that has all but its end behind it."""
    job: Job
    if kind == "mirror":
        job = MirrorJob(
            jobs.settings(), source, target, MirrorSettings(sync=Sync(sync), bitmap=bitmap, bitmap_mode=mode)
        )
    else:
        job = BackupJob(jobs.settings(), source, target, BackupSettings(BackupSync(sync), bitmap, mode))
    job.start()
    jobs.step(job, lambda: job.offset == job.length)
    return job


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("persistent", [False, True], ids=["transient", "persistent"])
@pytest.mark.parametrize(
    ("sync", "mode", "is_whole"),
    [
        ("bitmap", BitmapMode.ON_SUCCESS, False),
        ("bitmap", BitmapMode.NEVER, False),
        ("bitmap", BitmapMode.ALWAYS, False),
        ("full", BitmapMode.ON_SUCCESS, False),
        ("full", BitmapMode.ALWAYS, True),  # it would say that the target had what it was not given
    ],
)
def test_a_bitmap_has_lost_nothing_where_a_request_to_the_disk_does_not_end(
    source: BlockNode,
    target: BlockNode,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    persistent: bool,
    sync: str,
    mode: BitmapMode,
    is_whole: bool,
) -> None:
    monkeypatch.setitem(draining.drained.__wrapped__.__kwdefaults__, "timeout", 0.3)  # type: ignore[attr-defined]
    bitmap = add_bitmap(source, "b", UNIT, persistent=persistent)
    source.pwrite(3 * UNIT, b"n")
    job = copied(kind, source, target, bitmap, sync, mode)
    is_inside, may_leave, marking = threading.Event(), threading.Event(), threading.Event()
    mark_all = bitmap.mark_all

    def request() -> None:
        with source.hold():
            is_inside.set()
            may_leave.wait(60)

    def mark() -> None:
        marking.set()
        mark_all()

    monkeypatch.setattr(bitmap, "mark_all", mark)
    thread = threading.Thread(target=request, daemon=True)
    thread.start()
    assert is_inside.wait(20)
    try:
        job.cancel(force=True)
        ending = threading.Thread(target=jobs.step, args=(job, lambda: job.is_over), daemon=True)
        ending.start()
        until = time.monotonic() + 20
        while ending.is_alive() and not marking.is_set():  # what is written to the disk waits for the request
            assert time.monotonic() < until
            ending.join(0.05)
    finally:
        may_leave.set()
        thread.join(20)
        ending.join(20)
    assert job.is_over
    assert not bitmap.busy
    assert bitmap.bits.count == (jobs.SIZE // UNIT if is_whole else 1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("mode", "is_whole"), [(BitmapMode.ON_SUCCESS, False), (BitmapMode.ALWAYS, True)])
def test_a_job_leaves_the_graph_though_its_bitmap_cannot_be_written(
    source: BlockNode, target: BlockNode, monkeypatch: pytest.MonkeyPatch, kind: str, mode: BitmapMode, is_whole: bool
) -> None:
    bitmap = add_bitmap(source, "b", UNIT, persistent=True)
    source.pwrite(3 * UNIT, b"n")
    driver = source.driver
    assert isinstance(driver, BitmapStore)
    job = copied(kind, source, target, bitmap, "full", mode)

    write, faults = driver.bitmap_replace, [BlockError("injected", errno=errno.ENOSPC)]

    def fail_once(name: str, bits: DirtyBitmap) -> None:
        while faults:
            raise faults.pop()
        write(name, bits)

    monkeypatch.setattr(driver, "bitmap_replace", fail_once)
    if kind == "mirror":
        jobs.step(job, lambda: job.info()["ready"] is True)
        job.complete()
    jobs.step(job, lambda: job.is_over)
    assert job.error == "No space left on device"
    assert source.driver is driver
    target.close()
    assert target.closed  # nobody else has it
    assert not bitmap.busy
    assert bitmap.bits.count == (jobs.SIZE // UNIT if is_whole else 1)

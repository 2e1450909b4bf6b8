"""Transient bitmaps are filters that come and go while a job runs: it finds its image below them all the same."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from hostel.block import graph
from hostel.block.jobs.bitmaps import add_bitmap, remove_bitmap
from hostel.block.jobs.commit import CommitJob
from hostel.block.jobs.job import Job
from hostel.block.jobs.stream import StreamJob
from hostel.block.node import BlockNode
from hostel.block.powers import BitmapStore
from support import images, jobs
from support.memory import MemoryDriver
from support.qcow2 import check_file

ADD: Callable[[BlockNode], object] = lambda node: add_bitmap(node, "b")  # noqa: E731
REMOVE: Callable[[BlockNode], object] = lambda node: remove_bitmap(node, "b")  # noqa: E731
CHANGES: dict[str, list[Callable[[BlockNode], object] | None]] = {
    "there": [ADD],
    "comes": [None, ADD],
    "goes": [ADD, REMOVE],
    "comes and goes": [None, ADD, REMOVE],
    "goes and comes": [ADD, REMOVE, ADD],
}


def _stream(top: BlockNode) -> Job:
    base = list(top.chain())[2]
    return StreamJob(jobs.settings(), top, base=base)


def _commit(top: BlockNode) -> Job:
    _, middle, base = top.chain()
    return CommitJob(jobs.settings(), top, middle, base)


@pytest.mark.parametrize("changes", CHANGES)
@pytest.mark.parametrize("make", [_stream, _commit])
def test_the_image_stands_on_the_base_in_the_end(
    tmp_path: Path, make: Callable[[BlockNode], Job], changes: str
) -> None:
    paths = jobs.chain(tmp_path, 3)
    before = images.content(paths[-1], "qcow2")
    with jobs.opened(paths[-1]) as top:
        base = list(top.chain())[2]
        first, *later = CHANGES[changes]
        if first is not None:
            first(top)
        job = make(top)
        job.start()
        for change in later:
            job.advance()
            assert change is not None
            change(top)
        jobs.step(job, lambda: job.is_over)
        assert job.error is None
        assert list(top.chain())[1:] == [base]
        assert jobs.content(top) == before
    assert images.content(paths[-1], "qcow2") == before
    with graph.open(str(paths[-1]), "qcow2") as top:
        assert [Path(layer.filename) for layer in top.chain()] == [paths[2], paths[0]]
    for path in (paths[0], paths[2]):
        result, lines = check_file(path)
        assert (lines, result.leaks) == ([], 0)


def test_what_is_streamed_is_no_write_for_the_image_s_own_bitmaps(tmp_path: Path) -> None:
    paths = jobs.chain(tmp_path, 3)
    with jobs.opened(paths[-1]) as top:
        assert isinstance(top.driver, BitmapStore)
        top.driver.bitmap_add("kept", 65536)
        job = _stream(top)
        job.start()
        jobs.step(job, lambda: job.is_over)
        assert job.error is None
        assert top.driver.bitmap("kept").count == 0
        top.pwrite(65536, b"x")
        assert top.driver.bitmap("kept").count == 1


class Telling(MemoryDriver):
    """A disk that calls somebody before each read."""

    name = "raw"
    supports = MemoryDriver.supports & ~MemoryDriver.supports.GROWS
    told: Callable[[], object] = staticmethod(lambda: None)

    def pread(self, offset: int, buf: memoryview) -> None:
        self.told()
        super().pread(offset, buf)


@pytest.mark.parametrize("changes", ["comes", "goes"])
def test_nothing_that_the_guest_writes_meanwhile_is_streamed_over(tmp_path: Path, changes: str) -> None:
    path, below = tmp_path / "top.qcow2", Telling(b"old" * 512 * 1000)
    images.make(path, len(below.data))
    with jobs.opened(path) as top:
        top.driver.children["backing"] = BlockNode(below, "below", read_only=True)
        first, last = CHANGES[changes]
        if first is not None:
            first(top)
        job = StreamJob(jobs.settings(), top)
        job.start()
        assert last is not None
        last(top)
        guest = threading.Thread(target=top.pwrite, args=(0, b"new"))

        def write() -> None:
            below.told = lambda: None
            guest.start()
            guest.join(0.3)  # it waits for the job; if it does not, its data is what is copied over

        below.told = write
        jobs.step(job, lambda: job.is_over)
        guest.join(20)
        assert top.backing is None
        assert jobs.content(top) == b"new" + below.data[3:]

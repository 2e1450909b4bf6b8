"""The content of a moment, read while the disk goes on: by filters, and by an overlay of the disk."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostel.block import graph
from hostel.block.blockdev import from_options
from hostel.block.chain import block_status
from hostel.block.extent import Status
from hostel.block.jobs.backup import BackupJob, BackupSettings, BackupSync
from hostel.block.node import BlockNode
from hostel.block.rewiring import replace_backing
from hostel.errors import BlockError, ReadOnly, UnsupportedFeature
from support import images, jobs


class Fleecing:
    """A disk with a filter that keeps its content, and a node that shows it."""

    def __init__(self, folder: Path, **options: str) -> None:
        self.paths = jobs.chain(folder, 2)
        images.make(folder / "kept", jobs.SIZE)
        described = {
            "driver": "snapshot-access",
            "file.driver": "copy-before-write",
            "file.file.driver": "qcow2",
            "file.file.file.filename": str(self.paths[-1]),
            "file.target.driver": "qcow2",
            "file.target.file.filename": str(folder / "kept"),
            **{f"file.{name}": value for name, value in options.items()},
        }
        self.snapshot = graph.open(from_options(described), read_only=False, cache=images.UNSAFE)
        self.disk = self.snapshot.driver.children["file"]
        self.start = jobs.content(self.disk)


@pytest.fixture
def fleecing(tmp_path: Path) -> Iterator[Fleecing]:
    made = Fleecing(tmp_path)
    with made.snapshot:
        yield made


def test_the_snapshot_stays_as_it_was(fleecing: Fleecing) -> None:
    rng = random.Random(3)
    for _ in range(40):
        offset, length = rng.randrange(jobs.SIZE - 90_000), rng.randrange(1, 90_000)
        what = rng.randrange(3)
        if what == 0:
            fleecing.disk.pwrite(offset, rng.randbytes(length))
        elif what == 1:
            fleecing.disk.write_zeroes(offset, length, unmap=True)
        else:
            fleecing.disk.discard(offset, length)
        assert jobs.content(fleecing.snapshot) == fleecing.start
    assert jobs.content(fleecing.disk) != fleecing.start


def test_its_extents_say_what_was_zero_then(fleecing: Fleecing) -> None:
    fleecing.disk.write_zeroes(0, jobs.SIZE)
    for extent in block_status(fleecing.snapshot):
        if extent.status & Status.ZERO:
            assert not any(fleecing.start[extent.offset : extent.end])
    assert any(extent.status & Status.DATA for extent in block_status(fleecing.snapshot))


def test_nothing_is_written_to_the_past(fleecing: Fleecing) -> None:
    with pytest.raises(ReadOnly):
        fleecing.snapshot.pwrite(0, b"x")
    with pytest.raises(ReadOnly):
        fleecing.snapshot.write_zeroes(0, 512)


def test_what_was_read_may_be_given_up(fleecing: Fleecing) -> None:
    fleecing.snapshot.discard(0, 2 * jobs.CLUSTER)
    fleecing.disk.pwrite(0, b"new" * 100)
    with pytest.raises(BlockError, match="not to be kept"):
        fleecing.snapshot.read(0, 512)
    rest = jobs.SIZE - 2 * jobs.CLUSTER
    assert bytes(fleecing.snapshot.read(2 * jobs.CLUSTER, rest)) == fleecing.start[2 * jobs.CLUSTER :]


def test_a_reader_beside_a_writer_sees_one_moment(fleecing: Fleecing) -> None:
    failures: list[str] = []

    def read() -> None:
        for number in range(150):
            offset = number * 7919 % (jobs.SIZE - 3000)
            if bytes(fleecing.snapshot.read(offset, 3000)) != fleecing.start[offset : offset + 3000]:
                failures.append(f"at {offset}")

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for number in range(300):
        fleecing.disk.pwrite(number * 10007 % (jobs.SIZE - 4096), bytes([number % 255 + 1]) * 4096)
    for reader in readers:
        reader.join(30)
        assert not reader.is_alive()
    assert not failures


def test_only_a_filter_that_copies_has_a_past(tmp_path: Path) -> None:
    path = jobs.chain(tmp_path, 1)[0]
    described = {"driver": "snapshot-access", "file.driver": "qcow2", "file.file.filename": str(path)}
    with pytest.raises(UnsupportedFeature, match="needs a copy-before-write node, not qcow2"):
        graph.open(from_options(described))


def test_an_unknown_policy_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BlockError, match="Invalid parameter 'none'"):
        Fleecing(tmp_path, **{"on-cbw-error": "none"})


def test_an_overlay_of_the_disk_that_a_backup_fills_shows_the_start(tmp_path: Path) -> None:
    with jobs.opened(jobs.chain(tmp_path, 2)[-1]) as disk:
        disk.write_zeroes(0, 3 * jobs.CLUSTER)
        overlay = jobs.empty(tmp_path / "overlay.qcow2")
        assert replace_backing(overlay, disk.share()) is None
        with overlay:
            start = jobs.content(disk)
            job = BackupJob(jobs.settings(), disk, overlay, BackupSettings(BackupSync.NONE))
            job.start()
            disk.pwrite(1000, b"over zeroes")
            _hammer(disk, overlay, start)
            assert jobs.content(overlay) == start
            job.cancel()
            job.advance()
            assert job.is_over


def _hammer(disk: BlockNode, overlay: BlockNode, start: bytes) -> None:
    """Write to the disk in one thread, and read its past in another."""
    wrong: list[int] = []

    def read() -> None:
        for number in range(200):
            offset = number * 7919 % (jobs.SIZE - 3000)
            if bytes(overlay.read(offset, 3000)) != start[offset : offset + 3000]:
                wrong.append(offset)

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(200):
        disk.pwrite(number * 10007 % (jobs.SIZE - 4096), bytes([number % 255 + 1]) * 4096)
    reader.join(30)
    assert not reader.is_alive()
    assert not wrong

"""Copies that go on where an earlier one was cut off, or had been equal: by a bitmap, which no end of a job spoils."""

from __future__ import annotations

import errno
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostel.block import notice
from hostel.block.bitmap import DirtyBitmap
from hostel.block.formats.qcow2.driver import Qcow2Driver
from hostel.block.jobs.backup import BackupJob, BackupSettings, BackupSync, BitmapMode
from hostel.block.jobs.bitmaps import RecordingBitmap, add_bitmap, find_bitmap
from hostel.block.jobs.job import Job
from hostel.block.jobs.mirror import CopyMode, MirrorJob, MirrorSettings, Sync
from hostel.block.node import BlockNode
from hostel.block.rewiring import reopen, unfiltered
from hostel.errors import BlockError, ReadOnly
from support import images, jobs

SIZE = 24 * jobs.SIZE
UNIT = 65536


@pytest.fixture
def path(tmp_path: Path) -> Path:
    images.make(tmp_path / "disk", SIZE)
    images.write(tmp_path / "disk", "qcow2", {0: random.Random(1).randbytes(SIZE)})
    with jobs.opened(tmp_path / "disk") as node:
        add_bitmap(node, "b", UNIT, persistent=True)
    return tmp_path / "disk"


@pytest.fixture
def target(tmp_path: Path) -> Iterator[BlockNode]:
    with jobs.empty(tmp_path / "copy", SIZE) as node:
        yield node


def _mirror(
    source: BlockNode, target: BlockNode, sync: Sync, mode: BitmapMode | None, copy_mode: CopyMode = CopyMode.BACKGROUND
) -> MirrorJob:
    how = MirrorSettings(sync=sync, copy_mode=copy_mode, bitmap=find_bitmap(source, "b"), bitmap_mode=mode)
    return MirrorJob(jobs.settings(), source, target, how)


def _write(node: BlockNode, rng: random.Random, count: int = 3) -> None:
    for _ in range(count):
        node.pwrite(rng.randrange(SIZE - 5000), rng.randbytes(5000))


def _equal(job: MirrorJob) -> None:
    jobs.step(job, lambda: job.info()["ready"] is True)
    job.cancel()
    jobs.step(job, lambda: job.is_over)
    assert job.error is None


def _bits(bitmap: RecordingBitmap) -> int:
    return bitmap.bits.count


@pytest.mark.parametrize("copy_mode", CopyMode)
@pytest.mark.parametrize("steps", [0, 1, 2, 26, 27])
def test_a_mirror_that_was_cut_off_goes_on_where_it_was(
    path: Path, target: BlockNode, steps: int, copy_mode: CopyMode
) -> None:
    rng = random.Random(steps)
    with jobs.opened(path) as source:
        job = _mirror(source, target, Sync.FULL, BitmapMode.ALWAYS, copy_mode)
        job.start()
        _write(source, rng)
        for _ in range(steps):
            job.advance()
        _write(source, rng)
        copied = job.offset
        job.cancel(force=True)
        job.advance()
        assert job.is_over
        _write(source, rng)
        left = _bits(find_bitmap(source, "b"))
        assert left <= (SIZE - copied) // UNIT + 9 * 2
    # The image was closed meanwhile: the bitmap is stored.
    with jobs.opened(path) as source:
        assert _bits(find_bitmap(source, "b")) == left
        job = _mirror(source, target, Sync.INCREMENTAL, None)
        job.start()
        _write(source, rng)
        _equal(job)
        assert job.offset <= (left + 6) * UNIT
        assert jobs.content(source) == jobs.content(target)
        assert not _bits(find_bitmap(source, "b"))


def _copy(source: BlockNode, target: BlockNode, kind: str, sync: str, mode: BitmapMode) -> Job:
    if kind == "mirror":
        return _mirror(source, target, Sync(sync), mode)
    how = BackupSettings(BackupSync(sync), find_bitmap(source, "b"), mode)
    return BackupJob(jobs.settings(), source, target, how)


def _always(source: BlockNode, target: BlockNode, kind: str, sync: str = "full") -> Job:
    return _copy(source, target, kind, sync, BitmapMode.ALWAYS)


@pytest.mark.parametrize("sync", ["full", "top"])
@pytest.mark.parametrize("kind", ["mirror", "backup"])
def test_after_a_kill_no_bitmap_says_that_a_copy_has_what_it_does_not_have(
    path: Path, target: BlockNode, kind: str, sync: str
) -> None:
    killed = path.with_name("killed")
    with jobs.opened(path) as source:
        job = _always(source, target, kind, sync)
        job.start()
        for _ in range(3):
            job.advance()
        shutil.copy(path, killed)
        job.cancel(force=True)
        jobs.step(job, lambda: job.is_over)
    # Nobody has written: but for the job, what is stored of the bitmap would be right.
    with jobs.opened(killed) as source, pytest.raises(BlockError, match="inconsistent"):
        _mirror(source, target, Sync.BITMAP, BitmapMode.ALWAYS).start()


@pytest.mark.parametrize(("kind", "steps"), [("mirror", 2), ("mirror", 3), ("backup", 5)])
def test_what_a_bitmap_says_a_cancelled_copy_has_is_in_its_target_for_good(
    path: Path, target: BlockNode, kind: str, steps: int
) -> None:
    killed = path.with_name("killed")
    with jobs.opened(path) as source:
        job = _always(source, target, kind)
        job.start()
        for _ in range(steps):
            job.advance()
        job.cancel(force=True)
        jobs.step(job, lambda: job.is_over)
    # The source has stored its bitmap by now, and the target's process is killed.
    shutil.copy(path.with_name("copy"), killed)
    with jobs.opened(path) as source, jobs.opened(killed) as copy:
        had = [each for each in find_bitmap(source, "b").ranges(0, SIZE) if not each[2]]
        assert had
        assert all(source.read(offset, length) == copy.read(offset, length) for offset, length, _ in had)


@pytest.mark.parametrize("kind", ["mirror", "backup"])
def test_a_copy_that_is_taken_back_does_not_wait_for_its_target(
    path: Path, target: BlockNode, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with jobs.opened(path) as source:
        before = _bits(find_bitmap(source, "b"))
        job = _always(source, target, kind)
        flushed: list[object] = []
        monkeypatch.setattr(target.driver, "flush", lambda: flushed.append(None))
        job.attach()
        job.take_back()
        assert job.is_over
        assert not flushed
        monkeypatch.undo()
        assert before <= _bits(find_bitmap(source, "b"))


@pytest.mark.parametrize("kind", ["mirror", "backup"])
def test_an_image_opened_again_under_a_job_says_of_its_bitmap_no_more_than_before(
    path: Path, target: BlockNode, kind: str
) -> None:
    killed = path.with_name("killed")
    with jobs.opened(path) as source:
        job = _always(source, target, kind)
        job.start()
        job.advance()
        node = unfiltered(source)
        assert isinstance(node.driver, Qcow2Driver)
        node.driver = node.driver.reopened(lambda mode: mode)
        shutil.copy(path, killed)
        job.cancel(force=True)
        jobs.step(job, lambda: job.is_over)
    with jobs.opened(killed) as source, pytest.raises(BlockError, match="inconsistent"):
        _mirror(source, target, Sync.BITMAP, BitmapMode.ALWAYS).start()


@pytest.mark.parametrize("mode", BitmapMode)
@pytest.mark.parametrize("kind", ["mirror", "backup"])
def test_an_image_is_not_made_read_only_while_a_job_is_to_write_its_bitmap(
    path: Path, target: BlockNode, kind: str, mode: BitmapMode
) -> None:
    with jobs.opened(path) as source:
        _write(source, random.Random(8))
        before = _bits(find_bitmap(source, "b"))
        job = _copy(source, target, kind, "bitmap", mode)
        job.start()
        if mode is BitmapMode.NEVER:
            reopen(unfiltered(source), read_only=True)
        else:
            with pytest.raises(
                BlockError, match="Bitmap 'b' is currently in use by another operation and cannot be ma"
            ):
                reopen(unfiltered(source), read_only=True)
        jobs.step(job, lambda: job.is_over or job.info()["ready"] is True)
        if not job.is_over:
            job.cancel()
        jobs.step(job, lambda: job.is_over)
        assert job.error is None
    with jobs.opened(path) as source:
        assert _bits(find_bitmap(source, "b")) == (before if mode is BitmapMode.NEVER else 0)
        reopen(source, read_only=True)


@pytest.mark.parametrize("persistent", [True, False])
def test_a_bitmap_that_cannot_get_other_bits_keeps_its_own(
    path: Path, persistent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(errno.ENOMEM, "injected")

    with jobs.opened(path) as source:
        bitmap = find_bitmap(source, "b") if persistent else add_bitmap(source, "t", UNIT)
        _write(source, random.Random(9))
        before = _bits(bitmap)
        monkeypatch.setattr(DirtyBitmap, "merge", fail)
        with pytest.raises(OSError, match="injected"):
            bitmap.become(DirtyBitmap(SIZE, UNIT))
        monkeypatch.undo()
        assert 0 < before == _bits(bitmap)
        coarse = DirtyBitmap(SIZE, 2 * UNIT)
        coarse.mark(2 * UNIT, 1)
        bitmap.become(coarse)
        assert [found[:2] for found in bitmap.ranges(0, SIZE) if found[2]] == [(2 * UNIT, 2 * UNIT)]


@pytest.mark.parametrize("kind", ["mirror", "backup"])
def test_it_is_told_that_a_cancelled_copy_could_not_leave_its_bits(
    path: Path, target: BlockNode, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(errno.EIO, "injected")

    told: list[str] = []
    with jobs.opened(path) as source, notice.listening(told.append):
        job = _always(source, target, kind)
        job.start()
        job.advance()
        monkeypatch.setattr(Qcow2Driver, "bitmap_replace", fail)
        job.cancel(force=True)
        jobs.step(job, lambda: job.is_over)
        assert not source.blockers
        find_bitmap(source, "b").require_free()
    assert job.error == "Operation canceled"
    assert told == ["Job 'job0' did not end as it should: [Errno 5] injected"]


@pytest.mark.parametrize("mode", BitmapMode)
@pytest.mark.parametrize("kind", ["mirror", "backup"])
def test_a_bitmap_that_cannot_be_written_is_refused_before_the_copy(
    path: Path, target: BlockNode, kind: str, mode: BitmapMode
) -> None:
    with jobs.opened(path, read_only=True) as source:
        job = _copy(source, target, kind, "bitmap", mode)
        if mode is BitmapMode.NEVER:
            job.start()
            job.cancel(force=True)
            jobs.step(job, lambda: job.is_over)
        else:
            with pytest.raises(ReadOnly, match="Bitmap 'b' is readonly and cannot be modified"):
                job.start()
        find_bitmap(source, "b").require_free()


@pytest.mark.parametrize("mode", BitmapMode)
def test_a_bitmap_says_in_the_end_where_source_and_copy_differ(path: Path, target: BlockNode, mode: BitmapMode) -> None:
    rng = random.Random(3)
    with jobs.opened(path) as source:
        bitmap = find_bitmap(source, "b")
        job = MirrorJob(jobs.settings(), source, target)
        job.start()
        _equal(job)
        _write(source, rng)
        before = _bits(bitmap)
        assert 0 < before <= 6
        job = _mirror(source, target, Sync.BITMAP, mode)
        job.start()
        with pytest.raises(BlockError, match="in use"):
            bitmap.require_free()
        _write(source, rng, 1)
        _equal(job)
        bitmap.require_free()
        assert jobs.content(source) == jobs.content(target)
        assert (_bits(bitmap) == 0) is (mode is not BitmapMode.NEVER)
        _write(source, rng, 1)
        assert _bits(bitmap) > 0


def test_a_mirror_that_fails_loses_no_bit(path: Path, target: BlockNode) -> None:
    rng = random.Random(4)
    with jobs.opened(path) as source:
        _write(source, rng, 20)
        bitmap = find_bitmap(source, "b")
        before = _bits(bitmap)
        job = _mirror(source, target, Sync.BITMAP, BitmapMode.ON_SUCCESS)
        job.start()
        job.advance()
        job.cancel(force=True)
        job.advance()
        assert job.is_over
        assert _bits(bitmap) == before


def test_a_mirror_that_takes_the_place_of_its_source_leaves_the_bitmap_sound(path: Path, target: BlockNode) -> None:
    with jobs.opened(path) as source:
        _write(source, random.Random(5))
        job = _mirror(source, target, Sync.FULL, BitmapMode.ON_SUCCESS)
        jobs.run(job)
        assert job.error is None
        _write(source, random.Random(6))
        assert jobs.content(source) == jobs.content(target)
    with jobs.opened(path) as former:
        assert not _bits(find_bitmap(former, "b"))


@pytest.mark.parametrize(
    ("sync", "bitmap", "mode", "message"),
    [
        (Sync.BITMAP, False, None, "must provide a valid bitmap name for 'bitmap' sync mode"),
        (Sync.BITMAP, True, None, "Bitmap sync mode must be given when providing a bitmap"),
        (Sync.INCREMENTAL, True, BitmapMode.ALWAYS, "Bitmap sync mode must be 'on-success'"),
        (Sync.NONE, True, BitmapMode.ALWAYS, "does not produce meaningful bitmap outputs"),
        (Sync.FULL, True, BitmapMode.NEVER, "has no meaningful effect"),
        (Sync.FULL, False, BitmapMode.NEVER, "Cannot specify bitmap sync mode without a bitmap"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    path: Path, target: BlockNode, sync: Sync, bitmap: bool, mode: BitmapMode | None, message: str
) -> None:
    with jobs.opened(path) as source:
        how = MirrorSettings(sync=sync, bitmap=find_bitmap(source, "b") if bitmap else None, bitmap_mode=mode)
        with pytest.raises(BlockError, match=message):
            MirrorJob(jobs.settings(), source, target, how)
        assert not source.blockers


@pytest.mark.parametrize("mode", [BitmapMode.ON_SUCCESS, BitmapMode.ALWAYS])
def test_a_backup_takes_nothing_from_the_bitmap_before_its_end(path: Path, target: BlockNode, mode: BitmapMode) -> None:
    with jobs.opened(path) as source:
        _write(source, random.Random(7))
        bitmap = find_bitmap(source, "b")
        before = _bits(bitmap)
        how = BackupSettings(BackupSync.BITMAP, bitmap, mode)
        job = BackupJob(jobs.settings(), source, target, how)
        job.start()
        job.advance()
        assert _bits(bitmap) == before
        source.pwrite(0, b"x")
        jobs.step(job, lambda: job.is_over)
        assert job.error is None
        assert [bitmap.bits.is_dirty(offset) for offset in (0, SIZE // 2)] == [True, False]
        assert _bits(bitmap) == 1

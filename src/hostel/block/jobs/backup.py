"""Backup: the content of a node at the moment the job starts, copied to another while the guest goes on writing."""

from __future__ import annotations

import contextlib
import enum
import errno
from collections.abc import Iterable
from typing import Final, NamedTuple

from hostel.block.bitmap import DirtyBitmap
from hostel.block.chain import rounded_length
from hostel.block.draining import drained
from hostel.block.jobs.bitmaps import RecordingBitmap
from hostel.block.jobs.block_copy import BlockCopy, copy_unit
from hostel.block.jobs.copy_before_write import BackupFilter
from hostel.block.jobs.copying import CHUNK, flush_impatiently, flush_last
from hostel.block.jobs.job import SLICE, Job, JobSettings
from hostel.block.jobs.policy import SourceError
from hostel.block.jobs.state import JobStatus
from hostel.block.node import BlockNode
from hostel.block.powers import Compressing
from hostel.block.rewiring import insert_filter, remove_filter
from hostel.block.tree import own, require_apart
from hostel.errors import BlockError, UnsupportedFeature


class BackupSync(enum.Enum):
    """What is copied; the values are QMP's."""

    FULL = "full"
    TOP = "top"  # what the overlay itself has
    INCREMENTAL = "incremental"  # BITMAP with mode ON_SUCCESS
    BITMAP = "bitmap"  # what is dirty in a bitmap
    NONE = "none"  # what is overwritten


class BitmapMode(enum.Enum):
    """What becomes of the bitmap; the values are QMP's."""

    ON_SUCCESS = "on-success"  # it has what was written since the start, if the job succeeds; else it loses nothing
    NEVER = "never"  # it loses nothing
    ALWAYS = "always"  # it loses what was copied, however the job ends


class BackupSettings(NamedTuple):
    """How to back up.

    Attributes:
        bitmap: see :class:`BackupSync` and :class:`BitmapMode`.
        compress: store what is copied compressed.
        max_workers: how many copies are under way at once; checked, and else the job's own choice.
        max_chunk: how much one copies, bytes, 0 for any; likewise.
    """

    sync: BackupSync = BackupSync.FULL
    bitmap: RecordingBitmap | None = None
    bitmap_mode: BitmapMode | None = None
    compress: bool = False
    max_workers: int = 1
    max_chunk: int = 0


_INT_MAX: Final = 2**31 - 1
_DEFAULTS: Final = BackupSettings()


class BackupJob(Job):
    """Copies the content of ``source`` into ``target``.

    Args:
        settings: see :class:`JobSettings`.
        source: whoever uses it goes on to.
        target: open for writing, of the same size; nobody else writes to it. It stays the caller's to close.
        how: see :class:`BackupSettings`.

    Raises:
        BlockError: the nodes are in use, or not of one size, or the settings contradict each other.
    """

    type = "backup"

    def __init__(
        self, settings: JobSettings, source: BlockNode, target: BlockNode, how: BackupSettings = _DEFAULTS
    ) -> None:
        how = check_backup(source, target, how)
        require_apart(source, target)
        if 0 < how.max_chunk < (unit := copy_unit(target)):
            raise _invalid(f"Required max-chunk ({how.max_chunk}) is less than backup cluster size ({unit})")
        self._source, self._target, self._how = source, target, how
        self._copy: BlockCopy | None = None
        self._filter: BackupFilter | None = None
        self._frozen: DirtyBitmap | None = None
        self._misleads = False  # the bitmap says less than what the target lacks, which it is to say
        self._place = self._total = 0
        super().__init__(settings, [target], shared=[source])

    def _own_nodes(self) -> Iterable[BlockNode]:
        return own(self._target)

    # ---- steps

    def _attach(self) -> None:
        """Fix the moment: from here on nothing is overwritten that was not copied."""
        how = self._how
        if how.bitmap is not None and how.bitmap_mode is BitmapMode.ALWAYS and how.sync is not BackupSync.BITMAP:
            self._misleads = True  # killed, what is stored of it would do so too
            how.bitmap.disown_stored()
        with drained(self._source):

            def make(child: BlockNode) -> BackupFilter:
                top = how.sync is BackupSync.TOP
                self._copy = BlockCopy(child, self._target, copy_unit(self._target), top=top, compress=how.compress)
                self._filter = BackupFilter(child, self._target.share(), self._copy, self._recorder())
                return self._filter

            insert_filter(self._source, make)
            assert self._copy is not None
            if how.bitmap is not None:
                self._frozen = how.bitmap.freeze(to_change=how.bitmap_mode is not BitmapMode.NEVER)
            self._copy.choose(self._frozen if how.sync is BackupSync.BITMAP else None)
        self.length = self._total = self._copy.length if how.sync is BackupSync.NONE else self._copy.remaining

    def _recorder(self) -> DirtyBitmap | None:
        """What will know in the end what the next backup needs; until then the bitmap loses nothing."""
        bitmap = self._how.bitmap
        if bitmap is None or self._how.bitmap_mode is BitmapMode.NEVER:
            return None
        return DirtyBitmap(rounded_length(self._source), bitmap.granularity)

    def _work(self) -> float | None:
        copy = self._copy
        assert copy is not None
        if self._how.sync is BackupSync.NONE:
            return SLICE
        found = copy.next_range(self._place)
        if found is None and self._place:
            self._place = 0
            return 0.0
        if found is None:
            return None
        start, end = found
        stop = copy.step_end(start, end)
        copied = copy.copy(start, stop)
        self._place = stop if stop < copy.length else 0
        self._pace.spend(copied)
        self.length = self._total - copy.skipped
        self.offset = self.length - copy.remaining
        return 0.0

    def _ignored(self, failure: SourceError) -> None:
        """Go on behind what failed, and come back to it."""
        copy = self._copy
        assert copy is not None
        found = copy.next_range(self._place)
        if found is not None:
            self._place = min(copy.length, found[0] + max(CHUNK, copy.unit))

    def _measure(self) -> None:
        """Of a backup that copies nothing by itself, those who write move it on."""
        if self._how.sync is BackupSync.NONE and self._filter is not None:
            self.offset = self.length - self._filter.block_copy.remaining

    # ---- the end

    def _prepare(self) -> None:
        flush_last(self._target)

    def _clean(self) -> None:
        if self._filter is None:
            return
        left, written = self._left(), self._filter.written
        with contextlib.ExitStack() as ending:
            ending.callback(self._thaw)
            with drained(self._source):
                remove_filter(self._source, self._filter)
                ending.callback(self._filter.children.pop("target").close)
                self._filter = None
                if self._how.bitmap is not None and self._frozen is not None:
                    self._settle_bits(self._how.bitmap, written, left)

    def _thaw(self) -> None:
        """Let others have the bitmap; where it could not be settled it has lost nothing."""
        if self._how.bitmap is None or self._frozen is None:
            return
        try:
            if self._misleads:
                self._how.bitmap.mark_all()
        finally:
            self._how.bitmap.thaw()

    def _left(self) -> DirtyBitmap:
        """What the target may not have: where it cannot be synced, and a bitmap is to say what it has, that is all.

        One that has succeeded has synced it; one that is taken back has copied nothing.
        """
        assert self._copy is not None
        left = self._copy.remaining_bits()
        wants_sync = self._how.bitmap_mode is BitmapMode.ALWAYS and self.error is not None and not self._taken_back
        if wants_sync and not flush_impatiently(self._target):
            left.mark(0, left.size)
        return left

    def _settle_bits(self, bitmap: RecordingBitmap, written: DirtyBitmap | None, left: DirtyBitmap) -> None:
        """Leave in the bitmap what the next backup needs: what was written since the start, and was not copied."""
        is_always = self._how.bitmap_mode is BitmapMode.ALWAYS
        failed = self.error is not None or self.status is JobStatus.CREATED
        if written is not None and (is_always or not failed):
            if not bitmap.recording:
                written.clear()
            if is_always:
                written.merge(left)
            bitmap.become(written)
        self._misleads = False


def _stores_compressed(target: BlockNode) -> bool:
    """Whether an image takes compressed clusters: where it is refused later, it is the guest's writes that fail."""
    driver = target.driver
    return isinstance(driver, Compressing) and "data-file" not in driver.children and not driver.info().encrypted


def require_named(sync: BackupSync, mode: BitmapMode | None, *, named: bool) -> None:
    """Check what can be said before it is known whether there is the bitmap that is named.

    Raises:
        BlockError: the settings contradict each other; with QEMU's text.
    """
    if not named and sync in (BackupSync.BITMAP, BackupSync.INCREMENTAL):
        raise _invalid(f"must provide a valid bitmap name for '{sync.value}' sync mode")
    if sync is BackupSync.INCREMENTAL and mode not in (None, BitmapMode.ON_SUCCESS):
        raise _invalid("Bitmap sync mode must be 'on-success' when using sync mode 'incremental'")


def check_backup(source: BlockNode, target: BlockNode, how: BackupSettings) -> BackupSettings:
    """Check what can be said before anything is made, in QEMU's order and words; the settings without synonyms.

    Raises:
        BlockError: the settings contradict each other, or do not fit the nodes.
    """
    how = settle_bitmap(how)
    if source is target:
        raise _invalid("Source and target cannot be the same")
    if how.compress and not _stores_compressed(target):
        raise UnsupportedFeature(f"Compression is not supported for this drive {target.name}")
    if not 1 <= how.max_workers <= _INT_MAX:
        raise _invalid(f"max-workers must be between 1 and {_INT_MAX}")
    if how.max_chunk < 0:
        raise _invalid("max-chunk must be zero (which means no limit) or positive")
    if rounded_length(source) != rounded_length(target):
        raise _invalid("Source and target image have different sizes")
    return how


def settle_bitmap(how: BackupSettings) -> BackupSettings:
    """Check what is said of a bitmap, in QEMU's order and words.

    Raises:
        BlockError: the settings contradict each other.
    """
    require_named(how.sync, how.bitmap_mode, named=how.bitmap is not None)
    if how.sync is BackupSync.INCREMENTAL:
        how = how._replace(sync=BackupSync.BITMAP, bitmap_mode=BitmapMode.ON_SUCCESS)
    if how.bitmap is None:
        if how.bitmap_mode is not None:
            raise _invalid("Cannot specify bitmap sync mode without a bitmap")
        return how
    if how.bitmap_mode is None:
        raise _invalid("Bitmap sync mode must be given when providing a bitmap")
    if how.sync is BackupSync.NONE:
        raise _invalid(f"sync mode '{how.sync.value}' does not produce meaningful bitmap outputs")
    if how.bitmap_mode is BitmapMode.NEVER and how.sync is not BackupSync.BITMAP:
        raise _invalid(
            f"Bitmap sync mode 'never' has no meaningful effect when combined with sync mode '{how.sync.value}'"
        )
    return how


def _invalid(message: str) -> BlockError:
    return BlockError(message, errno=errno.EINVAL)

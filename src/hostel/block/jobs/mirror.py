"""Mirror: make another image equal to one in use, keep it so, and let it take the other's place.

The guest's writes pass a filter, which marks them; the job copies what is marked until nothing is. From then on it is
ready. To complete, the filter is told to write in both places, at a moment at which nobody writes and nothing is
marked: the two are equal then and stay so, until the one takes the place of the other at a second such moment.
"""

from __future__ import annotations

import contextlib
import enum
import errno
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from hostel.block.chain import rounded_length
from hostel.block.changed_parent import committing
from hostel.block.draining import drained
from hostel.block.driver import FilterDriver
from hostel.block.extent import Status
from hostel.block.jobs.backup import BackupSettings, BackupSync, BitmapMode, settle_bitmap
from hostel.block.jobs.bitmaps import RecordingBitmap
from hostel.block.jobs.companion import Companion
from hostel.block.jobs.copying import (
    CHUNK,
    LOOK,
    first_extent,
    flush,
    flush_impatiently,
    flush_last,
    grow,
    hides_backing,
    next_extent,
)
from hostel.block.jobs.job import SLICE, Job, JobFailed, JobSettings
from hostel.block.jobs.mirror_copy import How, MirrorCopy
from hostel.block.jobs.mirror_filter import MirrorFilter
from hostel.block.jobs.policy import SourceError, TargetError
from hostel.block.jobs.state import JobStatus
from hostel.block.node import BlockNode
from hostel.block.rewiring import (
    bottom_of_filters,
    end_writing,
    insert_filter,
    redirect,
    remove_filter,
    reopen,
    replace_backing,
    retire,
)
from hostel.block.snapshots_inside import tell_of_change
from hostel.block.tree import own, require_apart
from hostel.errors import BlockError
from hostel.units import KiB, MiB

_MIN_GRANULARITY: Final = 512
_MAX_GRANULARITY: Final = 64 * MiB
_SPAN: Final = 16 * MiB  # bytes that two threads together copy in a step
_DEFAULT_GRANULARITY: Final = (4 * KiB, 64 * KiB)


class Sync(enum.Enum):
    """What is copied; the values are QMP's."""

    FULL = "full"  # everything
    TOP = "top"  # what the overlay itself has; the target has the rest in a backing file of its own
    NONE = "none"  # what is written from now on
    BITMAP = "bitmap"  # what is dirty in a bitmap: the target has the rest
    INCREMENTAL = "incremental"  # BITMAP with mode ON_SUCCESS


class CopyMode(enum.Enum):
    """How the guest's writes come to the target; the values are QMP's."""

    BACKGROUND = "background"
    WRITE_BLOCKING = "write-blocking"


# Called with the node that was replaced, and a node that has its former driver, to be closed by whoever is called.
Replaced = Callable[[BlockNode, BlockNode], None]


def close_replaced(node: BlockNode, former: BlockNode) -> None:
    """Close an image that nobody uses any more; who could only read it can only read what has taken its place."""
    reads = former.read_only
    former.close()
    if reads:
        end_writing(node)


class MirrorSettings(NamedTuple):
    """How to mirror.

    Attributes:
        granularity: bytes that are copied again when one of them is written; 0 for a choice by the target.
        buf_size: the most bytes copied at once; 0 for a choice.
        unmap: zeroes give space back in the target.
        replaces: what the target takes the place of, a node below the source; None for the source.
        onto_source: the target is an overlay that nothing lies below yet: it stands on what the source was.
        replaced: who closes what is replaced.
        bitmap: see :class:`Sync` and :class:`BitmapMode`; in the end it says where source and target differ.
    """

    sync: Sync = Sync.FULL
    copy_mode: CopyMode = CopyMode.BACKGROUND
    granularity: int = 0
    buf_size: int = 0
    unmap: bool = True
    replaces: BlockNode | None = None
    onto_source: bool = False
    replaced: Replaced = close_replaced
    bitmap: RecordingBitmap | None = None
    bitmap_mode: BitmapMode | None = None


_DEFAULTS: Final = MirrorSettings()


class MirrorJob(Job):
    """Copies ``source`` into ``target``.

    Args:
        settings: see :class:`JobSettings`.
        source: whoever uses it goes on to.
        target: open for writing, of the same size; nobody else writes to it. It stays the caller's to close.
        how: see :class:`MirrorSettings`.

    Raises:
        BlockError: the nodes are in use, or not of one size, or a setting is out of its limits.
    """

    type = "mirror"

    def __init__(
        self, settings: JobSettings, source: BlockNode, target: BlockNode, how: MirrorSettings = _DEFAULTS
    ) -> None:
        check_settings(how)
        if how.replaces is not None:
            check_replaced(source, how.replaces)
        check_distinct(source, target)
        if self.type == "mirror":
            require_apart(source, target)
        how = _settle_bitmap(how)
        self._source, self._target, self._how = source, target, how
        self._granularity = how.granularity or _granularity(target)
        self._whole = 1
        if self._owns_zeroes and not how.onto_source and _awaits_backing(target, how.sync):
            # A cluster that is written in part would be filled up with zeroes.
            self._whole = target.driver.info().cluster_size or 1
            self._granularity = max(self._granularity, self._whole)
        wanted = min(how.buf_size, CHUNK) or CHUNK
        self._chunk = max(self._granularity, wanted - wanted % self._granularity)
        self._span = max(_SPAN - _SPAN % self._chunk, self._chunk)
        # Two threads have more in memory, unless less is to be used.
        self._paired = not how.buf_size and Companion.is_worth_it()
        self._base: BlockNode | None = None
        if how.sync is Sync.TOP:
            self._base = bottom_of_filters(source).backing
        self._filter: MirrorFilter | None = None
        self._scanned = 0  # bytes whose metadata was looked at
        self._cursor = 0
        self._pivot = False
        self._stands_on_source = False
        self._frozen = False
        self._misleads = False  # the bitmap says less than what the target lacks, which it is to say
        super().__init__(settings, list(dict.fromkeys([source, *self._blocked(how)])))

    def _blocked(self, how: MirrorSettings) -> list[BlockNode]:
        """What nobody else may use, beside the source."""
        return [self._target] if how.replaces is None else [self._target, how.replaces]

    def _own_nodes(self) -> Iterable[BlockNode]:
        return own(self._target)

    @property
    def _owns_zeroes(self) -> bool:
        """Whether the target may come to stand on something else than it does now."""
        return self._how.sync is not Sync.FULL or self._target.backing is not None

    @property
    def can_complete(self) -> bool:
        """It follows the guest until it is told to complete."""
        return True

    @property
    def _length(self) -> int:
        """Bytes that are mirrored: whole sectors."""
        return rounded_length(self._source)

    @property
    def actively_synced(self) -> bool:
        """Whether source and target are equal and stay so."""
        found = self._filter
        return found is not None and found.active and found.is_clean and self._scanned >= self._length

    # ---- steps

    def _attach(self) -> None:
        bitmap, active = self._how.bitmap, self._how.copy_mode is CopyMode.WRITE_BLOCKING
        if bitmap is not None and self._how.bitmap_mode is BitmapMode.ALWAYS and self._how.sync is not Sync.BITMAP:
            self._misleads = True  # killed, what is stored of it would do so too
            bitmap.disown_stored()

        def make(child: BlockNode) -> MirrorFilter:
            self._filter = MirrorFilter(child, self._target, self._granularity, self._whole)
            self._filter.active = active
            how = How(self._chunk, self._how.unmap, self._owns_zeroes)
            self._copier = MirrorCopy(self._filter, child, self._target, how)
            return self._filter

        with drained(self._source):
            self._inner = insert_filter(self._source, make)
            if bitmap is not None:
                self._take_bits(bitmap)
        if self._how.onto_source:
            # What a write to a part of a cluster leaves out comes from there.
            replace_backing(self._target, self._inner.share())
            self._stands_on_source = True
        if self._how.sync is Sync.NONE:
            self._scanned = self._length

    def _take_bits(self, bitmap: RecordingBitmap) -> None:
        """Have the bitmap for the job; where it says what is to be copied, mark that."""
        bits = bitmap.freeze(to_change=self._how.bitmap_mode is not BitmapMode.NEVER)
        self._frozen = True
        assert self._filter is not None
        if self._how.sync is Sync.BITMAP:
            for offset, length, dirty in bits.ranges(0, bits.size):
                if dirty:
                    self._filter.mark(offset, length)
            self._scanned = self._length

    @property
    def _keeps_bits(self) -> bool:
        """Whether the bitmap is to say where source and target differ."""
        is_equal = self.error is None and self.status is not JobStatus.CREATED
        return self._how.bitmap_mode is BitmapMode.ALWAYS or (
            self._how.bitmap_mode is BitmapMode.ON_SUCCESS and is_equal
        )

    def _give_bits_back(self, mirror: MirrorFilter) -> None:
        """Leave in the bitmap where source and target differ; where that is not asked for, what it has recorded."""
        if self._how.bitmap is None or not self._frozen:
            return
        if self._keeps_bits:
            if self._scanned < self._length:
                mirror.mark(self._scanned, self._length - self._scanned)
            self._how.bitmap.become(mirror.differing())
        self._misleads = False
        self._thaw()

    def _thaw(self) -> None:
        """Let others have the bitmap; where it could not be settled it has lost nothing."""
        if self._how.bitmap is None or not self._frozen:
            return
        self._frozen = False
        try:
            if self._misleads:
                self._how.bitmap.mark_all()
        finally:
            self._how.bitmap.thaw()

    def _work(self) -> float | None:
        if self._length != rounded_length(self._target):
            raise JobFailed("Source and target image have different sizes", errno=errno.EINVAL)
        return self._step()

    def _step(self) -> float | None:
        mirror = self._filter
        assert mirror is not None
        if mirror.failure is not None:
            failure, mirror.failure = mirror.failure, None
            raise TargetError(failure)
        if self._scanned < self._length:
            self._scan(mirror)
            return 0.0
        found = mirror.take(self._cursor, LOOK) or mirror.take(0, LOOK)
        if found is not None:
            self._cursor = self._copy(*found)
            return 0.0
        return self._follow(mirror)

    def _scan(self, mirror: MirrorFilter) -> None:
        """Mark what is to be copied of what is there at the start."""
        extent = first_extent(self._inner, self._scanned, self._length, self._base)
        wanted = Status.ALLOCATED if self._how.sync is Sync.TOP else Status.DATA | Status.ZERO
        if extent.status & wanted:
            mirror.mark(extent.offset, extent.length)
        self._scanned = extent.end

    def _copy(self, start: int, end: int) -> int:
        """Copy the beginning of a range; where the next is to be looked for."""
        end = min(end, self._length)
        extent = next_extent(self._inner, start, end, None, lambda extent: bool(extent.status & Status.DATA))
        if self._paired and not extent.status & Status.ZERO and not self._pace.speed:
            stop = min(end, start + self._span)
            self._copier.paired(start, stop, self._spent)
        else:
            stop = min(end, start + self._chunk)
            if extent.status & Status.ZERO:
                whole = extent.end if extent.end >= end else extent.end - extent.end % self._granularity
                stop = max(stop, whole)
            self._copier.alone(start, stop)
            self._spent(stop - start)
        return stop if stop < self._length else 0

    def _follow(self, mirror: MirrorFilter) -> float | None:
        """Nothing is to be copied at this moment."""
        ready = self._how_far() and not (self._completing or self._soft_cancelled)
        if ready:
            return SLICE
        flush(self._target)
        if not self._how_far():
            self._become_ready()
            return 0.0
        with drained(self._source):
            if not mirror.is_clean:
                return 0.0
            mirror.active = True
        self._pivot = not self._soft_cancelled
        return None

    def _how_far(self) -> bool:
        return self.info()["ready"] is True

    # ---- the end

    def _prepare(self) -> None:
        flush_last(self._target)  # so that little is left to be synced while the guest waits
        mirror = self._filter
        assert mirror is not None
        place = self._how.replaces or self._source
        changed = [self._source, place]
        if self._stands_on_source:
            changed += [self._target, bottom_of_filters(self._target)]
        # All of them at once: from the first change on there is no way back.
        with drained(*changed):
            if mirror.failure is not None:
                raise mirror.failure
            if self._pivot:
                self._settle_discards(mirror)
            # What the guest has written since may have been synced in the source, on which it then relies.
            flush_last(self._target)
            if not self._pivot:
                return
            stands_on_source = self._stands_on_source
            self._take_out()
            former = redirect(place, self._target)
            if stands_on_source:
                replace_backing(self._target, former.share())
        retire(former, lambda: self._how.replaced(place, former))

    def _settle_discards(self, mirror: MirrorFilter) -> None:
        """Copy what was discarded since both were equal, with nobody in the source."""
        try:
            while (found := mirror.take(0, self._chunk)) is not None:
                self._copier.alone(found[0], min(found[1], self._length))
        except SourceError as failure:
            raise failure.cause from None

    def _take_out(self) -> None:
        if self._filter is None:
            return
        self._copier.close()
        with drained(self._source), contextlib.ExitStack() as ending:
            ending.callback(self._remove, self._filter)
            if self._stands_on_source:
                below = replace_backing(self._target, None)
                assert below is not None
                below.close()
                self._stands_on_source = False
            self._give_bits_back(self._filter)

    def _remove(self, mirror: MirrorFilter) -> None:
        remove_filter(self._source, mirror)
        self._filter = None

    def _clean(self) -> None:
        has_copied = self.status is not JobStatus.CREATED and not self._taken_back
        try:
            if self._filter is not None and self._frozen and self._keeps_bits and has_copied:
                self._sync_target(self._filter)
            self._take_out()
        finally:
            self._thaw()

    def _sync_target(self, mirror: MirrorFilter) -> None:
        """Sync what the bitmap will say that the target has; the guest goes on, and what it writes now is marked."""
        self._copier.close()
        with drained(self._source):
            mirror.active = False
        if not flush_impatiently(self._target):
            mirror.mark(0, self._length)

    def _measure(self) -> None:
        found = self._filter
        left = found.remaining + max(0, self._length - self._scanned) if found is not None else 0
        self.length = self.offset + left


class ActiveCommitJob(MirrorJob):
    """Commits the guest's own layer: mirrors it into a base of its chain, which then takes its place.

    Args:
        settings: see :class:`JobSettings`.
        top: the guest's layer, or a filter on it.
        base: a node of the chain below.
        replaced: who closes the images that were committed.

    Raises:
        BlockError: ``base`` is not in the chain, or a node is in use.
    """

    type = "commit"

    def __init__(
        self, settings: JobSettings, top: BlockNode, base: BlockNode, *, replaced: Replaced = close_replaced
    ) -> None:
        chain = list(bottom_of_filters(top).chain())
        depth = next((depth for depth, layer in enumerate(chain) if layer is base), 0)
        if not depth:
            raise BlockError(f"'{base.name}' is not in this backing file chain", errno=errno.EINVAL)
        self._between = chain[:depth]
        self._committing = contextlib.ExitStack()
        self._reopened = False
        super().__init__(settings, top, base, MirrorSettings(sync=Sync.TOP, replaced=replaced))
        self._base = base

    def _blocked(self, how: MirrorSettings) -> list[BlockNode]:
        return [*self._between, self._target]

    def _own_nodes(self) -> Iterable[BlockNode]:
        return ()  # the guest reads the target too

    @property
    def _owns_zeroes(self) -> bool:
        return False

    def _attach(self) -> None:
        for layer in self._between:
            tell_of_change(layer)
        self._committing.enter_context(committing(self._between[-1]))
        if self._target.read_only:
            reopen(self._target, read_only=False)
            self._reopened = True
        grow(self._target, self._length)
        super()._attach()

    def _work(self) -> float | None:
        """A base may be longer: it keeps its end, as with an offline commit."""
        return self._step()

    def _clean(self) -> None:
        self._committing.close()
        super()._clean()
        failed = self.error is not None or self.status is JobStatus.CREATED
        if self._reopened and failed and not self._target.closed:
            end_writing(self._target)


def check_granularity(granularity: int) -> None:
    """Refuse bytes that differences cannot be recorded by; 0 leaves them to the job.

    Raises:
        BlockError: with QEMU's text.
    """
    if granularity and not _MIN_GRANULARITY <= granularity <= _MAX_GRANULARITY:
        raise BlockError("Parameter 'granularity' expects a value in range [512B, 64MB]", errno=errno.EINVAL)
    if granularity & (granularity - 1):
        raise BlockError("Parameter 'granularity' expects a power of 2", errno=errno.EINVAL)


def check_settings(how: MirrorSettings) -> None:
    """Refuse sizes that are out of their ranges.

    Raises:
        BlockError: with QEMU's text.
    """
    check_granularity(how.granularity)
    if how.buf_size < 0:
        raise BlockError("Invalid parameter 'buf-size'", errno=errno.EINVAL)


def _settle_bitmap(how: MirrorSettings) -> MirrorSettings:
    """Check what is said of a bitmap, in the words of backups."""
    if how.bitmap is None and how.bitmap_mode is None and how.sync not in (Sync.BITMAP, Sync.INCREMENTAL):
        return how
    backup = settle_bitmap(BackupSettings(BackupSync(how.sync.value), how.bitmap, how.bitmap_mode))
    return how._replace(sync=Sync(backup.sync.value), bitmap_mode=backup.bitmap_mode)


def check_distinct(source: BlockNode, target: BlockNode) -> None:
    """Refuse to copy a node to what shows the same bytes.

    Raises:
        BlockError: with QEMU's text.
    """
    if bottom_of_filters(source) is bottom_of_filters(target):
        raise BlockError("Can't mirror node into itself", errno=errno.EINVAL)


def check_replaced(source: BlockNode, replaced: BlockNode) -> None:
    """Refuse to replace a node whose content its parents would see change.

    Raises:
        BlockError: with QEMU's text.
    """
    reached = [source]
    for node in reached:
        if isinstance(node.driver, FilterDriver):
            reached += node.driver.children.values()
    if not any(node is replaced for node in reached):
        raise BlockError(
            f"Cannot replace '{replaced.name}' by a node mirrored from '{source.name}', because it cannot be "
            "guaranteed that doing so would not lead to an abrupt change of visible data",
            errno=errno.EINVAL,
        )
    if rounded_length(replaced) != rounded_length(source):
        raise BlockError("cannot replace image with a mirror image of different size", errno=errno.EINVAL)


def _awaits_backing(target: BlockNode, sync: Sync) -> bool:
    """Whether a target that stands on nothing is going to."""
    return hides_backing(target) or (sync is Sync.TOP and target.backing is None)


def _granularity(target: BlockNode) -> int:
    low, high = _DEFAULT_GRANULARITY
    return max(low, min(high, target.driver.info().cluster_size or high))

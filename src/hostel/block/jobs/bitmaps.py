"""The dirty bitmaps of a node: persistent ones, which its image keeps, and transient ones, which end with the node.

Transient bitmaps live in a filter that is put into the node when it gets the first one, so that writes to nodes without
bitmaps cost nothing.
"""

from __future__ import annotations

import abc
import contextlib
import errno
import os
import threading
from collections.abc import Iterator, Mapping
from typing import Any, Final, Self

from hostel.block.bitmap import DirtyBitmap
from hostel.block.chain import rounded_length
from hostel.block.draining import drained
from hostel.block.driver import FilterDriver, OpenMode
from hostel.block.node import BlockNode
from hostel.block.powers import BitmapStore, Preallocation
from hostel.block.rewiring import held_image, insert_filter, remove_filter, unfiltered
from hostel.errors import BlockError, ReadOnly, UnsupportedFeature
from hostel.units import KiB

_MIN_GRANULARITY: Final = 512
_DEFAULT_GRANULARITY: Final = (4 * KiB, 64 * KiB)


class RecordingBitmap(abc.ABC):
    """A bitmap of a node."""

    persistent = False

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    @abc.abstractmethod
    def busy(self) -> bool:
        """Whether a job or an export uses it; nobody else may change it."""

    @abc.abstractmethod
    def hold(self, *, to_change: bool) -> None:
        """Have it for a job or an export, until it is thawed.

        Args:
            to_change: it will be written in the end: until then its image cannot be made read-only.
        """

    @abc.abstractmethod
    def thaw(self) -> None:
        """Whoever held it is done with it."""

    @property
    @abc.abstractmethod
    def bits(self) -> DirtyBitmap:
        """The bits, as they are at the moment."""

    @property
    @abc.abstractmethod
    def recording(self) -> bool:
        """Whether it records writes."""

    @property
    def inconsistent(self) -> bool:
        """Whether its bits were lost."""
        return False

    @abc.abstractmethod
    def set_recording(self, recording: bool) -> None:
        """Let it record or not."""

    @abc.abstractmethod
    def clear(self) -> None:
        """Set all bits to 0."""

    def ranges(self, offset: int, length: int, /) -> Iterator[tuple[int, int, bool]]:
        """What is dirty of a range at the moment; see :meth:`hostel.block.bitmap.DirtyBitmap.ranges`."""
        return self.bits.ranges(offset, length)

    @abc.abstractmethod
    def become(self, bits: DirtyBitmap) -> None:
        """Be dirty where bits of any granularity are, and nowhere else; where that fails it is as it was."""

    def mark_all(self) -> None:
        """Be dirty as a whole; where that fails it is as it was."""
        bits = self.bits.copy()
        bits.mark(0, bits.size)
        self.become(bits)

    def disown_stored(self) -> None:
        """Let nobody believe what an image has stored of it, until it stores it anew: after a kill it has no bits.

        Raises:
            BlockError: a job has it, it is inconsistent, or the image cannot be written.
        """
        self.require_free(to_change=True)

    def freeze(self, *, to_change: bool = True) -> DirtyBitmap:
        """A copy of the bits for a job, which has the bitmap for itself until it is thawed; it records on.

        Args:
            to_change: see :meth:`hold`.

        Raises:
            BlockError: another job has it, it is inconsistent, or its image cannot be written and it is to change.
        """
        self.require_free(to_change=to_change)
        bits = self.bits
        self.hold(to_change=to_change)
        return bits.copy()

    def require_free(self, *, to_change: bool = False) -> None:
        """Refuse what a job on the bitmap forbids or, where it is ``to_change``, an image that is only read.

        Raises:
            BlockError: EBUSY, or EROFS, with QEMU's text.
        """
        if self.busy:
            raise BlockError(
                f"Bitmap '{self.name}' is currently in use by another operation and cannot be used", errno=errno.EBUSY
            )

    def info(self) -> dict[str, Any]:
        """What ``query-block`` and ``query-named-block-nodes`` say."""
        found = {
            "name": self.name,
            "recording": self.recording and not self.inconsistent,
            "persistent": self.persistent,
            "busy": self.busy,
        }
        if self.inconsistent:
            return {**found, "count": 0, "granularity": self.granularity, "inconsistent": True}
        return {**found, "count": self.bits.count * self.granularity, "granularity": self.granularity}

    @property
    @abc.abstractmethod
    def granularity(self) -> int:
        """Bytes that one bit stands for."""


class TransientBitmap(RecordingBitmap):
    """Bits in memory.

    Args:
        lock: held while bits are changed.
    """

    def __init__(self, name: str, size: int, granularity: int, lock: threading.Lock, *, recording: bool) -> None:
        super().__init__(name)
        self._bits = DirtyBitmap(size, granularity)
        self._lock = lock
        self._recording = recording
        self._busy = False

    @property
    def busy(self) -> bool:
        """Whether a job or an export uses it."""
        return self._busy

    def hold(self, *, to_change: bool) -> None:
        """See :class:`RecordingBitmap`."""
        self._busy = True

    def thaw(self) -> None:
        """See :class:`RecordingBitmap`."""
        self._busy = False

    @property
    def bits(self) -> DirtyBitmap:
        """A copy: writers mark the bits meanwhile."""
        with self._lock:
            return self._bits.copy()

    @property
    def granularity(self) -> int:
        """Bytes that one bit stands for."""
        return self._bits.granularity

    @property
    def recording(self) -> bool:
        """Whether it records writes."""
        return self._recording

    def set_recording(self, recording: bool) -> None:
        """Let it record or not."""
        self._recording = recording

    def clear(self) -> None:
        """Set all bits to 0."""
        with self._lock:
            self._bits.clear()

    def become(self, bits: DirtyBitmap) -> None:
        """See :class:`RecordingBitmap`."""
        with self._lock:
            self._bits = bits.fitted(self._bits.size, self._bits.granularity)

    def mark(self, offset: int, length: int) -> None:
        """A range was written; with the lock held."""
        if self._recording:
            self._bits.mark(offset, min(length, self._bits.size - offset))

    def resize(self, size: int) -> None:
        """The node has another size now; with the lock held."""
        self._bits.resize(size)


class PersistentBitmap(RecordingBitmap):
    """A bitmap that an image keeps."""

    persistent = True

    def __init__(self, holder: BlockNode, name: str) -> None:
        self._holder = holder
        self.name = name
        self._held: dict[str, bool] = {}

    @property
    def _node(self) -> BlockNode:
        """Where the image is now: jobs put filters above it, and it moves."""
        return unfiltered(self._holder)

    @property
    def busy(self) -> bool:
        """Whether a job or an export uses it; the image knows, since each look-up makes a new object."""
        driver = self._node.driver
        return isinstance(driver, BitmapStore) and self.name in driver.busy_bitmaps

    def hold(self, *, to_change: bool) -> None:
        """See :class:`RecordingBitmap`."""
        with self._stored() as store:
            self._held = store.busy_bitmaps
        self._held[self.name] = to_change

    def thaw(self) -> None:
        """See :class:`RecordingBitmap`."""
        self._held.pop(self.name, None)  # of the image that it was, whatever the node has become meanwhile

    @contextlib.contextmanager
    def _stored(self) -> Iterator[BitmapStore]:
        """The image, with others held off."""
        with held_image(self._holder) as image, image.lock():
            assert isinstance(image.driver, BitmapStore)
            yield image.driver

    @property
    def bits(self) -> DirtyBitmap:
        """The bits."""
        with self._stored() as store:
            return store.bitmap(self.name)

    def _info(self) -> tuple[int, tuple[str, ...]]:
        with self._stored() as store:
            found = next(each for each in store.bitmaps() if each.name == self.name)
        return found.granularity, found.flags

    @property
    def granularity(self) -> int:
        """Bytes that one bit stands for."""
        return self._info()[0]

    @property
    def recording(self) -> bool:
        """Whether it records writes."""
        return "auto" in self._info()[1]

    @property
    def inconsistent(self) -> bool:
        """Whether it was not stored properly."""
        return "in-use" in self._info()[1]

    def require_free(self, *, to_change: bool = False) -> None:
        """See :class:`RecordingBitmap`."""
        super().require_free(to_change=to_change)
        if to_change and self._node.read_only:
            raise ReadOnly(f"Bitmap '{self.name}' is readonly and cannot be modified")

    def disown_stored(self) -> None:
        """Mark it as in use in the image."""
        super().disown_stored()
        with self._stored() as store:
            bits = store.bitmap(self.name)
            # Every change marks it before, one by nothing too.
            store.bitmap_merge(self.name, DirtyBitmap(bits.size, bits.granularity))

    def set_recording(self, recording: bool) -> None:
        """Let it record or not; where it does already there is nothing to be written into the image."""
        if self.recording == recording and not self.inconsistent:
            return
        with self._stored() as store:
            store.bitmap_enable(self.name, recording)

    def clear(self) -> None:
        """Set all bits to 0."""
        with self._stored() as store:
            store.bitmap_clear(self.name)

    def become(self, bits: DirtyBitmap) -> None:
        """See :class:`RecordingBitmap`."""
        with self._stored() as store:
            mine = store.bitmap(self.name)
            store.bitmap_replace(self.name, bits.fitted(mine.size, mine.granularity))


class TrackingDriver(FilterDriver):
    """Marks what was written in the node's transient bitmaps."""

    name = "dirty-bitmaps"
    implicit = True

    def __init__(self, child: BlockNode) -> None:
        super().__init__({"file": child})
        self.lock = threading.Lock()
        self.bitmaps: dict[str, TransientBitmap] = {}
        self._size = rounded_length(child)

    @classmethod
    def open(cls, children: Mapping[str, BlockNode], mode: OpenMode) -> Self:
        """Refuse: it comes and goes with the bitmaps."""
        raise UnsupportedFeature(f"Driver '{cls.name}' comes with the bitmaps that it serves")

    def pwrite(self, offset: int, data: memoryview) -> None:
        """Write, and mark."""
        try:
            self.child.pwrite(offset, data)
        finally:
            self._mark(offset, len(data))

    def write_zeroes(self, offset: int, length: int, *, unmap: bool) -> None:
        """Zero, and mark."""
        try:
            self.child.write_zeroes(offset, length, unmap=unmap)
        finally:
            self._mark(offset, length)

    def discard(self, offset: int, length: int) -> None:
        """Discard, and mark."""
        try:
            self.child.discard(offset, length)
        finally:
            self._mark(offset, length)

    def resize(self, size: int, preallocation: Preallocation) -> None:
        """Resize the child, and the bitmaps with it."""
        try:
            super().resize(size, preallocation)
        finally:
            with self.lock:
                self._follow()

    def _mark(self, offset: int, length: int) -> None:
        with self.lock:
            if offset + length > self._size:  # files grow by being written, and nodes while they are
                self._follow()
            for bitmap in self.bitmaps.values():
                bitmap.mark(offset, length)

    def _follow(self) -> None:
        """Let the bitmaps have the child's present size; with the lock held."""
        size = rounded_length(self.child)
        if size != self._size:
            self._size = size
            for bitmap in self.bitmaps.values():
                bitmap.resize(size)


def all_bitmaps(node: BlockNode) -> list[RecordingBitmap]:
    """All bitmaps of a node: transient ones first. What a filter lies on keeps its own."""
    found: list[RecordingBitmap] = [bitmap for tracking in _tracking(node) for bitmap in tracking.bitmaps.values()]
    keeper = unfiltered(node)
    if isinstance(keeper.driver, BitmapStore):
        with keeper.lock():
            found += [PersistentBitmap(node, each.name) for each in keeper.driver.bitmaps()]
    return found


def named_bitmap(node: BlockNode, name: str) -> RecordingBitmap | None:
    """A bitmap of a node; None where there is none of this name."""
    return next((bitmap for bitmap in all_bitmaps(node) if bitmap.name == name), None)


def find_bitmap(node: BlockNode, name: str) -> RecordingBitmap:
    """A bitmap of a node.

    Raises:
        BlockError: there is none of this name (ENOENT).
    """
    bitmap = named_bitmap(node, name)
    if bitmap is None:
        raise BlockError(f"Dirty bitmap '{name}' not found", errno=errno.ENOENT)
    return bitmap


def add_bitmap(
    node: BlockNode, name: str, granularity: int | None = None, *, persistent: bool = False, recording: bool = True
) -> RecordingBitmap:
    """Give a node a bitmap.

    Raises:
        BlockError: with QEMU's text.
    """
    if not name:
        raise BlockError("Bitmap name cannot be empty", errno=errno.EINVAL)
    if granularity is not None and (granularity < _MIN_GRANULARITY or granularity & (granularity - 1)):
        raise BlockError("Granularity must be power of 2 and at least 512", errno=errno.EINVAL)
    if named_bitmap(node, name) is not None:
        raise BlockError(f"Bitmap already exists: {name}", errno=errno.EEXIST)
    keeper = unfiltered(node)
    low, high = _DEFAULT_GRANULARITY
    chosen = granularity or max(low, min(high, keeper.driver.info().cluster_size or high))
    if persistent:
        if not isinstance(keeper.driver, BitmapStore):
            raise BlockError(
                f"Can't store persistent bitmaps to {node.name}: {os.strerror(errno.ENOTSUP)}", errno=errno.ENOTSUP
            )
        with keeper.lock():
            keeper.driver.bitmap_add(name, chosen, enabled=recording)
        return PersistentBitmap(node, name)
    with drained(node):
        tracking = next(_tracking(node), None)
        if tracking is None:
            insert_filter(node, TrackingDriver)
            assert isinstance(node.driver, TrackingDriver)
            tracking = node.driver
        bitmap = TransientBitmap(name, rounded_length(node), chosen, tracking.lock, recording=recording)
        with tracking.lock:
            tracking.bitmaps[name] = bitmap
    return bitmap


def remove_bitmap(node: BlockNode, name: str) -> None:
    """Drop a bitmap, an inconsistent one as well.

    Raises:
        BlockError: there is none of this name, a job uses it, or its image is only read.
    """
    bitmap = find_bitmap(node, name)
    bitmap.require_free(to_change=True)
    if bitmap.persistent:
        keeper = unfiltered(node)
        assert isinstance(keeper.driver, BitmapStore)
        with keeper.lock():
            keeper.driver.bitmap_remove(name)
        return
    for tracking in list(_tracking(node)):
        with tracking.lock:
            tracking.bitmaps.pop(name, None)
        if not tracking.bitmaps:
            remove_filter(node, tracking)


def _tracking(node: BlockNode) -> Iterator[TrackingDriver]:
    below: BlockNode | None = node
    while below is not None and isinstance(below.driver, FilterDriver) and below.driver.implicit:
        if isinstance(below.driver, TrackingDriver):
            yield below.driver
        below = below.driver.child

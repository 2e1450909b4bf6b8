"""The filter that tells a mirror what the guest writes, or writes it to the target too."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Self

from hostel.block.bitmap import DirtyBitmap
from hostel.block.chain import rounded_length
from hostel.block.driver import FilterDriver, OpenMode
from hostel.block.jobs.ranges import Ranges
from hostel.block.node import BlockNode
from hostel.errors import UnsupportedFeature


class MirrorFilter(FilterDriver):
    """Passes everything on, and marks what was written once it was, whether or not that succeeded.

    Args:
        child: the node below.
        target: where to.
        granularity: bytes; those that are copied together.
        whole: bytes; what does not write all of so many is left to the copy, even where ``active``: the target would
            fill the rest of a cluster with something else.

    Attributes:
        active: what the guest writes is written to the target before the guest is told that it is done; what the
            target refuses is marked.
        failure: the first refusal since it was last looked at.
        ranges: what is being copied, or written in both places.
    """

    name = "mirror_top"
    implicit = True

    def __init__(self, child: BlockNode, target: BlockNode, granularity: int, whole: int = 1) -> None:
        super().__init__({"file": child})
        self.active = False
        self.failure: OSError | None = None
        self.ranges = Ranges()
        self._target, self._whole = target, whole
        self._dirty = DirtyBitmap(rounded_length(child), granularity)
        self._lock = threading.Lock()

    @classmethod
    def open(cls, children: Mapping[str, BlockNode], mode: OpenMode) -> Self:
        """Refuse: only a job puts it in."""
        raise UnsupportedFeature(f"Driver '{cls.name}' is only used by block jobs")

    # ---- what is to be copied

    def mark(self, offset: int, length: int) -> None:
        """A range is to be copied."""
        with self._lock:
            self._dirty.mark(offset, min(length, self._dirty.size - offset))

    def take(self, start: int, length: int) -> tuple[int, int] | None:
        """The first range from ``start`` on that is to be copied, at most ``length`` bytes: where from, where to."""
        with self._lock:
            for offset, size, dirty in self._dirty.ranges(start, self._dirty.size - start):
                if dirty:
                    unit = self._dirty.granularity
                    begin = offset - offset % unit
                    return begin, min(offset + size, begin + max(length, unit))
        return None

    def unmark(self, start: int, end: int) -> None:
        """A range is about to be copied: what is written from now on is marked anew."""
        with self._lock:
            self._dirty.unmark(start, end - start)

    @property
    def remaining(self) -> int:
        """Bytes that are to be copied."""
        with self._lock:
            return min(self._dirty.count * self._dirty.granularity, self._dirty.size)

    def differing(self) -> DirtyBitmap:
        """A copy of the bits of what is to be copied."""
        with self._lock:
            return DirtyBitmap(self._dirty.size, self._dirty.granularity, self._dirty.bits)

    @property
    def is_clean(self) -> bool:
        """Whether nothing is to be copied."""
        with self._lock:
            return not any(self._dirty.bits)

    # ---- what the guest does

    def pwrite(self, offset: int, data: memoryview) -> None:
        """Write."""
        self._do(offset, len(data), lambda node: node.pwrite(offset, data))

    def write_zeroes(self, offset: int, length: int, *, unmap: bool) -> None:
        """Zero."""
        self._do(offset, length, lambda node: node.write_zeroes(offset, length, unmap=unmap))

    def discard(self, offset: int, length: int) -> None:
        """Discard; what the source reads as then is for the copy to find out, since the target may differ in it."""
        try:
            self.child.discard(offset, length)
        finally:
            self.mark(offset, length)

    def _do(self, offset: int, length: int, write: Callable[[BlockNode], None]) -> None:
        if not self.active or (offset | length) % self._whole:
            try:
                write(self.child)
            finally:
                self.mark(offset, length)
            return
        with self.ranges.hold(offset, offset + length):
            try:
                write(self.child)
            except BaseException:
                self.mark(offset, length)
                raise
            try:
                write(self._target)
            except OSError as error:
                self.mark(offset, length)
                self.failure = self.failure or error

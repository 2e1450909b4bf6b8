"""How a mirror copies a range: alone, or with a second thread.

With two, one reads while the other writes; both write where the target takes several writes, as raw files do, or
tells a write's steps apart, as qcow2 does (:mod:`hostel.block.filling`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import NamedTuple

from hostel.block.extent import Status
from hostel.block.jobs.companion import Companion
from hostel.block.jobs.copying import copy_data, first_extent, write_own_zeroes, write_zeroes
from hostel.block.jobs.mirror_filter import MirrorFilter
from hostel.block.node import BlockNode


class How(NamedTuple):
    """How ranges are copied.

    Attributes:
        chunk: bytes that are read and written at once.
        unmap: zeroes give space back in the target.
        own: zeroes are recorded in the target itself, since what it stands on is, or will be, another image.
    """

    chunk: int
    unmap: bool
    own: bool


class MirrorCopy:
    """Copies what the filter has marked.

    Args:
        mirror: the filter; a range's mark goes before it is read, and comes back where it is not copied.
        source: the node below the filter.
        target: where to.
        how: see :class:`How`.
    """

    def __init__(self, mirror: MirrorFilter, source: BlockNode, target: BlockNode, how: How) -> None:
        self._mirror, self._source, self._target, self._how = mirror, source, target, how
        self._companion = Companion()

    def close(self) -> None:
        """End the second thread."""
        self._companion.close()

    def alone(self, start: int, stop: int) -> None:
        """Copy a range.

        Raises:
            SourceError: a read failed; the range is marked again.
            TargetError: a write failed; likewise.
        """
        mirror = self._mirror
        with mirror.ranges.hold(start, stop):
            mirror.unmark(start, stop)
            try:
                for offset, length, status in self._extents(start, stop):
                    if not status & Status.ZERO:
                        copy_data(self._source, self._target, offset, length)
                    elif self._how.own:
                        write_own_zeroes(self._target, offset, length)
                    else:
                        write_zeroes(self._target, offset, length, unmap=self._how.unmap)
            except BaseException:
                mirror.mark(start, stop - start)
                raise

    def paired(self, start: int, stop: int, done: Callable[[int], None]) -> None:
        """Copy a range in chunks, of which each of two threads takes the next.

        Args:
            start: bytes.
            stop: likewise.
            done: told of each chunk's bytes, one call at a time; by either thread.

        Raises:
            SourceError: a read failed; what is not copied is marked.
            TargetError: a write failed; likewise.
        """
        size = self._how.chunk
        starts = iter(range(start, stop, size))
        lock = threading.Lock()

        def copy() -> None:
            while True:
                with lock:
                    low = next(starts, stop)
                if low == stop:
                    return
                high = min(stop, low + size)
                self.alone(low, high)
                with lock:
                    done(high - low)

        self._companion.run(copy, copy)

    def _extents(self, start: int, stop: int) -> Iterator[tuple[int, int, Status]]:
        """The parts of a range: zeroes, or no more than a chunk to be read."""
        while start < stop:
            extent = first_extent(self._source, start, stop)
            length = extent.length if extent.status & Status.ZERO else min(extent.length, self._how.chunk)
            yield start, length, extent.status
            start += length

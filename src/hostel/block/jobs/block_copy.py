"""The content of a node at one moment, kept while the node is written: copied to a target before it is overwritten.

What is not copied yet is still in the source. So a reader of that moment's content looks there for what has its bit
set, and in the target for the rest.
"""

from __future__ import annotations

import errno
import threading
from typing import Final

from hostel.block.bitmap import DirtyBitmap
from hostel.block.chain import ChainExtent, block_status, held, rounded_length
from hostel.block.extent import Status
from hostel.block.jobs.copying import CHUNK, copy_data, first_extent, next_extent, write_own_zeroes, write_zeroes
from hostel.block.jobs.policy import SourceError
from hostel.block.jobs.ranges import Ranges
from hostel.block.node import BlockNode
from hostel.block.powers import Compressing
from hostel.errors import BlockError
from hostel.units import KiB

MIN_UNIT: Final = 64 * KiB


def copy_unit(target: BlockNode) -> int:
    """Bytes that are copied together: whole clusters of the target, so that none must be filled up from elsewhere."""
    return max(MIN_UNIT, target.driver.info().cluster_size or 0)


class BlockCopy:
    """What of a node's content is still to be copied.

    Args:
        source: the node below the filter that the guest writes through.
        target: as long as the source.
        unit: bytes; a power of two.
        top: leave out what the overlay itself does not have.
        compress: store what is copied compressed.

    Attributes:
        broken: why this is no longer the content of one moment; None while it is.
        skipped: bytes that turned out not to be the overlay's own, where only those are copied.
    """

    def __init__(
        self, source: BlockNode, target: BlockNode, unit: int, *, top: bool = False, compress: bool = False
    ) -> None:
        self.source = source
        self.target = target
        self.unit = unit
        self.broken: OSError | None = None
        self.skipped = 0
        self._top = top
        self._is_part = top  # of what is read where the target is put on an image that has the rest
        self._base = source.backing if top else None
        self._compress = compress and isinstance(target.driver, Compressing)
        self._left = DirtyBitmap(rounded_length(source), unit)
        self._kept: DirtyBitmap | None = None
        self._lock = threading.Lock()
        self._ranges = Ranges()

    @property
    def length(self) -> int:
        """Bytes of the source, in whole sectors."""
        return self._left.size

    def choose(self, chosen: DirtyBitmap | None) -> None:
        """Say what is to be copied: what is dirty in a bitmap of any granularity, or everything."""
        with self._lock:
            if chosen is None:
                self._left.mark(0, self._left.size)
                return
            self._is_part = True
            self._left.merge(chosen)
            self._kept = DirtyBitmap(self._left.size, self.unit, self._left.bits)

    @property
    def remaining(self) -> int:
        """Bytes that are still to be copied, in whole units."""
        with self._lock:
            return min(self._left.count * self.unit, self._left.size)

    def remaining_bits(self) -> DirtyBitmap:
        """A copy of the bits of what is still to be copied."""
        with self._lock:
            return DirtyBitmap(self._left.size, self.unit, self._left.bits)

    def next_range(self, start: int) -> tuple[int, int] | None:
        """The first range from ``start`` on that is to be copied: where from, where to; None where there is none."""
        with self._lock:
            for offset, length, dirty in self._left.ranges(start, self._left.size - start):
                if dirty:
                    return offset, offset + length
        return None

    def step_end(self, start: int, end: int) -> int:
        """Where a step that begins at ``start`` ends: after a bit of data, or after all that needs no reading.

        Raises:
            SourceError: metadata cannot be read.
        """
        extent = next_extent(self.source, start, end, self._base, lambda extent: bool(extent.status & Status.DATA))
        if not extent.status & Status.DATA and extent.end - start >= CHUNK:
            return extent.end if extent.end == end else extent.end - extent.end % self.unit
        return min(end, start + max(CHUNK, self.unit))

    def copy(self, start: int, end: int) -> int:
        """Copy what of a range is to be copied, in whole units; how many bytes that were.

        Raises:
            SourceError: a read failed. What was not copied is still to be.
            TargetError: a write failed; likewise.
        """
        start -= start % self.unit
        end = min(self.length, -(-end // self.unit) * self.unit)
        if not self._is_left(start, end):
            # What was copied is past; what somebody is copying right now still has its bits.
            return 0
        done = 0
        with self._ranges.hold(start, end):
            while (found := self._next_left(start, end)) is not None:
                low, high = found
                stop = self._copy_some(low, high)
                with self._lock:
                    self._left.unmark(low, stop - low)
                done += stop - low
                start = stop
        return done

    def _is_left(self, start: int, end: int) -> bool:
        return self._next_left(start, end) is not None

    def _next_left(self, start: int, end: int) -> tuple[int, int] | None:
        with self._lock:
            for offset, length, dirty in self._left.ranges(start, end - start):
                if dirty:
                    return offset, offset + length
        return None

    def _copy_some(self, start: int, end: int) -> int:
        """Copy the beginning of a range; where it ends, which is the end of a unit."""
        extent = first_extent(self.source, start, end, self._base)
        whole = self._whole(extent, end)
        if whole > start and not extent.status & Status.DATA:
            if extent.status & Status.ZERO and not self._is_others(extent):
                self._write_zeroes(start, whole - start)
            else:
                with self._lock:
                    self.skipped += whole - start
            return whole
        stop = self._end_of_own(start, min(end, start + max(CHUNK, self.unit)))
        if stop == start:
            stop = min(end, start + self.unit)
            with self._lock:
                self.skipped += stop - start
            return stop
        position = start
        while position < stop:
            # A unit is copied as a whole, with what is below the overlay: no part of it may show through the target's.
            extent = first_extent(self.source, position, stop, None)
            whole = self._whole(extent, stop)
            if self._compress and (extent.status & Status.DATA or whole <= position):
                whole = min(stop, -(-extent.end // self.unit) * self.unit)
                copy_data(self.source, self.target, position, whole - position, compress=True)
                position = whole
                continue
            length = whole - position if self._compress else extent.length
            if extent.status & Status.DATA:
                copy_data(self.source, self.target, position, length)
            elif extent.status & Status.ZERO:
                self._write_zeroes(position, length)
            position += length
        return stop

    def _end_of_own(self, start: int, stop: int) -> int:
        """Where the first unit begins of which nothing is to be copied since the overlay itself has nothing of it."""
        if not self._top:
            return stop
        end = start
        try:
            with held(self.source):
                for extent in block_status(self.source, start, stop - start, base=self._base):
                    if self._is_others(extent):
                        continue
                    if extent.offset >= end + self.unit:
                        break
                    end = -(-extent.end // self.unit) * self.unit
        except OSError as error:
            raise SourceError(error) from None
        return min(end, stop)

    def _whole(self, extent: ChainExtent, end: int) -> int:
        """Where the last unit ends that an extent covers; what follows on ``end`` is not asked for."""
        return extent.end if extent.end >= end else extent.end - extent.end % self.unit

    def _is_others(self, extent: ChainExtent) -> bool:
        """Whether a range is not to be copied since the overlay itself does not have it."""
        return self._top and not extent.status & Status.ALLOCATED

    def _write_zeroes(self, start: int, length: int) -> None:
        if self.target.backing is None and not self._is_part:
            write_zeroes(self.target, start, length)
        else:
            # An overlay of the source itself reads as zeroes here only until the source is written, and what has no
            # image below only until it is put on one.
            write_own_zeroes(self.target, start, length, unmap=True)

    # ---- reading the moment's content

    def read(self, offset: int, buf: memoryview) -> None:
        """Fill ``buf`` with what the source had.

        Raises:
            BlockError: EACCES, where the content is lost or was never to be kept.
        """
        end = offset + len(buf)
        low, high = offset - offset % self.unit, min(self.length, -(-end // self.unit) * self.unit)
        with self._ranges.hold(low, high):
            for start, stop, left in self._where(offset, end):
                part = buf[start - offset : stop - offset]
                (self.source if left else self.target).pread(start, part)

    def extents(self, offset: int, length: int) -> list[tuple[int, int, Status]]:
        """What is known of a range: offset, length, and whether it must be read or is zero."""
        end = offset + length
        low, high = offset - offset % self.unit, min(self.length, -(-end // self.unit) * self.unit)
        found = []
        with self._ranges.hold(low, high):
            for start, stop, left in self._where(offset, end):
                node = self.source if left else self.target
                with held(node):
                    for extent in block_status(node, start, stop - start):
                        status = extent.status & (Status.DATA | Status.ZERO)
                        found.append((extent.offset, extent.length, Status(status) | Status.ALLOCATED))
        return found

    def _where(self, offset: int, end: int) -> list[tuple[int, int, bool]]:
        if self.broken is not None:
            raise BlockError("The content of that moment is lost", errno=errno.EACCES)
        with self._lock:
            if self._kept is not None and any(not kept for _, _, kept in self._kept.ranges(offset, end - offset)):
                raise BlockError("That part of the content was not to be kept", errno=errno.EACCES)
            return [(low, low + size, left) for low, size, left in self._left.ranges(offset, end - offset)]

    def forget(self, offset: int, length: int) -> None:
        """Nobody will read a range of the moment's content any more: it need not be copied."""
        with self._lock:
            self._left.unmark(offset, length)
            if self._kept is None:
                self._kept = DirtyBitmap(self.length, self.unit)
                self._kept.mark(0, self.length)
            self._kept.unmark(offset, length)

"""Finding the zeroes in a buffer, so that a copy stays sparse (``-S`` of ``qemu-img convert``)."""

from __future__ import annotations

from hostel.units import SECTOR


class ZeroFinder:
    """Splits buffers into what must be written and what is zero.

    Buffers are looked at in blocks of ``granule`` bytes, aligned to the target. A byte of each block is sampled first:
    most blocks of real data are told from zeroes by that alone, in one pass of C code over the whole buffer.

    Args:
        granule: bytes of a block.
        min_zero: bytes: zeroes between two pieces of data are only left out where there are this many.
    """

    def __init__(self, granule: int = SECTOR, min_zero: int = 0) -> None:
        self._granule = granule
        self._min_zero = min_zero
        # memcmp behind startswith(); comparing two memoryviews goes item by item.
        self._zeroes = bytearray(granule)

    def is_zero(self, view: memoryview) -> bool:
        """Whether every byte is zero."""
        size = self._granule
        if len(view) != size and any(view[::size].tobytes()):
            return False
        return all(self._is_zero_block(view[start : start + size]) for start in range(0, len(view), size))

    def data_ranges(self, view: memoryview, offset: int) -> list[tuple[int, int]]:
        """The ranges of ``view`` that are not zero, as pairs of start and end; it lies at ``offset`` of the target."""
        length = len(view)
        ranges: list[tuple[int, int]] = []
        position = 0
        for start, end in self._zero_runs(view, -offset % self._granule):
            if start > position:
                self._append(ranges, position, start)
            position = end
        if position < length:
            self._append(ranges, position, length)
        return ranges

    def _append(self, ranges: list[tuple[int, int]], start: int, end: int) -> None:
        if ranges and start - ranges[-1][1] < self._min_zero:
            start = ranges.pop()[0]
        ranges.append((start, end))

    def _zero_runs(self, view: memoryview, head: int) -> list[tuple[int, int]]:
        """Runs of zero blocks; the first block has ``head`` bytes where that is not 0."""
        granule, length = self._granule, len(view)
        runs: list[tuple[int, int]] = []
        if head and self._is_zero_block(view[:head]):
            runs.append((0, min(head, length)))
        sample = view[head::granule].tobytes()
        index = sample.find(0)
        while index >= 0:
            start = head + index * granule
            end = min(start + granule, length)
            if self._is_zero_block(view[start:end]):
                if runs and runs[-1][1] == start:
                    start = runs.pop()[0]
                runs.append((start, end))
            index = sample.find(0, index + 1)
        return runs

    def _is_zero_block(self, view: memoryview) -> bool:
        return self._zeroes.startswith(view)

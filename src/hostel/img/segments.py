"""What a copy has to do, from metadata alone: segments of the sources, gathered into windows of work."""

from __future__ import annotations

import enum
import errno
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from hostel.block.chain import ChainExtent, block_status, rounded_length
from hostel.block.driver import Supports
from hostel.block.extent import Status
from hostel.block.node import BlockNode
from hostel.units import SECTOR


class Kind(enum.Enum):
    """What a segment is for the target."""

    DATA = "data"  # must be read
    ZERO = "zero"
    BACKING = "backing"  # left to the target's backing file


class Segment(NamedTuple):
    """A range of the target and where its bytes come from.

    Attributes:
        offset: bytes from the start of the target.
        length: bytes; never 0.
        node: what to read; None where there are only zeroes.
        source_offset: bytes from the start of ``node``.
        computed: the bytes are stored compressed or encrypted in ``node``.
    """

    offset: int
    length: int
    kind: Kind
    node: BlockNode | None = None
    source_offset: int = 0
    computed: bool = False

    @property
    def end(self) -> int:
        """The first byte after it."""
        return self.offset + self.length

    def part(self, start: int, end: int) -> Segment:
        """The part between two offsets of the target."""
        source_offset = self.source_offset + start - self.offset
        return Segment(start, end - start, self.kind, self.node, source_offset, self.computed)


class Window(NamedTuple):
    """One piece of work: neighbouring segments that are read, or skipped, or zeroed, together.

    Attributes:
        offset: bytes from the start of the target.
        length: bytes.
        kind: DATA where at least one segment is.
    """

    offset: int
    length: int
    kind: Kind
    segments: Sequence[Segment]

    @property
    def end(self) -> int:
        """The first byte after it."""
        return self.offset + self.length

    def steps(self, size: int) -> Iterator[Window]:
        """The window in parts of at most ``size`` bytes; only of one segment."""
        (segment,) = self.segments
        for start in range(self.offset, self.end, size):
            part = segment.part(start, min(start + size, self.end))
            yield Window(part.offset, part.length, self.kind, (part,))


Warn = Callable[[str], None]


def source_segments(
    sources: Sequence[BlockNode],
    *,
    base: BlockNode | None = None,
    backing_end: int | None = None,
    salvage: Warn | None = None,
) -> Iterator[Segment]:
    """The segments of the sources one after another.

    Args:
        sources: what is copied; a source that ends within a sector is filled up with zeroes.
        base: a node of the only source's chain: what it decides is left to the target's backing file.
        backing_end: where the target's backing file ends: beyond it the target reads as zeroes by itself.
        salvage: where metadata cannot be read, call this with a line for each sector, and take it for data.
    """
    start = 0
    for source in sources:
        length = source.length
        walk = block_status(source, 0, length, base=base) if salvage is None else _salvaged(source, base, salvage)
        for extent in walk:
            segment = _segment(extent, start, source)
            if segment.kind is Kind.ZERO and backing_end is not None and segment.end > backing_end:
                if segment.offset < backing_end:
                    yield segment.part(segment.offset, backing_end)
                beyond = max(segment.offset, backing_end)
                yield Segment(beyond, segment.end - beyond, Kind.BACKING, source, beyond - start)
            else:
                yield segment
        rounded = rounded_length(source)
        if rounded > length:
            yield Segment(start + length, rounded - length, Kind.ZERO)
        start += rounded


def _salvaged(source: BlockNode, base: BlockNode | None, warn: Warn) -> Iterator[ChainExtent]:
    """Block status that goes on after a failure: ever shorter ranges are tried, down to the sector that is lost."""
    offset, step = 0, source.length
    while offset < source.length:
        length = min(step, source.length - offset)
        try:
            for extent in block_status(source, offset, length, base=base):
                yield extent
                offset = extent.end
            step = source.length
        except OSError as error:
            if length > SECTOR:
                step = -(-length // (4 * SECTOR)) * SECTOR
                continue
            reason = os.strerror(error.errno or errno.EIO)
            warn(f"error while reading block status at offset {offset}: {reason}")
            yield ChainExtent(offset, length, Status.DATA | Status.ALLOCATED, source, 0)
            offset, step = offset + length, source.length


def _segment(extent: ChainExtent, start: int, source: BlockNode) -> Segment:
    offset, length, status, layer, _, host_offset, _ = extent
    if status & Status.ZERO:
        return Segment(start + offset, length, Kind.ZERO)
    if not status & Status.DATA:
        return Segment(start + offset, length, Kind.BACKING, source, offset)
    direct = extent.direct
    if host_offset is not None and direct is not None:
        # Straight from the file below: no table is looked up twice, and no lock of the format driver is held.
        return Segment(start + offset, length, Kind.DATA, direct, host_offset)
    computed = bool(status & Status.COMPRESSED or layer.driver.supports & Supports.COMPUTES)
    return Segment(start + offset, length, Kind.DATA, layer, offset, computed)


def windows(segments: Iterable[Segment], cell: int, size: int, *, whole_cells: bool) -> Iterator[Window]:
    """Gather segments into windows.

    Args:
        segments: in order and without gaps, from offset 0.
        cell: bytes that are written together: the target's cluster. A cell with any data is all of it data.
        size: the most bytes of a window of data, a multiple of ``cell``; windows end at its multiples.
        whole_cells: also a cell that mixes zeroes with what is left to the backing file is data.
    """
    run: list[Segment] = []  # of cells with data, since the last multiple of size
    for cells in _cells(segments, cell):
        kinds = {segment.kind for segment in cells}
        if Kind.DATA in kinds or (whole_cells and len(kinds) > 1):
            for segment in cells:
                yield from _cut(run, segment, size)
            continue
        if run:
            yield _window(run)
        if len(kinds) == 1:  # one window, even where the metadata tells several pieces apart
            cells = [cells[0]._replace(length=cells[-1].end - cells[0].offset)]
        for segment in cells:
            yield Window(segment.offset, segment.length, segment.kind, (segment,))
    if run:
        yield _window(run)


def _cut(run: list[Segment], segment: Segment, size: int) -> Iterator[Window]:
    """Add a segment to a run, and yield the windows that it completes."""
    offset = segment.offset
    while offset < segment.end:
        end = min(segment.end, offset - offset % size + size)
        run.append(segment if end - offset == segment.length else segment.part(offset, end))
        if end % size == 0:
            yield _window(run)
        offset = end


def _window(run: list[Segment]) -> Window:
    """A window of data from a run, which is emptied."""
    window = Window(run[0].offset, run[-1].end - run[0].offset, Kind.DATA, tuple(run))
    run.clear()
    return window


def _cells(segments: Iterable[Segment], cell: int) -> Iterator[list[Segment]]:
    """Split segments where cells end: a lone segment of whole cells, or all segments of one cell."""
    mixed: list[Segment] = []
    for segment in segments:
        offset, end = segment.offset, segment.end
        if mixed:
            stop = min(end, offset - offset % cell + cell)
            mixed.append(segment.part(offset, stop))
            offset = stop
            if offset % cell == 0:
                yield mixed
                mixed = []
        whole = end - end % cell
        if offset < whole:
            yield [segment.part(offset, whole)]
            offset = whole
        if offset < end:
            mixed.append(segment.part(offset, end))
    if mixed:
        yield mixed

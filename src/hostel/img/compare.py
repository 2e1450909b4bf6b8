"""Compare the content of two images, reading only what metadata leaves open."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from hostel.block.chain import ChainExtent, block_status, paired, rounded_length
from hostel.block.extent import Status
from hostel.block.node import BlockNode
from hostel.cause import beyond_errno
from hostel.errors import BlockError
from hostel.img.sparse import ZeroFinder
from hostel.img.team import Team, portions, worker_count
from hostel.units import SECTOR, MiB

_CHUNK: Final = 2 * MiB  # read at once; QEMU's buffer has this size too
_WORKERS: Final = 2  # reading is all there is to do

_SECTORS: Final = ZeroFinder()

Progress = Callable[[int, int], None]


class CompareError(BlockError):
    """An image could not be looked at.

    Attributes:
        reading: data could not be read, rather than metadata.
    """

    def __init__(self, message: str, cause: OSError, *, reading: bool) -> None:
        super().__init__(message, errno=cause.errno, hint=beyond_errno(cause))
        self.reading = reading


class Difference(NamedTuple):
    """Where two images differ.

    Attributes:
        offset: bytes: of the first 512-byte sector that differs, or of the first range of different status.
        is_status: the content may be the same, but not how it is allocated (strict comparison only).
    """

    offset: int
    is_status: bool = False


class _Found(Exception):
    """Stops the team: a difference was found."""

    def __init__(self, difference: Difference) -> None:
        super().__init__()
        self.difference = difference


class _Chunk(NamedTuple):
    """A range to compare, and what to read for it: a node and an offset, or no node where there are only zeroes.

    Attributes:
        has_other_status: that it differs is known; it is the last one, told once all before it are equal.
    """

    offset: int
    length: int
    first: tuple[BlockNode | None, int]
    second: tuple[BlockNode | None, int]
    has_other_status: bool = False


def compare(first: BlockNode, second: BlockNode, *, strict: bool = False) -> Difference | None:
    """The first difference between two images; None where there is none.

    A longer image is the same as a shorter one where it has only zeroes beyond it, unless ``strict``; the strict
    comparison also wants the same allocation.

    Raises:
        CompareError: an image could not be looked at.
    """
    lengths = rounded_length(first), rounded_length(second)
    if strict and lengths[0] != lengths[1]:
        return Difference(min(lengths), is_status=True)
    return first_difference(first, second, strict=strict) or first_data(longer(first, second), min(lengths))


def longer(first: BlockNode, second: BlockNode) -> BlockNode:
    """The longer of two images."""
    return first if rounded_length(first) > rounded_length(second) else second


def first_difference(
    first: BlockNode, second: BlockNode, *, strict: bool = False, progress: Progress | None = None
) -> Difference | None:
    """The first difference up to the end of the shorter image.

    Raises:
        CompareError: an image could not be looked at.
    """
    end = min(rounded_length(first), rounded_length(second))
    return _Comparison(first, second, progress).run(_chunks(first, second, end, strict=strict), end)


def first_data(node: BlockNode, start: int, *, progress: Progress | None = None) -> Difference | None:
    """The first data from ``start`` on, which is where another, shorter image ends.

    Raises:
        CompareError: the image could not be looked at.
    """
    return _Comparison(node, node, progress).run(_chunks_beyond(node, start), rounded_length(node))


class _Comparison:
    """A team that compares chunks."""

    def __init__(self, first: BlockNode, second: BlockNode, progress: Progress | None) -> None:
        self._names = first.filename, second.filename
        self._nodes = first, second
        self._total = max(rounded_length(first), rounded_length(second))
        self._progress = progress
        self._reached = 0

    def run(self, chunks: Iterator[_Chunk], end: int) -> Difference | None:
        """Compare chunks; ``end`` is how far both are known once all of them are equal, for the progress."""
        team = Team(self._portions(chunks), self._nodes, _buffers, lambda: self._compare_all)
        try:
            team.run_unordered(worker_count(_WORKERS) if self._total > _CHUNK else 1)
        except _Found as found:
            return found.difference
        self._report(end)
        return None

    def _portions(self, chunks: Iterator[_Chunk]) -> Iterator[list[_Chunk]]:
        for portion in portions(chunks, _CHUNK, lambda chunk: chunk.length):
            self._report(portion[-1].offset + portion[-1].length)
            yield portion

    def _report(self, place: int) -> None:
        if self._progress is not None and place > self._reached:
            self._reached = place
            self._progress(place, self._total)

    def _compare_all(self, portion: list[_Chunk], buffers: tuple[bytearray, bytearray]) -> None:
        for chunk in portion:
            self._compare(chunk, *buffers)

    def _compare(self, chunk: _Chunk, first: bytearray, second: bytearray) -> None:
        if chunk.has_other_status:
            raise _Found(Difference(chunk.offset, is_status=True))
        with memoryview(first) as one, memoryview(second) as other:
            for index, (node, offset), view in ((0, chunk.first, one), (1, chunk.second, other)):
                if node is not None:
                    self._read(index, node, offset, chunk.offset, view[: chunk.length])
            if chunk.first[0] is not None and chunk.second[0] is not None:
                # memcmp behind startswith(); comparing two memoryviews goes item by item.
                if first.startswith(other[: chunk.length]):
                    return
                raise _Found(Difference(chunk.offset + _first_difference(first, other[: chunk.length])))
            view = one if chunk.first[0] is not None else other
            ranges = _SECTORS.data_ranges(view[: chunk.length], chunk.offset)
            if ranges:
                raise _Found(Difference(chunk.offset + ranges[0][0]))

    def _read(self, index: int, node: BlockNode, offset: int, place: int, view: memoryview) -> None:
        try:
            node.pread(offset, view)
        except OSError as error:
            reason = os.strerror(error.errno or errno.EIO)
            message = f"Error while reading offset {place} of {self._names[index]}: {reason}"
            raise CompareError(message, error, reading=True) from None


def _buffers() -> tuple[bytearray, bytearray]:
    return bytearray(_CHUNK), bytearray(_CHUNK)


def _first_difference(first: bytearray, second: memoryview) -> int:
    """The start of the first sector that differs: there is one."""
    start, end = 0, len(second)
    while end - start > SECTOR:
        middle = start + (end - start) // 2 // SECTOR * SECTOR
        middle = middle if middle > start else start + SECTOR
        if first.startswith(second[start:middle], start):
            start = middle
        else:
            end = middle
    return start


def _chunks(first: BlockNode, second: BlockNode, end: int, *, strict: bool) -> Iterator[_Chunk]:
    """What has to be read of two images up to ``end``; stops at a difference of status where that counts."""
    for offset, stop, one, other in paired(_walk(first, 0, end), _walk(second, 0, end)):
        if strict and _strict_status(one, end) != _strict_status(other, end):
            yield _Chunk(offset, 0, (None, 0), (None, 0), has_other_status=True)
            return
        if one.status & other.status & Status.ZERO:
            continue
        for start in range(offset, stop, _CHUNK):
            length = min(_CHUNK, stop - start)
            yield _Chunk(start, length, _side(one, start), _side(other, start))


def _chunks_beyond(node: BlockNode, offset: int) -> Iterator[_Chunk]:
    for extent in _walk(node, offset, rounded_length(node)):
        if not extent.status & Status.ZERO:
            for start in range(extent.offset, extent.end, _CHUNK):
                yield _Chunk(start, min(_CHUNK, extent.end - start), _side(extent, start), (None, 0))


def _walk(node: BlockNode, start: int, end: int) -> Iterator[ChainExtent]:
    """Block status from ``start`` to ``end``, which may lie in the sector in which the node ends."""
    try:
        yield from block_status(node, start, min(end, node.length) - start)
    except OSError as error:
        message = f"Sector allocation test failed for {node.filename}"
        raise CompareError(message, error, reading=False) from None
    if end > node.length:
        yield ChainExtent(node.length, end - node.length, Status.ZERO, node, 0)


def _side(extent: ChainExtent, offset: int) -> tuple[BlockNode | None, int]:
    """What to read from ``offset`` of an extent on."""
    if extent.status & Status.ZERO:
        return None, 0
    direct = extent.direct
    if extent.host_offset is not None and direct is not None:
        return direct, extent.host_offset + offset - extent.offset
    return extent.layer, offset


def _strict_status(extent: ChainExtent, end: int) -> tuple[int, bool, bool]:
    """What the strict comparison looks at: QEMU counts among it whether the range goes on to the image's end."""
    flags = extent.status & (Status.DATA | Status.ZERO | Status.ALLOCATED)
    return flags, extent.host_offset is not None, extent.end == end

"""Meta contexts: what BLOCK_STATUS can be asked about an export."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from hostel.block.chain import block_status, length_in_file
from hostel.block.extent import Status
from hostel.block.node import BlockNode
from hostel.wire.nbd import protocol

# A length in bytes, and the context's flags.
Described = tuple[int, int]


class MetaContext(Protocol):
    """One kind of information about ranges.

    Attributes:
        name: as clients ask for it, with its namespace.
    """

    name: str

    def extents(self, offset: int, length: int) -> Iterator[Described]:
        """Lengths and flags that cover the range; neighbours may be alike."""


class Bits(Protocol):
    """What a bitmap knows, at the moment at which it is asked."""

    def ranges(self, offset: int, length: int, /) -> Iterator[tuple[int, int, bool]]:
        """The ranges of a range, in order and without gaps: offset, length, whether it is dirty."""


class BaseAllocation:
    """``base:allocation``: holes and zeroes, through the whole backing chain.

    Args:
        node: the image.
        block: bytes; extents are of multiples of it.
    """

    name = protocol.BASE_ALLOCATION

    def __init__(self, node: BlockNode, block: int = 1) -> None:
        self._node = node
        self._block = block

    def extents(self, offset: int, length: int) -> Iterator[Described]:
        """See :class:`MetaContext`."""
        found = self._extents(offset, length)
        return found if self._block == 1 else _in_blocks(found, self._block, operator.and_)

    def _extents(self, offset: int, length: int) -> Iterator[Described]:
        for extent in block_status(self._node, offset, length):
            flags = 0 if extent.status & Status.DATA else protocol.STATE_HOLE
            if extent.status & Status.ZERO:
                flags |= protocol.STATE_ZERO
            inside = extent.length if flags or self._block > 1 else length_in_file(extent)
            if inside:
                yield inside, flags
            if inside < extent.length:
                yield extent.length - inside, protocol.STATE_HOLE | protocol.STATE_ZERO


def _in_blocks(found: Iterable[Described], block: int, join: Callable[[int, int], int]) -> Iterator[Described]:
    """The same in whole blocks; what is told of one of several kinds is what ``join`` makes of their flags."""
    begun, common = 0, 0
    for length, flags in found:
        if begun:
            part = min(length, block - begun)
            begun, common, length = begun + part, join(common, flags), length - part
            if begun < block:
                continue
            yield block, common
        begun, common = length % block, flags
        if length > begun:
            yield length - begun, flags
    if begun:
        yield begun, common


class AllocationDepth:
    """``qemu:allocation-depth``: which image of the backing chain decides, from 1 on; 0 where none does."""

    name = protocol.ALLOCATION_DEPTH

    def __init__(self, node: BlockNode) -> None:
        self._node = node

    def extents(self, offset: int, length: int) -> Iterator[Described]:
        """See :class:`MetaContext`."""
        for extent in block_status(self._node, offset, length):
            yield extent.length, extent.depth + 1 if extent.status & Status.ALLOCATED else 0


class BitmapContext:
    """``qemu:dirty-bitmap:NAME``: what a bitmap calls dirty; of a part of a block, all of it.

    Args:
        name: the bitmap's.
        bitmap: what it knows.
        block: bytes; extents are of multiples of it.
    """

    def __init__(self, name: str, bitmap: Bits, block: int = 1) -> None:
        self.name = protocol.DIRTY_BITMAP + name
        self._bitmap = bitmap
        self._block = block

    def extents(self, offset: int, length: int) -> Iterator[Described]:
        """See :class:`MetaContext`."""
        found = self._extents(offset, length)
        return found if self._block == 1 else _in_blocks(found, self._block, operator.or_)

    def _extents(self, offset: int, length: int) -> Iterator[Described]:
        for _, size, dirty in self._bitmap.ranges(offset, length):
            yield size, protocol.STATE_DIRTY if dirty else 0


def gather(extents: Iterable[Described], *, most: int, longest: int) -> list[Described]:
    """Join neighbours of the same flags, and stop after ``most`` of them.

    Args:
        extents: what a context says.
        most: how many to give.
        longest: bytes of the longest that a reply can hold.
    """
    found: list[Described] = []
    for length, flags in extents:
        if found and found[-1][1] == flags and found[-1][0] + length <= longest:
            found[-1] = (found[-1][0] + length, flags)
        elif len(found) == most:
            break
        else:
            found.append((length, flags))
    return found

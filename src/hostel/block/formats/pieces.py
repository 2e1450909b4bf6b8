"""Tables of an image that are looked at whole, read past the holes that the host's file has in them."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import Final

from hostel.block.extent import Status
from hostel.block.node import BlockNode
from hostel.codec.table import unpack_table
from hostel.units import MiB

_PIECE: Final = MiB // 2  # bytes read at once


def pieces(file: BlockNode, offset: int, length: int, typecode: str, order: str) -> Iterator[tuple[int, array[int]]]:
    """A table's entries as they are on the disk, in bounded memory: all but some zeroes.

    Args:
        file: what it lies in.
        offset: where, bytes.
        length: bytes, of whole entries.
        typecode: of one entry, as in :mod:`array`.
        order: of an entry's bytes.

    Yields:
        Where a piece lies, bytes, and its entries.

    Raises:
        OSError: it cannot be read.
    """
    width = array(typecode).itemsize
    for extent in file.extents(offset, length):
        if extent.status & Status.ZERO:
            continue
        start = extent.offset - (extent.offset - offset) % width
        end = extent.end + (offset - extent.end) % width
        for place in range(start, end, _PIECE):
            yield place, unpack_table(file.read(place, min(_PIECE, end - place)), typecode, order)

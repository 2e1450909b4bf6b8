"""Big tables of integers on disk: L1 and L2 tables, block allocation tables, refcounts.

A table in memory is an ``array``: 8 bytes an entry, and a whole table changes its byte order in one call.
"""

from __future__ import annotations

import sys
from array import array

_SWAP_BIG = sys.byteorder == "little"


def unpack_table(data: bytes | bytearray | memoryview, typecode: str = "Q") -> array[int]:
    """Read big-endian entries; ``typecode`` as in :mod:`array` (``Q`` 64 bits, ``I`` 32, ``H`` 16, ``B`` 8)."""
    table = array(typecode)
    table.frombytes(data)
    if _SWAP_BIG and table.itemsize > 1:
        table.byteswap()
    return table


def pack_table(table: array[int]) -> bytes:
    """Write entries as big-endian bytes."""
    if not _SWAP_BIG or table.itemsize == 1:
        return table.tobytes()
    swapped = table[:]
    swapped.byteswap()
    return swapped.tobytes()


def zero_table(entries: int, typecode: str = "Q") -> array[int]:
    """A table of zeroes."""
    return array(typecode, bytes(entries * array(typecode).itemsize))

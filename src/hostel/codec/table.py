"""Big tables of integers on disk: L1 and L2 tables, block allocation tables, refcounts.

A table in memory is an ``array``: 8 bytes an entry, and a whole table changes its byte order in one call.
"""

from __future__ import annotations

import sys
from array import array


def unpack_table(data: bytes | bytearray | memoryview, typecode: str = "Q", order: str = "big") -> array[int]:
    """Read entries of the byte order ``order``.

    ``typecode`` as in :mod:`array` (``Q`` 64 bits, ``I`` 32, ``H`` 16, ``B`` 8).
    """
    table = array(typecode)
    table.frombytes(data)
    if order != sys.byteorder and table.itemsize > 1:
        table.byteswap()
    return table


def pack_table(table: array[int], order: str = "big") -> bytes:
    """Write entries as bytes of the byte order ``order``."""
    if order == sys.byteorder or table.itemsize == 1:
        return table.tobytes()
    swapped = table[:]
    swapped.byteswap()
    return swapped.tobytes()


def zero_table(entries: int, typecode: str = "Q") -> array[int]:
    """A table of zeroes."""
    return array(typecode, bytes(entries * array(typecode).itemsize))

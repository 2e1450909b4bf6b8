"""Big tables of integers on disk: L1 and L2 tables, block allocation tables, refcounts.

A table in memory is an ``array``: 8 bytes an entry, and a whole table changes its byte order in one call.
"""

from __future__ import annotations

import sys
from array import array
from typing import Final

_CHUNK: Final = 4096  # entries compared at once
_FIRST: Final = 64  # entries, where they may soon be others


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


def drop_zeroes_at_end(table: array[int]) -> None:
    """Shorten a table to its last entry that is not 0."""
    used = len(table.tobytes().rstrip(b"\0"))
    del table[-(-used // table.itemsize) :]


def equal_entries(table: array[int], index: int, end: int) -> int:
    """The index after the entries that equal the one at ``index``, at most ``end``."""
    one = table[index : index + 1]
    if not one[0]:
        return _after_zeroes(table, index, end)
    index += 1
    step, growing = 1, True
    # Ever longer stretches at once while they are equal, then ever shorter ones down to the entry that is not.
    while step and index < end:
        step = min(step, end - index)
        if table[index : index + step] == one * step:
            index += step
            step = min(step * 2, _CHUNK) if growing else step
        else:
            growing = False
            step //= 2
    return index


def _after_zeroes(table: array[int], index: int, end: int) -> int:
    """The index after the entries from ``index`` on that are 0: most of a table is, so that this is done by bytes."""
    step = _FIRST
    while index < end:
        step = min(step, end - index)
        rest = table[index : index + step].tobytes().lstrip(b"\0")
        if rest:
            return index + step - -(-len(rest) // table.itemsize)
        index += step
        step = min(step * 8, _CHUNK)
    return index

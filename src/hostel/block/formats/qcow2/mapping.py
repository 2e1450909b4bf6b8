"""From guest to host: the runs of an image ("Cluster mapping" in the qcow2 specification)."""

from __future__ import annotations

import enum
from array import array
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

from hostel.block.formats.qcow2 import layout

if TYPE_CHECKING:
    from hostel.block.formats.qcow2.image import Qcow2Image


class Kind(enum.IntEnum):
    """What a cluster is."""

    UNALLOCATED = 0
    ZERO = 1
    DATA = 2
    COMPRESSED = 3


class Run(NamedTuple):
    """Neighbouring guest bytes of one kind.

    Attributes:
        offset: guest offset, bytes.
        length: bytes; never 0.
        host: of DATA, and of ZERO that is preallocated, the host offset in bytes; of COMPRESSED the L2 entry; else 0.
    """

    offset: int
    length: int
    kind: Kind
    host: int


def classify(entry: int) -> Kind:
    """What a standard L2 entry says."""
    if entry & layout.COMPRESSED:
        return Kind.COMPRESSED
    if entry & layout.ZERO:
        return Kind.ZERO
    return Kind.DATA if entry & layout.OFFSET_MASK else Kind.UNALLOCATED


def runs(image: Qcow2Image, offset: int, length: int) -> Iterator[Run]:
    """The runs of a guest range, in order and without gaps. A run ends with its L2 table at the latest.

    Raises:
        CorruptImage: an entry makes no sense.
        OSError: a table cannot be read.
    """
    geometry = image.geometry
    reach = geometry.l2_reach
    end = offset + length
    while offset < end:
        l1_index = offset // reach
        table = image.l2_entries(l1_index)
        if table is None:
            stop = min(end, image.next_l2(l1_index + 1) * reach)
            yield Run(offset, stop - offset, Kind.UNALLOCATED, 0)
        else:
            stop = min(end, (l1_index + 1) * reach)
            yield from _table_runs(image, table, l1_index, offset, stop)
        offset = stop


def _table_runs(image: Qcow2Image, table: array[int], l1_index: int, offset: int, end: int) -> Iterator[Run]:
    bits = image.geometry.cluster_bits
    base = l1_index * image.geometry.l2_reach
    last = (end - 1 - base) >> bits
    index = (offset - base) >> bits
    while index <= last:
        entry = table[index]
        kind = classify(entry)
        host = entry & layout.OFFSET_MASK
        if kind is Kind.COMPRESSED:
            next_index, host = index + 1, entry
        elif host:
            if kind is Kind.ZERO or entry & image.suspicious:
                image.validate_entry(entry, l1_index, index)
            next_index = _same_run(table, index, last, host, entry & layout.ZERO, 1 << bits)
            host += (offset - base) & ((1 << bits) - 1)
        else:
            if entry:
                image.validate_entry(entry, l1_index, index)
            next_index = equal_entries(table, index, last + 1)
        stop = min(end, base + (next_index << bits))
        yield Run(offset, stop - offset, kind, host)
        offset, index = stop, next_index


def _same_run(table: array[int], index: int, last: int, host: int, zero: int, step: int) -> int:
    """The index after the neighbours that lie one after the other on the host."""
    index += 1
    expected = (host + step) | zero
    while index <= last and table[index] & ~layout.COPIED == expected:
        index += 1
        expected += step
    return index


_CHUNK: Final = 512


def equal_entries(table: array[int], index: int, end: int) -> int:
    """The index after the entries that equal the one at ``index``, at most ``end``."""
    value = table[index]
    index += 1
    while index < end and table[index] == value:
        index += 1
        if end - index >= _CHUNK:
            same = array("Q", [value]) * _CHUNK
            while end - index >= _CHUNK and table[index : index + _CHUNK] == same:
                index += _CHUNK
    return index

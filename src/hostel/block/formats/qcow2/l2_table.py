"""An L2 table in memory ("L2 table entry", "Extended L2 Entries" in the qcow2 specification)."""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Iterable
from typing import Self

from hostel.block.formats.qcow2.geometry import Geometry
from hostel.codec.table import pack_table, unpack_table, zero_table


class L2Table:
    """An L2 table.

    Attributes:
        offset: host offset, bytes.
        entries: the descriptor of each cluster.
        bitmaps: the subclusters of each cluster; None where the entries are not extended.
        low: the first entry that differs from the disk.
        high: one after the last that differs.
    """

    __slots__ = ("bitmaps", "entries", "high", "low", "offset")

    def __init__(self, offset: int, entries: array[int], bitmaps: array[int] | None) -> None:
        self.offset = offset
        self.entries = entries
        self.bitmaps = bitmaps
        self.low = len(entries)
        self.high = 0

    @classmethod
    def unpack(cls, offset: int, data: bytes | bytearray, geometry: Geometry) -> Self:
        """A table as it lies on disk."""
        words = unpack_table(data)
        return cls(offset, words[0::2], words[1::2]) if geometry.extended else cls(offset, words, None)

    @classmethod
    def empty(cls, offset: int, geometry: Geometry) -> Self:
        """A table of zeroes."""
        entries = geometry.l2_entries
        return cls(offset, zero_table(entries), zero_table(entries) if geometry.extended else None)

    def copy(self, offset: int) -> L2Table:
        """The same content, to lie elsewhere."""
        return L2Table(offset, self.entries[:], None if self.bitmaps is None else self.bitmaps[:])

    def pack(self, low: int = 0, high: int | None = None) -> bytes:
        """Entries ``low`` to ``high`` as they lie on disk."""
        entries = self.entries[low:high]
        if self.bitmaps is None:
            return pack_table(entries)
        words = zero_table(2 * len(entries))
        words[0::2], words[1::2] = entries, self.bitmaps[low:high]
        return pack_table(words)

    def touch(self, low: int, high: int) -> None:
        """Entries ``low`` to ``high`` changed."""
        self.low = min(self.low, low)
        self.high = max(self.high, high)

    def clean(self) -> None:
        """The disk has the same now."""
        self.low, self.high = len(self.entries), 0

    def pairs(self, low: int, high: int) -> Iterable[tuple[int, int]]:
        """Descriptors with their bitmaps, 0 where there are none."""
        bitmaps = itertools.repeat(0) if self.bitmaps is None else self.bitmaps[low:high]
        return zip(self.entries[low:high], bitmaps, strict=False)

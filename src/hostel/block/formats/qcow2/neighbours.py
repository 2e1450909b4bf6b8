"""Entries of an L2 table whose clusters lie one after the other on the host, found many at once."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterator

from hostel.block.formats.qcow2 import layout
from hostel.block.formats.qcow2.geometry import Geometry
from hostel.codec.table import equal_entries


class Neighbours:
    """Looks for them in the tables of one geometry.

    A table is taken as one large integer of 64-bit digits. Less the digits 0, 1, 2 … clusters, neighbours are equal.
    """

    def __init__(self, geometry: Geometry) -> None:
        entries, step = geometry.l2_entries, geometry.cluster_size
        self._entries = entries
        self._ones = _integer(array("Q", [1]) * entries)
        self._ramp = _integer(array("Q", range(0, entries * step, step)))
        # Set in each digit, so that none borrows from another; the flag counts for nothing here.
        self._copied = self._ones * layout.COPIED
        self._places = self._ones * layout.OFFSET_MASK
        self._special = self._ones * (layout.COMPRESSED | layout.OFFSET_MASK & step - 1)

    def runs(self, entries: array[int]) -> Iterator[tuple[int, int]]:
        """What a whole table refers to: an entry, and how many neighbours on the host there are from its cluster on.

        The order is that of the host, unless there are compressed clusters or corrupt entries: then that of the table.
        """
        digits = _integer(entries)
        if self._is_run(entries[0], digits):
            yield entries[0], len(entries)
            return
        if not digits & self._special:
            entries = array("Q", sorted(self._table(digits & self._places)))
        for index, end in self.find(entries):
            yield entries[index], end - index

    def find(self, entries: array[int]) -> Iterator[tuple[int, int]]:
        """The entries of a whole table that refer to host clusters, in order.

        Yields:
            The index of an entry, and the one after the last of its neighbours: entries that follow on it in the table
            as their clusters do on the host, with the same flags but for COPIED. A compressed cluster has none.
        """
        digits = _integer(entries)
        if self._is_run(entries[0], digits):
            yield 0, len(entries)
            return
        levels = self._table((digits | self._copied) - self._ramp)
        index = 0
        while index < len(entries):
            entry = entries[index]
            end = index + 1
            if not entry & layout.COMPRESSED:
                alike = levels if _has_place(entry) else entries
                if end < len(entries) and alike[end] == alike[index]:
                    end = equal_entries(alike, index, len(entries))
            if entry & (layout.COMPRESSED | layout.OFFSET_MASK):
                yield index, end
            index = end

    def _is_run(self, first: int, digits: int) -> bool:
        """Whether all entries of a table are neighbours of the first one."""
        return _has_place(first) and (digits | self._copied) - self._ramp == (first | layout.COPIED) * self._ones

    def _table(self, digits: int) -> array[int]:
        return array("Q", digits.to_bytes(self._entries * 8, sys.byteorder))


def _integer(table: array[int]) -> int:
    return int.from_bytes(table, sys.byteorder)


def _has_place(entry: int) -> bool:
    return bool(entry & layout.OFFSET_MASK) and not entry & layout.COMPRESSED

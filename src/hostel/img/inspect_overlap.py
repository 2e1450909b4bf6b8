"""Where a qcow2 image's tables lie, and which of them lie on another: what is written to one would change the other."""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections.abc import Iterable
from typing import NamedTuple

from hostel.block.formats.qcow2.geometry import Geometry
from hostel.img.inspection import Level, Look


class _Place(NamedTuple):
    start: int  # bytes, as is the end
    end: int
    what: str


class Places:
    """The tables of an image, in whole clusters; no cluster of a sound image belongs to two of them.

    Args:
        geometry: the image's.
    """

    def __init__(self, geometry: Geometry) -> None:
        self._geometry = geometry
        self._places = [_Place(0, geometry.cluster_size, "header")]

    def add(self, what: str, offset: int, length: int) -> None:
        """A table of ``length`` bytes lies at a host offset; one of no bytes lies nowhere."""
        if length:
            end = offset + self._geometry.clusters(length) * self._geometry.cluster_size
            self._places.append(_Place(offset, end, what))

    def judge(self, look: Look, tables: Iterable[int]) -> None:
        """Report the first two tables that lie on each other.

        Args:
            look: where to.
            tables: host offsets of the L2 tables that the L1 table names, 0 for none.
        """
        for before, after in itertools.pairwise(sorted(self._places)):
            if before.end > after.start:
                _report(look, f"The {after.what} and the {before.what} lie on each other, at byte {after.start}")
                return
        found = sorted(filter(None, tables))
        for place in self._places:
            first = bisect_left(found, place.start)
            if first < len(found) and found[first] < place.end:
                _report(look, f"The L2 table at byte {found[first]} lies on the {place.what}")
                return
        for table, following in itertools.pairwise(found):
            if table == following:
                _report(look, f"The L1 table names the L2 table at byte {table} more than once")
                return


def _report(look: Look, message: str) -> None:
    look.add(Level.UNSAFE, "overlap", message)

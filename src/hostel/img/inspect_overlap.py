"""Where a qcow2 image's tables lie, and which of them lie on another: what is written to one would change the other."""

from __future__ import annotations

import heapq
import itertools
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from hostel.block.formats.qcow2.geometry import Geometry
from hostel.img.inspect_places import Owned
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

    def all(self, tables: Iterable[int], blocks: Iterable[int]) -> Iterator[Owned]:
        """All metadata, the smallest first: these, the L2 tables and refcount blocks at host offsets."""
        size = self._geometry.cluster_size
        own = sorted((Owned(*each) for each in self._places), key=Owned.length)
        l2 = (Owned(table, table + size, f"L2 table at byte {table}") for table in tables)
        refcounts = (Owned(block, block + size, f"refcount block at byte {block}") for block in blocks)
        return heapq.merge(own, l2, refcounts, key=Owned.length)

    def judge(self, look: Look, tables: Iterable[int], blocks: Iterable[int]) -> bool:
        """Report the first two tables that lie on each other; whether there are none.

        Args:
            look: where to.
            tables: host offsets of the L2 tables that the L1 table names, 0 for none.
            blocks: host offsets of the refcount blocks.
        """
        for before, after in itertools.pairwise(sorted(self._places)):
            if before.end > after.start:
                return _report(look, f"The {after.what} and the {before.what} lie on each other, at byte {after.start}")
        for what, owner, named in (("L2 table", "L1 table", tables), ("refcount block", "refcount table", blocks)):
            found = sorted(filter(None, named))
            for place in self._places:
                first = bisect_left(found, place.start)
                if first < len(found) and found[first] < place.end:
                    return _report(look, f"The {what} at byte {found[first]} lies on the {place.what}")
            for one, following in itertools.pairwise(found):
                if one == following:
                    return _report(look, f"The {owner} names the {what} at byte {one} more than once")
        if shared := set(filter(None, tables)).intersection(blocks):
            return _report(look, f"The L2 table at byte {min(shared)} lies on a refcount block")
        return True


def _report(look: Look, message: str) -> bool:
    look.add(Level.UNSAFE, "overlap", message)
    return False

"""Where metadata lies, so that nothing else is ever written there (QEMU's ``qcow2_check_metadata_overlap``)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence, Set
from typing import TYPE_CHECKING, Final

from hostel.block.formats.qcow2.geometry import Geometry

if TYPE_CHECKING:
    from hostel.block.formats.qcow2.snapshot_table import Snapshot

_FEW: Final = 64


class MetadataMap:
    """The clusters of an image's metadata.

    Attributes:
        ranges: QEMU's name of a part to its first cluster and number of clusters.
        tables: clusters of active L2 tables.
        blocks: clusters of refcount blocks.
        inactive: clusters of snapshots' L1 tables.
        inactive_tables: tells the clusters of snapshots' L2 tables, where they are looked at too.
    """

    def __init__(self, geometry: Geometry) -> None:
        self._geometry = geometry
        self.ranges: dict[str, tuple[int, int]] = {"qcow2 header": (0, 1)}
        self.tables: set[int] = set()
        self.blocks: set[int] = set()
        self.inactive = Runs(())
        self.inactive_tables: Callable[[], Set[int]] = frozenset
        self._snapshots: dict[tuple[int, int], tuple[int, Runs]] = {}

    def place(self, name: str, offset: int, length: int) -> None:
        """A part lies at a host offset, in bytes; it is nowhere when ``length`` is 0."""
        if length:
            self.ranges[name] = (offset >> self._geometry.cluster_bits, self._geometry.clusters(length))
        else:
            self.ranges.pop(name, None)

    def expect_snapshots(self, offset: int, snapshots: Sequence[Snapshot], size: int) -> None:
        """A snapshot table of ``size`` bytes lies at a host offset, or will once the header points there."""
        bits, clusters = self._geometry.cluster_bits, self._geometry.clusters
        tables = Runs((each.l1_table_offset >> bits, clusters(each.l1_size * 8)) for each in snapshots)
        self._snapshots[offset, len(snapshots)] = size, tables

    def place_snapshots(self, offset: int, count: int) -> bool:
        """The header points to this snapshot table; whether it was expected, as one without snapshots always is."""
        known = self._snapshots.get((offset, count)) if count else (0, Runs(()))
        if known is None:
            return False
        size, self.inactive = known
        self.place("snapshot table", offset, size)
        self._snapshots = {(offset, count): known}
        return True

    def find(self, first: int, count: int, own: str = "") -> str | None:
        """What metadata is among ``count`` clusters from ``first`` on, ``own`` apart; None where there is none.

        Raises:
            InvalidImage: snapshots' L2 tables are looked at, and an L1 table of theirs is out of its limits.
        """
        end = first + count
        inactive_tables = self.inactive_tables()
        for name, (start, length) in self.ranges.items():
            if first < start + length and start < end:
                return name
        if self.inactive.overlap(first, end):
            return "inactive L1 table"
        for name, clusters in (
            ("active L2 table", self.tables),
            ("refcount block", self.blocks),
            ("inactive L2 table", inactive_tables),
        ):
            if name == own:
                continue
            if count == 1:
                if first in clusters:
                    return name
            elif count <= _FEW or count <= len(clusters):
                if clusters and not clusters.isdisjoint(range(first, end)):
                    return name
            elif any(first <= cluster < end for cluster in clusters):
                return name
        return None


class Runs:
    """Ranges of clusters, given as first and number, overlapping ones joined."""

    def __init__(self, runs: Iterable[tuple[int, int]]) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        for start, count in sorted(runs):
            if not count:
                continue
            if self._ends and start <= self._ends[-1]:
                self._ends[-1] = max(self._ends[-1], start + count)
            else:
                self._starts.append(start)
                self._ends.append(start + count)

    def overlap(self, first: int, end: int) -> bool:
        """Whether any cluster from ``first`` up to ``end`` is among them."""
        if not self._starts:
            return False
        from bisect import bisect_right

        before = bisect_right(self._starts, end - 1)
        return before > 0 and self._ends[before - 1] > first

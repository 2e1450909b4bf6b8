"""Where metadata lies, so that nothing else is ever written there (QEMU's ``qcow2_check_metadata_overlap``)."""

from __future__ import annotations

from typing import Final

from hostel.block.formats.qcow2.geometry import Geometry

_FEW: Final = 64


class MetadataMap:
    """The clusters of an image's metadata.

    Attributes:
        ranges: QEMU's name of a part to its first cluster and number of clusters.
        tables: clusters of active L2 tables.
        blocks: clusters of refcount blocks.
    """

    def __init__(self, geometry: Geometry) -> None:
        self._geometry = geometry
        self.ranges: dict[str, tuple[int, int]] = {"qcow2 header": (0, 1)}
        self.tables: set[int] = set()
        self.blocks: set[int] = set()

    def place(self, name: str, offset: int, length: int) -> None:
        """A part lies at a host offset, in bytes; it is nowhere when ``length`` is 0."""
        if length:
            self.ranges[name] = (offset >> self._geometry.cluster_bits, self._geometry.clusters(length))
        else:
            self.ranges.pop(name, None)

    def find(self, first: int, count: int) -> str | None:
        """What metadata is among ``count`` clusters from ``first`` on; None where there is none."""
        end = first + count
        for name, (start, length) in self.ranges.items():
            if first < start + length and start < end:
                return name
        for name, clusters in (("active L2 table", self.tables), ("refcount block", self.blocks)):
            if count <= _FEW or count <= len(clusters):
                if any(cluster in clusters for cluster in range(first, end)):
                    return name
            elif any(first <= cluster < end for cluster in clusters):
                return name
        return None

"""The least that the qcow2 check and snapshots need of an open image: everything is read and written at once."""

from __future__ import annotations

from array import array
from pathlib import Path
from typing import Self

from hostel.block.driver import CheckResult, OpenMode, Repair
from hostel.block.formats.qcow2 import check, header
from hostel.block.formats.qcow2.geometry import Geometry
from hostel.block.formats.qcow2.reference_count import DiskRefcounts
from hostel.block.node import BlockNode
from hostel.block.protocols.file import FileDriver
from hostel.codec.table import unpack_table
from hostel.errors import NoSpace


class WriteThroughRefcounts:
    """The allocator over refcount blocks that exist; it does not grow the refcount table."""

    def __init__(self, file: BlockNode, geometry: Geometry, table: list[int]) -> None:
        self._disk = DiskRefcounts(file, geometry, table)
        self._geometry = geometry
        self._limit = len([entry for entry in table if entry]) * geometry.block_entries

    def get(self, cluster_index: int) -> int:
        return self._disk.get(cluster_index)

    def update(self, first_cluster: int, count: int, delta: int) -> None:
        for cluster in range(first_cluster, first_cluster + count):
            block, slot = divmod(cluster, self._geometry.block_entries)
            self._disk.write(block, {slot: self._disk.get(cluster) + delta})

    def allocate(self, length_bytes: int) -> int:
        count = self._geometry.clusters(length_bytes)
        for first in range(self._limit - count):
            if not any(self.get(cluster) for cluster in range(first, first + count)):
                self.update(first, count, 1)
                return first << self._geometry.cluster_bits
        raise NoSpace("no free clusters")

    def free(self, host_offset: int, length: int) -> None:
        first = host_offset >> self._geometry.cluster_bits
        last = (host_offset + length - 1) >> self._geometry.cluster_bits
        self.update(first, last - first + 1, -1)


class Qcow2File:
    """An image file with its tables."""

    def __init__(self, path: Path, *, writable: bool = False) -> None:
        mode = OpenMode(read_only=not writable)
        self.file = BlockNode(FileDriver.open(str(path), mode), str(path), read_only=not writable)
        preamble = header.parse(bytes(self.file.read(0, 1 << 16)))
        self.header = preamble.header
        self.extensions = preamble.extensions
        self.geometry = Geometry.of(self.header)
        self.l1: array[int] = unpack_table(self.file.read(self.header.l1_table_offset, self.header.l1_size * 8))
        length = self.header.refcount_table_clusters << self.header.cluster_bits
        table = unpack_table(self.file.read(self.header.refcount_table_offset, length)).tolist()
        self.refcounts = WriteThroughRefcounts(self.file, self.geometry, table)
        self.l2_cache: dict[int, array[int]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()

    def flush_metadata(self) -> None:
        """Nothing is held back."""
        self.file.flush()


def check_file(path: Path, repair: Repair = Repair.NOTHING) -> tuple[CheckResult, list[str]]:
    """Check or repair an image file; returns the result and the lines reported."""
    lines: list[str] = []
    with Qcow2File(path, writable=bool(repair)) as image:
        return check.check_image(image, repair, lines.append), lines

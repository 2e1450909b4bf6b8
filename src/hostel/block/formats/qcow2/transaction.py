"""Changes that take effect with one write to the header.

Everything new (refcount blocks and their table, L1 and L2 tables, the snapshot table) is written to clusters that the
image on disk counts as free. Then one write of 48 bytes inside the first sector makes the header point to all of it. A
crash before that write leaves the old image, untouched; after it, the new one. Neither has so much as a leak.
"""

from __future__ import annotations

import contextlib
from array import array
from types import TracebackType
from typing import Self

from hostel.block.formats.qcow2.image import Qcow2Image
from hostel.codec.table import pack_table


class Transaction:
    """A context in which refcounts change in memory; left without :meth:`commit`, nothing has happened."""

    def __init__(self, image: Qcow2Image) -> None:
        self._image = image
        self._refcounts = image.refcounts
        self._committed = False
        self._table: array[int] = array("Q")

    def __enter__(self) -> Self:
        self._image.begin_write()
        self._image.flush_metadata()
        self._image.end_of_bytes = 0  # its cluster may be freed
        self._table = self._refcounts.begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._committed:
            self._refcounts.roll_back(self._table)

    def allocate(self, length: int) -> int:
        """Allocate clusters for ``length`` bytes that were free before as well; returns the host offset."""
        return self._image.allocate(length) if length else 0

    def write(self, offset: int, data: bytes) -> None:
        """Write what nothing on disk refers to yet; the last cluster is filled with zeroes."""
        geometry = self._image.geometry
        self._image.file.pwrite(offset, data.ljust(geometry.align(len(data)), b"\0"))

    def commit(self, **fields: int) -> None:
        """Write the refcounts, and make the header point to everything new by changing ``fields``.

        Raises:
            OSError: before the header was written nothing has happened; afterwards the image must be opened again.
        """
        image, refcounts = self._image, self._refcounts
        offset, clusters = self._relocate()
        for index, block in refcounts.blocks.items():
            if block.dirty:
                image.file.pwrite(refcounts.block_offset(index), refcounts.pack(block, 0, len(block.values)))
        if clusters:
            size = clusters << image.geometry.cluster_bits
            image.file.pwrite(offset, pack_table(refcounts.table).ljust(size, b"\0"))
            fields |= {"refcount_table_offset": offset, "refcount_table_clusters": clusters}
        image.file.flush()
        self._committed = True
        try:
            image.write_header_fields(image.header.replace(**fields), "size", "incompatible_features")
        finally:
            freed = refcounts.commit(offset, clusters)
        image.place_metadata()
        bits = image.geometry.cluster_bits
        for first, count in freed:
            # It is done; space that the host does not take back is no failure.
            with contextlib.suppress(OSError):
                image.file.discard(first << bits, count << bits)

    def _relocate(self) -> tuple[int, int]:
        """Find new places for all changed blocks and the table; returns the table's offset and clusters."""
        image, refcounts = self._image, self._refcounts
        size = image.geometry.cluster_size
        placed: set[int] = set()
        offset = clusters = 0
        while True:
            todo = [index for index, block in refcounts.blocks.items() if block.dirty and index not in placed]
            if not todo:
                needed = refcounts.capacity() * 8 // size
                if not placed or needed == clusters:
                    return offset, clusters
                if clusters:
                    refcounts.free(offset, clusters * size)
                else:
                    refcounts.free(refcounts.table_offset, refcounts.table_clusters * size)
                offset, clusters = refcounts.allocate(needed * size), needed
            for index in todo:
                placed.add(index)
                if index < len(self._table) and self._table[index]:
                    old = refcounts.block_offset(index)
                    refcounts.table[index] = refcounts.allocate(size)
                    refcounts.free(old, size)

"""Changes that take effect with one write to the header.

Everything new (refcount blocks and their table, L1 and L2 tables, the snapshot table) is written to clusters that the
image on disk counts as free. Then one write of 48 bytes inside the first sector makes the header point to all of it. A
crash before that write leaves the old image, untouched; after it, the new one. Neither has so much as a leak.

Tables that belong somewhere do not wander with each change: see :func:`in_place`.
"""

from __future__ import annotations

import contextlib
from array import array
from collections.abc import Collection
from types import TracebackType
from typing import Literal, Self

from hostel.block.formats.qcow2 import layout
from hostel.block.formats.qcow2.image import Qcow2Image
from hostel.codec.table import pack_table

# What lies somewhere: the active L1 table, the L2 table or refcount block of an index, the refcount table.
Part = tuple[Literal["L1 table", "L2 table", "refcount block", "refcount table"], int]


class Transaction:
    """A context in which refcounts change in memory; left without :meth:`commit`, nothing has happened.

    Args:
        image: open for writing.
        homes: free host ranges, offset and length in bytes, where parts shall lie.
        start: no place before this cluster is taken.
        whole: all refcount blocks move, and not only those that change.
    """

    def __init__(
        self,
        image: Qcow2Image,
        homes: dict[Part, tuple[int, int]] | None = None,
        *,
        start: int = 0,
        whole: bool = False,
    ) -> None:
        self._image = image
        self._refcounts = image.refcounts
        self._homes = homes or {}
        self._start = start
        self._whole = whole
        self._committed = False
        self._table: array[int] = array("Q")

    def __enter__(self) -> Self:
        self._image.begin_write()
        self._image.flush_metadata()
        self._image.end_of_bytes = 0  # its cluster may be freed
        self._table = self._refcounts.begin()
        for part, (offset, length) in list(self._homes.items()):
            if not self._image.space.claim(offset, length):
                del self._homes[part]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._committed:
            self._refcounts.roll_back(self._table)

    def allocate(self, length: int, part: Part | None = None) -> int:
        """Allocate clusters for ``length`` bytes that were free before as well; returns the host offset.

        They are those where ``part`` shall lie, if it has such a place and that is as large.
        """
        clusters = self._image.geometry.clusters
        offset, room = self._homes.pop(part, (0, 0)) if part else (0, 0)
        if room and clusters(room) == clusters(length):
            return offset
        if room:
            self._refcounts.free(offset, room)
        self._refcounts.skip(self._start)
        return self._image.space.allocate(length) if length else 0

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
        if self._whole:
            refcounts.touch_all()
        offset, clusters = self._relocate()
        for index, block in refcounts.blocks.items():
            if block.dirty:
                data = block.pack(0, len(block.values), image.geometry.refcount_bits)
                image.file.pwrite(refcounts.block_offset(index), data)
        if clusters:
            size = clusters << image.geometry.cluster_bits
            image.file.pwrite(offset, pack_table(refcounts.table).ljust(size, b"\0"))
            fields |= {"refcount_table_offset": offset, "refcount_table_clusters": clusters}
        image.file.flush()
        try:
            image.write_header_fields(image.header.replace(**fields), "size", "incompatible_features")
        except BaseException:
            # Where only the sync before it failed the header is what it was, and all is rolled back.
            self._committed = image.broken is not None
            if self._committed:
                refcounts.commit(offset, clusters)
            raise
        self._committed = True
        freed = refcounts.commit(offset, clusters)
        image.place_metadata()
        if self._start:
            return  # what was freed is about to be written again
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
                offset, clusters = self.allocate(needed * size, ("refcount table", 0)), needed
            for index in todo:
                placed.add(index)
                if index < len(self._table) and self._table[index]:
                    old = refcounts.block_offset(index)
                    refcounts.table[index] = self.allocate(size, ("refcount block", index))
                    refcounts.free(old, size)


def in_place(image: Qcow2Image, tables: Collection[int] = (), room: int = 0) -> Transaction:
    """A transaction that leaves the refcounts, their table and the active L1 table where they are.

    Nothing is changed where it is, so this takes two steps: here the image comes to consist of copies of these parts,
    at its end; the transaction that is returned writes what they shall be where they were, and gives the copies up.
    Between the two the image says what it said before.

    Args:
        image: open for writing.
        tables: L1 indexes of L2 tables that stay as well; nothing but the active L1 table refers to them.
        room: clusters that the transaction will allocate besides, for which there shall be room before the copies.

    Raises:
        OSError: the host's own errors; the image says what it said before.
    """
    image.begin_write()
    image.flush_metadata()
    geometry, refcounts, header = image.geometry, image.refcounts, image.header
    size = geometry.cluster_size
    homes: dict[Part, tuple[int, int]] = {
        ("refcount block", index): (refcounts.block_offset(index), size)
        for index, entry in enumerate(refcounts.table)
        if entry
    }
    homes["refcount table", 0] = refcounts.table_offset, refcounts.table_clusters * size
    homes |= {("L2 table", index): (image.l1[index] & layout.OFFSET_MASK, size) for index in tables}
    if image.l1:
        homes["L1 table", 0] = header.l1_table_offset, len(image.l1) * 8
    copies = sum(geometry.clusters(length) for _, length in homes.values())
    l1 = array("Q", image.l1)
    with Transaction(image, start=_behind(image, room, copies), whole=True) as transaction:
        for index in tables:
            old = l1[index] & layout.OFFSET_MASK
            l1[index] ^= old ^ transaction.allocate(size)
            transaction.write(l1[index] & layout.OFFSET_MASK, bytes(image.file.read(old, size)))
            refcounts.free(old, size)
        transaction.commit(**replace_l1(image, transaction, l1))
    adopt_l1(image, l1)
    return Transaction(image, homes, whole=True)


def _behind(image: Qcow2Image, room: int, copies: int) -> int:
    """The cluster ``room`` after the last one in use, unless copies there would need one more refcount block."""
    end, entries = image.refcounts.end(), image.geometry.block_entries
    return end + room if (end + room + copies) // entries == (end - 1) // entries else 0


def replace_l1(image: Qcow2Image, transaction: Transaction, l1: array[int]) -> dict[str, int]:
    """Write another active L1 table and free the present one; returns the header's fields."""
    if image.l1:
        image.refcounts.free(image.header.l1_table_offset, len(image.l1) * 8)
    offset = transaction.allocate(len(l1) * 8, ("L1 table", 0))
    transaction.write(offset, pack_table(l1))
    return {"l1_size": len(l1), "l1_table_offset": offset or image.header.l1_table_offset}


def adopt_l1(image: Qcow2Image, l1: array[int]) -> None:
    """The active L1 table is another one now."""
    image.l1 = l1
    image.tables.clear()
    image.place_metadata()

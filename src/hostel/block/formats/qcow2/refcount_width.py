"""Changing the width of refcounts.

All blocks and their table are written anew to clusters that the image on disk counts as free, and count the old ones as
free. Then one write inside the header's first sector changes table and width: cut off at any write, the image is the
old one or the new one, and neither has a leak.
"""

from __future__ import annotations

import contextlib
import errno
from array import array
from collections.abc import Callable
from typing import Final

from hostel.block.formats.qcow2 import layout
from hostel.block.formats.qcow2.geometry import Geometry
from hostel.block.formats.qcow2.image import Qcow2Image
from hostel.block.formats.qcow2.overlap import MetadataMap
from hostel.block.formats.qcow2.refcount_bytes import WIDE, pack_counts
from hostel.codec.table import pack_table
from hostel.errors import BlockError, NoSpace

Report = Callable[[int, int], None]
_WALKS: Final = 3  # over the refcounts: do they fit, where are new blocks needed, and writing them


def change_refcount_width(image: Qcow2Image, order: int, report: Report) -> None:
    """Give every refcount ``1 << order`` bits; the image is version 3.

    Args:
        image: open for writing.
        order: as in the header.
        report: told how far it is, of how much.

    Raises:
        BlockError: a refcount does not fit (EINVAL); the image is as it was.
        NoSpace: the new table would be larger than the format allows; the image is as it was.
        OSError: before the header was written the image is as it was; afterwards it must be opened again.
    """
    image.begin_write()
    image.flush_metadata()
    _Change(image, order, report).run()


class _Change:
    """One change of width."""

    def __init__(self, image: Qcow2Image, order: int, report: Report) -> None:
        self._image = image
        self._refcounts = image.refcounts
        self._header = image.header.replace(refcount_order=order)
        self._geometry = Geometry.of(self._header)
        self._report = report
        self._places: dict[int, int] = {}  # by index of a new block
        self._table_offset = self._table_clusters = 0

    def run(self) -> None:
        self._refuse_overflow()
        before = self._refcounts.begin()
        try:
            self._place()
            old = self._old_clusters()
            self._write(old)
            self._image.file.flush()
            self._write_header()
        except BaseException:
            if self._image.broken is None:  # else the header may be the new one
                self._refcounts.roll_back(before)
            raise
        self._adopt()
        bits = self._geometry.cluster_bits
        for cluster in old:
            # It is done; space that the host does not take back is no failure.
            with contextlib.suppress(OSError):
                if cluster << bits < self._image.file.length:
                    self._image.file.discard(cluster << bits, self._geometry.cluster_size)

    def _refuse_overflow(self) -> None:
        limit, entries = self._geometry.refcount_max, self._image.geometry.block_entries
        for index in range(len(self._refcounts.table)):
            self._report(index, len(self._refcounts.table) * _WALKS)
            values, wide = self._refcounts.counts(index * entries, entries)
            if max(values) <= min(limit, WIDE - 1):
                continue
            for slot, value in enumerate(values):
                count = wide[slot] if value == WIDE else value
                if count > limit:
                    offset = (index * entries + slot) << self._geometry.cluster_bits
                    raise BlockError(
                        f"Cannot decrease refcount entry width to {self._geometry.refcount_bits} bits: "
                        f"Cluster at offset {offset:#x} has a refcount of {count}",
                        errno=errno.EINVAL,
                    )

    def _place(self) -> None:
        """Allocate new blocks for all that is in use, and a table; both may need more blocks themselves."""
        size = self._geometry.cluster_size
        while True:
            placed = len(self._places)
            for index in self._in_use():
                if index not in self._places:
                    self._places[index] = self._image.space.allocate(size)
            clusters = self._geometry.clusters((max(self._places) + 1) * 8)
            if clusters * size > layout.MAX_REFTABLE_SIZE:
                raise NoSpace("The new refcount table would be larger than the format allows", errno=errno.EFBIG)
            if len(self._places) == placed and clusters == self._table_clusters:
                return
            if clusters != self._table_clusters:
                if self._table_clusters:
                    self._refcounts.free(self._table_offset, self._table_clusters * size)
                self._table_offset, self._table_clusters = self._image.space.allocate(clusters * size), clusters

    def _in_use(self) -> list[int]:
        """The indexes of the new blocks in whose range there is anything."""
        entries = self._geometry.block_entries
        found = []
        for index in range(-(-self._refcounts.end() // entries)):
            values, _ = self._refcounts.counts(index * entries, entries)
            if values.strip(b"\0"):
                found.append(index)
        return found

    def _old_clusters(self) -> list[int]:
        """The clusters of the present structure, in order."""
        bits, refcounts = self._geometry.cluster_bits, self._refcounts
        table = refcounts.table_offset >> bits
        found = [refcounts.block_offset(index) >> bits for index, entry in enumerate(refcounts.table) if entry]
        return sorted([*range(table, table + refcounts.table_clusters), *found])

    def _write(self, old: list[int]) -> None:
        """Write the new blocks, in which the old structure's clusters are free, and the new table."""
        image, entries = self._image, self._geometry.block_entries
        table = array("Q", bytes(self._table_clusters << self._geometry.cluster_bits))
        dropped: dict[int, list[int]] = {}
        for cluster in old:
            dropped.setdefault(cluster // entries, []).append(cluster % entries)
        for done, (index, offset) in enumerate(sorted(self._places.items())):
            self._report(len(self._places) * 2 + done, len(self._places) * _WALKS)
            values, wide = self._refcounts.counts(index * entries, entries)
            for slot in dropped.get(index, ()):
                values[slot] = 0
                wide.pop(slot, None)
            image.file.pwrite(offset, pack_counts(values, wide, self._geometry.refcount_bits))
            table[index] = offset
        image.file.pwrite(self._table_offset, pack_table(table))

    def _write_header(self) -> None:
        header = self._header.replace(
            refcount_table_offset=self._table_offset, refcount_table_clusters=self._table_clusters
        )
        self._image.write_header_fields(header, "refcount_table_offset", "header_length")

    def _adopt(self) -> None:
        image = self._image
        image.geometry = self._geometry
        image.map = MetadataMap(self._geometry)
        try:
            image.load_refcounts()
            image.place_metadata()
        except BaseException:
            # What is in memory are refcounts of the old width.
            image.broken = "its refcounts could not be read; open it again"
            raise

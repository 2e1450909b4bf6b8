"""Counts of references to clusters, for checking: one byte a cluster, in pages made when first needed.

A page covers what one refcount block covers, so that the counts and what the image says are compared page by page
at the speed of ``memcmp``. Bytes hold 0 to 254; 255 says that the count is in a dictionary beside.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import Final

from hostel.block.formats.qcow2.geometry import Geometry
from hostel.block.formats.qcow2.refcount_bytes import WIDE, has_above, pack_counts, unpack_refcounts
from hostel.block.node import BlockNode
from hostel.codec.table import pack_table

_INCREMENT: Final = bytes(min(value + 1, WIDE) for value in range(256))
_CACHE_LIMIT: Final = 48 << 20  # bytes of pages kept of the image's own refcounts


class ReferenceCounts:
    """How often each cluster is referenced."""

    def __init__(self, page_size: int) -> None:
        self.page_size = page_size
        self.pages: dict[int, bytearray] = {}
        self._wide: dict[int, int] = {}

    def __getitem__(self, cluster: int) -> int:
        page, slot = divmod(cluster, self.page_size)
        found = self.pages.get(page)
        if found is None:
            return 0
        value = found[slot]
        return self._wide[cluster] if value == WIDE else value

    def add(self, cluster: int, count: int, weight: int = 1) -> None:
        """Count ``weight`` references to each of ``count`` clusters."""
        while count > 0:
            index, slot = divmod(cluster, self.page_size)
            length = min(count, self.page_size - slot)
            page = self.pages.get(index)
            if page is None:
                page = self.pages[index] = bytearray(self.page_size)
            if length == 1 and page[slot] + weight < WIDE:
                page[slot] += weight
            else:
                self._add_run(page, index, slot, length, weight)
            cluster += length
            count -= length

    def _add_run(self, page: bytearray, index: int, slot: int, length: int, weight: int) -> None:
        part = page[slot : slot + length]
        if not has_above(part, WIDE - weight - 1):
            if weight == 1:
                page[slot : slot + length] = part.translate(_INCREMENT)
            else:
                page[slot : slot + length] = bytes(value + weight for value in part)
            return
        for at in range(slot, slot + length):
            cluster = index * self.page_size + at
            value = self[cluster] + weight
            page[at] = min(value, WIDE)
            if value >= WIDE:
                self._wide[cluster] = value

    def above(self, limit: int) -> Iterator[tuple[int, int]]:
        """Clusters referenced more than ``limit`` times, with their counts."""
        for index in sorted(self.pages):
            page = self.pages[index]
            if not has_above(page, limit):
                continue
            for slot, value in enumerate(page):
                if value > limit or value == WIDE:
                    cluster = index * self.page_size + slot
                    if self[cluster] > limit:
                        yield cluster, self[cluster]

    def end(self) -> int:
        """One more than the last referenced cluster."""
        for index in sorted(self.pages, reverse=True):
            used = len(self.pages[index].rstrip(b"\0"))
            if used:
                return index * self.page_size + used
        return 0

    def allocate(self, count: int, start: int) -> int:
        """Find the first ``count`` free neighbours from cluster ``start`` on, and count them once."""
        wanted = bytes(count)
        index, slot = divmod(start, self.page_size)
        found = -1
        while found < 0:
            # A run may cross into the next pages: look at as many as it can touch.
            reach = 1 + (slot + count) // self.page_size
            window = b"".join(bytes(self.pages.get(index + ahead, b"")) or self._empty() for ahead in range(reach))
            found = window.find(wanted, slot)
            if found >= 0:
                break
            index, slot = index + 1, 0
        first = index * self.page_size + found
        self.add(first, count)
        return first

    def _empty(self) -> bytes:
        return bytes(self.page_size)

    def pack_page(self, index: int, geometry: Geometry) -> bytes:
        """A page as a refcount block; counts beyond the width are cut to its maximum."""
        page = self.pages.get(index)
        if page is None:
            return bytes(geometry.cluster_size)
        first, limit = index * self.page_size, geometry.refcount_max
        if has_above(page, limit):
            page = page.translate(bytes(min(value, limit) for value in range(256)))
        wide = {slot: min(self._wide[first + slot], limit) for slot in _wide_slots(page)}
        return pack_counts(page, wide, geometry.refcount_bits)


def _wide_slots(page: bytes | bytearray) -> list[int]:
    """Where in a page the count is not, but in the dictionary beside."""
    return [slot for slot, value in enumerate(page) if value == WIDE] if WIDE in page else []


class DiskRefcounts:
    """What the image's own refcount blocks say.

    Attributes:
        failures: why blocks could not be read, by their index in the table.
    """

    def __init__(self, file: BlockNode, geometry: Geometry, table: list[int]) -> None:
        self._file = file
        self._geometry = geometry
        self.table = table
        self.failures: dict[int, str] = {}
        self._pages: dict[int, bytes] = {}
        self._wide: dict[int, int] = {}

    def forget(self, index: int | None = None) -> None:
        """Read a block, or all of them, again when next asked."""
        self._pages.pop(index, None) if index is not None else self._pages.clear()

    def readable(self, index: int) -> bool:
        """Whether a block's place makes sense, and it can be read."""
        if index >= len(self.table):
            return True
        offset = self._offset(index)
        if offset >= 1 << 63 or self._geometry.in_cluster(offset) or index in self.failures:
            return False
        try:
            self.page(index)
        except OSError as error:
            self.failures[index] = error.strerror or str(error)
            return False
        return True

    def _offset(self, index: int) -> int:
        return self.table[index] & 0xFFFFFFFFFFFFFE00

    def page(self, index: int) -> bytes:
        """A block's refcounts, one byte each; :data:`WIDE` stands for 255 and more."""
        found = self._pages.get(index)
        if found is not None:
            return found
        if (len(self._pages) + 1) * self._geometry.block_entries > _CACHE_LIMIT:
            self._pages.clear()
        page = self._pages[index] = self._load(index)
        return page

    def _load(self, index: int) -> bytes:
        geometry = self._geometry
        offset = self._offset(index) if index < len(self.table) else 0
        if not offset or geometry.in_cluster(offset) or offset >= self._file.length:
            return bytes(geometry.block_entries)
        page, wide = unpack_refcounts(self._file.read(offset, geometry.cluster_size), geometry.refcount_bits)
        first = index * geometry.block_entries
        self._wide.update((first + slot, value) for slot, value in wide.items())
        return page

    def get(self, cluster: int) -> int:
        """The refcount of a cluster; 0 where no block covers it."""
        index, slot = divmod(cluster, self._geometry.block_entries)
        value = self.page(index)[slot]
        return self._wide.get(cluster, value) if value == WIDE else value

    def write(self, index: int, changes: dict[int, int]) -> None:
        """Change refcounts of one block in the file: slot to value."""
        geometry = self._geometry
        first = index * geometry.block_entries
        page = bytearray(self.page(index))
        for slot, value in changes.items():
            page[slot] = min(value, WIDE)
        wide = {slot: changes.get(slot, self._wide.get(first + slot, WIDE)) for slot in _wide_slots(page)}
        self._file.pwrite(self._offset(index), pack_counts(page, wide, geometry.refcount_bits))
        self.forget(index)


def sum_of_ramp(entries: int, step: int) -> int:
    """The big integer whose 64-bit digits are 0, ``step``, 2 ``step`` …, the first one most significant."""
    return int.from_bytes(pack_table(array("Q", range(0, entries * step, step))), "big")

"""Writing images with extended L2 entries: a cluster is 32 subclusters, each allocated, zero, or neither.

A write fills up only the subclusters that it touches; see "Extended L2 Entries" in the qcow2 specification.
"""

from __future__ import annotations

from array import array
from typing import Final

from hostel.block.formats.qcow2 import layout
from hostel.block.formats.qcow2.l2_table import L2Table
from hostel.block.formats.qcow2.mapping import contradicts, require_own_place, runs
from hostel.block.formats.qcow2.write import ZEROES, Guest, has_place
from hostel.block.formats.run import Kind
from hostel.units import MiB

_FEW: Final = MiB


class SubclusterGuest(Guest):
    """The guest's bytes of an image with subclusters."""

    def _in_place(self, offset: int, length: int) -> int:
        """A cluster's bitmap says more than its entry: each write takes a closer look."""
        return -1

    def _write_some(self, offset: int, data: memoryview) -> int:
        image, size = self.image, self.image.geometry.cluster_size
        l1_index, index, end = next(self._slices(offset, len(data)))
        table = image.l2_for_write(l1_index)
        within = image.geometry.in_cluster(offset)
        if within or len(data) < size:
            self._validate(table, index, index + 1)
            part = data[: size - within]
            self._write_part(offset, part, table, l1_index, index)
            return len(part)
        end = min(end, index + len(data) // size)
        if not image.is_own(table.entries[index]):
            stop = index + 1
            while stop < end and not image.is_own(table.entries[stop]):
                stop += 1
            self._validate(table, index, stop)
            part = data[: (stop - index) * size]
            return self._write_new(offset, part, table, l1_index, index, stop)
        host = self._own_host(table, l1_index, index)
        stop = index + 1
        while stop < end and table.entries[stop] == table.entries[stop - 1] + size:
            stop += 1
        self._validate(table, index, stop)
        part = data[: (stop - index) * size]
        image.prevent_overlap(host, len(part))
        image.file.debug_event("write_aio")
        self._put(offset, host, part)
        self._set_bitmaps(table, l1_index, index, stop, layout.ALL_ALLOCATED)
        return len(part)

    def _validate(self, table: L2Table, index: int, stop: int) -> None:
        """Refuse to write over entries that say two things at once.

        Raises:
            CorruptImage: there is one; the image is marked.
        """
        for at, (entry, bitmap) in enumerate(table.pairs(index, stop), index):
            if bitmap and not entry & layout.COMPRESSED and contradicts(self.image, entry, bitmap):
                where = f"(L2 offset: {table.offset:#x}, L2 index: {layout.c_hex(at)})"
                self.image.corrupt(f"Invalid cluster entry found {where}")

    def _map(self, table: L2Table, l1_index: int, index: int, stop: int, host: int) -> None:
        super()._map(table, l1_index, index, stop, host)
        self._set_bitmaps(table, l1_index, index, stop, layout.ALL_ALLOCATED)

    def _map_unwritten(self, table: L2Table, l1_index: int, index: int, stop: int, host: int) -> None:
        super()._map(table, l1_index, index, stop, host)
        # What a raw data file has there is what the disk has.
        self._set_bitmaps(table, l1_index, index, stop, layout.ALL_ALLOCATED if self.image.raw_external else 0)

    def _set_bitmaps(self, table: L2Table, l1_index: int, index: int, stop: int, bitmap: int) -> None:
        assert table.bitmaps is not None
        wanted = array("Q", [bitmap]) * (stop - index)
        if table.bitmaps[index:stop] != wanted:
            table.bitmaps[index:stop] = wanted
            self.image.touch(l1_index, index, stop)

    def _own_host(self, table: L2Table, l1_index: int, index: int) -> int:
        entry = table.entries[index]
        if entry & self.image.suspicious:
            self.image.validate_entry(entry, l1_index, index)
        if self.image.external:
            require_own_place(self.image, entry & layout.OFFSET_MASK, l1_index, index)
        return entry & layout.OFFSET_MASK

    def _write_part(self, offset: int, data: memoryview, table: L2Table, l1_index: int, index: int) -> None:
        """Write inside one cluster."""
        image, geometry = self.image, self.image.geometry
        assert table.bitmaps is not None
        entry, bitmap = table.entries[index], table.bitmaps[index]
        within = geometry.in_cluster(offset)
        touched = self._mask(within, within + len(data))
        if image.is_own(entry):
            host = self._own_host(table, l1_index, index)
            low, high = self._widened(within, within + len(data), bitmap)
            image.prevent_overlap(host + low, high - low)
            self._write_around(offset, data, host, low, high)
            self._set_bitmaps(table, l1_index, index, index + 1, (bitmap | touched) & ~(touched << 32))
            return
        # What the old cluster held of its own must come along; zeroes stay zeroes, the rest is left to the backing.
        needed = layout.ALL_ALLOCATED if entry & layout.COMPRESSED else touched | bitmap & layout.ALL_ALLOCATED
        low = ((needed & -needed).bit_length() - 1) * geometry.subcluster_size
        high = needed.bit_length() * geometry.subcluster_size
        host = image.space.allocate_data(offset, geometry.cluster_size)
        try:
            self._write_around(offset, data, host, low, high)
        except BaseException:
            image.space.abandon_data(host, geometry.cluster_size)
            raise
        filled = self._mask(low, high)
        zeroes = 0 if entry & layout.COMPRESSED else bitmap & layout.ALL_ZERO & ~(filled << 32)
        super()._map(table, l1_index, index, index + 1, host)
        self._set_bitmaps(table, l1_index, index, index + 1, filled | zeroes)
        self.release(array("Q", [entry]))

    def _mask(self, low: int, high: int) -> int:
        """The allocation bits of the subclusters that bytes ``low`` to ``high`` of a cluster touch."""
        size = self.image.geometry.subcluster_size
        return (1 << -(-high // size)) - (1 << low // size)

    def _widened(self, low: int, high: int, bitmap: int) -> tuple[int, int]:
        """Extend a range over the rest of subclusters that are not allocated yet."""
        size = self.image.geometry.subcluster_size
        if not bitmap >> (low // size) & 1:
            low -= low % size
        if not bitmap >> ((high - 1) // size) & 1:
            high += -high % size
        return low, high

    def _write_around(self, offset: int, data: memoryview, host: int, low: int, high: int) -> None:
        """Write bytes ``low`` to ``high`` of the cluster at ``host``: the data, and what the guest had around it."""
        within = self.image.geometry.in_cluster(offset)
        before, after = bytearray(within - low), bytearray(high - within - len(data))
        if before or after:
            self.image.file.debug_event("cow_read")
        self.read(offset - len(before), memoryview(before))
        self.read(offset + len(data), memoryview(after))
        self.image.file.debug_event("write_aio")
        whole = b"".join((before, data, after)) if before or after else data
        self._put(offset - len(before), host + low, whole)

    # ---- zeroes and holes

    def write_zeroes(self, offset: int, length: int, *, unmap: bool) -> None:
        """Make a range read as zeroes, by its entries where whole subclusters are concerned."""
        self.begin(offset, length)
        size, end = self.image.geometry.subcluster_size, offset + length
        first = -(-offset // size) * size
        last = -(-end // size) * size if end >= self.image.size else end - end % size
        if first >= last:
            self._zero_part(offset, length)
            return
        self._zero_part(offset, first - offset)
        low = min(self.image.geometry.align(first), last)
        high = max(low, last - self.image.geometry.in_cluster(last))
        if last - first <= _FEW and (self._is_compressed(first, low) or self._is_compressed(high, last)):
            # A compressed cluster that is zeroed in part gets a place for all of it; up to some length the rest does
            # too, as with QEMU.
            self._write_zeroes_out(first, last)
            self._zero_part(last, end - last)
            self.image.space.settle()
            return
        self._zero_external(first, last - first)
        self._zero_subclusters(first, low - first)
        if low < high:
            self._change(low, high - low, self._zeroed if unmap else self._zeroed_keeping)
        self._zero_subclusters(high, last - high)
        self._zero_part(last, end - last)
        self.image.space.settle()

    def _is_compressed(self, start: int, end: int) -> bool:
        """Whether the cluster that a range lies in is; the range may be empty."""
        return start < end and next(runs(self.image, start, 1)).kind is Kind.COMPRESSED

    def _write_zeroes_out(self, start: int, end: int) -> None:
        end = min(end, self.image.size)
        while start < end:
            stop = min(end, start + len(ZEROES))
            self.write(start, ZEROES[: stop - start])
            start = stop

    def _zero_subclusters(self, offset: int, length: int) -> None:
        """Set the zero bits of whole subclusters inside one cluster."""
        if length <= 0:
            return
        l1_index, index, _ = next(self._slices(offset, length))
        table = self.image.l2_for_write(l1_index)
        assert table.bitmaps is not None
        if table.entries[index] & layout.COMPRESSED:
            self._zero_part(offset, min(length, self.image.size - offset))
            return
        within = self.image.geometry.in_cluster(offset)
        mask = self._mask(within, within + length)
        bitmap = table.bitmaps[index] & ~mask | mask << 32
        self._set_bitmaps(table, l1_index, index, index + 1, bitmap)

    def _zero_unit(self, offset: int) -> None:
        self._zero_subclusters(offset, self.image.geometry.subcluster_size)

    def _zeroed(self, entry: int, bitmap: int) -> tuple[int, int]:
        return (entry if self._keeps(entry) else 0), layout.ALL_ZERO

    def _zeroed_keeping(self, entry: int, bitmap: int) -> tuple[int, int]:
        return (0 if entry & layout.COMPRESSED else entry), layout.ALL_ZERO

    def _discarded(self, entry: int, bitmap: int) -> tuple[int, int]:
        if self.backing is None and not entry & layout.COMPRESSED and not has_place(entry, self.image):
            return entry, bitmap  # there is no space to give back, and what it reads as stays
        return (entry if self._keeps(entry) else 0), layout.ALL_ZERO

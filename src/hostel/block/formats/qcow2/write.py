"""Writing guest data: in place where a cluster is ours alone, else into newly allocated clusters.

Data is written before the entry that points to it changes, and the old cluster is given up only when the disk has the
new entry (:meth:`Space.release`). A write that fails leaves the old data in place.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from typing import Final

from hostel.block.chain import block_status
from hostel.block.extent import Status
from hostel.block.formats.qcow2 import layout
from hostel.block.formats.qcow2.encryption import Encryption
from hostel.block.formats.qcow2.image import Qcow2Image
from hostel.block.formats.qcow2.l2_table import L2Table
from hostel.block.formats.qcow2.mapping import require_own_place, runs
from hostel.block.formats.qcow2.released import Holes
from hostel.block.formats.run import Kind, Run
from hostel.block.node import BlockNode, fill_zeroes
from hostel.codec.table import equal_entries
from hostel.errors import UnsupportedFeature
from hostel.units import MiB

ZEROES: Final = memoryview(bytes(MiB))
# What an L2 entry and its bitmap become.
Change = Callable[[int, int], tuple[int, int]]
_NOT_PLAIN: Final = layout.ZERO | layout.COMPRESSED
_MANY_TABLES: Final = 64
_ONE_BUFFER: Final = 256 * 1024  # bytes: up to here head, data and tail are written with one call


class Guest:
    """The guest's bytes of one image."""

    def __init__(self, image: Qcow2Image) -> None:
        self.image = image
        self.backing: BlockNode | None = None
        self.encryption: Encryption | None = None
        self._behind = 0  # host offset after what the present write has allocated last
        self._keeps_places = bool(image.mode.options.get("discard-no-unref"))

    # ---- reading

    def read(self, offset: int, buf: memoryview) -> None:
        """Fill ``buf`` from guest ``offset``; what lies beyond the virtual size reads as zeroes."""
        inside = max(0, min(len(buf), self.image.size - offset))
        if inside == len(buf) and inside and (host := self._in_place(offset, inside)) >= 0:
            self.image.file.debug_event("read_aio")
            self._get(offset, host, buf)
            return
        if inside < len(buf):
            fill_zeroes(buf[inside:])
        batch: list[tuple[int, Run]] = []
        for run in runs(self.image, offset, inside) if inside else ():
            if run.kind is Kind.COMPRESSED:
                batch.append((run.offset - offset, run))
                continue
            if batch:
                self.decompress(batch, buf)
                batch = []
            part = buf[run.offset - offset : run.offset - offset + run.length]
            if run.kind is Kind.DATA:
                self.image.file.debug_event("read_aio")
                self._get(run.offset, run.host, part)
            elif run.kind is Kind.UNALLOCATED and self.backing is not None:
                self.image.file.debug_event("read_backing_aio")
                self.backing.pread_padded(run.offset, part)
            else:
                fill_zeroes(part)
        if batch:
            self.decompress(batch, buf)

    def decompress(self, batch: list[tuple[int, Run]], buf: memoryview) -> None:
        """Read runs of one compressed cluster at most, each given with its place in ``buf``."""
        from hostel.block.formats.qcow2.compressed import read_compressed

        read_compressed(self.image, batch, buf)

    def _get(self, offset: int, host: int, buf: memoryview) -> None:
        """Read what guest ``offset`` has at host offset ``host``."""
        if self.encryption is None:
            self.image.data.pread(host, buf)
        else:
            self.encryption.read(self.image.data, offset, host, buf)

    def reads_as_zeroes(self, offset: int, length: int) -> bool:
        """Whether the tables alone say that a range reads as zeroes."""
        length = min(length, self.image.size - offset)
        return length <= 0 or all(self._is_zero(run) for run in runs(self.image, offset, length))

    def _is_zero(self, run: Run) -> bool:
        if run.kind is Kind.UNALLOCATED:
            return self.backing is None or run.offset >= self.backing.length
        return run.kind is Kind.ZERO

    # ---- writing

    def write(self, offset: int, data: memoryview) -> None:
        """Write ``data`` at guest ``offset``."""
        self.begin(offset, len(data))
        host = self._in_place(offset, len(data))
        if host >= 0:
            self.image.prevent_overlap(host, len(data))
            self.image.file.debug_event("write_aio")
            self._put(offset, host, data)
            return
        self._behind = 0
        done = 0
        while done < len(data):
            done += self._write_some(offset + done, data[done:])
        self.image.space.settle()

    def _in_place(self, offset: int, length: int) -> int:
        """Where a range of our own clusters lies in one piece; -1 where a closer look at the tables is needed."""
        image = self.image
        l1_index, within = divmod(offset, image.geometry.l2_reach)
        table = image.tables.get(l1_index)
        if table is None or not image.l1[l1_index] & layout.COPIED:
            return -1
        bits, entries = image.geometry.cluster_bits, table.entries
        index, last = within >> bits, (within + length - 1) >> bits
        entry = entries[index]
        if last >= len(entries) or entry & (image.suspicious | _NOT_PLAIN) or not image.is_own(entry):
            return -1
        if last > index and own_run(entries, index, last + 1, 1 << bits) != (last + 1, 0):
            return -1
        host = entry & layout.OFFSET_MASK
        if image.external and host != offset - image.geometry.in_cluster(offset):
            return -1
        return host + image.geometry.in_cluster(offset)

    def _put(self, offset: int, host: int, data: memoryview | bytes) -> None:
        """Write what guest ``offset`` shall have at host offset ``host``."""
        if self.image.external:  # of the last cluster only what belongs to the disk
            data = memoryview(data)[: max(0, self.image.size - offset)]
            self._lengthen_data_file(host + len(data))
        if not data:
            return
        if self.encryption is None:
            self.image.data.pwrite(host, data)
        else:
            self.encryption.write(self.image.data, offset, host, data)

    def _lengthen_data_file(self, end: int) -> None:
        """Make an external data file reach to ``end``: somebody may have cut it off."""
        if end > self.image.data.length:
            self.image.data.resize(end)

    def begin(self, offset: int, length: int) -> None:
        """Before a guest range is changed: the image may have to be marked, and its bitmaps record it."""
        self.image.begin_write()
        self.image.bitmaps.mark(offset, length)

    def _slices(self, offset: int, length: int) -> Iterator[tuple[int, int, int]]:
        """Whole clusters of a range, table by table: L1 index, first and end L2 index."""
        bits, reach = self.image.geometry.cluster_bits, self.image.geometry.l2_reach
        end = offset + length
        while offset < end:
            l1_index = offset // reach
            stop = min(end, (l1_index + 1) * reach)
            yield l1_index, (offset % reach) >> bits, ((stop - 1) % reach >> bits) + 1
            offset = stop

    def _write_some(self, offset: int, data: memoryview) -> int:
        """Write as much as can be done alike, at most to the end of the L2 table; returns the bytes written."""
        image, bits = self.image, self.image.geometry.cluster_bits
        l1_index, index, end = next(self._slices(offset, len(data)))
        table = image.l2_for_write(l1_index)
        entry = table.entries[index]
        within = image.geometry.in_cluster(offset)
        if image.is_own(entry):
            host = entry & layout.OFFSET_MASK
            stop, zero = own_run(table.entries, index, end, 1 << bits)
            if entry & image.suspicious or zero:
                image.validate_entry(entry | zero, l1_index, index)
            if image.external:
                require_own_place(image, host, l1_index, index)
            part = data[: ((stop - index) << bits) - within]
            image.prevent_overlap(host + within, len(part))
            if zero:
                self._overwrite_zeroes(offset, part, host, entry, table.entries[stop - 1])
                self._map(table, l1_index, index, stop, host)
            else:
                image.file.debug_event("write_aio")
                self._put(offset, host + within, part)
            return len(part)
        stop = index + 1 if entry else equal_entries(table.entries, index, end)
        while stop < end and not image.is_own(table.entries[stop]):
            stop += 1
        part = data[: ((stop - index) << bits) - within]
        return self._write_new(offset, part, table, l1_index, index, stop)

    def _overwrite_zeroes(self, offset: int, data: memoryview, host: int, first: int, last: int) -> None:
        """Write over own clusters of which some read as zeroes: the rest of those at the ends becomes zeroes too."""
        size = self.image.geometry.cluster_size
        head = offset % size if first & layout.ZERO else 0
        tail = -(offset + len(data)) % size if last & layout.ZERO else 0
        if offset % size == head and (offset + len(data) + tail) % size == 0:
            self._fill(offset, data, host, old_is_zero=True)
            return
        self.image.file.debug_event("write_aio")
        within = offset % size - head
        for part in (memoryview(bytes(head)), data, memoryview(bytes(tail))):
            if part:
                self._put(offset - offset % size + within, host + within, part)
                within += len(part)

    def _write_new(self, offset: int, data: memoryview, table: L2Table, l1_index: int, index: int, stop: int) -> int:
        """Write into new clusters for the entries from ``index`` up to ``stop``, or fewer; returns the bytes written.

        A write goes on where it has allocated last, as far as there is room: neighbours stay neighbours.
        """
        image, bits = self.image, self.image.geometry.cluster_bits
        host, length = self._behind, (stop - index) << bits
        behind = image.space.allocate_behind(host, length) if host else 0
        if behind:
            length, stop = behind, index + (behind >> bits)
            data = data[: length - image.geometry.in_cluster(offset)]
        else:
            host = image.space.allocate_data(offset, length)
        try:
            self._fill(offset, data, host, old_is_zero=False)
        except BaseException:
            image.space.abandon_data(host, length)
            raise
        old = table.entries[index:stop]
        self._map(table, l1_index, index, stop, host)
        self.release(old)
        self._behind = 0 if image.external else host + length
        return len(data)

    def _map(self, table: L2Table, l1_index: int, index: int, stop: int, host: int) -> None:
        step = self.image.geometry.cluster_size
        first = host | layout.COPIED
        table.entries[index:stop] = array("Q", range(first, first + (stop - index) * step, step))
        self.image.touch(l1_index, index, stop)

    def refer(self, table: L2Table, l1_index: int, index: int, stop: int, host: int) -> None:
        """Let entries that were empty refer to clusters that have been written."""
        self._map(table, l1_index, index, stop, host)

    def _map_unwritten(self, table: L2Table, l1_index: int, index: int, stop: int, host: int) -> None:
        self._map(table, l1_index, index, stop, host)

    def release(self, entries: array[int]) -> None:
        """Give up what L2 entries referred to."""
        geometry, image = self.image.geometry, self.image
        size, start, end = geometry.cluster_size, 0, 0  # whole clusters, together where they are neighbours
        within = size - 1  # as in_cluster() has it, without a call for each entry
        for entry in filter(None, entries):
            if entry & layout.COMPRESSED:
                image.space.release(*geometry.compressed_range(entry & ~layout.COMPRESSED))
            elif (offset := entry & layout.OFFSET_MASK) and not image.external:
                if offset != end or offset & within:
                    if start:
                        image.space.release(start, end - start)
                    start = end = offset
                end += size
        if start:
            image.space.release(start, end - start)

    def _fill(self, offset: int, data: memoryview, host: int, *, old_is_zero: bool) -> None:
        """Write whole clusters at ``host``: the data, and around it what the guest had there."""
        image = self.image
        size = image.geometry.cluster_size
        head = image.geometry.in_cluster(offset)
        tail = -(offset + len(data)) % size
        if not head and not tail:
            image.file.debug_event("write_aio")
            self._put(offset, host, data)
            return
        start, end = offset - head, offset + len(data)
        zero_head = old_is_zero or self.reads_as_zeroes(start, head)
        zero_tail = old_is_zero or self.reads_as_zeroes(end, tail)
        if zero_head and zero_tail and host >= image.data.length and self.encryption is None:
            # Beyond the end of the file there is a hole, which reads as zeroes by itself.
            image.file.debug_event("write_aio")
            self._put(offset, host + head, data)
            return
        before, after = bytearray(head), bytearray(tail)
        if not zero_head:
            image.file.debug_event("cow_read")
            self.read(start, memoryview(before))
        if not zero_tail:
            image.file.debug_event("cow_read")
            self.read(end, memoryview(after))
        image.file.debug_event("write_aio")
        if head + len(data) + tail <= _ONE_BUFFER:
            self._put(start, host, b"".join((before, data, after)))
            return
        for at, part in ((0, memoryview(before)), (head, data), (head + len(data), memoryview(after))):
            if part:
                if part is not data:
                    image.file.debug_event("cow_write")
                self._put(start + at, host + at, part)

    # ---- zeroes and holes

    def write_zeroes(self, offset: int, length: int, *, unmap: bool) -> None:
        """Make a range read as zeroes, by its entries where whole clusters are concerned."""
        self.begin(offset, length)
        first, last = self._whole(offset, length)
        if first >= last:
            self._zero_part(offset, length)
            return
        self._zero_part(offset, first - offset)
        self._zero_external(first, last - first)
        if self.image.header.version >= 3:
            self._change(first, last - first, self._zeroed_keeping if not unmap else self._zeroed)
        else:
            self._zero_old(first, last - first)
        self._zero_part(last, offset + length - last)
        self.image.space.settle()

    def _zero_external(self, offset: int, length: int) -> None:
        """An external data file that must stay valid as a raw image gets the zeroes as well."""
        if self.image.raw_external and length > 0:
            self.image.data.write_zeroes(offset, min(length, self.image.size - offset), unmap=True)

    def _whole(self, offset: int, length: int) -> tuple[int, int]:
        """The whole clusters inside a range; the image's last cluster is whole where its end is reached."""
        geometry = self.image.geometry
        first, end = geometry.align(offset), offset + length
        last = geometry.align(end) if end >= self.image.size else end - geometry.in_cluster(end)
        return first, last

    def _zero_part(self, offset: int, length: int) -> None:
        """Zero parts of clusters (or subclusters), by their entries where that does, else by writing."""
        size, end = self.image.geometry.subcluster_size, offset + length
        while offset < end:
            stop = min(end, offset - offset % size + size)
            if not self._zero_around(offset, stop - offset) and not self._says_zeroes(offset, stop - offset):
                for start in range(offset, stop, len(ZEROES)):
                    self.write(start, ZEROES[: min(len(ZEROES), stop - start)])
            offset = stop

    def _says_zeroes(self, offset: int, length: int) -> bool:
        """Whether this layer reads as zeroes by itself, whatever may once be below it."""
        empty = self.backing is None
        kinds = (run.kind for run in runs(self.image, offset, min(length, self.image.size - offset)))
        return all(kind is Kind.ZERO or (kind is Kind.UNALLOCATED and empty) for kind in kinds)

    def _zero_around(self, offset: int, length: int) -> bool:
        """Zero a part of a cluster (or subcluster) by zeroing all of it, where the rest reads as zeroes anyway."""
        image = self.image
        size = image.geometry.subcluster_size
        start = offset - offset % size
        if image.header.version < 3 or not self._is_zero_around(offset, length):
            return False
        self._zero_external(start, min(size, image.size - start))
        self._zero_unit(start)
        return True

    def _is_zero_around(self, offset: int, length: int) -> bool:
        """Whether the cluster (or subcluster) that a range is a part of has no data, and else reads as zeroes."""
        size = self.image.geometry.subcluster_size
        start = offset - offset % size
        stop, end = min(start + size, self.image.size), offset + length
        if next(runs(self.image, start, 1)).kind in (Kind.DATA, Kind.COMPRESSED):
            return False
        return self._is_zero_below(start, offset - start) and self._is_zero_below(end, stop - end)

    def zeroes_by_entries(self, offset: int, length: int) -> bool:
        """Whether zeroing a range takes entries alone: no part of a cluster (or subcluster) at its ends is written."""
        size, end = self.image.geometry.subcluster_size, offset + length
        first = min(-(-offset // size) * size, end)
        last = end if end >= self.image.size else max(first, end - end % size)
        return all(
            self._is_zero_around(start, stop - start) for start, stop in ((offset, first), (last, end)) if start < stop
        )

    def _zero_unit(self, offset: int) -> None:
        """Zero the cluster, or subcluster, at ``offset``, which has no data."""
        self._change(offset, self.image.geometry.cluster_size, self._zeroed_keeping)

    def _is_zero_below(self, offset: int, length: int) -> bool:
        """Whether a range reads as zeroes, down the backing chain."""
        for run in runs(self.image, offset, length) if length else ():
            if run.kind is Kind.UNALLOCATED and self.backing is not None:
                inside = min(run.length, self.backing.length - run.offset)
                below = block_status(self.backing, run.offset, inside) if inside > 0 else ()
                if not all(extent.status & Status.ZERO for extent in below):
                    return False
            elif run.kind is not Kind.ZERO and run.kind is not Kind.UNALLOCATED:
                return False
        return True

    def _zero_old(self, offset: int, length: int) -> None:
        """Version 2 has no zero flag: clusters are dropped where nothing would show through, and overwritten else."""
        size = self.image.geometry.cluster_size
        if self.backing is None or offset >= self.backing.length:
            self._change(offset, length, lambda entry, bitmap: (0, 0))
            return
        end = min(offset + length, self.image.size)
        for start in range(offset, end, size):
            self._zero_part(start, min(size, end - start))

    def _keeps(self, entry: int) -> bool:
        """Whether a cluster that is given back keeps its place, for itself: one that snapshots share is let go."""
        return self._keeps_places and self.image.is_own(entry)

    def _zeroed(self, entry: int, bitmap: int) -> tuple[int, int]:
        return self._zeroed_keeping(entry, bitmap) if self._keeps(entry) else (layout.ZERO, 0)

    def _zeroed_keeping(self, entry: int, bitmap: int) -> tuple[int, int]:
        return (layout.ZERO if entry & layout.COMPRESSED else entry | layout.ZERO), 0

    def _discarded(self, entry: int, bitmap: int) -> tuple[int, int]:
        if not entry and self.backing is None:
            return 0, 0
        if self._keeps(entry):
            return entry | layout.ZERO, 0
        return (layout.ZERO if self.image.header.version >= 3 else 0), 0

    def discard(self, offset: int, length: int) -> None:
        """Give the space of whole clusters back; they read as zeroes.

        In a version 2 image over a backing file nothing happens, as with QEMU: what is below would show again.
        """
        if self.image.header.version < 3 and self.backing is not None:
            return
        self.begin(offset, length)
        first, last = self._whole(offset, length)
        if first < last:
            self._zero_external(first, last - first)
            self._change(first, last - first, self._discarded)
        self.image.space.settle()

    def _change(self, offset: int, length: int, new: Change) -> None:
        """Replace L2 entries of whole clusters by ``new(entry, bitmap)``, and give up what they referred to."""
        image = self.image
        idle = new(0, 0) == (0, 0)
        # A raw data file has been zeroed, and what is discarded need not read as zeroes.
        discard = not (image.raw_external and new in (self._zeroed, self._discarded))
        # Zeroes that nothing is below are recorded like others; but for terabytes of them that would be gigabytes.
        many = self.backing is None and length > _MANY_TABLES * image.geometry.l2_reach
        for l1_index, index, stop in self._slices(offset, length):
            if l1_index >= len(image.l1):
                return
            if not image.l1[l1_index] and (idle or (many and self._is_whole(l1_index, index, stop))):
                continue
            present = image.l2_table(l1_index)
            if present is not None and all(new(*pair) == pair for pair in set(present.pairs(index, stop))):
                continue
            table = image.l2_for_write(l1_index)
            old = table.entries[index:stop]
            changed = [new(*pair) for pair in table.pairs(index, stop)]
            table.entries[index:stop] = array("Q", [entry for entry, _ in changed])
            if table.bitmaps is not None:
                table.bitmaps[index:stop] = array("Q", [bitmap for _, bitmap in changed])
            image.touch(l1_index, index, stop)
            for before, (after, _) in zip(old, changed, strict=True):
                if before & layout.COMPRESSED:
                    self.release(array("Q", [before]))
                elif has_place(before, image) and not has_place(after, image):
                    image.space.release_data(before & layout.OFFSET_MASK, discard=discard)
            if discard and self._keeps_places and new != self._zeroed_keeping:
                if new == self._zeroed or self.encryption is not None:
                    # Cut off before that, a discarded cluster need not read as zeroes, but is not to read as noise.
                    image.write_metadata()
                kept = Holes()
                for after, _ in changed:
                    if has_place(after, image):
                        place = after & layout.OFFSET_MASK
                        kept.add(place, place + image.geometry.cluster_size)
                image.space.discard_holes(kept)

    def _is_whole(self, l1_index: int, index: int, stop: int) -> bool:
        """Whether L2 entries are all that a table has, or that the image has of it."""
        geometry = self.image.geometry
        return index == 0 and (stop == geometry.l2_entries or (l1_index + 1) * geometry.l2_reach >= self.image.size)

    def drop(self, offset: int, length: int) -> None:
        """Forget whole clusters: what is below shows through."""
        self._change(offset, length, lambda entry, bitmap: (0, 0))

    def map_new(self, offset: int, length: int, *, fill: bool) -> Iterator[tuple[int, int]]:
        """Map clusters of a range that have no place, without writing their data, or with zeroes where ``fill``.

        A zero cluster becomes data that reads as zeroes.

        Yields:
            Host offset and length, in bytes, of what is new.
        """
        self.image.begin_write()
        bits = self.image.geometry.cluster_bits
        for l1_index, index, stop in self._slices(offset, length):
            table = self.image.l2_for_write(l1_index)
            while index < stop:
                after = equal_entries(table.entries, index, stop)
                standard = table.bitmaps is None and table.entries[index] in (0, layout.ZERO)
                if standard or (table.bitmaps and not table.entries[index] and not any(table.bitmaps[index:after])):
                    guest = l1_index * self.image.geometry.l2_reach + (index << bits)
                    host = self.image.space.allocate_data(guest, (after - index) << bits)
                    self._zero_new(guest, host, (after - index) << bits, fill=fill)
                    self._map_unwritten(table, l1_index, index, after, host)
                    if self.encryption is not None and standard and not fill and self.image.header.version >= 3:
                        # The host's zeroes are none to the guest.
                        for place in range(index, after):
                            table.entries[place] |= layout.ZERO
                    yield host, (after - index) << bits
                index = after

    def _zero_new(self, guest: int, host: int, length: int, *, fill: bool) -> None:
        """Make new clusters read as zeroes, by writing them where ``fill``; the file reaches to their end.

        What a raw data file has there is kept: it is part of the disk that the file is by itself.
        """
        if self.image.raw_external:
            host = max(host, min(host + length, self.image.data.length))
            length = guest + length - host
            guest = host
        fill = fill or (self.encryption is not None and self.image.header.version < 3)
        data = self.image.data
        end = min(host + length, self.image.size) if self.image.external else host + length
        try:
            if fill:
                for start in range(host, end, len(ZEROES)):
                    self._put(guest + start - host, start, ZEROES[: min(len(ZEROES), end - start)])
            elif host < data.length:
                data.write_zeroes(host, min(end, data.length) - host, unmap=True)
            if end > data.length:
                data.resize(end)
        except BaseException:
            self.image.space.abandon_data(host, length)
            raise

    def write_compressed(self, offset: int, payload: bytes) -> None:
        """Store the compressed payload of the whole cluster at guest ``offset``."""
        from hostel.block.formats.qcow2.compressed import store_compressed

        image = self.image
        if image.external:
            raise UnsupportedFeature("Images with an external data file have no compressed clusters")
        if self.encryption is not None:
            raise UnsupportedFeature("Compressed clusters of an encrypted image would not be encrypted")
        self.begin(offset, image.geometry.cluster_size)
        l1_index, index, _ = next(self._slices(offset, 1))
        table = image.l2_for_write(l1_index)
        host = store_compressed(image, payload)
        old = table.entries[index : index + 1]
        table.entries[index] = image.geometry.compressed_entry(host, len(payload))
        if table.bitmaps is not None:
            table.bitmaps[index] = 0
        image.touch(l1_index, index, index + 1)
        self.release(old)
        image.space.settle()


def has_place(entry: int, image: Qcow2Image) -> bool:
    """Whether an uncompressed cluster has a host offset."""
    return bool(entry & layout.OFFSET_MASK or (image.external and entry & layout.COPIED))


def own_run(entries: array[int], index: int, end: int, step: int) -> tuple[int, int]:
    """The index after the own clusters that lie one after the other on the host; and the zero flag, if one has it."""
    expected = entries[index] & ~layout.ZERO
    zero = 0
    while index < end and (entry := entries[index]) & ~layout.ZERO == expected:
        zero |= entry & layout.ZERO
        index += 1
        expected += step
    return index, zero


def new_guest(image: Qcow2Image) -> Guest:
    """The guest's view of an image, by clusters or by subclusters."""
    if not image.geometry.extended:
        return Guest(image)
    from hostel.block.formats.qcow2.subcluster import SubclusterGuest

    return SubclusterGuest(image)

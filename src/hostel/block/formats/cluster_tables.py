"""Tables that say where clusters lie: one, as parallels has it, or an L1 table of L2 tables, as qed and qcow do.

Of the L2 tables, which may be large, slices are kept in memory, and not more of them than fit into a bound. Changes
are held back and written in the order that leaves unused clusters at worst wherever it is cut off: data, a sync, L2
entries, a sync, L1 entries, a sync.
"""

from __future__ import annotations

import bisect
from array import array
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from hostel.block.extent import Status
from hostel.block.formats.pieces import pieces
from hostel.block.formats.run import Kind, Run
from hostel.block.node import BlockNode
from hostel.codec.table import equal_entries, pack_table, unpack_table, zero_table
from hostel.errors import CorruptImage
from hostel.units import KiB, MiB

_SLICE: Final = 8192  # entries
_CACHE_LIMIT: Final = 32 * MiB  # bytes of L2 tables kept in memory
_MIN_SLICES: Final = 16
_SMALL: Final = 64 * KiB  # bytes of an L2 table that is read sooner than its holes are found


class Layout(NamedTuple):
    """Where the tables lie and what they are like.

    Attributes:
        cluster_size: bytes.
        l1_offset: host offset of the L1 table, bytes.
        l2_entries: entries of an L2 table.
        order: ``big`` or ``little``.
    """

    cluster_size: int
    l1_offset: int
    l2_entries: int
    order: str

    @property
    def reach(self) -> int:
        """Bytes of the guest that an L2 table maps."""
        return self.l2_entries * self.cluster_size


class _Slice:
    __slots__ = ("entries", "high", "low")

    def __init__(self, entries: array[int]) -> None:
        self.entries = entries
        self.low, self.high = len(entries), 0  # what differs from the disk

    def put(self, low: int, values: array[int]) -> None:
        self.entries[low : low + len(values)] = values
        self.low, self.high = min(self.low, low), max(self.high, low + len(values))


class EntryTable:
    """One table of entries, of which the part is in memory that was looked at, within bounds.

    Attributes:
        entries: how many there are.
        changed: entries that are not on the disk yet, by index.
    """

    def __init__(self, file: BlockNode, offset: int, entries: int, order: str, typecode: str = "Q") -> None:
        self._file = file
        self._offset = offset
        self._order = order
        self._typecode = typecode
        self._width = array(typecode).itemsize
        self.entries = entries
        self.changed: dict[int, int] = {}
        self._waiting: list[int] = []  # the indices of these, sorted
        self._slices: dict[int, array[int]] = {}

    def __getitem__(self, index: int) -> int:
        found = self.changed.get(index)
        if found is not None:
            return found
        number, within = divmod(index, _SLICE)
        return (self._slices.get(number) or self._load(number))[within]

    def __setitem__(self, index: int, entry: int) -> None:
        if index not in self.changed:
            bisect.insort(self._waiting, index)
        self.changed[index] = entry

    def load(self) -> None:
        """Read its first entries, with which most tables end.

        Raises:
            OSError: the host's own errors.
        """
        if self.entries and not self._is_hole(0):
            self._load(0)

    def reserve(self, index: int) -> None:
        """Have the host's room for an entry in a table that may have holes, before the entry is changed.

        Raises:
            OSError: the host's own errors; the disk is full.
        """
        place = self._offset + index * self._width
        self._file.pwrite(place, self._file.read(place, self._width))

    def _load(self, number: int) -> array[int]:
        if len(self._slices) >= _CACHE_LIMIT // (_SLICE * 8):
            self._slices.clear()
        start = number * _SLICE
        count = min(_SLICE, self.entries - start)
        data = self._file.read(self._offset + start * self._width, count * self._width)
        found = self._slices[number] = unpack_table(data, self._typecode, self._order)
        return found

    def next_used(self, index: int, end: int) -> int:
        """The first index from ``index`` up to ``end`` that has an entry; ``end`` without one."""
        at = bisect.bisect_left(self._waiting, index)
        # Entries are set and never cleared while they wait, but by a repair.
        while at < len(self._waiting) and self._waiting[at] < end:
            if self.changed[self._waiting[at]]:
                end = self._waiting[at]
                break
            at += 1
        while index < end:
            number = index // _SLICE
            stop = min(end, (number + 1) * _SLICE)
            if number in self._slices or not self._is_hole(number):
                part = self._slices.get(number) or self._load(number)
                start = number * _SLICE
                found = next((each for each in range(index - start, stop - start) if part[each]), None)
                if found is not None and self[start + found]:
                    return start + found
                if found is not None:
                    index = start + found + 1
                    continue
            index = stop
        return end

    def _is_hole(self, number: int) -> bool:
        start = number * _SLICE
        length = min(_SLICE, self.entries - start) * self._width
        found = self._file.extents(self._offset + start * self._width, length)
        return all(each.status & Status.ZERO for each in found)

    def resize(self, entries: int) -> None:
        """Have more entries; they are on the disk already."""
        self._slices.clear()
        self.entries = entries

    def write(self) -> None:
        """Write what changed, neighbours together.

        Raises:
            OSError: the host's own errors; what is not written yet is still held back.
        """
        waiting = self._waiting
        while waiting:
            first = waiting[0]
            count = 1
            while count < len(waiting) and waiting[count] == first + count:
                count += 1
            entries = array(self._typecode, [self.changed[index] for index in waiting[:count]])
            self._file.pwrite(self._offset + first * self._width, pack_table(entries, self._order))
            for index, entry in enumerate(entries, first):
                part = self._slices.get(index // _SLICE)
                if part is not None:
                    part[index % _SLICE] = entry
                del self.changed[index]
            del waiting[:count]


class ClusterTables:
    """The tables of an open image.

    Attributes:
        file: the node that they lie in.
        layout: where they lie.
        l1: the L1 table, as far as the image needs it; entries are host offsets, 0 for no table.
    """

    def __init__(
        self,
        file: BlockNode,
        layout: Layout,
        l1_entries: int,
        *,
        classify: Callable[[int], Kind],
        validate: Callable[[int, int], None],
        validate_table: Callable[[int, int], None],
        allocate_table: Callable[[], int],
    ) -> None:
        """Take tables.

        Args:
            file: the node that they lie in.
            layout: where they lie.
            l1_entries: entries of the L1 table that the image needs.
            classify: what an entry says.
            validate: refuses a data entry that makes no sense, given with the guest offset.
            validate_table: refuses an L1 entry that makes no sense, given with its index.
            allocate_table: finds room for an L2 table, and makes it zeroes on the disk.
        """
        self.file = file
        self.layout = layout
        self.l1 = EntryTable(file, layout.l1_offset, l1_entries, layout.order)
        self._classify = classify
        self._validate = validate
        self._validate_table = validate_table
        self._allocate_table = allocate_table
        self._per_slice = min(layout.l2_entries, _SLICE)
        self._slices: dict[int, _Slice] = {}  # by number of the slice in the image, the oldest first
        self._dirty: set[int] = set()
        self._is_whole = False  # no entry leads beyond the file's end; looked at before that moves

    @property
    def is_dirty(self) -> bool:
        """Whether something is held back."""
        return bool(self._dirty or self.l1.changed)

    # ---- looking up

    def runs(self, offset: int, length: int) -> Iterator[Run]:
        """The runs of a guest range; one ends with its slice at the latest.

        Raises:
            CorruptImage: an entry makes no sense.
            OSError: a table cannot be read.
        """
        size, end = self.layout.cluster_size, offset + length
        while offset < end:
            l1_index = offset // self.layout.reach
            if not self.l1[l1_index]:
                stop = min(end, self.l1.next_used(l1_index + 1, -(-end // self.layout.reach)) * self.layout.reach)
                yield Run(offset, stop - offset, Kind.UNALLOCATED, 0)
                offset = stop
                continue
            number, index = divmod(offset // size, self._per_slice)
            entries = self._slice(number).entries
            base = number * self._per_slice * size
            stop = min(end, base + self._per_slice * size)
            yield from self._slice_runs(entries, base, index, offset, stop)
            offset = stop

    def _slice_runs(self, entries: array[int], base: int, index: int, offset: int, end: int) -> Iterator[Run]:
        size = self.layout.cluster_size
        last = (end - 1 - base) // size + 1
        while index < last:
            entry = entries[index]
            kind = self._classify(entry)
            host = 0
            if kind is Kind.DATA:
                after = self._data_run(entries, index, last, offset)
                host = entry + offset % size
            elif kind is Kind.COMPRESSED:
                after, host = index + 1, entry
            else:
                after = equal_entries(entries, index, last)
            stop = min(end, base + after * size)
            yield Run(offset, stop - offset, kind, host)
            offset, index = stop, after

    def _data_run(self, entries: array[int], index: int, last: int, offset: int) -> int:
        """The index after the neighbours that lie one after the other on the host."""
        size = self.layout.cluster_size
        expected = first = entries[index]
        self._validate(first, offset)
        count = 0
        while index < last and entries[index] == expected:
            index += 1
            count += 1
            expected += size
        if count > 1:
            self._validate(expected - size, offset + (count - 1) * size)
        return index

    def _slice(self, number: int) -> _Slice:
        found = self._slices.get(number)
        if found is not None:
            return found
        self._make_room()
        return self._load(number)

    def _load(self, number: int) -> _Slice:
        l1_index, within = divmod(number * self._per_slice, self.layout.l2_entries)
        table = self.l1[l1_index]
        self._validate_table(table, l1_index)
        self.file.debug_event("l2_load")
        data = self.file.read(table + within * 8, self._per_slice * 8)
        found = self._slices[number] = _Slice(unpack_table(data, "Q", self.layout.order))
        return found

    def _make_room(self) -> None:
        limit = max(_MIN_SLICES, _CACHE_LIMIT // (self._per_slice * 8))
        if len(self._slices) < limit:
            return
        if len(self._dirty) > limit // 2:
            self.write()
        for number in [each for each in self._slices if each not in self._dirty][: limit // 4]:
            del self._slices[number]

    def require_whole(self, end: int, fits: Callable[[array[int]], bool], hint: str) -> None:
        """Refuse new clusters at places that entries name of clusters that are lost: these would show the new data.

        All tables are looked at once, before the first new cluster, in bounded memory.

        Args:
            end: where the file's clusters end, bytes.
            fits: whether entries lead to what lies before that.
            hint: what to do about it.

        Raises:
            CorruptImage: the file was cut off, or the tables are not what they should be.
            OSError: a table cannot be read.
        """
        if self._is_whole:
            return
        if self._leads_beyond(end, fits):
            raise CorruptImage(
                f"The image is cut off at byte {end}: a new cluster could lie where a lost one did", hint=hint
            )
        self._is_whole = True

    def _leads_beyond(self, end: int, fits: Callable[[array[int]], bool]) -> bool:
        length = self.layout.l2_entries * 8
        room = self.file.length
        index = self.l1.next_used(0, self.l1.entries)
        while index < self.l1.entries:
            table = self.l1[index]
            room -= length
            if table + length > end:
                return True
            if room < 0:  # a hostile table could be read a million times
                raise CorruptImage(f"L2 tables lie on each other (L1 index: {index:#x})")
            self._validate_table(table, index)
            if not all(fits(part) for part in self._parts(table, length)):
                return True
            index = self.l1.next_used(index + 1, self.l1.entries)
        return False

    def _parts(self, table: int, length: int) -> Iterator[array[int]]:
        """An L2 table as it is on the disk, without its holes where it is large."""
        if length <= _SMALL:
            yield unpack_table(self.file.read(table, length), "Q", self.layout.order)
            return
        for _, entries in pieces(self.file, table, length, "Q", self.layout.order):
            yield entries

    # ---- changing

    def room(self, offset: int, length: int) -> int:
        """How much of a range lies in one L2 table, bytes; the slices of that table are in memory afterwards."""
        self._make_room()
        reach = self.layout.reach
        length = min(length, reach - offset % reach)
        if self.l1[offset // reach]:
            for number in self._numbers(offset, length):
                if number not in self._slices:
                    self._load(number)
        return length

    def _numbers(self, offset: int, length: int) -> range:
        step = self._per_slice * self.layout.cluster_size
        return range(offset // step, (offset + length - 1) // step + 1)

    def change(self, offset: int, values: array[int]) -> None:
        """Replace the entries of whole clusters, of one L2 table, which is made where there is none.

        Raises:
            OSError: there is no room for a table, or it cannot be read: nothing has changed then.
        """
        size = self.layout.cluster_size
        numbers = self._numbers(offset, len(values) * size)
        l1_index = offset // self.layout.reach
        if not self.l1[l1_index]:
            self.l1.reserve(l1_index)
            self.l1[l1_index] = self._allocate_table()
            for number in numbers:
                self._slices[number] = _Slice(zero_table(self._per_slice))
        slices = [(number, self._slices.get(number) or self._load(number)) for number in numbers]
        index = offset // size
        for number, each in slices:
            low = max(0, index - number * self._per_slice)
            start = number * self._per_slice + low - index
            each.put(low, values[start : start + self._per_slice - low])
            self._dirty.add(number)

    def write(self) -> None:
        """Write what is held back, in order, and sync.

        Raises:
            OSError: the host's own errors; what is not written yet is still held back.
        """
        if self._dirty:
            self.file.flush()
        for number in sorted(self._dirty):
            each = self._slices[number]
            l1_index, within = divmod(number * self._per_slice, self.layout.l2_entries)
            place = self.l1[l1_index] + (within + each.low) * 8
            self.file.debug_event("l2_update")
            self.file.pwrite(place, pack_table(each.entries[each.low : each.high], self.layout.order))
            each.low, each.high = len(each.entries), 0
            self._dirty.discard(number)
        if self.l1.changed:
            self.file.flush()
            self.file.debug_event("l1_update")
            self.l1.write()
        self.file.flush()

    def forget(self) -> None:
        """Read everything again: the file was changed beside us."""
        self._slices.clear()
        self._dirty.clear()
        self.l1 = EntryTable(self.file, self.layout.l1_offset, self.l1.entries, self.layout.order)

"""Hosted sparse extents (``KDMV``): opening, mapping and writing; compressed ones are in :mod:`.stream`.

The order of writes: data; a sync; the redundant table, then the one that is read. A power cut between any two of them
leaves the old mapping or the new one, and grains that nothing refers to at worst. Tables are written whole, so that the
redundant one is again as the other is, whatever was left of an earlier write.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from hostel.block.driver import OpenMode
from hostel.block.formats.vmdk import layout
from hostel.block.formats.vmdk.descriptor import ExtentLine
from hostel.block.formats.vmdk.extent import Kind, Run
from hostel.block.formats.vmdk.layout import Marker, SparseHeader
from hostel.block.formats.vmdk.mapped import MAX_BUFFER, MappedExtent, check_sizes, read_bounded, read_header
from hostel.block.formats.vmdk.tables import MAX_DIRTY, Directory, GrainTables, check_directory
from hostel.block.node import BlockNode
from hostel.errors import CorruptImage, InvalidImage, NoSpace, UnsupportedFeature
from hostel.units import INT64_MAX, SECTOR, MiB

_ZEROES: Final = memoryview(bytes(2 * MiB))  # a whole number of grains, as far as they are usual

# Fills a buffer with what lies below this disk, at an offset of the extent.
Below = Callable[[int, memoryview], None]


def read_sparse_header(file: BlockNode) -> SparseHeader:
    """The header at the start of a file.

    Raises:
        InvalidImage: it is none.
    """
    header = SparseHeader.unpack(read_header(file, SparseHeader.SIZE))
    if header.magic != layout.MAGIC:
        raise InvalidImage("Image not in VMDK format")
    return header


def open_sparse(file: BlockNode, line: ExtentLine | None, mode: OpenMode) -> SparseExtent:
    """Open the extent that begins at the start of a file.

    Raises:
        InvalidImage: the header is malformed, or cannot be written.
        UnsupportedFeature: its version is unknown.
    """
    header = read_sparse_header(file)
    has_footer = header.gd_offset == layout.GD_AT_END
    if has_footer:
        header = _footer(file)
    if header.version > 3:
        raise UnsupportedFeature(f"Unsupported VMDK version {header.version}")
    compressed = header.compression == layout.DEFLATE
    if header.version == 3 and not mode.read_only and not compressed:
        # Changed blocks are tracked in another file then, which we would not keep up.
        raise InvalidImage("VMDK version 3 must be read only")
    if header.table_entries > layout.MAX_TABLE_ENTRIES:
        raise InvalidImage("L2 table size too big")
    if not header.table_entries * header.granularity:
        raise InvalidImage("L1 entry size is invalid")
    if -(-file.length // SECTOR) < header.grain_offset:
        raise InvalidImage(f"File truncated, expecting at least {header.grain_offset * SECTOR} bytes")
    if compressed:
        from hostel.block.formats.vmdk.stream import StreamExtent

        return StreamExtent(file, line, header, has_footer=has_footer)
    return SparseExtent(file, line, header, has_footer=has_footer)


def _footer(file: BlockNode) -> SparseHeader:
    """The header that counts, of a stream that was written without going back."""
    end = -(-file.length // SECTOR) * SECTOR
    place = end - 3 * SECTOR
    if place < 0:
        raise InvalidImage("Failed to read footer: Invalid argument")
    data = read_bounded(file, place, 3 * SECTOR, "Failed to read footer")
    before, after = Marker.unpack(data), Marker.unpack(data, 2 * SECTOR)
    header = SparseHeader.unpack(data, SECTOR)
    if (
        header.magic != layout.MAGIC
        or (before.size, before.kind) != (0, layout.FOOTER)
        or (after.value, after.size, after.kind) != (0, 0, layout.END_OF_STREAM)
    ):
        raise InvalidImage("Invalid footer")
    return header


class SparseExtent(MappedExtent):
    """A hosted sparse extent.

    Args:
        file: what it lies in.
        line: the descriptor's line, if any.
        header: the header that counts.
        has_footer: it is at the file's end.
    """

    def __init__(
        self, file: BlockNode, line: ExtentLine | None, header: SparseHeader, *, has_footer: bool = False
    ) -> None:
        entries = -(-header.capacity // (header.table_entries * header.granularity))
        check_sizes(header.capacity, header.granularity, entries)
        for place, what in ((header.gd_offset, "l1"), (header.rgd_offset, "l1 backup")):
            if place * SECTOR > INT64_MAX >> 1:
                raise InvalidImage(f"Could not read {what} table from extent '{file.filename}': Invalid argument")
        directory = Directory(file, header.gd_offset * SECTOR, entries, "I")
        tables = GrainTables(file, directory, header.table_entries, "I", lambda entry: entry * SECTOR)
        super().__init__(file, line, header.capacity, header.granularity, directory, tables)
        self.header = header
        self.has_footer = has_footer
        self.redundant: Directory | None = None
        if header.flags & layout.REDUNDANT and header.rgd_offset:
            self.redundant = Directory(file, header.rgd_offset * SECTOR, entries, "I")
            check_directory(file, self.redundant, "l1 backup")
        self._next = 0  # where the next grain is put; settled by the first write
        # A file that ends before its metadata does cannot be: no grain may lie within what is known to be none.
        self.data_start = header.grain_offset * SECTOR

    @property
    def first_grain(self) -> int:
        """By the header, which may leave out the descriptor."""
        return max(self.data_start, self.text_end)

    @property
    def has_zero_grains(self) -> bool:
        """By the header's flag."""
        return bool(self.header.flags & layout.ZERO_GRAINS)

    def decode(self, entry: int) -> tuple[Kind, int]:
        """Entries are sectors; 0 is nothing, and 1 zeroes where the header says so."""
        if not entry:
            return Kind.UNALLOCATED, 0
        if entry == layout.ZEROED and self.header.flags & layout.ZERO_GRAINS:
            return Kind.ZERO, 0
        return Kind.DATA, entry * SECTOR

    def write_refusal(self) -> str | None:
        """What has a footer cannot grow: the footer would no longer be at its end."""
        if self.has_footer:
            return "A VMDK stream that ends in a footer must be read only"
        if self.grain_size > MAX_BUFFER:
            return f"VMDK grains of {self.grain_size} bytes must be read only"
        return None

    # ---- reading

    def pread(self, run: Run, buf: memoryview) -> None:
        """Read a run of data."""
        self.file.debug_event("read_aio")
        self.file.pread(run.host, buf)

    # ---- writing

    def pwrite(self, offset: int, data: memoryview, below: Below) -> None:
        """Write in place, or into new grains.

        Raises:
            NoSpace: grains cannot lie beyond 2 TiB of a file.
            CorruptImage: the tables make no sense.
        """
        for run in list(self.runs(offset, len(data))):
            part = data[run.offset - offset : run.offset - offset + run.length]
            if run.kind is Kind.DATA:
                self._require_grain(run)
                self.file.debug_event("write_aio")
                self.file.pwrite(run.host, part)
            else:
                self._write_new(run.offset, part, below if run.kind is Kind.UNALLOCATED else _nothing)
        self.write_many()

    def write_zeroes(self, offset: int, length: int, below: Below, *, alone: bool) -> None:
        """Zero a range by entries where there are such and whole grains, else by writing.

        ``alone``: nothing lies below this disk, so what is not allocated reads as zeroes already.
        """
        end = offset + length
        if not self.has_zero_grains:
            self._write_zeroes_out(offset, end, below, alone)
            return
        start = -(-offset // self.grain_size) * self.grain_size
        stop = end if end == self.length else end - end % self.grain_size
        if start >= stop:
            start = stop = end
        self._write_zeroes_out(offset, start, below, alone)
        step = self.reach * (MAX_DIRTY // self.tables.size)  # no more tables than may be held back
        for at in range(start, stop, step):
            self._set_zeroed(at, min(step, stop - at))
        self._write_zeroes_out(stop, end, below, alone)

    def _set_zeroed(self, offset: int, length: int) -> None:
        """Make the entries of whole grains those of zeroes."""
        for run in list(self.runs(offset, length)):
            if run.kind is not Kind.ZERO:
                self._map(run.offset, run.length, layout.ZEROED, 0)
        self.write_many()

    def _write_zeroes_out(self, offset: int, end: int, below: Below, alone: bool) -> None:
        """Write zeroes where something else is read."""
        for run in list(self.runs(offset, end - offset)) if offset < end else ():
            if run.kind is Kind.ZERO or (run.kind is Kind.UNALLOCATED and alone):
                continue
            for at in range(run.offset, run.offset + run.length, len(_ZEROES)):
                self.pwrite(at, _ZEROES[: min(len(_ZEROES), run.offset + run.length - at)], below)

    def _require_grain(self, run: Run) -> None:
        """Refuse to write over what cannot be a grain."""
        if run.host < self.first_grain:
            raise CorruptImage(
                f"A grain of '{self.file.filename}' lies in the metadata, at offset {run.host} "
                f"(disk offset {self.start + run.offset})"
            )

    def _write_new(self, offset: int, data: memoryview, below: Below) -> None:
        """Write a range of which nothing is allocated to new grains, filled up from what lies below."""
        grain = self.grain_size
        first = offset - offset % grain
        end = offset + len(data)
        length = -(-end // grain) * grain - first
        for index in range(first // self.reach, (first + length - 1) // self.reach + 1):
            self._reserve_tables(index)
        host = self.allocate(length)
        position = 0
        if offset > first:
            position = min(len(data), first + grain - offset)
            self._write_filled(first, offset, data[:position], host, below)
        rest = end % grain
        whole = max(position, len(data) - rest)
        if whole > position:
            self.file.debug_event("write_aio")
            self.file.pwrite(host + offset + position - first, data[position:whole])
        if whole < len(data):
            at = end - rest
            self._write_filled(at, at, data[whole:], host + at - first, below)
        self._map(first, length, host // SECTOR, grain // SECTOR)
        self._next = host + length
        self.file_end = max(self.file_end, self._next)

    def _write_filled(self, grain: int, offset: int, data: memoryview, host: int, below: Below) -> None:
        """Write one grain, of which ``data`` is a part."""
        buffer = bytearray(self.grain_size)
        view = memoryview(buffer)
        start = offset - grain
        if start:
            self.file.debug_event("cow_read")
            below(grain, view[:start])
        view[start : start + len(data)] = data
        if start + len(data) < self.grain_size:
            self.file.debug_event("cow_read")
            below(offset + len(data), view[start + len(data) :])
        self.file.debug_event("write_aio")
        self.file.pwrite(host, view)

    def allocate(self, length: int, *, alignment: int | None = None) -> int:
        """Where so many bytes have room at the file's end; nothing is taken yet.

        Raises:
            NoSpace: an entry cannot say where.
            CorruptImage: the file was cut off.
        """
        if not self._next:
            alignment = alignment or self.grain_size
            self._next = -(-max(self._last_end(), self.file.length, self.first_grain) // alignment) * alignment
        if self._next + length > layout.MAX_SECTOR * SECTOR:
            raise NoSpace(f"'{self.file.filename}' is full: a sparse extent's file ends at 2 TiB")
        return self._next

    def _last_end(self) -> int:
        """Where the last grain ends, bytes.

        Raises:
            CorruptImage: a grain lies beyond the file's end: it is lost, and would show what is written there.
        """
        kind, last = self.decode(max((max(entries) for entries in self.tables.stored(SECTOR)), default=0))
        end = self.grain_end(last) if kind in (Kind.DATA, Kind.COMPRESSED) else 0
        if last >= self.file_end or end is None:
            raise CorruptImage(
                f"'{self.file.filename}' is cut off at byte {self.file_end}: "
                "a new grain could lie where a lost one did",
                hint="Copy what is left of the disk with qemu-img convert --salvage.",
            )
        return end

    def grain_end(self, host: int) -> int | None:
        """Where a grain of the file ends, bytes, though the file may end within it; None where it is lost then."""
        return host + self.grain_size

    def _reserve_tables(self, index: int) -> None:
        """Have the host's room for a table that may be a hole: a full disk shall refuse the data, not a later flush."""
        places = self.require_tables(index)
        if self.tables[index] is None:
            for place in reversed(places):
                self.file.pwrite(place, bytes(self.tables.size))

    def require_tables(self, index: int) -> tuple[int, ...]:
        """Where a table, and the redundant one, are; refused where they cannot be written.

        Raises:
            UnsupportedFeature: there is none.
            CorruptImage: one lies over the header, or among the grains.
        """
        places = [self.tables.place(index)]
        if self.redundant is not None:
            places.append(self.redundant[index] * SECTOR)
        for place in places:
            if not place:
                raise UnsupportedFeature(f"'{self.file.filename}' has no grain table {index}: it can only be read")
            # A table among the grains is what the guest wrote, or will be written over it; streams have them there.
            end = self.data_start if self.data_start and not self.compressed else max(self.data_start, self.file_end)
            if place < layout.HEADER_LENGTH or place + self.tables.size > end:
                raise CorruptImage(f"The grain table {index} of '{self.file.filename}' cannot be at offset {place}")
            for known in self._metadata():
                if place < known.stop and known.start < place + self.tables.size:
                    raise CorruptImage(
                        f"The grain table {index} of '{self.file.filename}' at offset {place} lies over other metadata"
                    )
        return tuple(places)

    def _metadata(self) -> Iterator[range]:
        """What no table may lie over, bytes."""
        yield range(layout.DESCRIPTOR_OFFSET, self.text_end)
        header = self.header
        if header.descriptor_offset:
            start = header.descriptor_offset * SECTOR
            yield range(start, start + header.descriptor_size * SECTOR)
        yield range(self.directory.offset, self.directory.end)
        if self.redundant is not None:
            yield range(self.redundant.offset, self.redundant.end)

    def _map(self, offset: int, length: int, entry: int, step: int) -> None:
        """Set the entries of whole grains, each by ``step`` more than the one before."""
        end = offset + length
        while offset < end:
            index, at = divmod(offset // self.grain_size, self.tables.entries)
            self.require_tables(index)
            table = self.tables.writable(index)
            while offset < end and at < len(table):
                table[at] = entry
                entry += step
                at += 1
                offset += self.grain_size

    def set_entry(self, offset: int, entry: int) -> None:
        """Set the entry of the grain at ``offset``."""
        self._map(offset, 1, entry, 0)

    # ---- what is held back

    @property
    def has_changes(self) -> bool:
        """Whether tables are held back."""
        return self.tables.dirty_length > 0

    def write_many(self) -> None:
        """Write the tables that are held back once they are many."""
        if self.tables.dirty_length >= MAX_DIRTY:
            self.write_tables()

    def write_tables(self) -> None:
        """Write the tables that are held back, after what they refer to."""
        if not self.has_changes:
            return
        self.file.flush()
        dirty = [(self.require_tables(index), data) for index, data in self.tables.dirty()]
        for which in (1, 0):
            for places, data in dirty:
                if which < len(places):
                    self.file.debug_event("l2_update")
                    self.file.pwrite(places[which], data)
        self.tables.written()

    def flush(self) -> None:
        """Write the tables, and sync."""
        self.write_tables()
        self.file.flush()


def _nothing(offset: int, buf: memoryview) -> None:
    """A grain of zeroes that is written anew: the buffer is zeroes already."""

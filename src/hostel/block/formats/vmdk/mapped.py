"""Extents that map grains by a directory of tables, for reading: COWD, seSparse, and what hosted ones have of it."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import Final

from hostel.block.formats.vmdk import layout
from hostel.block.formats.vmdk.descriptor import ExtentLine
from hostel.block.formats.vmdk.extent import Kind, Run, VmdkExtent
from hostel.block.formats.vmdk.layout import CowdHeader, SeSparseHeader, SeSparseVolatile
from hostel.block.formats.vmdk.tables import Directory, GrainTables, check_directory
from hostel.block.node import BlockNode
from hostel.block.reading import read_or_say, reading
from hostel.errors import CorruptImage, InvalidImage, UnsupportedFeature
from hostel.units import INT64_MAX, SECTOR, MiB

UNREADABLE: Final = "Could not read from file"  # what QEMU says of the first MiB, whatever it wants of it
MAX_BUFFER: Final = 64 * MiB  # bytes of a grain that is held in memory as a whole


class MappedExtent(VmdkExtent):
    """An extent with a grain directory.

    Args:
        file: what it lies in.
        line: the descriptor's line, if any.
        capacity: sectors of the disk that it holds.
        grain_sectors: sectors of a grain.
        directory: where the tables are.
        tables: the tables.

    Raises:
        InvalidImage: a size is out of its limits.
    """

    grain_size: int

    def __init__(
        self,
        file: BlockNode,
        line: ExtentLine | None,
        capacity: int,
        grain_sectors: int,
        directory: Directory,
        tables: GrainTables,
    ) -> None:
        super().__init__(file, line)
        check_sizes(capacity, grain_sectors, directory.entries)
        check_directory(file, directory, "l1")
        with reading(f"Could not read l1 table from extent '{file.filename}'"):
            directory.load()
        self.length = capacity * SECTOR
        self.grain_size = grain_sectors * SECTOR
        self.directory = directory
        self.tables = tables
        self.reach = self.grain_size * tables.entries  # bytes of the disk that a table maps
        self.file_end = file.length
        if directory.entries * self.reach < self.length:
            raise InvalidImage(f"The grain directory of '{file.filename}' is too short for the extent's capacity")

    def decode(self, entry: int) -> tuple[Kind, int]:
        """What a table's entry says: the kind, and of data the offset in the file."""
        if not entry:
            return Kind.UNALLOCATED, 0
        return Kind.DATA, entry * SECTOR

    @property
    def first_grain(self) -> int:
        """The byte of the file before which no grain lies."""
        return self.text_end

    def step(self) -> int:
        """By how much the entries of two grains differ that follow one another on the disk."""
        return self.grain_size // SECTOR

    def runs(self, offset: int, length: int) -> Iterator[Run]:
        """Walk the tables."""
        end = offset + length
        while offset < end:
            index = offset // self.reach
            stop = min(end, (index + 1) * self.reach)
            table = self.tables[index]
            if table is None:
                if stop < end:
                    stop = min(end, (index + max(1, self.directory.absent(index))) * self.reach)
                yield Run(offset, stop - offset, Kind.UNALLOCATED)
            else:
                yield from self._runs_of_table(table, offset, stop)
            offset = stop

    def _runs_of_table(self, table: array[int], offset: int, end: int) -> Iterator[Run]:
        grain, step = self.grain_size, self.step()
        first = offset // grain
        entries = table[first % len(table) : (first + -(-(end - first * grain) // grain) - 1) % len(table) + 1].tolist()
        while offset < end:
            at = offset // grain - first
            entry = entries[at]
            kind, host = self.decode(entry)
            grows = step if kind is Kind.DATA else 0
            last = offset - offset % grain + grain
            at += 1
            entry += grows
            while last < end and self._continues(kind, entries[at], entry):
                at += 1
                last += grain
                entry += grows
            stop = min(last, end)
            if kind is Kind.DATA:
                stop = self._inside(offset, stop, host)
                host += offset % grain
            yield Run(offset, stop - offset, kind, host)
            offset = stop

    def _inside(self, offset: int, end: int, host: int) -> int:
        """Where a run of data ends whose first grain is at ``host``: where ``end`` says, or the file does.

        Raises:
            CorruptImage: not even the first grain begins in the file; QEMU reads it as zeroes.
        """
        if host >= self.file_end:
            raise CorruptImage(
                f"A grain of '{self.file.filename}' at offset {host} lies beyond the file's end "
                f"(disk offset {self.start + offset})"
            )
        first = offset - offset % self.grain_size
        return min(end, first + -(-(self.file_end - host) // self.grain_size) * self.grain_size)

    def _continues(self, kind: Kind, entry: int, expected: int) -> bool:
        """Whether the next entry belongs to a run of a kind, whose last one leads to expect ``expected``."""
        return entry == expected


def check_sizes(capacity: int, grain_sectors: int, directory_entries: int) -> None:
    """Refuse sizes beyond those of QEMU, in its words.

    Raises:
        InvalidImage: one is.
    """
    if not 0 < grain_sectors <= layout.MAX_GRAIN_SECTORS:
        raise InvalidImage("Invalid granularity, image may be corrupt")
    if directory_entries > layout.MAX_DIRECTORY_ENTRIES:
        raise InvalidImage("L1 size too big")
    if capacity * SECTOR > INT64_MAX:
        raise InvalidImage("The capacity of the extent is too large")


class CowdExtent(MappedExtent):
    """A copy-on-write disk of ESX: ``VMFSSPARSE``."""

    def __init__(self, file: BlockNode, line: ExtentLine | None) -> None:
        header = CowdHeader.unpack(read_header(file, CowdHeader.SIZE))
        if header.magic != layout.COWD_MAGIC:
            raise InvalidImage("Image not in VMDK format")
        check_sizes(header.capacity, header.granularity, header.directory_entries)
        directory = Directory(file, header.gd_offset * SECTOR, header.directory_entries, "I")
        tables = GrainTables(file, directory, layout.COWD_TABLE_ENTRIES, "I", lambda entry: entry * SECTOR)
        super().__init__(file, line, header.capacity, header.granularity, directory, tables)

    def write_refusal(self) -> str | None:
        """A table that is missing would have to be made; QEMU writes what belongs into it to any place."""
        return "No write support for COWD images available"


class SeSparseExtent(MappedExtent):
    """A space-efficient disk of ESX: ``SESPARSE``."""

    def __init__(self, file: BlockNode, line: ExtentLine | None) -> None:
        failure, what = "Could not read", f"header from file '{file.filename}'"
        header = SeSparseHeader.unpack(read_header(file, SeSparseHeader.SIZE, f"{failure} const {what}"))
        _check_sesparse(header)
        if header.volatile_offset * SECTOR > INT64_MAX - SECTOR:
            raise InvalidImage(f"{failure} volatile {what}: Invalid argument")
        volatile = read_bounded(
            file, header.volatile_offset * SECTOR, SeSparseVolatile.SIZE, f"{failure} volatile {what}"
        )
        _check_volatile(SeSparseVolatile.unpack(volatile))
        entries = header.gd_size * SECTOR // 8
        check_sizes(header.capacity, header.grain_size, entries)
        if max(header.gd_offset, header.tables_offset, header.grains_offset) * SECTOR > INT64_MAX >> 1:
            raise InvalidImage(f"A region of '{file.filename}' lies beyond the end of every file")
        self._tables_offset = header.tables_offset
        self._grains_offset = header.grains_offset
        directory = Directory(file, header.gd_offset * SECTOR, entries, "Q")
        tables = GrainTables(file, directory, layout.SE_TABLE_ENTRIES, "Q", self._place)
        super().__init__(file, line, header.capacity, header.grain_size, directory, tables)

    def write_refusal(self) -> str | None:
        """QEMU's words."""
        return "No write support for seSparse images available"

    def _place(self, entry: int) -> int:
        if not entry:
            return 0
        if entry >> 32 != 0x10000000:
            raise CorruptImage(f"The grain directory of '{self.file.filename}' has an entry {entry:#x}")
        return (self._tables_offset + (entry & 0xFFFFFFFF) * layout.SE_TABLE_SECTORS) * SECTOR

    def decode(self, entry: int) -> tuple[Kind, int]:
        """The highest four bits are the kind; of data, the next twelve are the lowest of the grain's number."""
        kind = entry >> 60
        if not entry:
            return Kind.UNALLOCATED, 0
        if kind in (1, 2):  # unmapped by the guest, or of zeroes
            return Kind.ZERO, 0
        if kind != 3:
            raise CorruptImage(f"A grain table of '{self.file.filename}' has an entry {entry:#x}")
        number = entry >> 48 & 0xFFF | (entry & 0xFFFFFFFFFFFF) << 12
        return Kind.DATA, self._grains_offset * SECTOR + number * self.grain_size

    def _continues(self, kind: Kind, entry: int, expected: int) -> bool:
        if kind is Kind.DATA:
            return False  # numbers do not count up as entries do: the walk's caller joins what fits
        if kind is Kind.ZERO:
            return entry >> 60 in (1, 2)
        return entry == 0


def read_header(file: BlockNode, length: int, failure: str = UNREADABLE) -> bytes:
    """A header of at most a sector.

    Raises:
        InvalidImage: the file is too short to have one.
        BlockError: it cannot be read; ``failure`` stands before the errno's text.
    """
    if file.length < 4:
        raise InvalidImage("File is too small, not a valid image")
    return read_bounded(file, 0, length, failure)


def read_bounded(file: BlockNode, offset: int, length: int, failure: str = UNREADABLE) -> bytes:
    """Bytes of a file, and zeroes where it ends before.

    Raises:
        BlockError: they cannot be read; ``failure`` stands before the errno's text.
    """
    inside = max(0, min(length, file.length - offset))
    return read_or_say(file, offset, inside, failure).ljust(length, b"\0") if inside else bytes(length)


def _check_sesparse(header: SeSparseHeader) -> None:
    """Refuse what nobody has described, as QEMU does."""
    if header.magic != layout.SE_MAGIC:
        raise InvalidImage(f"Bad const header magic: 0x{header.magic:016x}")
    if header.version != layout.SE_VERSION:
        raise UnsupportedFeature(f"Unsupported version: 0x{header.version:016x}")
    if header.grain_size != layout.SE_GRAIN_SECTORS:
        raise UnsupportedFeature(f"Unsupported grain size: {header.grain_size}")
    if header.table_size != layout.SE_TABLE_SECTORS:
        raise UnsupportedFeature(f"Unsupported grain table size: {header.table_size}")
    if header.flags:
        raise UnsupportedFeature(f"Unsupported flags: 0x{header.flags:016x}")
    reserved = (header.reserved1, header.reserved2, header.reserved3, header.reserved4)
    if any(reserved):
        raise UnsupportedFeature(f"Unsupported reserved bits: {' '.join(f'0x{each:016x}' for each in reserved)}")
    if any(header.padding):
        raise UnsupportedFeature("Unsupported non-zero const header padding")


def _check_volatile(header: SeSparseVolatile) -> None:
    if header.magic != layout.SE_VOLATILE_MAGIC:
        raise InvalidImage(f"Bad volatile header magic: 0x{header.magic:016x}")
    if header.replay_journal:
        raise UnsupportedFeature("Image is dirty, Replaying journal not supported")
    if any(header.padding):
        raise UnsupportedFeature("Unsupported non-zero volatile header padding")

"""Grain directories and grain tables: read when they are needed, kept within bounds, changes held back."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from typing import Final

from hostel.block.formats.pieces import pieces
from hostel.block.node import BlockNode
from hostel.codec.table import pack_table, unpack_table, zero_table
from hostel.errors import CorruptImage, InvalidImage
from hostel.units import KiB, MiB

_CACHE: Final = 8 * MiB  # bytes of tables that are kept, as they are on disk
_CHUNK: Final = 64 * KiB  # bytes of a directory, or of tables that follow one another, read at once
MAX_DIRTY: Final = 2 * MiB  # bytes of changed tables, from which on they are written


class Directory:
    """A grain directory: where each grain table is.

    Args:
        file: what it lies in.
        offset: where, bytes.
        entries: how many it has.
        typecode: of one entry, as in :mod:`array`.
    """

    def __init__(self, file: BlockNode, offset: int, entries: int, typecode: str) -> None:
        self._file = file
        self._width = array(typecode).itemsize
        self._typecode = typecode
        self._chunks: dict[int, array[int]] = {}
        self.offset = offset
        self.entries = entries

    @property
    def end(self) -> int:
        """The first byte after it."""
        return self.offset + self.entries * self._width

    def __getitem__(self, index: int) -> int:
        chunk, within = self._chunk(index)
        return chunk[within]

    def load(self) -> None:
        """Read it, as far as it is kept in memory: an extent fails when it is opened where that cannot be done.

        Raises:
            OSError: the host's own errors.
        """
        for index in range(0, min(self.entries * self._width, _CACHE) // self._width, _CHUNK // self._width):
            self._chunk(index)

    def absent(self, index: int) -> int:
        """How many entries from this one on are known to be 0; a directory of millions is walked by such steps."""
        chunk, within = self._chunk(index)
        rest = chunk[within:]
        return next((at for at, entry in enumerate(rest) if entry), len(rest)) if any(rest) else len(rest)

    def in_a_row(self, index: int, step: int) -> tuple[int, bool]:
        """How many entries from this one on are read at once, and whether each is ``step`` more than the one before."""
        chunk, within = self._chunk(index)
        rest = chunk[within:]
        top = rest[0] + (len(rest) - 1) * step
        return len(rest), step > 0 and rest[-1] == top and rest == array(self._typecode, range(rest[0], top + 1, step))

    def _chunk(self, index: int) -> tuple[array[int], int]:
        per_chunk = _CHUNK // self._width
        number, within = divmod(index, per_chunk)
        chunk = self._chunks.get(number)
        if chunk is None:
            count = min(per_chunk, self.entries - number * per_chunk)
            data = self._file.read(self.offset + number * _CHUNK, count * self._width)
            chunk = unpack_table(data, self._typecode, "little")
            if len(self._chunks) * _CHUNK >= _CACHE:
                del self._chunks[next(iter(self._chunks))]
            self._chunks[number] = chunk
        return chunk, within


class GrainTables:
    """The grain tables of an extent, and which of them have changed.

    A table of zeroes is None: an empty disk of terabytes has no other.

    Args:
        file: what they lie in.
        directory: says where.
        entries: how many each table has.
        typecode: of one entry, as in :mod:`array`.
        place: turns a directory's entry into an offset in bytes; 0 where there is no table.
    """

    def __init__(
        self, file: BlockNode, directory: Directory, entries: int, typecode: str, place: Callable[[int], int]
    ) -> None:
        self._file = file
        self._directory = directory
        self._typecode = typecode
        self._place = place
        self._tables: dict[int, array[int] | None] = {}
        self._dirty: dict[int, None] = {}
        self.entries = entries
        self.size = entries * array(typecode).itemsize

    def __getitem__(self, index: int) -> array[int] | None:
        """A table, not to be changed.

        Raises:
            CorruptImage: the directory's entry cannot be right.
        """
        try:
            return self._tables[index]
        except KeyError:
            self._load(index)
            return self._tables[index]

    def writable(self, index: int) -> array[int]:
        """A table that is about to be changed."""
        table = self[index]
        if table is None:
            table = zero_table(self.entries, self._typecode)
            self._tables[index] = table
        self._dirty[index] = None
        return table

    def place(self, index: int) -> int:
        """Where a table is, bytes; 0 where there is none.

        Raises:
            CorruptImage: the directory's entry cannot be right.
        """
        offset = self._place(self._directory[index])
        if offset and offset + self.size > self._file.length:
            raise CorruptImage(
                f"The grain table {index} of '{self._file.filename}' at offset {offset} lies beyond the file's end"
            )
        return offset

    def stored(self, unit: int) -> Iterator[array[int]]:
        """The entries as they are on the disk, in portions: all but some zeroes. Nothing is kept of them.

        Args:
            unit: bytes by which the directory counts places.

        Raises:
            CorruptImage: a table lies beyond the file's end, or there are more than it has room for.
        """
        index, room = 0, self._file.length
        while index < self._directory.entries:
            if absent := self._directory.absent(index):
                index += absent
                continue
            count, is_run = self._directory.in_a_row(index, 0 if self.size % unit else self.size // unit)
            runs = [(index, count)] if is_run else [(each, 1) for each in range(index, index + count)]
            for first, tables in runs:
                room -= tables * self.size if self._directory[first] else 0
                if room < 0:  # a hostile table could be read a million times
                    raise CorruptImage(f"The grain tables of '{self._file.filename}' lie on each other")
                place = self.place(first)
                if place and tables == 1:  # sooner read than its holes are found
                    yield unpack_table(self._file.read(place, self.size), self._typecode, "little")
                elif place and self.place(first + tables - 1):
                    for _, entries in pieces(self._file, place, tables * self.size, self._typecode, "little"):
                        yield entries
            index += count

    @property
    def dirty_length(self) -> int:
        """Bytes of tables that were changed and are not written."""
        return len(self._dirty) * self.size

    def dirty(self) -> Iterator[tuple[int, bytes]]:
        """The changed tables, by their index."""
        for index in sorted(self._dirty):
            table = self._tables[index]
            assert table is not None
            yield index, pack_table(table, "little")

    def written(self) -> None:
        """All changed tables are on the disk."""
        self._dirty.clear()

    def _load(self, index: int) -> None:
        """Read a table, and with it those that follow it on the disk as they do in the directory."""
        self._make_room()
        first = self.place(index)
        if not first:
            self._tables[index] = None
            return
        count = 1
        while (
            (count + 1) * self.size <= _CHUNK
            and index + count < self._directory.entries
            and index + count not in self._tables
            and self._place(self._directory[index + count]) == first + count * self.size
            and first + (count + 1) * self.size <= self._file.length
        ):
            count += 1
        self._file.debug_event("l2_load")
        data = memoryview(self._file.read(first, count * self.size))
        nothing = bytes(self.size)
        for number in range(count):
            part = data[number * self.size : (number + 1) * self.size]
            self._tables[index + number] = None if part == nothing else unpack_table(part, self._typecode, "little")

    def _make_room(self) -> None:
        if len(self._tables) * self.size < _CACHE:
            return
        for index in list(self._tables)[: len(self._tables) // 2]:
            if index not in self._dirty:
                del self._tables[index]


def check_directory(file: BlockNode, directory: Directory, what: str) -> None:
    """Refuse a directory that does not lie in its file.

    Raises:
        InvalidImage: it ends beyond the file's end; QEMU reads zeroes there, and takes the disk for an empty one.
    """
    if directory.end > file.length:
        raise InvalidImage(
            f"Could not read {what} table from extent '{file.filename}': Invalid argument",
            hint=f"It ends at offset {directory.end}, and the file at {file.length}.",
        )

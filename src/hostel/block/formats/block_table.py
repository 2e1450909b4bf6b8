"""Formats that map a disk block by block: the table of places, and runs of blocks as the guest sees them.

VDI, VHD and VHDX share the shape: the disk is cut into blocks of a megabyte or so, and one table says where each block
lies in the file. A table may be gigabytes long, in the header's words at least, so it is read page by page when it is
first asked for, and only what has changed is written.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple

from hostel.block.extent import Extent, Status
from hostel.block.node import BlockNode
from hostel.block.powers import Preallocation
from hostel.codec.table import equal_entries, pack_table, unpack_table
from hostel.errors import NoSpace
from hostel.units import SECTOR, KiB, MiB

PAGE: Final = 64 * KiB  # bytes of a table that are read at once
_MOST_CLEAN: Final = 512  # pages kept: a table of 32 MiB stays in memory as a whole
_MOST_DIRTY: Final = 256

ABSENT: Final = -1  # nothing in this image: the backing node shows through, or zeroes where there is none
ZEROES: Final = -2  # zeroes, said by this image


class BlockTable:
    """A table of unsigned integers in a file.

    Args:
        file: where it lies.
        offset: of its first entry, bytes.
        count: entries.
        typecode: ``I`` for entries of 4 bytes, ``Q`` for 8, as in :mod:`array`.
        order: the byte order on disk, ``big`` or ``little``.
        unit: bytes that are written at once.
    """

    def __init__(self, file: BlockNode, offset: int, count: int, typecode: str, order: str, unit: int = SECTOR) -> None:
        self._file = file
        self._unit = unit
        self._offset = offset
        self._typecode = typecode
        self._order = order
        self._width = array(typecode).itemsize
        self.page_entries = PAGE // self._width
        self.count = count
        self._pages: dict[int, array[int]] = {}
        self._dirty: dict[int, set[int]] = {}  # page to the units in it that are to be written

    def __getitem__(self, index: int) -> int:
        number, slot = divmod(index, self.page_entries)
        return self._page(number)[slot]

    def __setitem__(self, index: int, value: int) -> None:
        number, slot = divmod(index, self.page_entries)
        self._page(number)[slot] = value
        self._dirty.setdefault(number, set()).add(slot * self._width // self._unit)

    def reserve(self, index: int) -> None:
        """Have the host's room for an entry in a table that may have holes, before the entry is changed.

        Raises:
            OSError: the host's own errors; the disk is full.
        """
        number, slot = divmod(index, self.page_entries)
        unit = slot * self._width // self._unit
        if unit not in self._dirty.get(number, ()):
            place = self._offset + number * PAGE + unit * self._unit
            self._file.pwrite(place, self._file.read(place, self._unit))

    @property
    def dirty_units(self) -> int:
        """How many units are to be written."""
        return sum(map(len, self._dirty.values()))

    @property
    def is_dirty(self) -> bool:
        """Whether anything is held back."""
        return bool(self._dirty)

    @property
    def is_crowded(self) -> bool:
        """Whether so much is held back that it should be written."""
        return len(self._dirty) >= _MOST_DIRTY

    def same(self, index: int, most: int) -> int:
        """How many entries from ``index`` on are equal to the first, as far as its page goes; at most ``most``."""
        number, slot = divmod(index, self.page_entries)
        page = self._page(number)
        most = min(most, len(page) - slot)
        return equal_entries(page, slot, slot + most) - slot

    def pages(self) -> Iterator[tuple[int, array[int]]]:
        """All entries in order: the index of the first of each page, and the page. It must not be changed."""
        if 0 < self.count <= self.page_entries:
            yield 0, self._page(0)  # kept: it is asked for next
            return
        for number in range(-(-self.count // self.page_entries)):
            page = self._pages.get(number)
            yield number * self.page_entries, self._read(number) if page is None else page

    def load(self) -> None:
        """Read the table, as far as it could be kept in memory: an image whose table cannot be read fails when opened.

        Raises:
            OSError: the host's own errors.
        """
        length = min(_MOST_CLEAN * PAGE, self.count * self._width)
        if length <= PAGE:
            if length:
                self._page(0)
            return
        # Most commands do not ask for all of it: what is read here is not understood, nor kept.
        buffer = memoryview(bytearray(MiB))
        for place in range(0, length, MiB):
            self._file.pread(self._offset + place, buffer[: min(MiB, length - place)])

    def changes(self) -> Iterator[tuple[int, bytes]]:
        """What is to be written where in the file, in order: whole units, neighbours together."""
        for number in sorted(self._dirty):
            units = sorted(self._dirty[number])
            place = self._offset + number * PAGE
            data = pack_table(self._pages[number], self._order)
            if rest := -len(data) % self._unit:  # what shares the last unit with the table's end
                data += bytes(self._file.read(place + len(data), rest))
            start = units[0]
            for unit, following in zip(units, [*units[1:], -1], strict=True):
                if following != unit + 1:
                    yield place + start * self._unit, data[start * self._unit : (unit + 1) * self._unit]
                    start = following

    def written(self) -> None:
        """Everything that was held back is on the disk."""
        self._dirty.clear()
        self._forget()

    def _page(self, number: int) -> array[int]:
        page = self._pages.get(number)
        if page is None:
            self._forget()
            page = self._pages[number] = self._read(number)
        return page

    def _forget(self) -> None:
        while len(self._pages) > _MOST_CLEAN + len(self._dirty):
            del self._pages[next(number for number in self._pages if number not in self._dirty)]

    def _read(self, number: int) -> array[int]:
        first = number * self.page_entries
        length = min(self.page_entries, self.count - first) * self._width
        return unpack_table(self._file.read(self._offset + number * PAGE, length), self._typecode, self._order)


class Run(NamedTuple):
    """A range of the disk that lies in one piece.

    Attributes:
        offset: bytes from the start of the disk.
        length: bytes; never 0.
        host: where it begins in the file; :data:`ABSENT` or :data:`ZEROES` where it has no place.
    """

    offset: int
    length: int
    host: int


class BlockMap:
    """Where a disk's blocks lie.

    Args:
        table: their entries.
        block_size: bytes.
        place: where an entry says that its block begins, or :data:`ABSENT` or :data:`ZEROES`.
        chunk: after so many blocks the table has one entry that is none of a block; 0 where it has only blocks.
    """

    def __init__(self, table: BlockTable, block_size: int, place: Callable[[int], int], chunk: int = 0) -> None:
        self.table = table
        self.block_size = block_size
        self._place = place
        self._chunk = chunk

    def index(self, block: int) -> int:
        """A block's slot in the table."""
        return block + block // self._chunk if self._chunk else block

    def entry(self, block: int) -> int:
        """A block's entry."""
        return self.table[self.index(block)]

    def runs(self, offset: int, length: int) -> Iterator[Run]:
        """A range's runs, in order and without gaps, neighbours joined where the file's bytes go on."""
        end = offset + length
        start, host = offset, None
        while offset < end:
            block, inside = divmod(offset, self.block_size)
            index = self.index(block)
            entry = self.table[index]
            found = self._place(entry)
            count = 1
            if found >= 0:
                found += inside
            else:
                most = -(-end // self.block_size) - block
                if self._chunk:
                    most = min(most, self._chunk - block % self._chunk)
                count = self.table.same(index, most)
            if host is not None and not (found == host + offset - start if host >= 0 else found == host):
                yield Run(start, offset - start, host)
                start, host = offset, None
            if host is None:
                host = found
            offset = min(end, (block + count) * self.block_size)
        if host is not None:
            yield Run(start, end - start, host)


def with_holes(file: BlockNode, extents: Iterable[Extent]) -> Iterator[Extent]:
    """The extents, in which data that the host's file has no bytes for is marked as zeroes too."""
    for extent in extents:
        if extent.host_offset is None:
            yield extent
            continue
        for part in file.extents(extent.host_offset, extent.length):
            start = extent.offset + part.offset - extent.host_offset
            yield Extent(start, part.length, extent.status | (part.status & Status.ZERO), part.offset)


def make_room(file: BlockNode, end: int, reserve: Preallocation) -> None:
    """Give a new image's file its length, all of it zeroes.

    Raises:
        NoSpace: the file has a size of its own, and that is too small.
        OSError: the host's own errors.
    """
    if file.grows:
        file.resize(end, reserve)
        return
    if file.length < end:
        raise NoSpace(f"'{file.filename}' has {file.length} bytes, and the image needs {end}")
    file.write_zeroes(0, end, unmap=reserve is Preallocation.OFF)  # it holds whatever it held


def claim(file: BlockNode, start: int, end: int, data_start: int, data_end: int) -> None:
    """Make a new block's range of the file read as zeroes, but for the part that is written next anyway.

    What the file does not reach yet is zeroes once it does; what it has there already is of nobody, and may be
    anything.

    Raises:
        NoSpace: the file cannot grow.
        OSError: the host's own errors.
    """
    length = file.length
    for low, high in ((start, data_start), (data_end, end)):
        if low < min(high, length):
            file.write_zeroes(low, min(high, length) - low, unmap=True)
    if end > length:
        if not file.grows:
            raise NoSpace(f"'{file.filename}' has {length} bytes and cannot grow: the image is full")
        file.resize(end)

"""Format ``vpc``: reading and writing VHD images, fixed, dynamic, and (reading) differencing."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Self

from hostel.block.driver import FormatInfo, OpenMode, Reference
from hostel.block.extent import Extent, Status
from hostel.block.formats.block_mapped import BlockMappedDriver
from hostel.block.formats.block_table import ABSENT, BlockMap, BlockTable, Run, claim, with_holes
from hostel.block.formats.vpc import layout
from hostel.block.formats.vpc.create import CREATE_OPTIONS
from hostel.block.formats.vpc.layout import DiskType, DynamicHeader, Footer, bitmap_length, sealed
from hostel.block.formats.vpc.opening import TRUNCATED, find_end, read_footer, read_header, sectors_of, table_of
from hostel.block.node import BlockNode
from hostel.block.options import Kind, Option, OptionError, Options, Value
from hostel.errors import InvalidImage, NoSpace, ReadOnly
from hostel.units import SECTOR

_CALCULATIONS: Final = ("chs", "current_size")


class VpcDriver(BlockMappedDriver):
    """Passes a fixed image's requests on; of others looks up blocks, and adds them at the end, before the footer.

    The table and the footer are held back until a flush.
    """

    name = "vpc"
    title = "VHD"
    options: Final = Options(  # type: ignore[misc]
        Option(
            "force_size_calc",
            Kind.STRING,
            "Force disk size calculation to use either CHS geometry, or use the disk current_size specified in the VHD "
            "footer. {chs, current_size}",
        ),
    )
    create_options: Final = CREATE_OPTIONS

    def __init__(
        self, file: BlockNode, found: tuple[Footer, int], length: int, header: DynamicHeader | None, mode: OpenMode
    ) -> None:
        footer, place = found
        super().__init__(file, mode, differs=footer.disk_type == DiskType.DIFFERENCING)
        self._footer = footer
        self.unique_id = footer.unique_id.hex()
        self._length = length
        self._header = header
        if header is None:
            return
        self._bitmap_length = bitmap_length(header.block_size)
        self._table = BlockTable(file, header.table_offset, header.max_table_entries, "I", "big")
        self._map = BlockMap(self._table, header.block_size, self._place)
        # Where the next block goes. The table is read to its end for that: one that cannot be read fails here.
        self._end = find_end(self._table.pages(), table_of(footer, place, header))
        self._marked: set[int] = set()  # blocks whose bitmap says that all of their sectors count

    @classmethod
    def open(cls, file: BlockNode, mode: OpenMode) -> Self:
        """Read footer, header and table.

        Raises:
            InvalidImage: they are malformed, or the file is truncated.
            CorruptImage: blocks lie over the table.
            UnsupportedFeature: it is none of the known kinds, or a differencing image that is to be written.
            OptionError: the option has no such value.
        """
        calculation = mode.options.get("force_size_calc")
        if calculation is not None and calculation not in _CALCULATIONS:
            raise OptionError(f"Invalid size calculation mode: '{calculation}'")
        found = footer, _ = read_footer(file)
        sectors = sectors_of(footer, str(calculation or ""))
        if sectors > layout.MAX_SECTORS:
            raise InvalidImage(
                f"The disk has {sectors} sectors, and a VHD may have {layout.MAX_SECTORS}", errno=errno.EFBIG
            )
        if footer.disk_type == DiskType.FIXED:
            if not mode.no_io and sectors * SECTOR > file.length - Footer.SIZE:
                raise InvalidImage(
                    f"The image has been truncated: the disk has {sectors * SECTOR} bytes, and the file only "
                    f"{file.length - Footer.SIZE} before its footer"
                )
            return cls(file, found, sectors * SECTOR, None, mode)
        if footer.disk_type == DiskType.DIFFERENCING and not mode.read_only:
            raise ReadOnly("A differencing VHD can only be read; convert it to write the disk")
        header = read_header(file, footer, sectors, writable=not mode.read_only)
        if header.table_offset + 4 * header.max_table_entries > file.length:
            raise InvalidImage(TRUNCATED)
        driver = cls(file, found, sectors * SECTOR, header, mode)
        if driver._end > file.length:
            raise InvalidImage(TRUNCATED)
        return driver

    @classmethod
    def probe(cls, head: bytes, filename: str) -> int:
        """By the copy of the footer; a fixed image has none, and is told by its name only."""
        return 100 if head.startswith(layout.COOKIE) else 0

    @classmethod
    def check_creation(cls, size: int, options: Mapping[str, Value]) -> None:
        """Refuse what cannot be created; see :func:`hostel.block.formats.vpc.create.check_creation`."""
        from hostel.block.formats.vpc.create import check_creation

        check_creation(size, options)

    @classmethod
    def create(cls, file: BlockNode, size: int, options: Mapping[str, Value]) -> None:
        """Lay out an empty image; see :func:`hostel.block.formats.vpc.create.create_image`."""
        from hostel.block.formats.vpc.create import create_image

        create_image(file, size, options)

    @property
    def length(self) -> int:
        """The virtual size in bytes."""
        return self._length

    def pread(self, offset: int, buf: memoryview) -> None:
        """Read blocks, and zeroes, or the parent, where there are none."""
        if self._header is None:
            self._file.pread(offset, buf)
        else:
            super().pread(offset, buf)

    def pwrite(self, offset: int, data: memoryview) -> None:
        """Write in place, or into new blocks."""
        if self._header is None:
            self._file.pwrite(offset, data)
        else:
            super().pwrite(offset, data)

    def write_zeroes(self, offset: int, length: int, *, unmap: bool) -> None:
        """Zero what is there; other blocks are zeroes already."""
        if self._header is None:
            self._file.write_zeroes(offset, length, unmap=unmap)
        else:
            super().write_zeroes(offset, length, unmap=unmap)

    def flush(self) -> None:
        """Write data and the footer behind it, then the table: a crash leaves a block that nobody has, at worst.

        Meanwhile the copy at the start of the file says what the footer does.
        """
        if self._header is None or not self._table.is_dirty:
            self._file.flush()
            return
        self._file.pwrite(self._end, sealed(self._footer))
        if self._file.grows and self._file.length > self._end + Footer.SIZE:
            self._file.resize(self._end + Footer.SIZE)  # who looks for the footer looks at the end
        self._file.flush()
        for place, sectors in self._table.changes():
            self._file.pwrite(place, sectors)
        self._file.flush()
        self._table.written()

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """Blocks and zeroes; holes of the host's file in a fixed image are zeroes as well."""
        if self._header is not None:
            return super().extents(offset, length)
        return with_holes(self._file, [Extent(offset, length, Status.DATA | Status.ALLOCATED, offset)])

    def references(self) -> Sequence[Reference]:
        """The parent of a differencing image."""
        if self._header is None or not self._differs:
            return ()
        from hostel.block.formats.vpc.parent import parent_of

        return (parent_of(self._file, self._header),)

    def info(self) -> FormatInfo:
        """The size of blocks."""
        return FormatInfo(cluster_size=self._header.block_size if self._header is not None else None)

    def close(self) -> None:
        """Write what is held back."""
        if self._header is not None:
            super().close()

    def _place(self, entry: int) -> int:
        return ABSENT if entry == layout.UNUSED else entry * SECTOR + self._bitmap_length

    def _runs(self, offset: int, length: int) -> Iterator[Run]:
        found = self._map.runs(offset, length)
        if not self._differs:
            return found
        return (part for run in found for part in self._by_bitmap(run))

    def _by_bitmap(self, run: Run) -> Iterator[Run]:
        """A run of a differencing image's blocks, split where its bitmap changes between this image and its parent."""
        if run.host < 0:
            yield run
            return
        block, inside = divmod(run.offset, self._map.block_size)
        place = run.host - inside - self._bitmap_length
        bits = self._file.read(place, self._bitmap_length)
        offset, end = run.offset, run.offset + run.length
        base = block * self._map.block_size
        while offset < end:
            present = _bit(bits, (offset - base) // SECTOR)
            stop = _end_of_bits(bits, (offset - base) // SECTOR, present)
            following = min(end, base + stop * SECTOR)
            yield Run(offset, following - offset, run.host + offset - run.offset if present else ABSENT)
            offset = following

    def _before_overwriting(self, run: Run) -> None:
        """Let the bitmaps of blocks say that all sectors count, as QEMU does; what others left out is zeroes."""
        size = self._map.block_size
        for block in range(run.offset // size, -(-(run.offset + run.length) // size)):
            if block not in self._marked:
                place = self._map.entry(block) * SECTOR
                if bytes(self._file.read(place, self._bitmap_length)).count(255) != self._bitmap_length:
                    self._file.pwrite(place, b"\xff" * self._bitmap_length)
                self._marked.add(block)

    def _add(self, offset: int, data: memoryview) -> None:
        size = self._map.block_size
        while data:
            block, inside = divmod(offset, size)
            part = data[: size - inside]
            start = self._end + self._bitmap_length
            if start + size > layout.UNUSED * SECTOR:
                raise NoSpace("The file is as large as a VHD can be")
            place = start + inside
            claim(self._file, start, start + size, place, place + len(part))
            # The footer behind it now, where a full disk refuses this block and not a later flush of all.
            self._file.pwrite(start + size, sealed(self._footer))
            self._file.pwrite(self._end, b"\xff" * self._bitmap_length)
            self._file.pwrite(place, part)
            self._table[block] = self._end // SECTOR
            self._marked.add(block)
            self._end = start + size
            offset, data = offset + len(part), data[len(part) :]


def _bit(bits: bytes | bytearray, index: int) -> int:
    return bits[index >> 3] >> (7 - (index & 7)) & 1


def _end_of_bits(bits: bytes | bytearray, index: int, value: int) -> int:
    """The first bit from ``index`` on that is another; the end of the bitmap where none is."""
    uniform = 255 if value else 0
    while index < 8 * len(bits):
        if index % 8 == 0 and bits[index >> 3] == uniform:
            index += 8
        elif _bit(bits, index) == value:
            index += 1
        else:
            break
    return index

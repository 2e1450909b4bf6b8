"""What a VHD is opened by: its footer, the header of an image with a table, and how far the table says that it goes."""

from __future__ import annotations

import errno
from array import array
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from hostel.block.formats.vpc import layout
from hostel.block.formats.vpc.layout import DiskType, DynamicHeader, Footer, bitmap_length, is_sound
from hostel.block.node import BlockNode
from hostel.block.reading import read_or_say, reading
from hostel.errors import CorruptImage, InvalidImage, UnsupportedFeature
from hostel.units import INT64_MAX, SECTOR

TRUNCATED: Final = "block-vpc: free_data_block_offset points after the end of file. The image has been truncated."
FOOTER: Final = "footer"  # what the one at the end is called, which moves


class Table(NamedTuple):
    """The block table of an image.

    Attributes:
        offset: of the table, bytes.
        entries: how many it has; those that are :data:`~hostel.block.formats.vpc.layout.UNUSED` are of no block.
        whole: bytes of a block with the bitmap before it.
        metadata: ranges of the file that no block may lie on, bytes, and what is there.
    """

    offset: int
    entries: int
    whole: int
    metadata: tuple[tuple[int, int, str], ...]


def read_table(file: BlockNode) -> Table | None:
    """What is known of the table without reading it; None for a fixed image.

    Raises:
        InvalidImage: footer or header make no sense.
        UnsupportedFeature: the image is of an unknown kind.
    """
    footer, place = read_footer(file)
    if footer.disk_type == DiskType.FIXED:
        return None
    return table_of(footer, place, read_header(file, footer, sectors_of(footer, ""), writable=False))


def table_of(footer: Footer, place: int, header: DynamicHeader) -> Table:
    """The table that a header speaks of, and a footer that was found at byte ``place``."""
    end = -(-(header.table_offset + 4 * header.max_table_entries) // SECTOR) * SECTOR
    metadata = [
        (0, Footer.SIZE, "copy of the footer"),
        (footer.data_offset, footer.data_offset + DynamicHeader.SIZE, "header"),
        (header.table_offset, end, "table"),
    ]
    if place:  # and no copy of it: a guest that wrote there would say what the image is
        metadata.append((place, place + Footer.SIZE, FOOTER))
    whole = bitmap_length(header.block_size) + header.block_size
    return Table(header.table_offset, header.max_table_entries, whole, tuple(metadata))


def read_footer(file: BlockNode) -> tuple[Footer, int]:
    """The footer, and at which byte it is: its copy at the start where there is one, or the one at the end.

    Raises:
        InvalidImage: there is none, or its checksum is wrong.
        UnsupportedFeature: it is of an unknown kind.
    """
    head = read_or_say(file, 0, Footer.SIZE, "Unable to read VHD header", reason=False)
    footer = Footer.unpack(head)
    # A copy at the start that says "fixed" is none: fixed images have no copy, and their guests write what they like.
    is_copy = footer.cookie == layout.COOKIE and footer.disk_type != DiskType.FIXED
    is_sound_copy = is_copy and is_sound(footer, head)
    if file.length < Footer.SIZE and not is_copy:
        raise InvalidImage("File too small for a VHD header")
    place = max(0, file.length - Footer.SIZE)
    tail = bytes(file.read(place, Footer.SIZE))
    last = Footer.unpack(tail)
    is_last = last.cookie == layout.COOKIE and is_sound(last, tail)
    if is_last and last.disk_type == DiskType.FIXED:
        return last, place  # whatever the guest has written into its first sector
    if is_sound_copy:
        return _known(footer), 0
    if is_copy and is_last:
        return _known(last), place
    is_damaged = is_copy or (last.cookie == layout.COOKIE and last.disk_type == DiskType.FIXED)
    raise InvalidImage("Incorrect header checksum" if is_damaged else "invalid VPC image")


def _known(footer: Footer) -> Footer:
    if footer.disk_type not in list(DiskType):
        raise UnsupportedFeature(f"unsupported VHD image (disk type {footer.disk_type})")
    return footer


def sectors_of(footer: Footer, calculation: str) -> int:
    """The disk's size: some creators mean the geometry, others the size; the largest geometry says nothing."""
    by_size = footer.creator_app.startswith(layout.SIZED_CREATORS) and calculation != "chs"
    if by_size or calculation == "current_size" or footer.geometry_sectors == layout.MAX_GEOMETRY.size:
        return footer.current_size // SECTOR
    return footer.geometry_sectors


def read_header(file: BlockNode, footer: Footer, sectors: int, *, writable: bool) -> DynamicHeader:
    """The header of an image with a table.

    Raises:
        InvalidImage: it makes no sense; the words are QEMU's.
    """
    if footer.data_offset > INT64_MAX - DynamicHeader.SIZE:
        raise InvalidImage("Error reading dynamic VHD header")
    data = bytearray(DynamicHeader.SIZE)
    with reading("Error reading dynamic VHD header", reason=False):
        file.pread_padded(footer.data_offset, memoryview(data))
    header = DynamicHeader.unpack(data)
    if header.cookie != layout.SPARSE_COOKIE:
        raise InvalidImage("Invalid header magic")
    size = header.block_size
    if size < SECTOR or size & (size - 1):
        raise InvalidImage(f"Invalid block size {size}")
    if sectors * SECTOR // size > 0xFFFFFFFF:
        raise InvalidImage("Too many blocks")
    if header.max_table_entries * size < sectors * SECTOR:
        raise InvalidImage("Page table too small")
    if header.max_table_entries > layout.MAX_ENTRIES:
        entries = header.max_table_entries - (header.max_table_entries >> 31 << 32)  # QEMU's has a sign
        raise InvalidImage(f"Max Table Entries too large ({entries})")
    if header.table_offset > INT64_MAX:
        raise InvalidImage("Error reading pagetable")
    if writable and not is_sound(header, data):
        raise InvalidImage("Incorrect checksum of the dynamic VHD header; the image can be read")
    return header


def find_end(pages: Iterator[tuple[int, array[int]]], table: Table) -> int:
    """Where the last block ends, or the metadata before it, given the table's entries page by page; a whole sector.

    Raises:
        CorruptImage: a block lies over the metadata.
        BlockError: the table cannot be read.
    """
    end = -(-max(end for _, end, what in table.metadata if what != FOOTER) // SECTOR) * SECTOR
    while True:
        with reading("Error reading pagetable", reason=False):
            page = next(pages, None)
        if page is None:
            return end
        if not (places := _places(page[1])):
            continue
        first, after = min(places) * SECTOR, max(places) * SECTOR + table.whole
        end = max(end, after)
        near = [each for each in table.metadata if each[0] < after and first < each[1]]
        for place in places if near else ():
            start = place * SECTOR
            for low, high, what in near:
                if start < high and low < start + table.whole:
                    raise CorruptImage(f"The block at byte {start} lies over the image's {what}", errno=errno.EINVAL)


def _places(entries: array[int]) -> Sequence[int]:
    """The entries that are places; of many equal ones, one."""
    first = entries[:1]
    if entries == first * len(entries):
        return [] if first[0] == layout.UNUSED else first
    return [entry for entry in entries if entry != layout.UNUSED]

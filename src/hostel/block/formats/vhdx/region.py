"""Where the parts of an image lie, and what the metadata says of the disk."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Final, NamedTuple

from hostel.block.formats.vhdx import layout
from hostel.block.formats.vhdx.layout import (
    MAX_ENTRIES,
    REGION_OFFSETS,
    TABLE_LENGTH,
    MetadataEntry,
    MetadataTable,
    RegionEntry,
    RegionTable,
    guid_text,
    is_sound,
)
from hostel.block.node import BlockNode
from hostel.errors import CorruptImage, InvalidImage, UnsupportedFeature
from hostel.units import MiB


class Area(NamedTuple):
    """A part of the file that no block may lie over; bytes."""

    offset: int
    length: int

    @property
    def end(self) -> int:
        """The first byte after it."""
        return self.offset + self.length


class Regions(NamedTuple):
    """The regions of an image, and all areas that are no block's."""

    bat: Area
    metadata: Area
    areas: tuple[Area, ...]


def read_regions(file: BlockNode, log: Area) -> Regions:
    """Read the region table, or its copy where the table is damaged.

    Raises:
        InvalidImage: both are malformed, or a region is missing.
        CorruptImage: regions overlap.
        UnsupportedFeature: an unknown region is required.
    """
    tables = (bytes(file.read(offset, TABLE_LENGTH)) for offset in REGION_OFFSETS)
    data = next((each for each in tables if each.startswith(b"regi") and is_sound(each)), None)
    if data is None:
        raise InvalidImage("No valid VHDX region table found")
    count = RegionTable.unpack(data).entry_count
    if count > MAX_ENTRIES:
        raise InvalidImage(f"The VHDX region table has {count} entries, and may have {MAX_ENTRIES}")
    areas = [Area(0, layout.HEADER_SECTION), log]
    found: dict[bytes, Area] = {}
    for index in range(count):
        entry = RegionEntry.unpack(data, RegionTable.SIZE + index * RegionEntry.SIZE)
        area = Area(entry.file_offset, entry.length)
        _require_apart(area, areas)
        areas.append(area)
        known = entry.guid in (layout.BAT_REGION, layout.METADATA_REGION)
        if known and entry.guid in found:
            raise InvalidImage(f"The VHDX region {guid_text(entry.guid)} is there twice")
        if not known and entry.flags & layout.REQUIRED:
            raise UnsupportedFeature(f"The VHDX region {guid_text(entry.guid)} is required, and unknown")
        found[entry.guid] = area
    if layout.BAT_REGION not in found or layout.METADATA_REGION not in found:
        raise InvalidImage("The VHDX region table lacks the block allocation table or the metadata")
    return Regions(found[layout.BAT_REGION], found[layout.METADATA_REGION], tuple(areas))


def _require_apart(area: Area, others: list[Area]) -> None:
    for other in others:
        if area.offset < other.end and other.offset < area.end:
            raise CorruptImage(
                f"VHDX region {area.offset}-{area.end} overlaps with region {other.offset}-{other.end}",
                errno=errno.EINVAL,
            )


class Metadata(NamedTuple):
    """What the metadata says.

    Attributes:
        block_size: bytes.
        size: of the disk, bytes.
        sector_size: logical, bytes.
        is_fixed: blocks are never given up.
        parent: the parent locator's bytes; None where the image has no parent.
    """

    block_size: int
    size: int
    sector_size: int
    is_fixed: bool
    parent: bytes | None

    @property
    def chunk(self) -> int:
        """So many blocks share a block of the sector bitmap, whose entry follows theirs."""
        return layout.SECTORS_OF_CHUNK * self.sector_size // self.block_size

    @property
    def blocks(self) -> int:
        """How many the disk has."""
        return -(-self.size // self.block_size)

    @property
    def entries(self) -> int:
        """How many the table must have."""
        if self.parent is not None:
            return -(-self.blocks // self.chunk) * (self.chunk + 1)
        return self.blocks + max(0, self.blocks - 1) // self.chunk


_LENGTHS: Final = {
    layout.FILE_PARAMETERS: 8,
    layout.VIRTUAL_DISK_SIZE: 8,
    layout.PAGE_83_DATA: 16,
    layout.LOGICAL_SECTOR_SIZE: 4,
    layout.PHYSICAL_SECTOR_SIZE: 4,
}


def read_metadata(file: BlockNode, region: Area) -> Metadata:
    """Read the metadata.

    Raises:
        InvalidImage: it is malformed, or something is missing.
        UnsupportedFeature: an unknown item is required, or it says what is not supported.
    """
    items = dict(_items(file, region))
    missing = [guid_text(each) for each in _LENGTHS if each not in items]
    if missing:
        raise InvalidImage(f"The VHDX metadata lacks the item {missing[0]}")
    parameters = items[layout.FILE_PARAMETERS]
    block_size, flags = int.from_bytes(parameters[:4], "little"), int.from_bytes(parameters[4:], "little")
    size = int.from_bytes(items[layout.VIRTUAL_DISK_SIZE], "little")
    sector_size = int.from_bytes(items[layout.LOGICAL_SECTOR_SIZE], "little")
    if not layout.MIN_BLOCK_SIZE <= block_size <= layout.MAX_BLOCK_SIZE or block_size & (block_size - 1):
        raise InvalidImage(f"The VHDX block size {block_size} is no power of two from 1 MiB to 256 MiB")
    if sector_size not in (512, 4096):
        raise InvalidImage(f"The VHDX logical sector size {sector_size} is neither 512 nor 4096")
    if size > layout.MAX_SIZE or size % sector_size:
        raise InvalidImage(f"The VHDX disk size {size} is over 64 TiB, or no whole number of sectors")
    parent = None
    if flags & layout.HAS_PARENT:
        parent = items.get(layout.PARENT_LOCATOR)
        if parent is None:
            raise InvalidImage("The VHDX image has a parent, and does not say which")
    return Metadata(block_size, size, sector_size, bool(flags & layout.LEAVE_BLOCKS), parent)


def _items(file: BlockNode, region: Area) -> Iterator[tuple[bytes, bytes]]:
    """The known items and their bytes."""
    if region.length < TABLE_LENGTH or region.end > file.length:
        raise InvalidImage("The VHDX metadata region is cut off")
    data = bytes(file.read(region.offset, TABLE_LENGTH))
    table = MetadataTable.unpack(data)
    if table.signature != b"metadata" or table.entry_count > MAX_ENTRIES:
        raise InvalidImage("The VHDX metadata table is malformed")
    seen = set()
    for index in range(table.entry_count):
        entry = MetadataEntry.unpack(data, MetadataTable.SIZE + index * MetadataEntry.SIZE)
        if entry.item_id not in _LENGTHS and entry.item_id != layout.PARENT_LOCATOR:
            if entry.flags & layout.ITEM_REQUIRED:
                raise UnsupportedFeature(f"The VHDX metadata item {guid_text(entry.item_id)} is required, and unknown")
            continue
        length = _LENGTHS.get(entry.item_id, entry.length)
        if entry.item_id in seen:
            raise InvalidImage(f"The VHDX metadata item {guid_text(entry.item_id)} is there twice")
        if entry.offset < TABLE_LENGTH or entry.offset + length > region.length or not length <= MiB:
            raise InvalidImage(f"The VHDX metadata item {guid_text(entry.item_id)} lies outside its region")
        seen.add(entry.item_id)
        yield entry.item_id, bytes(file.read(region.offset + entry.offset, length))

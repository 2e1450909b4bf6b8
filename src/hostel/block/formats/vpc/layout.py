"""VHD on disk: the footer, the header of images with a table, geometry. All numbers are big-endian.

Microsoft, Virtual Hard Disk Image Format Specification, version 1.0.
"""

from __future__ import annotations

import enum
from typing import Annotated, Final, NamedTuple

from hostel.codec.record import Record, u8, u16, u32, u64
from hostel.units import SECTOR

COOKIE: Final = b"conectix"
SPARSE_COOKIE: Final = b"cxsparse"
NOWHERE: Final = 0xFFFFFFFFFFFFFFFF
UNUSED: Final = 0xFFFFFFFF  # an entry of the table: no block
VERSION: Final = 0x00010000
EPOCH: Final = 946684800  # 2000-01-01, in seconds since 1970
BLOCK_SIZE: Final = 0x200000
MAX_SECTORS: Final = 0xFF000000  # 2040 GiB
MAX_ENTRIES: Final = 0x7FFFFFFF // 4

# Creators whose images have the size that the footer says; of all others it is what the geometry says.
SIZED_CREATORS: Final = (b"win ", b"qem2", b"d2v ", b"CTXS", b"tap")


class DiskType(enum.IntEnum):
    """What kind of image it is."""

    FIXED = 2
    DYNAMIC = 3
    DIFFERENCING = 4


class Footer(Record):
    """The last sector, and the first one of images with a table."""

    cookie: Annotated[bytes, 8]
    features: u32
    version: u32
    data_offset: u64
    timestamp: u32
    creator_app: Annotated[bytes, 4]
    major: u16
    minor: u16
    creator_os: Annotated[bytes, 4]
    original_size: u64
    current_size: u64
    cylinders: u16
    heads: u8
    sectors: u8
    disk_type: u32
    checksum: u32
    unique_id: Annotated[bytes, 16]
    saved_state: u8
    reserved: Annotated[bytes, 427]

    @property
    def geometry_sectors(self) -> int:
        """The size that the geometry stands for."""
        return self.cylinders * self.heads * self.sectors


class DynamicHeader(Record):
    """The header of an image with a table."""

    cookie: Annotated[bytes, 8]
    data_offset: u64
    table_offset: u64
    version: u32
    max_table_entries: u32
    block_size: u32
    checksum: u32
    parent_unique_id: Annotated[bytes, 16]
    parent_timestamp: u32
    reserved: u32
    parent_name: Annotated[bytes, 512]
    locators: Annotated[bytes, 192]
    reserved2: Annotated[bytes, 256]


class Locator(Record):
    """Where a name of the parent lies, and in which system's manner it is written."""

    platform: Annotated[bytes, 4]
    data_space: u32
    data_length: u32
    reserved: u32
    data_offset: u64


def checksum(data: bytes | bytearray, offset: int) -> int:
    """One's complement of the sum of all bytes but the four of the checksum at ``offset``."""
    return ~(sum(data) - sum(data[offset : offset + 4])) & 0xFFFFFFFF


def sealed(record: Footer | DynamicHeader) -> bytes:
    """A footer's or a header's bytes with the right checksum."""
    offset = record.OFFSET["checksum"]
    data = record.pack()
    return data[:offset] + checksum(data, offset).to_bytes(4, "big") + data[offset + 4 :]


def is_sound(record: Footer | DynamicHeader, data: bytes | bytearray) -> bool:
    """Whether the checksum is right."""
    return record.checksum == checksum(data[: record.SIZE], record.OFFSET["checksum"])


def bitmap_length(block_size: int) -> int:
    """Bytes of the bitmap before each block: a bit a sector, in whole sectors."""
    return (block_size // (8 * SECTOR) + SECTOR - 1) // SECTOR * SECTOR


# ---- geometry


class Geometry(NamedTuple):
    """Cylinders, heads, and sectors of a track."""

    cylinders: int
    heads: int
    sectors: int

    @property
    def size(self) -> int:
        """Sectors in all."""
        return self.cylinders * self.heads * self.sectors


MAX_GEOMETRY: Final = Geometry(65535, 16, 255)


def geometry_of(sectors: int) -> Geometry:
    """The geometry of a disk, rounded down; the algorithm is the specification's appendix, as QEMU has it."""
    sectors = min(sectors, MAX_GEOMETRY.size)
    if sectors >= 65535 * 16 * 63:
        track, heads = 255, 16
        tracks = sectors // track
    else:
        track = 17
        tracks = sectors // track
        heads = max(4, -(-tracks // 1024))
        if tracks >= heads * 1024 or heads > 16:
            track, heads = 31, 16
            tracks = sectors // track
        if tracks >= heads * 1024:
            track, heads = 63, 16
            tracks = sectors // track
    return Geometry(tracks // heads, heads, track)


def geometry_for(sectors: int) -> Geometry:
    """The smallest geometry that has so many sectors; the largest where none has."""
    wanted = min(sectors, MAX_GEOMETRY.size)
    asked, geometry = wanted, Geometry(0, 0, 0)
    while geometry.size < wanted:
        geometry = geometry_of(asked)
        asked += 1
    return geometry

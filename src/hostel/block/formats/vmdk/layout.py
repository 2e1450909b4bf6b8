"""What lies where in the files of a VMware disk ("Virtual Disk Format 5.0"); all numbers are little-endian."""

from __future__ import annotations

from typing import Annotated, Final

from hostel.codec.record import Record, u8, u16, u32, u64
from hostel.units import SECTOR

MAGIC: Final = b"KDMV"
COWD_MAGIC: Final = b"COWD"
HEADER_LENGTH: Final = SECTOR
CHECK_BYTES: Final = b"\n \r\n"  # a copy in text mode changes them
DEFLATE: Final = 1  # a compression algorithm; 0 is none
GD_AT_END: Final = 0xFFFFFFFFFFFFFFFF  # for the grain directory's place: the header that counts is the footer

NEW_LINES: Final = 1 << 0  # flags: the check bytes are there
REDUNDANT: Final = 1 << 1  # the redundant grain directory is there
ZERO_GRAINS: Final = 1 << 2  # an entry of 1 is a grain of zeroes
COMPRESSED: Final = 1 << 16
MARKERS: Final = 1 << 17

ZEROED: Final = 1  # the entry of a grain of zeroes
MAX_SECTOR: Final = 1 << 32  # entries have 32 bits: nothing lies from here on

DESCRIPTOR_LENGTH: Final = 20 * SECTOR  # bytes of the text inside an extent, as QEMU makes and reads it
DESCRIPTOR_OFFSET: Final = SECTOR
MAX_DESCRIPTOR: Final = (1 << 20) - 1  # bytes that are read of a descriptor in a file of its own
MAX_GRAIN_SECTORS: Final = 0x200000
MAX_TABLE_ENTRIES: Final = 512  # of a grain table
MAX_DIRECTORY_ENTRIES: Final = 32 << 20

COWD_TABLE_ENTRIES: Final = 4096

SE_VERSION: Final = 0x0000000200000001
SE_MAGIC: Final = 0xCAFEBABE
SE_VOLATILE_MAGIC: Final = 0xCAFECAFE
SE_GRAIN_SECTORS: Final = 8
SE_TABLE_SECTORS: Final = 64
SE_TABLE_ENTRIES: Final = SE_TABLE_SECTORS * SECTOR // 8

END_OF_STREAM: Final = 0  # kinds of markers
FOOTER: Final = 3


class SparseHeader(Record, endian="little"):
    """A hosted sparse extent's header, and its footer; offsets, capacity and granularity are sectors."""

    magic: Annotated[bytes, 4]
    version: u32
    flags: u32
    capacity: u64
    granularity: u64
    descriptor_offset: u64
    descriptor_size: u64
    table_entries: u32
    rgd_offset: u64
    gd_offset: u64
    grain_offset: u64
    unclean: u8
    check_bytes: Annotated[bytes, 4]
    compression: u16


class CowdHeader(Record, endian="little"):
    """A COWD extent's header; offsets and sizes are sectors, ``directory_entries`` excepted."""

    magic: Annotated[bytes, 4]
    version: u32
    flags: u32
    capacity: u32
    granularity: u32
    gd_offset: u32
    directory_entries: u32
    next_free: u32
    cylinders: u32
    heads: u32
    sectors_per_track: u32


class SeSparseHeader(Record, endian="little"):
    """An seSparse extent's constant header; offsets and sizes are sectors."""

    magic: u64
    version: u64
    capacity: u64
    grain_size: u64
    table_size: u64
    flags: u64
    reserved1: u64
    reserved2: u64
    reserved3: u64
    reserved4: u64
    volatile_offset: u64
    volatile_size: u64
    journal_header_offset: u64
    journal_header_size: u64
    journal_offset: u64
    journal_size: u64
    gd_offset: u64
    gd_size: u64
    tables_offset: u64
    tables_size: u64
    free_bitmap_offset: u64
    free_bitmap_size: u64
    backmap_offset: u64
    backmap_size: u64
    grains_offset: u64
    grains_size: u64
    padding: Annotated[bytes, 304]


class SeSparseVolatile(Record, endian="little"):
    """An seSparse extent's volatile header."""

    magic: u64
    free_table_number: u64
    next_transaction: u64
    replay_journal: u64
    padding: Annotated[bytes, 480]


class GrainMarker(Record, endian="little"):
    """What stands before a compressed grain: the sector of the disk it begins at, and the length of what follows."""

    sector: u64
    size: u32


class Marker(Record, endian="little"):
    """What stands, with padding to a sector, before metadata in a stream."""

    value: u64
    size: u32
    kind: u32

"""VHDX on disk: headers, region table, metadata, log entries. All numbers are little-endian.

Microsoft, [MS-VHDX] Virtual Hard Disk v2 (VHDX) File Format.
"""

from __future__ import annotations

import enum
import os
from typing import Annotated, Final

from hostel.codec.checksum import crc32c
from hostel.codec.record import Record, u16, u32, u64
from hostel.units import KiB, MiB, TiB

SIGNATURE: Final = b"vhdxfile"
HEADER_OFFSETS: Final = (64 * KiB, 128 * KiB)
REGION_OFFSETS: Final = (192 * KiB, 256 * KiB)
TABLE_LENGTH: Final = 64 * KiB  # bytes of a region table, and of the metadata's table
HEADER_LENGTH: Final = 4 * KiB  # bytes that a header's checksum covers
HEADER_SECTION: Final = MiB
UNIT: Final = MiB  # everything but the headers lies at multiples
LOG_SECTOR: Final = 4 * KiB
MAX_SIZE: Final = 64 * TiB
MIN_BLOCK_SIZE: Final = MiB
MAX_BLOCK_SIZE: Final = 256 * MiB
SECTORS_OF_CHUNK: Final = 1 << 23  # that one block of the sector bitmap, 1 MiB, has bits for
NO_GUID: Final = bytes(16)
MAX_ENTRIES: Final = 2047  # of a region table, and of the metadata's

STATE_MASK: Final = 7
PLACE_MASK: Final = 0xFFFFFFFFFFF00000
HAS_PARENT: Final = 2
LEAVE_BLOCKS: Final = 1
REQUIRED: Final = 1  # of a region
ITEM_REQUIRED: Final = 4  # of a metadata item


class BlockState(enum.IntEnum):
    """The low bits of a block's entry."""

    NOT_PRESENT = 0
    UNDEFINED = 1
    ZERO = 2
    UNMAPPED = 3
    UNMAPPED_V095 = 5
    FULLY_PRESENT = 6
    PARTIALLY_PRESENT = 7


def guid(text: str) -> bytes:
    """A GUID's bytes: the first three fields are little-endian."""
    raw = bytes.fromhex(text.replace("-", ""))
    return raw[3::-1] + raw[5:3:-1] + raw[7:5:-1] + raw[8:]


def guid_text(raw: bytes) -> str:
    """A GUID as it is written."""
    digits = (raw[3::-1] + raw[5:3:-1] + raw[7:5:-1] + raw[8:]).hex()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def new_guid() -> bytes:
    """A random GUID (RFC 4122, version 4)."""
    raw = bytearray(os.urandom(16))
    raw[7] = raw[7] & 0x0F | 0x40
    raw[8] = raw[8] & 0x3F | 0x80
    return bytes(raw)


BAT_REGION: Final = guid("2DC27766-F623-4200-9D64-115E9BFD4A08")
METADATA_REGION: Final = guid("8B7CA206-4790-4B9A-B8FE-575F050F886E")
FILE_PARAMETERS: Final = guid("CAA16737-FA36-4D43-B3B6-33F0AA44E76B")
VIRTUAL_DISK_SIZE: Final = guid("2FA54224-CD1B-4876-B211-5DBED83BF4B8")
PAGE_83_DATA: Final = guid("BECA12AB-B2E6-4523-93EF-C309E000C746")
LOGICAL_SECTOR_SIZE: Final = guid("8141BF1D-A96F-4709-BA47-F233A8FAAB5F")
PHYSICAL_SECTOR_SIZE: Final = guid("CDA348C7-445D-4471-9CC9-E9885251C556")
PARENT_LOCATOR: Final = guid("A8D35F2D-B30B-454D-ABF7-D3D84834AB0C")
VHDX_PARENT: Final = guid("B04AEFB7-D19E-4A81-B789-25B8E9445913")


class Header(Record, endian="little"):
    """One of the two headers; the one with the higher sequence number counts."""

    signature: Annotated[bytes, 4]
    checksum: u32
    sequence_number: u64
    file_write_guid: Annotated[bytes, 16]
    data_write_guid: Annotated[bytes, 16]
    log_guid: Annotated[bytes, 16]
    log_version: u16
    version: u16
    log_length: u32
    log_offset: u64


class RegionTable(Record, endian="little"):
    """The start of a region table."""

    signature: Annotated[bytes, 4]
    checksum: u32
    entry_count: u32
    reserved: u32


class RegionEntry(Record, endian="little"):
    """One region."""

    guid: Annotated[bytes, 16]
    file_offset: u64
    length: u32
    flags: u32


class MetadataTable(Record, endian="little"):
    """The start of the metadata region."""

    signature: Annotated[bytes, 8]
    reserved: u16
    entry_count: u16
    reserved2: Annotated[bytes, 20]


class MetadataEntry(Record, endian="little"):
    """One item; its offset counts from the start of the region."""

    item_id: Annotated[bytes, 16]
    offset: u32
    length: u32
    flags: u32
    reserved: u32


class LogEntry(Record, endian="little"):
    """The start of a log entry, which descriptors follow, and then the sectors that they describe."""

    signature: Annotated[bytes, 4]
    checksum: u32
    entry_length: u32
    tail: u32
    sequence_number: u64
    descriptor_count: u32
    reserved: u32
    log_guid: Annotated[bytes, 16]
    flushed_file_offset: u64
    last_file_offset: u64


class LogDescriptor(Record, endian="little"):
    """What a log entry does: a sector with its first and last bytes here, or a range of zeroes and its length."""

    signature: Annotated[bytes, 4]
    trailing: Annotated[bytes, 4]
    leading: Annotated[bytes, 8]
    file_offset: u64
    sequence_number: u64


CHECKSUM: Final = slice(4, 8)  # where it is in headers, region tables and log entries


def sealed(data: bytes | bytearray) -> bytes:
    """The bytes with the right checksum in its place."""
    return bytes(data[:4]) + checksum(data).to_bytes(4, "little") + bytes(data[8:])


def checksum(data: bytes | bytearray) -> int:
    """What the checksum in its place should be."""
    return crc32c(bytes(data[:4]) + bytes(4) + bytes(data[8:]))


def is_sound(data: bytes | bytearray) -> bool:
    """Whether the checksum in its place is right."""
    return int.from_bytes(data[CHECKSUM], "little") == checksum(data)

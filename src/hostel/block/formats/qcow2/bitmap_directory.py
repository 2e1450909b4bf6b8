"""The directory of persistent dirty bitmaps ("Bitmaps extension" in the qcow2 specification); limits are QEMU's."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Annotated, Final

from hostel.block.formats.qcow2.geometry import Geometry
from hostel.block.node import BlockNode
from hostel.codec.record import Record, u8, u16, u32, u64
from hostel.errors import CorruptImage
from hostel.units import MiB

MAX_DIRECTORY: Final = 64 * MiB  # bytes
MAX_TABLE_ENTRIES: Final = 0x8000000
MAX_BITMAP: Final = 512 * MiB  # bytes of one bitmap
MAX_NAME: Final = 1023  # bytes
TABLE_RESERVED: Final = 0xFF000000000001FE
IN_USE: Final = 1
AUTO: Final = 2


class Extension(Record, endian="big"):
    """The header extension that says where the directory is; size and offset in bytes."""

    count: u32
    reserved: Annotated[bytes, 4]
    directory_size: u64
    directory_offset: u64


class Entry(Record, endian="big"):
    """The fixed part of a bitmap's entry; extra data and the name follow, padded to 8 bytes."""

    table_offset: u64
    table_size: u32
    flags: u32
    type: u8
    granularity_bits: u8
    name_length: u16
    extra_data_size: u32


def entry_length(name_length: int, extra_data_size: int = 0) -> int:
    """Bytes of an entry in the directory."""
    return -(-(Entry.SIZE + extra_data_size + name_length) // 8) * 8


def read_entries(file: BlockNode, extension: bytes | None) -> list[tuple[Entry, bytes]]:
    """The entries of an image's directory and their bitmaps' names.

    Raises:
        CorruptImage: the directory makes no sense.
    """
    if extension is None or len(extension) != Extension.SIZE:
        return []
    header = Extension.unpack(extension)
    if not header.count:
        return []
    size, offset = header.directory_size, header.directory_offset
    if not 0 < size <= MAX_DIRECTORY or offset + size > file.length:
        raise broken("The bitmap directory is out of its limits")
    return list(_entries(bytes(file.read(offset, size)), header.count))


def _entries(directory: bytes, count: int) -> Iterator[tuple[Entry, bytes]]:
    position = seen = 0
    while position < len(directory):
        if position + Entry.SIZE > len(directory):
            raise broken("Broken bitmap directory")
        entry = Entry.unpack(directory, position)
        name = position + Entry.SIZE + entry.extra_data_size
        position += entry_length(entry.name_length, entry.extra_data_size)
        seen += 1
        if position > len(directory):
            raise broken("Broken bitmap directory")
        if seen > count:
            raise broken("More bitmaps found than specified in header extension")
        yield entry, directory[name : name + entry.name_length]
    if seen != count:
        raise broken("Less bitmaps found than specified in header extension")


def validate(entry: Entry, geometry: Geometry, size: int) -> None:
    """Check the limits of a bitmap of an image of ``size`` bytes.

    Raises:
        CorruptImage: one is exceeded, or there is extra data, which nobody knows.
    """
    covered = entry.table_size * geometry.cluster_size
    empty = not size and not entry.table_size and not entry.table_offset
    if (
        not (empty or (entry.table_size and entry.table_offset))
        or geometry.in_cluster(entry.table_offset)
        or entry.table_size > MAX_TABLE_ENTRIES
        or covered > MAX_BITMAP
        or not 9 <= entry.granularity_bits <= 31
        or entry.flags & 0xFFFFFFFC
        or not 0 < entry.name_length <= MAX_NAME
        or entry.type != 1
        or entry.extra_data_size
        or (not entry.flags & IN_USE and size > covered * 8 << entry.granularity_bits)
    ):
        raise broken("a bitmap doesn't satisfy the constraints")


def table_entries(entry: Entry, geometry: Geometry, size: int) -> int:
    """How many entries the table of a bitmap of an image of ``size`` bytes must have."""
    return geometry.clusters(-(-size // (8 << entry.granularity_bits)))


def broken(what: str) -> CorruptImage:
    """The error for a directory that cannot be understood."""
    return CorruptImage(what, errno=errno.EINVAL)

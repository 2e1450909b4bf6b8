"""The directory of persistent dirty bitmaps ("Bitmaps extension" in the qcow2 specification); limits are QEMU's."""

from __future__ import annotations

import errno
from array import array
from collections.abc import Iterator
from typing import Annotated, Final

from hostel.block.formats.qcow2 import layout
from hostel.block.formats.qcow2.geometry import Geometry
from hostel.block.node import BlockNode
from hostel.block.reading import read_or_say
from hostel.codec.record import Record, u8, u16, u32, u64
from hostel.codec.table import unpack_table
from hostel.errors import CorruptImage
from hostel.units import MiB

MAX_BITMAPS: Final = 65535
MAX_DIRECTORY: Final = MAX_BITMAPS * 1024  # bytes
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


def parse_extension(data: bytes) -> Extension:
    """Where the directory is, from the header extension.

    Raises:
        CorruptImage: a number is out of its limits.
    """
    if len(data) != Extension.SIZE:
        raise broken("bitmaps_ext: Invalid extension length")
    extension = Extension.unpack(data)
    if any(extension.reserved):
        raise broken("bitmaps_ext: Reserved field is not zero")
    if extension.count > MAX_BITMAPS:
        raise broken(
            f"bitmaps_ext: Image has {extension.count} bitmaps, exceeding the QEMU supported maximum of {MAX_BITMAPS}"
        )
    if not extension.count:
        raise broken("found bitmaps extension with zero bitmaps")
    if extension.directory_size > MAX_DIRECTORY:
        raise broken(
            f"bitmaps_ext: bitmap directory size ({extension.directory_size}) exceeds the maximum supported size "
            f"({MAX_DIRECTORY})"
        )
    return extension


def read_entries(file: BlockNode, extension: Extension, geometry: Geometry, size: int) -> list[tuple[Entry, bytes]]:
    """The entries of the directory of an image of ``size`` bytes, and their bitmaps' names.

    Raises:
        CorruptImage: the directory makes no sense, or a bitmap is out of its limits.
    """
    if geometry.in_cluster(extension.directory_offset):
        raise broken("bitmaps_ext: invalid bitmap directory offset")
    if not extension.directory_size:
        raise broken("Requested bitmap directory size is zero")
    if extension.directory_offset + extension.directory_size > file.length:
        raise broken("Failed to read bitmap directory: it lies beyond the end of the file")
    directory = read_or_say(
        file, extension.directory_offset, extension.directory_size, "Failed to read bitmap directory"
    )
    found: list[tuple[Entry, bytes]] = []
    names: set[bytes] = set()
    for entry, name in _entries(directory, extension.count):
        shown = name.decode(errors="replace")
        if not is_valid(entry, geometry, size):
            raise broken(f"Bitmap '{shown}' doesn't satisfy the constraints")
        if name in names:
            raise broken(f"Bitmap already exists: {shown}")
        names.add(name)
        found.append((entry, name))
    return found


def _entries(directory: bytes, count: int) -> Iterator[tuple[Entry, bytes]]:
    position = seen = 0
    while position < len(directory):
        if position + Entry.SIZE > len(directory):
            raise broken("Broken bitmap directory")
        seen += 1
        if seen > count:
            raise broken("More bitmaps found than specified in header extension")
        entry = Entry.unpack(directory, position)
        name = position + Entry.SIZE
        position += entry_length(entry.name_length, entry.extra_data_size)
        if position > len(directory):
            raise broken("Broken bitmap directory")
        if entry.extra_data_size:
            raise broken("Bitmap extra data is not supported")
        yield entry, directory[name : name + entry.name_length]
    if seen != count:
        raise broken("Less bitmaps found than specified in header extension")


def is_valid(entry: Entry, geometry: Geometry, size: int) -> bool:
    """Whether a bitmap of an image of ``size`` bytes is within the limits."""
    covered = entry.table_size * geometry.cluster_size
    empty = not size and not entry.table_size and not entry.table_offset
    return not (
        not (empty or (entry.table_size and entry.table_offset))
        or geometry.in_cluster(entry.table_offset)
        or entry.table_size > MAX_TABLE_ENTRIES
        or covered > MAX_BITMAP
        or not 9 <= entry.granularity_bits <= 31
        or entry.flags & 0xFFFFFFFC
        or not 0 < entry.name_length <= MAX_NAME
        or entry.type != 1
        or (not entry.flags & IN_USE and size > covered * 8 << entry.granularity_bits)
    )


def read_table(file: BlockNode, geometry: Geometry, size: int, entry: Entry, name: bytes) -> array[int]:
    """The table of a bitmap of an image of ``size`` bytes.

    Raises:
        CorruptImage: it lies beyond the end of the file, is not as long as it must be, or has a bad entry.
    """
    shown = name.decode(errors="replace")
    needed = table_entries(entry, geometry, size)
    if not entry.flags & IN_USE and entry.table_size != needed:
        raise broken(f"the table of bitmap '{shown}' has {entry.table_size} entries instead of {needed}")
    length = entry.table_size * 8
    if entry.table_offset + length > file.length:
        raise broken(f"the table of bitmap '{shown}' lies beyond the end of the file")
    failure = f"Could not read bitmap_table table from image for bitmap '{shown}'"
    table = unpack_table(read_or_say(file, entry.table_offset, length, failure))
    for item in table:
        offset = item & layout.OFFSET_MASK
        if item & TABLE_RESERVED or (offset and (item & 1 or geometry.in_cluster(offset))):
            raise broken(f"the table of bitmap '{shown}' has the bad entry {item:#x}")
    return table


def table_entries(entry: Entry, geometry: Geometry, size: int) -> int:
    """How many entries the table of a bitmap of an image of ``size`` bytes must have."""
    return geometry.clusters(-(-size // (8 << entry.granularity_bits)))


def broken(what: str) -> CorruptImage:
    """The error for a directory that cannot be understood."""
    return CorruptImage(what, errno=errno.EINVAL)

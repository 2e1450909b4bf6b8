"""Counting what persistent dirty bitmaps refer to, so that an image with bitmaps checks clean.

See "Bitmaps extension" and "Bitmaps" in the qcow2 specification; limits are QEMU's.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Annotated, Final

from hostel.block.formats.qcow2 import layout
from hostel.codec.record import Record, u8, u16, u32, u64
from hostel.codec.table import unpack_table
from hostel.errors import CorruptImage
from hostel.units import MiB

if TYPE_CHECKING:
    from hostel.block.formats.qcow2.check import Check

MAX_DIRECTORY: Final = 64 * MiB  # bytes
MAX_TABLE_ENTRIES: Final = 0x8000000
MAX_BITMAP: Final = 512 * MiB  # bytes of one bitmap
_RESERVED: Final = 0xFF000000000001FE


class _Extension(Record, endian="big"):
    count: u32
    reserved: Annotated[bytes, 4]
    directory_size: u64
    directory_offset: u64


class _Entry(Record, endian="big"):
    table_offset: u64
    table_size: u32
    flags: u32
    type: u8
    granularity_bits: u8
    name_length: u16
    extra_data_size: u32


def count_bitmaps(check: Check, extension: bytes) -> None:
    """Count the directory, the tables and the clusters of all bitmaps.

    Raises:
        CorruptImage: the directory or a table makes no sense.
    """
    if len(extension) != _Extension.SIZE:
        return
    bitmaps = _Extension.unpack(extension)
    if not bitmaps.count:
        return
    size, offset = bitmaps.directory_size, bitmaps.directory_offset
    check.refer(offset, size)
    if not 0 < size <= MAX_DIRECTORY or offset + size > check.file_length:
        raise _broken(check, "the bitmap directory is out of its limits")
    directory = bytes(check.file.read(offset, size))
    position = seen = 0
    while position < size:
        if position + _Entry.SIZE > size:
            raise _broken(check, "Broken bitmap directory")
        entry = _Entry.unpack(directory, position)
        seen += 1
        position += -(-(_Entry.SIZE + entry.extra_data_size + entry.name_length) // 8) * 8
        if position > size or seen > bitmaps.count:
            raise _broken(check, "Broken bitmap directory")
        _count_bitmap(check, entry)
    if seen != bitmaps.count:
        raise _broken(check, "Less bitmaps found than specified in header extension")


def _count_bitmap(check: Check, entry: _Entry) -> None:
    geometry = check.geometry
    covered = entry.table_size * geometry.cluster_size
    if (
        not entry.table_size
        or not entry.table_offset
        or geometry.in_cluster(entry.table_offset)
        or entry.table_size > MAX_TABLE_ENTRIES
        or covered > MAX_BITMAP
        or not 9 <= entry.granularity_bits <= 31
        or entry.flags & 0xFFFFFFFC
        or entry.name_length > 1023
        or entry.type != 1
        or entry.extra_data_size
        or (not entry.flags & 1 and check.header.size > covered * 8 << entry.granularity_bits)
    ):
        raise _broken(check, "a bitmap doesn't satisfy the constraints")
    length = entry.table_size * 8
    check.refer(entry.table_offset, length)
    if entry.table_offset >= check.file_length:
        return
    for item in unpack_table(check.file.read(entry.table_offset, length)):
        offset = item & layout.OFFSET_MASK
        if item & _RESERVED or (offset and (item & 1 or geometry.in_cluster(offset))):
            raise _broken(check, f"a bitmap's table has the bad entry {item:#x}")
        if offset:
            check.refer(offset, geometry.cluster_size)


def _broken(check: Check, what: str) -> CorruptImage:
    check.result.corruptions += 1
    check.report(f"ERROR {what}")
    return CorruptImage(f"The image cannot be checked: {what}", errno=errno.EINVAL)

"""Counting what persistent dirty bitmaps refer to, so that an image with bitmaps checks clean.

See "Bitmaps extension" and "Bitmaps" in the qcow2 specification; limits are QEMU's.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from hostel.block.formats.qcow2 import layout
from hostel.block.formats.qcow2.bitmap_directory import (
    IN_USE,
    TABLE_RESERVED,
    Entry,
    Extension,
    broken,
    read_entries,
    table_entries,
    validate,
)
from hostel.codec.table import unpack_table
from hostel.errors import CorruptImage

if TYPE_CHECKING:
    from hostel.block.formats.qcow2.check import Check


def count_bitmaps(check: Check, extension: bytes) -> None:
    """Count the directory, the tables and the clusters of all bitmaps.

    Raises:
        CorruptImage: the directory or a table makes no sense.
    """
    if len(extension) != Extension.SIZE:
        return
    bitmaps = Extension.unpack(extension)
    if not bitmaps.count:
        return
    check.refer(bitmaps.directory_offset, bitmaps.directory_size)
    try:
        found = read_entries(check.file, extension)
        for entry, name in found:
            validate(entry, check.geometry, check.header.size)
            needed = table_entries(entry, check.geometry, check.header.size)
            if not entry.flags & IN_USE and entry.table_size != needed:
                shown = name.decode(errors="replace")
                raise broken(f"the table of bitmap '{shown}' has {entry.table_size} entries instead of {needed}")
    except CorruptImage as error:
        raise _broken(check, error.message) from None
    for entry, _ in found:
        _count_bitmap(check, entry)


def _count_bitmap(check: Check, entry: Entry) -> None:
    length = entry.table_size * 8
    check.refer(entry.table_offset, length)
    if entry.table_offset >= check.file_length:
        return
    for item in unpack_table(check.file.read(entry.table_offset, length)):
        offset = item & layout.OFFSET_MASK
        if item & TABLE_RESERVED or (offset and (item & 1 or check.geometry.in_cluster(offset))):
            raise _broken(check, f"a bitmap's table has the bad entry {item:#x}")
        if offset:
            check.refer(offset, check.geometry.cluster_size)


def _broken(check: Check, what: str) -> CorruptImage:
    check.result.corruptions += 1
    check.report(f"ERROR {what}")
    return CorruptImage(f"The image cannot be checked: {what}", errno=errno.EINVAL)

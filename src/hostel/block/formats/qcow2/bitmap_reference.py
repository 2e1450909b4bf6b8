"""Counting what persistent dirty bitmaps refer to, so that an image with bitmaps checks clean.

See "Bitmaps extension" and "Bitmaps" in the qcow2 specification; limits are QEMU's.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from hostel.block.formats.qcow2 import bitmap_directory, layout
from hostel.errors import CorruptImage

if TYPE_CHECKING:
    from hostel.block.formats.qcow2.check import Check


def count_bitmaps(check: Check, data: bytes) -> None:
    """Count the directory, the tables and the clusters of all bitmaps that an extension's ``data`` leads to.

    Raises:
        CorruptImage: the directory or a table makes no sense.
    """
    geometry, size = check.geometry, check.header.size
    try:
        extension = bitmap_directory.parse_extension(data)
        found = bitmap_directory.read_entries(check.file, extension, geometry, size)
        check.refer(extension.directory_offset, extension.directory_size)
        for entry, name in found:
            table = bitmap_directory.read_table(check.file, geometry, size, entry, name)
            check.refer(entry.table_offset, len(table) * 8)
            for item in table:
                if offset := item & layout.OFFSET_MASK:
                    check.refer(offset, geometry.cluster_size)
    except CorruptImage as error:
        check.result.corruptions += 1
        check.report(f"ERROR {error.message}")
        raise CorruptImage(
            f"The image cannot be checked: {error.message}",
            errno=errno.EINVAL,
            hint="qemu-img check -r all gives all bitmaps up, and keeps everything else.",
        ) from None

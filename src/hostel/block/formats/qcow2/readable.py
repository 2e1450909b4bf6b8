"""Whether what QEMU opens an image with can be read: a check fails there, as QEMU's does, and repairs nothing."""

from __future__ import annotations

import contextlib

from hostel.block.formats.qcow2 import bitmap_directory, layout
from hostel.block.formats.qcow2.image import Qcow2Image
from hostel.block.formats.qcow2.layout import Autoclear, ExtensionType
from hostel.block.reading import read_or_say
from hostel.errors import CorruptImage


def require_readable(image: Qcow2Image) -> None:
    """Read both tables, and the directory and the tables of the bitmaps. What is malformed in them a check says.

    Raises:
        BlockError: one cannot be read.
    """
    header, file = image.header, image.file
    refcounts = header.refcount_table_clusters << image.geometry.cluster_bits
    for offset, length, failure in (
        (header.l1_table_offset, min(header.l1_size * 8, layout.MAX_L1_SIZE), "Could not read L1 table"),
        (
            header.refcount_table_offset,
            min(refcounts, layout.MAX_REFTABLE_SIZE),
            "Could not initialize refcount handling",
        ),
    ):
        inside = min(length, file.length - offset)
        if inside > 0:
            read_or_say(file, offset, inside, failure)
    data = image.preamble.extension(ExtensionType.BITMAPS)
    if data is None or not header.autoclear_features & Autoclear.BITMAPS:
        return
    with contextlib.suppress(CorruptImage):
        extension = bitmap_directory.parse_extension(data)
        for entry, name in bitmap_directory.read_entries(file, extension, image.geometry, header.size):
            bitmap_directory.read_table(file, image.geometry, header.size, entry, name)

"""What a qcow2 header may say: the limits of its tables, and what contradicts itself."""

from __future__ import annotations

import errno

from hostel.block.driver import OpenMode
from hostel.block.formats.qcow2 import layout
from hostel.block.formats.qcow2.geometry import Geometry
from hostel.block.formats.qcow2.layout import Autoclear, Header, Incompatible, SnapshotHeader
from hostel.errors import CorruptImage, InvalidImage
from hostel.units import INT64_MAX


def validate_header(header: Header, geometry: Geometry, mode: OpenMode) -> None:
    """Check what the header says of tables, in QEMU's order and words.

    Raises:
        InvalidImage: a table is out of its limits.
        CorruptImage: the image is marked corrupt and was to be written.
    """
    if header.crypt_method > 2:
        raise InvalidImage(f"Unsupported encryption method {header.crypt_method}")
    if (
        not mode.no_io
        and header.autoclear_features & Autoclear.DATA_FILE_RAW
        and not header.incompatible_features & Incompatible.DATA_FILE
    ):
        raise InvalidImage("data-file-raw requires a data file")
    if geometry.extended and geometry.cluster_bits < layout.MIN_EXTENDED_BITS:
        raise InvalidImage("Extended L2 entries are only supported with cluster sizes of at least 16384 bytes")
    if not mode.read_only and not mode.check and header.incompatible_features & Incompatible.CORRUPT:
        raise CorruptImage(
            "qcow2: Image is corrupt; cannot be opened read/write", hint="Use qemu-img check -r all to repair it."
        )
    clusters = header.refcount_table_clusters
    if not clusters and not mode.check:
        raise InvalidImage("Image does not contain a reference count table")
    entry_count = clusters << (geometry.cluster_bits - 3)
    validate_table(
        geometry, header.refcount_table_offset, entry_count, 8, layout.MAX_REFTABLE_SIZE, "Reference count table"
    )
    validate_table(
        geometry,
        header.snapshots_offset,
        # Too many of them are no reason not to repair the image.
        min(header.nb_snapshots, layout.MAX_SNAPSHOTS) if mode.check else header.nb_snapshots,
        SnapshotHeader.SIZE,
        SnapshotHeader.SIZE * layout.MAX_SNAPSHOTS,
        "Snapshot table",
    )
    validate_table(geometry, header.l1_table_offset, header.l1_size, 8, layout.MAX_L1_SIZE, "Active L1 table")
    needed = geometry.l1_entries(header.size)
    if needed > 0x7FFFFFFF:
        raise InvalidImage("Image is too big", errno=errno.EFBIG)
    if header.l1_size < needed:
        raise InvalidImage("L1 table is too small")


def validate_table(geometry: Geometry, offset: int, entries: int, entry_size: int, limit: int, name: str) -> None:
    """Check a table's place and size as QEMU does, before anything is allocated or read for it.

    Raises:
        InvalidImage: with EFBIG where it is larger than ``limit`` bytes, EINVAL where it lies nowhere.
    """
    if entries > limit // entry_size:
        raise InvalidImage(f"{name} too large", errno=errno.EFBIG)
    if offset > INT64_MAX - entries * entry_size or geometry.in_cluster(offset):
        raise InvalidImage(f"{name} offset invalid")

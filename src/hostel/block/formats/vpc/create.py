"""Laying out a new VHD: its size, which the geometry may round up, its footer, header and table."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Mapping
from typing import Final

from hostel.block.formats.block_table import make_room
from hostel.block.formats.preallocation import host_preallocation_of
from hostel.block.formats.vpc import layout
from hostel.block.formats.vpc.layout import DiskType, DynamicHeader, Footer, Geometry, sealed
from hostel.block.node import BlockNode
from hostel.block.options import Kind, Option, OptionError, Options, Value
from hostel.errors import BlockError
from hostel.units import SECTOR, KiB

CREATE_OPTIONS: Final = Options(
    Option("size", Kind.SIZE, "Virtual disk size"),
    Option(
        "subformat",
        Kind.STRING,
        "Type of virtual hard disk format. Supported formats are {dynamic (default) | fixed} ",
    ),
    Option(
        "force_size",
        Kind.BOOL,
        "Force disk size calculation to use the actual size specified, rather than using the nearest CHS-based "
        "calculation",
    ),
)
_SUBFORMATS: Final = {"dynamic": DiskType.DYNAMIC, "fixed": DiskType.FIXED}
_STEP: Final = 64 * KiB


def check_creation(size: int, options: Mapping[str, Value]) -> None:
    """Refuse what cannot be created.

    Raises:
        BlockError: an option makes no sense, or the disk is too large (EFBIG).
    """
    host_preallocation_of(options)
    _disk_type(options)
    settle_size(size, forced=options.get("force_size") is True)


def create_image(file: BlockNode, size: int, options: Mapping[str, Value]) -> None:
    """Lay out an empty image of at least ``size`` bytes.

    ``block_size`` is taken as well, and not among the declared options: other programs than QEMU make such images.

    Raises:
        BlockError: an option makes no sense, or the disk is too large.
        OSError: the host's own errors.
    """
    forced = options.get("force_size") is True
    kind = _disk_type(options)
    sectors, geometry = settle_size(size, forced=forced)
    footer = _footer(kind, sectors * SECTOR, geometry, forced=forced)
    if kind is DiskType.FIXED:
        make_room(file, sectors * SECTOR + Footer.SIZE, host_preallocation_of(options))
        file.pwrite(sectors * SECTOR, sealed(footer))
        return
    block_size = int(options.get("block_size", layout.BLOCK_SIZE))
    entries = -(-sectors * SECTOR // block_size)
    header = DynamicHeader(
        cookie=layout.SPARSE_COOKIE,
        data_offset=layout.NOWHERE,  # the specification says 32 bits of ones; Microsoft's tools want 64
        table_offset=Footer.SIZE + DynamicHeader.SIZE,
        version=layout.VERSION,
        max_table_entries=entries,
        block_size=block_size,
        checksum=0,
        parent_unique_id=b"",
        parent_timestamp=0,
        reserved=0,
        parent_name=b"",
        locators=b"",
        reserved2=b"",
    )
    end = header.table_offset + -(-entries * 4 // SECTOR) * SECTOR
    for offset in range(header.table_offset, end, _STEP):
        file.pwrite(offset, b"\xff" * min(_STEP, end - offset))
    file.pwrite(Footer.SIZE, sealed(header))
    if (last := file.length - Footer.SIZE) > end:
        file.write_zeroes(last, Footer.SIZE)  # a device may have a fixed disk's footer there, which would count
    file.pwrite(end, sealed(footer))
    file.pwrite(0, sealed(footer))


def settle_size(size: int, *, forced: bool) -> tuple[int, Geometry]:
    """The sectors that a new image has, which may be more than were asked for, and its geometry.

    Raises:
        BlockError: EFBIG.
    """
    wanted = -(-size // SECTOR)
    geometry = layout.MAX_GEOMETRY if forced else layout.geometry_for(wanted)
    if geometry.size != layout.MAX_GEOMETRY.size:
        return geometry.size, geometry
    if wanted > layout.MAX_SECTORS:
        raise BlockError("Disk size is too large, max size is 2040 GiB", errno=errno.EFBIG)
    return wanted, geometry


def _disk_type(options: Mapping[str, Value]) -> DiskType:
    name = str(options.get("subformat", "dynamic"))
    try:
        return _SUBFORMATS[name]
    except KeyError:
        raise OptionError(f"Parameter 'subformat' does not accept value '{name}'") from None


def _footer(kind: DiskType, size: int, geometry: Geometry, *, forced: bool) -> Footer:
    return Footer(
        cookie=layout.COOKIE,
        features=2,
        version=layout.VERSION,
        data_offset=layout.NOWHERE if kind is DiskType.FIXED else Footer.SIZE,
        timestamp=(int(time.time()) - layout.EPOCH) & 0xFFFFFFFF,
        creator_app=b"qem2" if forced else b"qemu",
        major=5,  # Virtual PC 2007
        minor=3,
        creator_os=b"Wi2k",
        original_size=size,
        current_size=size,
        cylinders=geometry.cylinders,
        heads=geometry.heads,
        sectors=geometry.sectors,
        disk_type=kind,
        checksum=0,
        unique_id=os.urandom(16),
        saved_state=0,
        reserved=b"",
    )

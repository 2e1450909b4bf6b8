"""Laying out a new VHDX image: headers, log, table, metadata, in QEMU's places."""

from __future__ import annotations

import os
import sys
from array import array
from collections.abc import Mapping
from typing import Final, NamedTuple

from hostel.block.formats.block_table import make_room
from hostel.block.formats.preallocation import host_preallocation_of
from hostel.block.formats.vhdx import layout
from hostel.block.formats.vhdx.layout import (
    BlockState,
    Header,
    MetadataEntry,
    MetadataTable,
    RegionEntry,
    RegionTable,
    new_guid,
    sealed,
)
from hostel.block.formats.vhdx.region import Metadata
from hostel.block.node import BlockNode
from hostel.block.options import Kind, Option, OptionError, Options, Value
from hostel.block.powers import Preallocation
from hostel.units import SECTOR, GiB, KiB, MiB, TiB

CREATE_OPTIONS: Final = Options(
    Option("size", Kind.SIZE, "Virtual disk size; max of 64TB."),
    Option("log_size", Kind.SIZE, "Log size; min 1MB.", "1048576"),
    Option(
        "block_size",
        Kind.SIZE,
        "Block Size; min 1MB, max 256MB. 0 means auto-calculate based on image size.",
        "0",
    ),
    Option(
        "subformat",
        Kind.STRING,
        "VHDX format type, can be either 'dynamic' or 'fixed'. Default is 'dynamic'.",
    ),
    Option(
        "block_state_zero",
        Kind.BOOL,
        "Force use of payload blocks of type 'ZERO'. Non-standard, but default.  Do not set to 'off' when using "
        "'qemu-img convert' with subformat=dynamic.",
    ),
)
_CREATOR: Final = "Hostel".encode("utf-16-le")
_ROOM: Final = 5 * MiB  # from the table's end to the first block: the metadata, and some to spare
_EMPTY_ENTRIES: Final = 0xFFFFFFFF >> 9  # that QEMU wants the table of an empty disk to have room for, 8 MiB a block
_STEP: Final = 8 * KiB  # entries
_OF_DISK: Final = 2  # a flag of metadata items
_IS_BIG: Final = sys.byteorder == "big"


class Plan(NamedTuple):
    """A new image; bytes."""

    size: int
    block_size: int
    log_size: int
    is_fixed: bool
    zero: bool
    reserve: Preallocation
    sector_size: int

    @property
    def metadata(self) -> Metadata:
        """What the metadata will say."""
        return Metadata(self.block_size, self.size, self.sector_size, self.is_fixed, None)

    @property
    def table_offset(self) -> int:
        """Where the table lies."""
        return layout.HEADER_SECTION + self.log_size

    @property
    def table_length(self) -> int:
        """How long its region is."""
        entries = self.metadata.entries if self.size else _EMPTY_ENTRIES
        return -(-8 * entries // layout.UNIT) * layout.UNIT

    @property
    def data_offset(self) -> int:
        """Where the first block of a fixed image lies."""
        return self.table_offset + self.table_length + _ROOM


def plan(size: int, options: Mapping[str, Value]) -> Plan:
    """Settle a new image.

    Raises:
        BlockError: an option makes no sense, or the disk is too large.
    """
    reserve = host_preallocation_of(options)
    subformat = str(options.get("subformat", "dynamic"))
    if subformat not in ("dynamic", "fixed"):
        raise OptionError(f"Parameter 'subformat' does not accept value '{subformat}'")
    if size > layout.MAX_SIZE:
        raise OptionError("Image size too large; max of 64TB")
    log_size = -(-int(options.get("log_size", MiB)) // MiB) * MiB
    if log_size > 0xFFFFFFFF:
        raise OptionError("Log size must be smaller than 4 GB")
    if not log_size:
        raise OptionError("Log size must be a multiple of 1 MB")
    wanted = -(-int(options.get("block_size", 0)) // MiB) * MiB
    block_size = min(wanted, layout.MAX_BLOCK_SIZE) or _usual_block_size(size)
    if block_size & (block_size - 1):
        raise OptionError("Block size must be a power of two")
    is_fixed = subformat == "fixed"
    zero = options.get("block_state_zero", True) is True and not is_fixed
    sector_size = int(options.get("logical_sector_size", SECTOR))
    return Plan(size, block_size, log_size, is_fixed, zero, reserve, sector_size)


def create_image(file: BlockNode, size: int, options: Mapping[str, Value]) -> None:
    """Lay out an empty image of ``size`` bytes.

    ``logical_sector_size`` is taken as well, and not among the declared options: QEMU opens none but 512.

    Raises:
        BlockError: an option makes no sense, or the disk is too large.
        OSError: the host's own errors.
    """
    made = plan(size, options)
    end = made.data_offset + (size if made.is_fixed else 0)
    make_room(file, end, made.reserve if made.is_fixed else Preallocation.OFF)
    _write_table(file, made)
    table = RegionTable(signature=b"regi", checksum=0, entry_count=2, reserved=0).pack()
    places = (
        (layout.BAT_REGION, made.table_offset, made.table_length),
        (layout.METADATA_REGION, made.table_offset + made.table_length, MiB),
    )
    for guid, offset, length in places:
        table += RegionEntry(guid=guid, file_offset=offset, length=length, flags=0).pack()
    for offset in layout.REGION_OFFSETS:
        file.pwrite(offset, sealed(table.ljust(layout.TABLE_LENGTH, b"\0")))
    _write_metadata(file, made)
    header = Header(
        signature=b"head",
        checksum=0,
        sequence_number=int.from_bytes(os.urandom(4), "little"),
        file_write_guid=new_guid(),
        data_write_guid=new_guid(),
        log_guid=layout.NO_GUID,
        log_version=0,
        version=1,
        log_length=made.log_size,
        log_offset=layout.HEADER_SECTION,
    )
    for index, offset in enumerate(layout.HEADER_OFFSETS):
        numbered = header.replace(sequence_number=header.sequence_number + index)
        file.pwrite(offset, sealed(numbered.pack().ljust(layout.HEADER_LENGTH, b"\0")))
    file.pwrite(0, layout.SIGNATURE + _CREATOR)


def _write_table(file: BlockNode, made: Plan) -> None:
    """Say of every block where it lies, or that it is zeroes; where there is nothing to say, the file has zeroes."""
    if not made.is_fixed and not made.zero:
        return
    entries = made.metadata.entries
    chunk = made.metadata.chunk
    for first in range(0, entries, _STEP):
        table = array("Q", [BlockState.ZERO]) * min(_STEP, entries - first)
        # Before these entries so many others are no blocks'; the next that is none is at a multiple of a chunk and it.
        for index in range(first + (chunk - first) % (chunk + 1), first + len(table), chunk + 1):
            table[index - first] = BlockState.NOT_PRESENT
        if made.is_fixed:
            for at in range(len(table)):
                if table[at]:
                    block = first + at - (first + at) // (chunk + 1)
                    table[at] = made.data_offset + block * made.block_size | BlockState.FULLY_PRESENT
        if _IS_BIG:
            table.byteswap()
        file.pwrite(made.table_offset + 8 * first, table.tobytes())


def _write_metadata(file: BlockNode, made: Plan) -> None:
    offset = made.table_offset + made.table_length
    flags = layout.LEAVE_BLOCKS if made.is_fixed else 0
    items = (
        (layout.FILE_PARAMETERS, _number(made.block_size, 4) + _number(flags, 4), 0),
        (layout.VIRTUAL_DISK_SIZE, _number(made.size, 8), _OF_DISK),
        (layout.PAGE_83_DATA, new_guid(), _OF_DISK),
        (layout.LOGICAL_SECTOR_SIZE, _number(made.sector_size, 4), _OF_DISK),
        (layout.PHYSICAL_SECTOR_SIZE, _number(made.sector_size, 4), _OF_DISK),
    )
    table = MetadataTable(signature=b"metadata", reserved=0, entry_count=len(items), reserved2=b"").pack()
    place = layout.TABLE_LENGTH
    for item_id, data, kind in items:
        entry = MetadataEntry(
            item_id=item_id, offset=place, length=len(data), flags=layout.ITEM_REQUIRED | kind, reserved=0
        )
        table += entry.pack()
        place += len(data)
    file.pwrite(offset, table.ljust(layout.TABLE_LENGTH, b"\0"))
    file.pwrite(offset + layout.TABLE_LENGTH, b"".join(data for _, data, _ in items))


def _number(value: int, length: int) -> bytes:
    return value.to_bytes(length, "little")


def _usual_block_size(size: int) -> int:
    """QEMU's choice, which keeps the table small."""
    if size > 32 * TiB:
        return 64 * MiB
    if size > 100 * GiB:
        return 32 * MiB
    return 16 * MiB if size > GiB else 8 * MiB

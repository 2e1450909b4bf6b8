"""Creating a disk: the files of its extents, and the descriptor that names them."""

from __future__ import annotations

import os
import posixpath
from array import array
from collections.abc import Mapping
from typing import Final, NamedTuple

from hostel.block.composing import Surroundings
from hostel.block.formats.block_table import make_room
from hostel.block.formats.vmdk import descriptor as descriptors
from hostel.block.formats.vmdk import layout
from hostel.block.formats.vmdk.creation import ADAPTERS, SUBFORMATS
from hostel.block.formats.vmdk.descriptor import NO_PARENT, ExtentLine
from hostel.block.formats.vmdk.layout import SparseHeader
from hostel.block.node import BlockNode
from hostel.block.options import OptionError, Value
from hostel.block.powers import Preallocation
from hostel.codec.table import pack_table
from hostel.errors import BlockError, InvalidImage, UnsupportedFeature
from hostel.units import SECTOR, KiB

GRAIN_SECTORS: Final = 128  # 64 KiB
_TABLE_ENTRIES: Final = 512
_TABLE_SECTORS: Final = _TABLE_ENTRIES * 4 // SECTOR
_SPLIT: Final = 1 << 31  # bytes of an extent of a disk that is split
_MAX_SECTOR: Final = layout.MAX_SECTOR - (1 << 22)  # of metadata: some room for grains must be left


class _Settled(NamedTuple):
    """What the options come to."""

    subformat: str
    adapter: str
    hardware_version: str
    tools_version: str
    zeroed_grain: bool

    @property
    def is_flat(self) -> bool:
        return self.subformat.endswith("Flat")

    @property
    def is_split(self) -> bool:
        return self.subformat.startswith("twoGb")

    @property
    def is_compressed(self) -> bool:
        return self.subformat == "streamOptimized"

    @property
    def kind(self) -> str:
        """What an extent is called in the descriptor."""
        return "FLAT" if self.is_flat else "SPARSE"


def check_creation(size: int, options: Mapping[str, Value]) -> None:
    """Refuse what cannot be created, before a file is touched.

    Raises:
        BlockError: with QEMU's text.
    """
    settled = _settle(options)
    mode = str(options.get("preallocation", "off"))
    if mode not in {each.value for each in Preallocation}:
        raise OptionError(f"invalid parameter value: {mode}")
    if mode == Preallocation.METADATA.value:
        raise UnsupportedFeature("Unsupported preallocation mode: metadata")
    if not size and (settled.is_flat or settled.is_split):
        raise InvalidImage("A VMDK image of 0 bytes has no extents", hint="Use the subformat monolithicSparse.")
    if not settled.is_flat:
        _header(min(size, _SPLIT) if settled.is_split else size, settled)


def _settle(options: Mapping[str, Value]) -> _Settled:
    if str(options.get("backing_fmt", "vmdk")) != "vmdk":
        raise OptionError("backing_file must be a vmdk image")
    adapter = str(options.get("adapter_type", ADAPTERS[0]))
    subformat = str(options.get("subformat", SUBFORMATS[0]))
    for value, allowed in ((adapter, ADAPTERS), (subformat, SUBFORMATS)):
        if value not in allowed:
            raise OptionError(f"invalid parameter value: {value}")
    version = str(options.get("hwversion", "undefined"))
    if options.get("compat6"):
        if version != "undefined":
            raise OptionError("compat6 cannot be enabled with hwversion set")
        version = "6"
    tools = str(options.get("toolsversion", "2147483647"))
    settled = _Settled(
        subformat, adapter, "4" if version == "undefined" else version, tools, bool(options.get("zeroed_grain"))
    )
    if settled.is_flat and "backing_file" in options:
        raise UnsupportedFeature("Flat image can't have backing file")
    if settled.is_flat and settled.zeroed_grain:
        raise UnsupportedFeature("Flat image can't enable zeroed grain")
    return settled


def create_image(file: BlockNode, size: int, options: Mapping[str, Value], around: Surroundings) -> None:
    """Lay out an empty disk.

    Args:
        file: the file for the descriptor, and where there is only one, for the extent around it.
        size: bytes of the disk; rounded up to whole sectors.
        options: converted :data:`hostel.block.formats.vmdk.creation.CREATE_OPTIONS`.
        around: makes the other files, and opens the parent.

    Raises:
        BlockError: with QEMU's text.
        OSError: the host's own errors while writing.
    """
    settled = _settle(options)
    size = -(-size // SECTOR) * SECTOR
    parent = str(options.get("backing_file", ""))
    parent_cid = _parent_cid(around) if parent else NO_PARENT
    inside = not settled.is_flat and not settled.is_split
    lines = []
    if inside:
        lines.append(ExtentLine(size, settled.kind, posixpath.basename(file.filename)))
        _lay_out(file, size, settled)
    for index, name in enumerate(extent_names(file.filename, size, options)):
        length = min(_SPLIT, size - index * _SPLIT) if settled.is_split else size
        with around.new_file(name) as extent:
            _lay_out(extent, length, settled)
            extent.flush()
            lines.append(ExtentLine(length, settled.kind, posixpath.basename(extent.filename)))
    text = descriptors.compose(
        size,
        settled.subformat,
        lines,
        cid=int.from_bytes(os.urandom(4), "little") % NO_PARENT,
        parent_cid=parent_cid,
        parent=parent,
        hardware_version=settled.hardware_version,
        adapter=settled.adapter,
        tools_version=settled.tools_version,
    )
    limit = layout.DESCRIPTOR_LENGTH if inside else layout.MAX_DESCRIPTOR
    if len(text) > limit:
        raise InvalidImage(f"Could not write description: it has {len(text)} bytes, and may have {limit}")
    file.pwrite(layout.DESCRIPTOR_OFFSET if inside else 0, text)


def extent_names(filename: str, size: int, options: Mapping[str, Value]) -> list[str]:
    """The names of the extents' files that are apart from the descriptor, which is called ``filename``.

    Raises:
        InvalidImage: a descriptor cannot hold one, nor the image's own.
    """
    settled = _settle(options)
    count = -(-size // _SPLIT) if settled.is_split else int(settled.is_flat and size > 0)
    found = [_extent_name(filename, settled, number + 1) for number in range(count)]
    descriptors.require_quotable(*(name.rpartition("/")[2] for name in (filename, *found)))
    return found


def _parent_cid(around: Surroundings) -> int:
    from hostel.block.formats.vmdk.driver import VmdkDriver

    with around.backing() as node:
        if not isinstance(node.driver, VmdkDriver):
            raise InvalidImage(f"Invalid backing file format: {node.format}. Must be vmdk")
        return node.driver.cid


def _extent_name(filename: str, settled: _Settled, number: int) -> str:
    """The name of an extent's file: the disk's, with what tells them apart before its suffix."""
    cut = max(filename.rfind(mark) + 1 for mark in "/") or max(filename.rfind("\\"), filename.rfind(":")) + 1
    folder, name = filename[:cut], filename[cut:]
    stem, dot, suffix = name.rpartition(".")
    if not dot:
        stem, suffix = name, ""
    mark = f"{'f' if settled.is_flat else 's'}{number:03}" if settled.is_split else "flat"
    return f"{folder}{stem}-{mark}{dot}{suffix}"


def _header(size: int, settled: _Settled) -> SparseHeader:
    """The header of an empty sparse extent: header, descriptor, redundant directory and tables, then the others.

    Raises:
        BlockError: EFBIG where the metadata itself would not fit.
    """
    capacity = size // SECTOR
    tables = _tables(capacity)
    directory = -(-tables * 4 // SECTOR)
    rgd = 1 + layout.DESCRIPTOR_LENGTH // SECTOR
    gd = rgd + directory + tables * _TABLE_SECTORS
    end = gd + directory + tables * _TABLE_SECTORS
    grains = -(-end // GRAIN_SECTORS) * GRAIN_SECTORS
    if grains > _MAX_SECTOR or tables > layout.MAX_DIRECTORY_ENTRIES:
        raise BlockError("Image too big", errno=27)
    flags = layout.NEW_LINES | layout.REDUNDANT
    if settled.is_compressed:
        flags |= layout.COMPRESSED | layout.MARKERS
    if settled.zeroed_grain:
        flags |= layout.ZERO_GRAINS
    return SparseHeader(
        magic=layout.MAGIC,
        version=3 if settled.is_compressed else 2 if settled.zeroed_grain else 1,
        flags=flags,
        capacity=capacity,
        granularity=GRAIN_SECTORS,
        descriptor_offset=1,
        descriptor_size=layout.DESCRIPTOR_LENGTH // SECTOR,
        table_entries=_TABLE_ENTRIES,
        rgd_offset=rgd,
        gd_offset=gd,
        grain_offset=grains,
        unclean=0,
        check_bytes=layout.CHECK_BYTES,
        compression=layout.DEFLATE if settled.is_compressed else 0,
    )


def _tables(capacity: int) -> int:
    """How many grain tables so many sectors take."""
    grains = -(-capacity // GRAIN_SECTORS)
    return -(-grains // _TABLE_ENTRIES)


def _lay_out(file: BlockNode, size: int, settled: _Settled) -> None:
    """Make a file an empty extent."""
    if settled.is_flat:
        file.resize(size)
        return
    header = _header(size, settled)
    tables = _tables(header.capacity)
    directory = -(-tables * 4 // SECTOR)
    make_room(file, header.grain_offset * SECTOR, Preallocation.OFF)
    for place in (header.rgd_offset, header.gd_offset):
        _write_directory(file, place, place + directory, tables)
    file.pwrite(0, header.pack())


def _write_directory(file: BlockNode, place: int, first: int, tables: int) -> None:
    """Write a directory of tables that follow one another from sector ``first`` on."""
    step = 16 * KiB
    for start in range(0, tables, step):
        count = min(step, tables - start)
        begin = first + start * _TABLE_SECTORS
        entries = array("I", range(begin, begin + count * _TABLE_SECTORS, _TABLE_SECTORS))
        file.pwrite(place * SECTOR + start * 4, pack_table(entries, "little"))

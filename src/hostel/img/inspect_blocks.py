"""What block tables lead to, of formats that map a disk block by block: one level of table, or grains.

The tables of parallels, vdi, vpc and vhdx, and the grain tables of VMware's disks: an entry that lies on the image's
own metadata, or on another one's block, is told. A guest that writes there writes what is not its own.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import Final

from hostel.block.driver import OpenMode
from hostel.block.formats import vdi
from hostel.block.formats.parallels.layout import Header as ParallelsHeader
from hostel.block.formats.qcow import COMPRESSED
from hostel.block.formats.qcow import Header as QcowHeader
from hostel.block.formats.vhdx import layout as vhdx
from hostel.block.formats.vhdx.header import Headers as VhdxHeaders
from hostel.block.formats.vhdx.log import Log as VhdxLog
from hostel.block.formats.vhdx.region import Metadata as VhdxMetadata
from hostel.block.formats.vhdx.region import read_metadata, read_regions
from hostel.block.formats.vmdk.image import VmdkImage
from hostel.block.formats.vmdk.layout import DESCRIPTOR_OFFSET
from hostel.block.formats.vmdk.mapped import MappedExtent
from hostel.block.formats.vmdk.sparse import SparseExtent
from hostel.block.formats.vpc.layout import COOKIE as VPC_COOKIE
from hostel.block.formats.vpc.layout import UNUSED as VPC_UNUSED
from hostel.block.formats.vpc.layout import Footer as VpcFooter
from hostel.block.formats.vpc.opening import read_table
from hostel.block.trust import Trust
from hostel.codec.table import unpack_table
from hostel.img.inspect_places import MOST_READ, Blocks, Metadata, Owned, padded, pieces, report
from hostel.img.inspection import Level, Look
from hostel.units import SECTOR, MiB

_MOST_DIRECTORY: Final = MiB  # bytes of a grain directory
_UNTRUSTED: Final = OpenMode(read_only=True, no_io=True, force_share=True, trust=Trust.UNTRUSTED)


def _look_at_entries(
    look: Look, blocks: Blocks, table: tuple[int, int, str, str], what: str = "Entry {} of the block table"
) -> None:
    """Report the first wrong entry of a table, given as :func:`pieces` takes it."""
    for first, entries in pieces(look, *table):
        if (wrong := blocks.wrong(entries)) is not None:
            index, place = wrong
            report(look, f"{what.format(first + index)} points to {place}: {entries[index]:#x}")
            return


def look_at_parallels_table(look: Look, header: ParallelsHeader) -> None:
    """Report the first entry of a parallels image's table that lies on the header, the table or another's cluster."""
    metadata = Metadata(look, [Owned(0, header.table_end, "header or the table")])
    blocks = Blocks(look, header.cluster_size, header.unit, bool, metadata=metadata)
    _look_at_entries(look, blocks, (header.SIZE, header.bat_entries, "I", "little"))


def look_at_vdi_map(look: Look, header: vdi.Header) -> None:
    """Report a map of a VDI image on its header or blocks, or the first entry of it that names another's block."""
    end = header.offset_bmap + 4 * header.blocks_in_image
    if header.blocks_in_image and (header.offset_bmap < header.SIZE or header.offset_data < end):
        report(look, f"The block map from byte {header.offset_bmap} to {end} lies on the header or the blocks")
        return
    blocks = Blocks(look, header.block_size, header.block_size, lambda entry: entry < vdi.DISCARDED)
    table = header.offset_bmap, header.blocks_in_image, "I", "little"
    _look_at_entries(look, blocks, table, "Entry {} of the block map")


def look_at_vpc_table(look: Look) -> None:
    """Report footers that do not agree, or the first entry of a VHD's table that lies on metadata or on a block.

    Metadata are the copy of the footer, the header, the table, and the footer at the end where the copy is damaged.
    """
    _compare_footers(look)
    table = read_table(look.file)
    if table is None:
        return  # a fixed disk
    metadata = Metadata(look, (Owned(*each) for each in table.metadata))
    blocks = Blocks(look, table.whole, SECTOR, lambda entry: entry != VPC_UNUSED, metadata=metadata)
    _look_at_entries(look, blocks, (table.offset, table.entries, "I", "big"))


def _compare_footers(look: Look) -> None:
    """Report that the footer and its copy say another kind of image: who goes by which of them differs."""
    found = (VpcFooter.unpack(padded(look, at, VpcFooter.SIZE)) for at in (0, max(0, look.length - VpcFooter.SIZE)))
    kinds = [each.disk_type for each in found if each.cookie == VPC_COOKIE]
    if len(set(kinds)) > 1:
        message = f"The footer at the start says disk type {kinds[0]}, and the one at the end {kinds[1]}"
        look.add(Level.UNSAFE, "ambiguous", message)


def look_at_vhdx_table(look: Look) -> None:
    """Report the first block of a VHDX that lies on another one; on regions none does where an image can be opened."""
    headers = VhdxHeaders(look.file)
    if headers.names_log:  # and it could be opened
        message = "The image was not closed properly, and no entry of its log is whole: the last changes may be lost"
        look.add(Level.WARNING, "dirty", message)
    regions = read_regions(look.file, VhdxLog(look.file, headers).area)
    metadata = read_metadata(look.file, regions.metadata)
    blocks = Blocks(look, metadata.block_size, vhdx.UNIT, _has_place, shift=_VHDX_SHIFT)
    bitmaps: list[tuple[int, int, int]] = []
    for first, entries in pieces(look, regions.bat.offset, metadata.entries, "Q", "little"):
        wrong = _wrong_of_vhdx(blocks, metadata, first, entries, bitmaps)
        if wrong is not None:
            index, what = wrong
            report(look, f"Entry {index} of the block table points to {what}: {entries[index - first]:#x}")
            return
    before = -1
    for place, index, entry in sorted(bitmaps):
        if place == before or blocks.covers(place, 1):
            report(look, f"Entry {index} of the block table points to another one's place: {entry:#x}")
            return
        before = place


_VHDX_SHIFT: Final = vhdx.UNIT.bit_length() - 1


def _has_place(entry: int) -> bool:
    return entry & 6 == 6  # fully or partially present


def _wrong_of_vhdx(
    blocks: Blocks, metadata: VhdxMetadata, first: int, entries: array[int], bitmaps: list[tuple[int, int, int]]
) -> tuple[int, str] | None:
    """The first wrong entry of a piece, by its index in the table; those of sector bitmaps are collected."""
    chunk = metadata.chunk
    at = 0
    while at < len(entries):
        count = min(chunk - (first + at) % (chunk + 1), len(entries) - at)
        if count and (wrong := blocks.wrong(entries[at : at + count])) is not None:
            return first + at + wrong[0], wrong[1]
        at += count
        if at < len(entries) and (first + at) % (chunk + 1) == chunk:
            if _has_place(entries[at]):
                bitmaps.append((entries[at] >> _VHDX_SHIFT, first + at, entries[at]))
            at += 1
    return None


# ---- qcow


def look_at_qcow_tables(look: Look, header: QcowHeader) -> None:
    """Report the first L2 table of a qcow image that lies on metadata, or an entry on that or another one's cluster.

    The backing file's name is metadata, and lies anywhere: who can write there can name a file of the host.
    """
    name = header.name_range
    if header.backing_file_offset and not look.read(name.start, len(name)).partition(b"\0")[0]:
        message = f"The name of a backing file, which the header says is at byte {name.start}, is empty"
        look.add(Level.UNSAFE, "malformed", message)
    size, length = 1 << header.cluster_bits, 8 << header.l2_bits
    most = min(header.l1_entries * 8, _MOST_DIRECTORY)
    if header.l1_entries * 8 > most:
        look.add(
            Level.NOTE, "large-table", f"Of the L1 table's {header.l1_entries * 8} bytes only {most} were looked at"
        )
    l1 = unpack_table(padded(look, header.l1_table_offset, most))
    end = -(-max(look.length, look.file.length) // SECTOR) * SECTOR
    for index, table in enumerate(l1):
        if table and (table % SECTOR or table + length > end):
            message = f"L1 entry {index} makes no sense, or points beyond the end of the file: {table:#x}"
            look.add(Level.UNSAFE, "truncated", message)
            return
    tables = [table for table in l1 if table]
    owned = [
        Owned(0, header.SIZE, "header"),
        Owned(name.start, name.stop, "backing file's name"),
        Owned(header.l1_table_offset, header.l1_table_offset + header.l1_entries * 8, "L1 table"),
    ]
    metadata = Metadata(look, owned, tables, length, "L2 table")
    if (overlap := metadata.overlap()) is not None:
        report(look, overlap)
        return
    blocks = Blocks(look, size, SECTOR, lambda entry: 0 < entry < COMPRESSED, shift=_QCOW_SHIFT, metadata=metadata)
    for number, table in enumerate(tables):
        if number * length > MOST_READ or blocks.spend(0):
            look.add(Level.NOTE, "large-table", f"Of {len(tables)} L2 tables only the first {number} were looked at")
            return
        data = padded(look, table, length)
        if data.count(0) == length:
            continue
        entries = unpack_table(data)
        wrong = blocks.wrong(entries)
        if wrong is None and max(data[::8]) & 0x80:
            wrong = _wrong_compressed(blocks, metadata, header, entries)
        if wrong is not None:
            index, place = wrong
            report(look, f"Entry {index} of the L2 table at byte {table} points to {place}: {entries[index]:#x}")
            return


_QCOW_SHIFT: Final = SECTOR.bit_length() - 1


def _wrong_compressed(
    blocks: Blocks, metadata: Metadata, header: QcowHeader, entries: array[int]
) -> tuple[int, str] | None:
    """The first compressed cluster of a table that lies on metadata."""
    shift = 63 - header.cluster_bits
    mask, most = (1 << shift) - 1, (1 << header.cluster_bits) - 1
    for index, entry in enumerate(entries):
        if entry & COMPRESSED and metadata.holds(entry & mask, entry >> shift & most):
            return index, f"the {metadata.name(entry & mask, entry >> shift & most)}"
    blocks.spend(len(entries))
    return None


# ---- grains


def look_at_vmdk_tables(look: Look) -> None:
    """Report the first grain table, or grain, of the extent in a VMware disk's own file that lies on anything else."""
    for extent in VmdkImage(look.file, _UNTRUSTED).extents:
        assert isinstance(extent, MappedExtent)  # others are in files of their own
        _Grains(look, extent).run()


class _Grains:
    """The tables of an extent with a grain directory, of which the entries count sectors."""

    def __init__(self, look: Look, extent: MappedExtent) -> None:
        self._look = look
        self._extent = extent
        self._left = MOST_READ

    def run(self) -> None:
        look, extent = self._look, self._extent
        directory = extent.directory
        if (length := directory.entries * 4) > _MOST_DIRECTORY:
            message = f"Of the grain directory's {length} bytes only {_MOST_DIRECTORY} were looked at"
            look.add(Level.NOTE, "large-table", message)
        owned = [Owned(0, SECTOR, "header"), Owned(directory.offset, directory.end, "grain directory")]
        owned += _descriptors(extent)
        tables = self._tables(directory.offset)
        every = list(tables)
        redundant = extent.redundant if isinstance(extent, SparseExtent) else None
        if redundant is not None and redundant.offset != directory.offset:
            owned.append(Owned(redundant.offset, redundant.end, "redundant grain directory"))
            every += self._tables(redundant.offset)
        for each in owned:
            if each.what == "descriptor" and each.end > -(-look.length // SECTOR) * SECTOR:
                message = f"The descriptor, from byte {each.start} to {each.end}, lies beyond the end of the file"
                look.add(Level.UNSAFE, "malformed", message)
                return
        if any(table + extent.tables.size > max(look.length, look.file.length) for table in tables):
            look.add(Level.UNSAFE, "truncated", "A grain table lies beyond the end of the file")
            return
        metadata = Metadata(look, owned, every, extent.tables.size, "grain table")
        if (overlap := metadata.overlap()) is not None:
            report(look, overlap)
            return
        metadata.widen(0, extent.first_grain)
        self._look_at_tables(tables, metadata)

    def _tables(self, offset: int) -> array[int]:
        """Where the grain tables are that a directory names."""
        data = padded(self._look, offset, min(self._extent.directory.entries * 4, _MOST_DIRECTORY))
        return array("Q", (entry * SECTOR for entry in unpack_table(data, "I", "little") if entry))

    def _look_at_tables(self, tables: array[int], metadata: Metadata) -> None:
        look, extent = self._look, self._extent
        # A compressed grain takes as much as it needs: of those only where they begin is known.
        size = SECTOR if extent.compressed else extent.grain_size
        blocks = Blocks(look, size, SECTOR, _is_grain(extent), metadata=metadata)
        for number, table in enumerate(tables):
            if self._left < extent.tables.size or blocks.spend(0):
                message = f"Of {len(tables)} grain tables only the first {number} were looked at"
                look.add(Level.NOTE, "large-table", message)
                return
            self._left -= extent.tables.size
            data = padded(look, table, extent.tables.size)
            if data.count(0) == len(data):
                continue
            entries = unpack_table(data, "I", "little")
            if (wrong := blocks.wrong(entries)) is not None:
                index, place = wrong
                report(look, f"Entry {index} of the grain table at byte {table} points to {place}: {entries[index]:#x}")
                return


def _descriptors(extent: MappedExtent) -> list[Owned]:
    """The text as we and QEMU read it, and where the header says that it is; one range where these are one."""
    read = Owned(DESCRIPTOR_OFFSET, extent.text_end, "descriptor")
    if not isinstance(extent, SparseExtent) or not extent.header.descriptor_size:
        return [read]
    start = extent.header.descriptor_offset * SECTOR
    named = Owned(start, start + extent.header.descriptor_size * SECTOR, "descriptor")
    if named.start < read.end and read.start < named.end:
        return [Owned(min(read.start, named.start), max(read.end, named.end), "descriptor")]
    return [read, named]


def _is_grain(extent: MappedExtent) -> Callable[[int], bool]:
    zeroed = isinstance(extent, SparseExtent) and extent.has_zero_grains
    return (lambda entry: entry > 1) if zeroed else bool

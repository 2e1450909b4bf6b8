"""Format ``vdi``: VirtualBox's disk images, dynamic and static (``docs/formats/vdi.md``).

A header of one sector, a map with the place of each block of a megabyte, counted in blocks, and the blocks in the order
in which they were first written.
"""

from __future__ import annotations

import errno
import os
import sys
from array import array
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Final, Self

from hostel.block.driver import FormatInfo, OpenMode, Reference
from hostel.block.extent import Extent
from hostel.block.formats.block_mapped import BlockMappedDriver
from hostel.block.formats.block_table import (
    ABSENT,
    PAGE,
    ZEROES,
    BlockMap,
    BlockTable,
    Run,
    claim,
    make_room,
    with_holes,
)
from hostel.block.formats.findings import Findings
from hostel.block.formats.preallocation import preallocation_of
from hostel.block.node import BlockNode
from hostel.block.options import Kind, Option, Options, Value
from hostel.block.powers import CheckResult, Preallocation, Repair, Report
from hostel.codec.record import Record, u32, u64
from hostel.errors import CorruptImage, InvalidImage, ReadOnly, UnsupportedFeature
from hostel.units import SECTOR, KiB, MiB

SIGNATURE: Final = 0xBEDA107F
VERSION: Final = 0x00010001
TEXT: Final = b"<<< QEMU VM Virtual Disk Image >>>\n"
BLOCK_SIZE: Final = MiB  # of every image that QEMU makes or opens
MIN_BLOCK_SIZE: Final = 4 * KiB
MAX_BLOCK_SIZE: Final = 256 * MiB
DYNAMIC: Final = 1
STATIC: Final = 2
DIFFERENCING: Final = 4

# Entries of the map from here on are no places.
NEVER_WRITTEN: Final = 0xFFFFFFFF
DISCARDED: Final = 0xFFFFFFFE

MAX_BLOCKS: Final = 0x1FFFFF80  # QEMU's: the map stays below 2 GiB
MAX_SIZE: Final = MAX_BLOCKS * BLOCK_SIZE
_HEADER_LENGTH: Final = 0x180  # of what follows the version
_NO_UUID: Final = bytes(16)
_MOST_SEARCHED: Final = 1 << 24  # blocks of a file that are searched for places that were lost
_MOST_LOST: Final = 1 << 16  # such places that are used again


class Header(Record, endian="little"):
    """The first sector. Cylinders, heads and sectors are not used, as in QEMU."""

    text: Annotated[bytes, 64]
    signature: u32
    version: u32
    header_size: u32
    image_type: u32
    image_flags: u32
    description: Annotated[bytes, 256]
    offset_bmap: u32
    offset_data: u32
    cylinders: u32
    heads: u32
    sectors: u32
    sector_size: u32
    unused1: u32
    disk_size: u64
    block_size: u32
    block_extra: u32
    blocks_in_image: u32
    blocks_allocated: u32
    uuid_image: Annotated[bytes, 16]
    uuid_last_snap: Annotated[bytes, 16]
    uuid_link: Annotated[bytes, 16]
    uuid_parent: Annotated[bytes, 16]
    unused2: Annotated[bytes, 56]


class VdiDriver(BlockMappedDriver):
    """Blocks are found by the map and added at the end; the map and the count of blocks are held back until a flush."""

    name = "vdi"
    title = "VDI"
    create_options: Final = Options(
        Option("size", Kind.SIZE, "Virtual disk size"),
        Option("static", Kind.BOOL, "VDI static (pre-allocated) image", "off"),
    )

    def __init__(self, file: BlockNode, header: Header, mode: OpenMode) -> None:
        super().__init__(file, mode, differs=header.image_type == DIFFERENCING)
        self._header = header
        self.unique_id = _uuid_text(header.uuid_image)
        self._length = -(-header.disk_size // SECTOR) * SECTOR  # VirtualBox makes odd ones
        self._data = header.offset_data
        self._table = BlockTable(file, header.offset_bmap, header.blocks_in_image, "I", "little")
        self._map = BlockMap(self._table, header.block_size, self._place)
        self._is_header_dirty = False
        self._file_end = 0  # as far as the file is known to reach
        # Places of the file for new blocks, counted in blocks; not known before the first is wanted.
        self._next: int | None = None
        self._lost: list[int] = []  # below it, and of nobody: a crash left them

    @classmethod
    def open(cls, file: BlockNode, mode: OpenMode) -> Self:
        """Read the header.

        Raises:
            InvalidImage: the header is malformed, or the map lies beyond the file's end.
            CorruptImage: the map lies among the blocks.
            UnsupportedFeature: the image has what QEMU does not support either.
            ReadOnly: a differencing image is to be written.
        OSError: the header or the map cannot be read.
        """
        header = Header.unpack(file.read(0, Header.SIZE))
        _check_header(header)
        if header.image_type == DIFFERENCING and not mode.read_only:
            raise ReadOnly("A differencing VDI can only be read; convert it to write the disk")
        end = header.offset_bmap + 4 * header.blocks_in_image
        if not mode.no_io and header.offset_data < end and header.blocks_in_image:
            raise CorruptImage("The block map does not end before the blocks begin", errno=errno.EINVAL)
        # QEMU takes a map beyond the file's end for zeroes: every block would be the first.
        if not mode.no_io and end > file.length:
            raise InvalidImage(
                f"The image is truncated: its block map ends at byte {end}, and the file has {file.length}"
            )
        driver = cls(file, header, mode)
        if end <= file.length:
            driver._table.load()
        return driver

    @classmethod
    def probe(cls, head: bytes, filename: str) -> int:
        """By signature."""
        known = len(head) >= Header.SIZE and head[64:68] == SIGNATURE.to_bytes(4, "little")
        return 100 if known else 0

    @classmethod
    def check_creation(cls, size: int, options: Mapping[str, Value]) -> None:
        """Refuse what cannot be created.

        Raises:
            BlockError: there is no such preallocation mode.
            UnsupportedFeature: the disk is too large.
        """
        preallocation_of(options)
        _check_size(size)

    @classmethod
    def create(cls, file: BlockNode, size: int, options: Mapping[str, Value]) -> None:
        """Lay out an empty image; a static one has all its blocks.

        ``cluster_size`` is taken as well, and not among the declared options: QEMU opens no image with other blocks.

        Raises:
            BlockError: an option makes no sense.
            OSError: the host's own errors.
        """
        mode = preallocation_of(options)
        is_static = options.get("static") is True or mode is Preallocation.METADATA
        _check_size(size)
        block_size = int(options.get("cluster_size", BLOCK_SIZE))
        blocks = -(-size // block_size)
        map_length = -(-4 * blocks // SECTOR) * SECTOR
        header = Header(
            text=TEXT,
            signature=SIGNATURE,
            version=VERSION,
            header_size=_HEADER_LENGTH,
            image_type=STATIC if is_static else DYNAMIC,
            image_flags=0,
            description=b"",
            offset_bmap=SECTOR,
            offset_data=SECTOR + map_length,
            cylinders=0,
            heads=0,
            sectors=0,
            sector_size=SECTOR,
            unused1=0,
            disk_size=size,
            block_size=block_size,
            block_extra=0,
            blocks_in_image=blocks,
            blocks_allocated=blocks if is_static else 0,
            uuid_image=_new_uuid(),
            uuid_last_snap=_new_uuid(),
            uuid_link=_NO_UUID,
            uuid_parent=_NO_UUID,
            unused2=b"",
        )
        if is_static:
            reserve = mode if mode in (Preallocation.FALLOC, Preallocation.FULL) else Preallocation.OFF
            make_room(file, header.offset_data + blocks * block_size, reserve)
        _write_map(file, blocks, is_static=is_static)
        file.pwrite(0, header.pack())

    @property
    def length(self) -> int:
        """The virtual size in bytes."""
        return self._length

    def flush(self) -> None:
        """Sync data and the count of blocks, then write the map: a crash leaves blocks that nobody has, at worst.

        An entry of the map that reached the disk before the count did would have its block given to another one.
        """
        if not self._table.is_dirty:
            self._file.flush()
            return
        assert self._next is not None
        if self._header.blocks_allocated != self._next or self._is_header_dirty:
            self._is_header_dirty = True
            self._header.blocks_allocated = self._next
            self._file.pwrite(0, self._header.pack())
        self._file.flush()
        self._is_header_dirty = False
        for place, sectors in self._table.changes():
            self._file.pwrite(place, sectors)
        self._file.flush()
        self._table.written()

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """Blocks and zeroes; holes of the host's file in the blocks of a static image are zeroes as well."""
        found = super().extents(offset, length)
        return with_holes(self._file, found) if self._header.image_type == STATIC else found

    def references(self) -> Sequence[Reference]:
        """The parent of a differencing image, which VirtualBox records by its identity alone."""
        if not self._differs:
            return ()
        parent = _uuid_text(self._header.uuid_parent)
        return (Reference("backing", f"{{{parent}}}.vdi", "vdi", unique_id=parent),)

    def info(self) -> FormatInfo:
        """The size of blocks."""
        return FormatInfo(cluster_size=self._header.block_size)

    def check(self, repair: Repair, report: Report) -> CheckResult:
        """Check the map, in QEMU's words.

        Raises:
            UnsupportedFeature: a repair is asked for.
        """
        if repair:
            raise UnsupportedFeature("This image format does not support checks")
        if self._table.is_dirty:
            self.flush()
        return _Check(self._header, report).run(self._table)

    def _runs(self, offset: int, length: int) -> Iterator[Run]:
        for run in super()._runs(offset, length):
            if run.host >= 0:
                last = run.host + run.length - 1
                self._require_inside(last - (last - self._data) % self._map.block_size)
            yield run

    def _require_inside(self, last: int) -> None:
        """Refuse blocks, of which the last is at byte ``last``, that do not even begin in the file: it was cut off.

        Raises:
            CorruptImage: one does not; QEMU reads it as zeroes.
        """
        if last < self._file_end:
            return
        self._file_end = self._file.length
        if last >= self._file_end:
            raise CorruptImage(
                f"A block at offset {last} lies beyond the file's end, at {self._file_end}: the image was cut off",
                hint="Copy what is left of the disk with qemu-img convert --salvage.",
            )

    def _place(self, entry: int) -> int:
        if entry < DISCARDED:
            return self._data + entry * self._map.block_size
        return ABSENT if entry == NEVER_WRITTEN else ZEROES

    def _add(self, offset: int, data: memoryview) -> None:
        block_size = self._map.block_size
        while data:
            block, inside = divmod(offset, block_size)
            first, count = self._find_room(-(-(inside + len(data)) // block_size))
            part = data[: count * block_size - inside]
            start = self._data + first * block_size
            place = start + inside
            claim(self._file, start, start + count * block_size, place, place + len(part))
            self._file.pwrite(place, part)
            for at in range(count):
                self._table[block + at] = first + at
            if self._lost:
                self._lost.pop()
            else:
                self._next = first + count
            offset, data = offset + len(part), data[len(part) :]

    def _find_room(self, wanted: int) -> tuple[int, int]:
        """The first of the places for new blocks, and how many of those that are wanted lie there in a row."""
        if self._next is None:
            following, lost = _room(self._table)
            if following:  # behind a block that is lost the file would grow beyond it: it would read as zeroes then
                self._require_inside(self._data + (following - 1) * self._map.block_size)
            self._next, self._lost = following, lost
        if self._lost:
            return self._lost[-1], 1
        return self._next, wanted


def _room(table: BlockTable) -> tuple[int, list[int]]:
    """The place behind all blocks, and some of those before it that no entry names, the first one last.

    The header's count is not relied on: where it is behind the map, the next block would lie on another one.

    Raises:
        CorruptImage: an entry lies beyond what an image may have.
    """
    highest, used = -1, 0
    for _, entries in table.pages():
        places = _places(entries)
        highest, used = max(highest, max(places, default=-1)), used + len(places)
    if highest >= MAX_BLOCKS:
        raise CorruptImage(f"The block map names block {highest} of the file, which may have {MAX_BLOCKS}")
    if used == highest + 1 or highest >= _MOST_SEARCHED:
        return highest + 1, []
    taken = bytearray(highest + 1)
    for _, entries in table.pages():
        for place in _places(entries):
            taken[place] = 1
    lost: list[int] = []
    at = taken.find(0)
    while at >= 0 and len(lost) < _MOST_LOST:
        lost.append(at)
        at = taken.find(0, at + 1)
    return highest + 1, lost[::-1]


def _places(entries: array[int]) -> list[int]:
    """The entries that are places."""
    if entries[0] == NEVER_WRITTEN and entries == array("I", entries[:1]) * len(entries):
        return []
    return [entry for entry in entries if entry < DISCARDED]


class _Check:
    """One check of a map: each block of the file has one entry at most, and the header knows how many have."""

    def __init__(self, header: Header, report: Report) -> None:
        self._count = header.blocks_in_image
        self._recorded = header.blocks_allocated
        self._findings = Findings(report)
        self._taken = bytearray(-(-self._count // 8))

    def run(self, table: BlockTable) -> CheckResult:
        result, used = self._findings.result, 0
        for first, entries in table.pages():
            if _places(entries):
                used += self._check_page(first, entries)
        if used != self._recorded:
            self._findings.say(f"ERROR: allocated blocks mismatch, is {used}, should be {self._recorded}")
            if used < self._recorded and not result.corruptions:
                result.leaks += self._recorded - used
            else:
                result.corruptions += 1
        return result

    def _check_page(self, first: int, entries: array[int]) -> int:
        taken, used = self._taken, 0
        for block, entry in enumerate(entries, first):
            if entry >= DISCARDED:
                continue
            if entry >= self._count:
                self._findings.corruption(f"ERROR: block index {block} too large, is {entry}")
                continue
            used += 1
            if taken[entry >> 3] >> (entry & 7) & 1:
                self._findings.corruption(f"ERROR: block index {entry} also used by {entry}")
            taken[entry >> 3] |= 1 << (entry & 7)
        return used


def _check_header(header: Header) -> None:
    """Refuse what QEMU refuses, in its order and words, and what it reads wrongly.

    Raises:
        InvalidImage: it is no header.
        UnsupportedFeature: the image is of another kind.
    """
    size = -(-header.disk_size // SECTOR) * SECTOR
    room = header.blocks_in_image * header.block_size
    if header.disk_size > MAX_SIZE:
        raise _too_large(header.disk_size)
    if header.signature != SIGNATURE:
        raise InvalidImage(f"Image not in VDI format (bad signature {header.signature:08x})")
    differs = header.image_type == DIFFERENCING
    version = f"version {header.version >> 16}.{header.version & 0xFFFF}"
    for wrong, reason in (
        (header.version != VERSION, version),
        (header.offset_bmap % SECTOR, f"unaligned block map offset 0x{header.offset_bmap:x}"),
        (header.offset_data % SECTOR, f"unaligned data offset 0x{header.offset_data:x}"),
        (header.sector_size != SECTOR, f"sector size {header.sector_size} is not {SECTOR}"),
        (not _is_block_size(header.block_size), f"block size {header.block_size} is not {BLOCK_SIZE}"),
        (size > room, f"disk size {size}, image bitmap has room for {room}"),
        (header.uuid_link != _NO_UUID and not differs, "non-NULL link UUID"),
        (header.uuid_parent != _NO_UUID and not differs, "non-NULL parent UUID"),
        (header.blocks_in_image > MAX_BLOCKS, f"too many blocks {header.blocks_in_image}, max is {MAX_BLOCKS}"),
        (differs and header.uuid_parent == _NO_UUID, "a difference from nothing"),
        (header.block_extra, f"{header.block_extra} extra bytes before each block"),
        (header.offset_bmap < SECTOR, "the block map lies over the header"),
        (header.offset_data < SECTOR, "the blocks lie over the header"),
    ):
        if wrong:
            raise UnsupportedFeature(f"unsupported VDI image ({reason})")


def _is_block_size(size: int) -> bool:
    return MIN_BLOCK_SIZE <= size <= MAX_BLOCK_SIZE and size & (size - 1) == 0


def _check_size(size: int) -> None:
    if size > MAX_SIZE:
        raise _too_large(size)


def _too_large(size: int) -> UnsupportedFeature:
    return UnsupportedFeature(f"Unsupported VDI image size (size is 0x{size:x}, max supported is 0x{MAX_SIZE:x})")


def _new_uuid() -> bytes:
    """A random UUID, version 4 (RFC 4122), as QEMU stores it."""
    raw = bytearray(os.urandom(16))
    raw[6] = raw[6] & 0x0F | 0x40
    raw[8] = raw[8] & 0x3F | 0x80
    return bytes(raw)


def _uuid_text(raw: bytes) -> str:
    """A UUID as VirtualBox stores it, whose first three fields are little-endian, in its usual form."""
    order = (3, 2, 1, 0, 5, 4, 7, 6, *range(8, 16))
    digits = bytes(raw[at] for at in order).hex()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def _write_map(file: BlockNode, blocks: int, *, is_static: bool) -> None:
    """Write the map of a new image: all blocks in order, or none; the rest of the last sector is zeroes."""
    step = PAGE // 4
    for first in range(0, blocks, step):
        count = min(step, blocks - first)
        entries = array("I", range(first, first + count) if is_static else [NEVER_WRITTEN] * count)
        if sys.byteorder == "big":
            entries.byteswap()
        data = entries.tobytes()
        file.pwrite(SECTOR + 4 * first, data.ljust(-(-len(data) // SECTOR) * SECTOR, b"\0"))

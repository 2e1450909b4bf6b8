"""A FAT file system of files that stay where they are: boot sector, tables, directories, and which file lies where.

Microsoft's *FAT32 File System Specification* 1.03. Geometry, sizes and the boot sector of FAT12 and FAT16 are those of
QEMU's ``block/vvfat.c``; where QEMU's are none that other programs take for the type they should be (a floppy with
FAT16, everything with FAT32) they follow the specification.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_right
from collections.abc import Callable
from typing import Final, NamedTuple

from hostel.block.node import fill_zeroes
from hostel.block.protocols.vvfat import tree
from hostel.block.protocols.vvfat.tree import ENTRY, File
from hostel.codec.table import pack_table
from hostel.errors import BlockError, InvalidImage
from hostel.units import SECTOR, MiB

FAT_TYPES: Final = (12, 16, 32)
_ROOT_ENTRIES: Final = 512
_PARTITION: Final = 63  # sectors before it
_RESERVED_32: Final = 32  # sectors before the tables of FAT32
_END: Final = {12: 0xFFF, 16: 0xFFFF, 32: 0x0FFFFFFF}
_MAX_SECTORS: Final = 2**32 - 1
_ROOM: Final = 16 * MiB  # bytes that a disk of FAT32 has beside what it must hold
_UNITS: Final = ((8 << 30, 8), (16 << 30, 16), (32 << 30, 32))  # bytes of a disk, and sectors of its clusters


class Geometry(NamedTuple):
    """How the disk is divided; numbers of sectors.

    Attributes:
        fat_type: 12, 16 or 32.
        cylinders, heads, track: as a BIOS sees it; a track is of so many sectors.
        start: where the file system begins; 0 of a floppy.
        unit: sectors of a cluster.
        reserved: before the tables.
        table: of each of the two tables.
        root: of the first directory, where it is no chain of clusters.
        clusters: how many there are.
    """

    fat_type: int
    cylinders: int
    heads: int
    track: int
    start: int
    unit: int
    reserved: int
    table: int
    root: int
    clusters: int

    @property
    def total(self) -> int:
        """Of the whole disk."""
        return self.cylinders * self.heads * self.track

    @property
    def size(self) -> int:
        """Of the file system."""
        return self.total - self.start

    @property
    def first_table(self) -> int:
        """Where it begins."""
        return self.start + self.reserved

    @property
    def first_root(self) -> int:
        """Where the first directory begins, or of FAT32 the clusters."""
        return self.first_table + 2 * self.table

    @property
    def first_cluster(self) -> int:
        """Where the clusters begin."""
        return self.first_root + self.root

    def place(self, cluster: int) -> int:
        """Where a cluster begins on the disk, bytes."""
        return (self.first_cluster + (cluster - 2) * self.unit) * SECTOR

    @property
    def end(self) -> int:
        """Where the last cluster ends, bytes."""
        return self.place(self.clusters + 2)


def geometry(fat_type: int, *, floppy: bool, needed: int) -> Geometry:
    """The disk of a type, 0 for the usual one; of FAT32 it grows with the ``needed`` bytes.

    Raises:
        BlockError: there is no such disk.
    """
    if fat_type not in (0, *FAT_TYPES):
        raise BlockError("Valid FAT types are only 12, 16 and 32", errno=22)
    if floppy:
        if fat_type == 32:
            raise BlockError("A floppy is too small for FAT32", errno=22, hint="Use FAT12 or FAT16.")
        # With QEMU's clusters of 16 sectors a floppy of FAT16 has so few that every program takes it for FAT12.
        return _divided(fat_type or 12, (80, 2, 18 if fat_type == 12 else 36), 0, 1 if fat_type == 16 else 16)
    if fat_type != 32:
        return _divided(fat_type or 16, (64 if fat_type == 12 else 1024, 16, 63), _PARTITION, 16)
    # Clusters, their share of the tables, and some room.
    wanted = -(-(needed + needed // 256 + _ROOM) // SECTOR)
    cylinders = max(1024, -(-wanted // (16 * 63)))
    unit = next((unit for size, unit in _UNITS if wanted * SECTOR <= size), 64)
    if cylinders * 16 * 63 > _MAX_SECTORS:
        raise InvalidImage("The directory does not fit a disk of 2 TiB")
    return _divided(32, (cylinders, 16, 63), _PARTITION, unit)


def _divided(fat_type: int, chs: tuple[int, int, int], start: int, unit: int) -> Geometry:
    cylinders, heads, track = chs
    size = cylinders * heads * track - start
    reserved, root = (_RESERVED_32, 0) if fat_type == 32 else (1, _ROOT_ENTRIES * ENTRY // SECTOR)
    each = 1 + unit * SECTOR * 8 // fat_type
    table = (size + each) // each
    clusters = (size - reserved - 2 * table - root) // unit
    return Geometry(fat_type, cylinders, heads, track, start, unit, reserved, table, root, clusters)


class Volume:
    """The file system, every byte of which can be asked for; those of files are read by ``read_file``.

    Args:
        top: the directory.
        geometry: of the disk.
        label: of the volume, 11 bytes.
        read_file: fills a buffer with the bytes of a file from an offset on, zeroes behind its end.

    Raises:
        InvalidImage: the directory does not fit.
    """

    def __init__(
        self, top: File, geometry: Geometry, label: bytes, read_file: Callable[[File, int, memoryview], None]
    ) -> None:
        self.geometry = geometry
        self._label = label
        self._read_file = read_file
        self._top = top
        self._starts = array("Q")  # the clusters where files begin, in order
        self._lengths = array("Q")  # and how many each has
        self._files: list[File] = []
        self._kept: tuple[File | None, bytes] = (None, b"")  # a directory's bytes
        self._place(top)

    def _place(self, top: File) -> None:
        """Give each file its clusters, one behind the other: directories before what is in them."""
        has_root = bool(self.geometry.root)
        if has_root and top.entries + 1 > _ROOT_ENTRIES:
            raise InvalidImage(
                f"Too many entries in root directory: {top.entries + 1}, and FAT{self.geometry.fat_type} has "
                f"{_ROOT_ENTRIES}",
                hint="Names that are not of 8 and 3 capitals take several. Use FAT32, or a directory in it.",
            )
        cluster = 2
        waiting = [top]
        for file in waiting:  # which grows
            length = (file.entries + (file is top)) * ENTRY if file.is_directory else file.found.st_size
            count = max(-(-length // (self.geometry.unit * SECTOR)), 1 if file.is_directory else 0)
            if file is top and has_root:
                count = 0
            if count:
                file.cluster = cluster
                self._starts.append(cluster)
                self._lengths.append(count)
                self._files.append(file)
                cluster += count
            waiting += file.children
        if cluster - 2 > self.geometry.clusters:
            raise InvalidImage(
                f"Directory does not fit in FAT{self.geometry.fat_type} (capacity {self.geometry.size / 2000:.2f} MB)",
                hint="FAT32 takes directories of any size (fat:32:).",
            )
        self._next = cluster

    # ---- reading

    def pread(self, offset: int, buf: memoryview) -> None:
        """Fill a buffer from an offset of the disk.

        Raises:
            BlockError: a file was changed, or cannot be read.
        """
        done = 0
        while done < len(buf):
            at = offset + done
            end, fill = self._region(at)
            part = buf[done : done + end - at]
            fill(at, part)
            done += len(part)

    @property
    def used(self) -> int:
        """Where the last file ends, bytes of the disk."""
        return self.geometry.place(self._next)

    def _region(self, offset: int) -> tuple[int, Callable[[int, memoryview], None]]:
        """Where the part of the disk ends that an offset lies in, and what fills a buffer from it."""
        layout = self.geometry
        table = layout.table * SECTOR
        first = layout.first_table * SECTOR
        if offset < first:
            return first, self._fill_start
        if offset < first + 2 * table:
            start = first + (offset - first) // table * table
            return start + table, lambda at, buf: self._fill_table(at - start, buf)
        root = layout.first_root * SECTOR
        if offset < layout.first_cluster * SECTOR:
            return layout.first_cluster * SECTOR, lambda at, buf: self._fill_directory(self._top, at - root, buf)
        return self._file_region(offset)

    def _file_region(self, offset: int) -> tuple[int, Callable[[int, memoryview], None]]:
        bytes_of_cluster = self.geometry.unit * SECTOR
        start = self.geometry.first_cluster * SECTOR
        cluster = 2 + (offset - start) // bytes_of_cluster
        index = bisect_right(self._starts, cluster) - 1
        if cluster >= self._next or index < 0:
            return self.geometry.total * SECTOR, lambda at, buf: fill_zeroes(buf)
        file = self._files[index]
        begin = start + (self._starts[index] - 2) * bytes_of_cluster
        end = begin + self._lengths[index] * bytes_of_cluster
        if file.is_directory:
            return end, lambda at, buf: self._fill_directory(file, at - begin, buf)
        return end, lambda at, buf: self._read_file(file, at - begin, buf)

    # ---- what is made up

    def _fill_start(self, offset: int, buf: memoryview) -> None:
        """The partition table and the boot sectors, with zeroes between them."""
        layout = self.geometry
        sectors = {layout.start: boot_sector(layout, self._label)}
        if layout.start:
            sectors[0] = partition_table(layout)
        if layout.fat_type == 32:
            free = layout.clusters - (self._next - 2)
            following = self._next if free else 0xFFFFFFFF
            for copy in (0, 6):
                sectors[layout.start + copy] = sectors[layout.start]
                sectors[layout.start + copy + 1] = struct.pack(
                    "<4s480x4sII12xI", b"RRaA", b"rrAa", free, following, 0xAA550000
                )
        fill_zeroes(buf)
        for number, sector in sectors.items():
            _overlay(sector, number * SECTOR - offset, buf)

    def _fill_table(self, offset: int, buf: memoryview) -> None:
        """A part of a table."""
        if self.geometry.fat_type == 12:
            entries = self._entries(0, self.geometry.table * SECTOR * 2 // 3 + 2)
            packed = bytearray()
            for index in range(0, len(entries) - 1, 2):
                packed += (entries[index] | entries[index + 1] << 12).to_bytes(3, "little")
            buf[:] = packed[offset : offset + len(buf)]
            return
        width = self.geometry.fat_type // 8
        first = offset // width
        entries = self._entries(first, (offset + len(buf) - 1) // width + 1)
        at = offset - first * width
        buf[:] = pack_table(entries, "little")[at : at + len(buf)]

    def _entries(self, first: int, end: int) -> array[int]:
        """Entries of the table: of each cluster the one that follows it."""
        last = _END[self.geometry.fat_type]
        code = "I" if self.geometry.fat_type == 32 else "H"
        found = array(code, bytes((end - first) * array(code).itemsize))
        media = 0xF8 if self.geometry.start else 0xF0
        for index, value in ((0, last & ~0xFF | media), (1, last)):
            if first <= index < end:
                found[index - first] = value
        at = max(0, bisect_right(self._starts, first) - 1)
        while at < len(self._starts) and self._starts[at] < end:
            start, stop = self._starts[at], self._starts[at] + self._lengths[at]
            low, high = max(start, first), min(stop, end)
            if low < high:
                found[low - first : high - first] = array(code, range(low + 1, high + 1))
                if high == stop:
                    found[high - 1 - first] = last
            at += 1
        return found

    def _fill_directory(self, file: File, offset: int, buf: memoryview) -> None:
        if self._kept[0] is not file:
            self._kept = (file, self._directory(file))
        fill_zeroes(buf)
        _overlay(self._kept[1], -offset, buf)

    def _directory(self, file: File) -> bytes:
        parts = []
        if file is self._top:
            parts.append(self._label + bytes([0x28]) + bytes(20))
        else:
            assert file.parent is not None
            parent = 0 if file.parent is self._top else file.parent.cluster
            parts += [tree.entry(file, b".".ljust(11), file.cluster), tree.entry(file.parent, b"..".ljust(11), parent)]
        for child in file.children:
            short, long = child.slots
            parts += [long, tree.entry(child, short, child.cluster)]
        return b"".join(parts)


def _overlay(data: bytes, at: int, buf: memoryview) -> None:
    """Put into a buffer what of ``data``, which begins at ``at``, lies in it."""
    low, high = max(at, 0), min(at + len(data), len(buf))
    if low < high:
        buf[low:high] = data[low - at : high - at]


def boot_sector(layout: Geometry, label: bytes) -> bytes:
    """The first sector of the file system."""
    size = layout.size
    is_32 = layout.fat_type == 32
    head = struct.pack(
        "<3s8sHBHBHHBHHHII",
        b"\xeb\x58\x90" if is_32 else b"\xeb\x3e\x90",
        b"MSWIN4.1",
        *(SECTOR, layout.unit, layout.reserved, 2, 0 if is_32 else _ROOT_ENTRIES),
        size if size <= 0xFFFF and not is_32 else 0,
        0xF8 if layout.start else 0xF0,
        *(0 if is_32 else layout.table, layout.track, layout.heads, layout.start),
        size if size > 0xFFFF or is_32 else 0,
    )
    if is_32:
        head += struct.pack("<IHHIHH12x", layout.table, 0, 0, 2, 1, 6)
    head += struct.pack("<BBBI11s", 0x80 if layout.start else 0, 0, 0x29, 0xFABE1AFD, label)
    head += f"FAT{layout.fat_type}   ".encode()
    return head.ljust(SECTOR - 2, b"\0") + b"\x55\xaa"


def partition_table(layout: Geometry) -> bytes:
    """The sector before the file system that says where it is."""
    first, first_lies = _cylinder_head_sector(layout, layout.start)
    last, last_lies = _cylinder_head_sector(layout, layout.total - 1)
    beyond = first_lies or last_lies  # cylinders are not enough: those who read the type then count sectors
    kind = {12: 0x01, 16: 0x0E if beyond else 0x06, 32: 0x0C if beyond else 0x0B}[layout.fat_type]
    entry = struct.pack("<B3sB3sII", 0x80, first, kind, last, layout.start, layout.size)
    return struct.pack("<440xIH", 0xBE1AFDFA, 0) + entry + bytes(48) + b"\x55\xaa"


def _cylinder_head_sector(layout: Geometry, sector: int) -> tuple[bytes, bool]:
    rest, within = divmod(sector, layout.track)
    cylinder, head = divmod(rest, layout.heads)
    if cylinder >= 1024:
        return b"\xff\xff\xff", True
    return bytes((head, within + 1 | cylinder >> 8 << 6, cylinder & 0xFF)), False

"""The snapshot table: reading, validating and laying it out ("Snapshots" in the qcow2 specification)."""

from __future__ import annotations

import errno
from typing import Final, NamedTuple, Protocol

from hostel.block.formats.qcow2 import layout
from hostel.block.formats.qcow2.geometry import Geometry
from hostel.block.formats.qcow2.header_limits import validate_table
from hostel.block.formats.qcow2.layout import Header, SnapshotHeader
from hostel.block.node import BlockNode
from hostel.block.powers import Report, SnapshotInfo
from hostel.block.reading import read_as_far
from hostel.errors import InvalidImage, NoSpace
from hostel.units import KiB

MAX_EXTRA_DATA: Final = 1024  # bytes (QCOW_MAX_SNAPSHOT_EXTRA_DATA)
_AHEAD: Final = 64 * KiB  # bytes of a table that are read at once
KNOWN_EXTRA_DATA: Final = 24  # bytes: VM state size, disk size, instruction count
REQUIRED_EXTRA_DATA: Final = 16  # bytes that every version 3 entry must have
_NO_ICOUNT: Final = (1 << 64) - 1
_ID_LENGTH: Final = 10  # bytes of the longest id that is given, a decimal number of 32 bits
_LONGEST: Final = MAX_EXTRA_DATA + 2 * 0xFFFF  # bytes behind the fixed part of an entry


class TableOwner(Protocol):
    """What is needed of an image to find its snapshot table."""

    @property
    def file(self) -> BlockNode:
        """The node that holds the image."""

    @property
    def header(self) -> Header:
        """The header's fixed fields."""

    @property
    def geometry(self) -> Geometry:
        """The derived sizes."""


class Snapshot(NamedTuple):
    """An entry of the table.

    Attributes:
        header: the fixed part as stored.
        id: as stored, without its NUL-terminated tail.
        name: as stored.
        vm_state_size: bytes.
        disk_size: the virtual size at that time, bytes.
        icount: instructions the guest had run; None where not recorded.
        extra_data_size: bytes of extra data as stored.
        unknown_extra: extra data beyond what we know, kept as it is.
    """

    header: SnapshotHeader
    id: bytes
    name: bytes
    vm_state_size: int
    disk_size: int
    icount: int | None
    extra_data_size: int
    unknown_extra: bytes = b""

    @property
    def l1_table_offset(self) -> int:
        """Host offset of the snapshot's L1 table, bytes."""
        return int(self.header.l1_table_offset)

    @property
    def l1_size(self) -> int:
        """Entries of the snapshot's L1 table."""
        return int(self.header.l1_size)

    def info(self) -> SnapshotInfo:
        """What the public API tells of it; of an id and a name, as in QEMU, what comes before the first NUL."""
        return SnapshotInfo(
            id=self.id.split(b"\0")[0].decode(errors="surrogateescape"),
            name=self.name.split(b"\0")[0].decode(errors="surrogateescape"),
            vm_state_size=self.vm_state_size,
            date=self.header.date_sec,
            date_nsec=self.header.date_nsec,
            vm_clock_nsec=self.header.vm_clock_nsec,
            icount=self.icount,
            disk_size=self.disk_size,
        )


class Table(NamedTuple):
    """A table as read.

    Attributes:
        snapshots: the entries.
        size: bytes in the file, without the padding of the last entry.
        dropped: entries cut off because the table exceeds its limits or the file's end (repair only).
        shortened: entries whose extra data was cut to its limit, or which the file's end cuts off (repair only).
    """

    snapshots: list[Snapshot]
    size: int
    dropped: int = 0
    shortened: int = 0


def load(image: TableOwner) -> list[Snapshot]:
    """Read the table of an image that is being opened.

    Raises:
        InvalidImage: the table or an entry is out of its limits.
    """
    header = image.header
    validate_table(
        image.geometry,
        header.snapshots_offset,
        header.nb_snapshots,
        SnapshotHeader.SIZE,
        SnapshotHeader.SIZE * layout.MAX_SNAPSHOTS,
        "Snapshot table",
    )
    return read(image.file, header.snapshots_offset, header.nb_snapshots, header.size).snapshots


def read(file: BlockNode, offset: int, count: int, disk_size: int, *, repair: Report | None = None) -> Table:
    """Read ``count`` entries at byte ``offset``.

    Args:
        file: the node that holds the image.
        offset: bytes; validated.
        count: entries; validated.
        disk_size: what an entry without a disk size stands for, bytes.
        repair: cut off what exceeds the limits instead of refusing it, and say so here. What of the last entry lies
            beyond the end of the file is zeroes, as for QEMU: its L1 table is worth more than its name. Of another one
            that lies there, the lengths are wrong: it ends where the next one is found.

    Raises:
        InvalidImage: an entry is out of its limits, or lies beyond the end of the file.
    """
    too_many = count and offset + count * SnapshotHeader.SIZE > file.length
    if too_many and (repair is None or offset + SnapshotHeader.SIZE > file.length):
        raise InvalidImage("Failed to read snapshot table: it lies beyond the end of the file")
    reader = _Reader(file, offset, disk_size)
    snapshots: list[Snapshot] = []
    size = shortened = stored = 0
    for index in range(count):
        start = offset + (-(-size // 8) * 8)
        if too_many and repair is not None and not reader.has_entry(start):
            # The number is wrong. Where the entries end in truth there is nothing, or the end of the file.
            repair(f"Discarding {count - index} overhanging snapshots (they are not in the file)")
            return Table(snapshots, size, count - index, shortened)
        snapshot, end = reader.entry(index, start, repair)
        if end > file.length and repair is not None:
            repair(f"Repairing snapshot table entry {index}, whose end lies beyond the end of the file")
            found = reader.entry_before_next(start) if index + 1 < count else None
            if found is None and index + 1 < count and not too_many:
                raise InvalidImage("Failed to read snapshot table: it lies beyond the end of the file")
            snapshot, end = found or (snapshot, file.length)
            snapshot = _recovered(snapshot, index, snapshots)
            shortened += snapshot.extra_data_size <= MAX_EXTRA_DATA
        stored = -(-stored // 8) * 8 + _stored_size(snapshot)
        if stored > layout.MAX_SNAPSHOT_TABLE_SIZE or end - offset > 0x7FFFFFFF:
            if repair is None:
                raise InvalidImage(
                    "Snapshot table is too big",
                    errno=errno.EFBIG,
                    hint=f"You can force-remove all {count - index} overhanging snapshots with qemu-img check -r all",
                )
            repair(f"Discarding {count - index} overhanging snapshots (snapshot table is too big)")
            return Table(snapshots, size, count - index, shortened)
        if snapshot.extra_data_size > MAX_EXTRA_DATA:
            shortened += 1
        snapshots.append(snapshot._replace(extra_data_size=min(snapshot.extra_data_size, MAX_EXTRA_DATA)))
        size = end - offset
    return Table(snapshots, size, 0, shortened)


def find(file: BlockNode, offset: int, count: int, disk_size: int) -> tuple[list[Snapshot], int]:
    """What :func:`read` finds, and its bytes; nothing where the file ends before the table begins.

    Such a file was cut off. Its active state may be whole, and can be read then; who asks for its snapshots is refused.
    """
    if count and offset >= file.length:
        return [], 0
    table = read(file, offset, count, disk_size)
    return table.snapshots, table.size


def _recovered(snapshot: Snapshot, index: int, before: list[Snapshot]) -> Snapshot:
    """An entry of which the end is missing, with an id by which it can be asked for."""
    id, name = snapshot.id.split(b"\0")[0], snapshot.name.split(b"\0")[0]
    taken = {each.id for each in before}
    number = index + 1
    while not id or id in taken:
        id, number = str(number).encode(), number + 1
    return snapshot._replace(id=id, name=name or b"recovered")


def _stored_size(snapshot: Snapshot) -> int:
    extra = min(snapshot.extra_data_size, MAX_EXTRA_DATA)
    return SnapshotHeader.SIZE + extra + len(snapshot.id) + len(snapshot.name)


class _Reader:
    """Reads entries one after the other, through a window of the table."""

    def __init__(self, file: BlockNode, offset: int, disk_size: int) -> None:
        self._file = file
        self._disk_size = disk_size
        self._start = offset
        self._window = b""

    def has_entry(self, offset: int) -> bool:
        """Whether the file has the fixed part of an entry at byte ``offset``, and not just zeroes."""
        return offset + SnapshotHeader.SIZE <= self._file.length and any(self._take(offset, SnapshotHeader.SIZE))

    def entry(self, index: int, offset: int, repair: Report | None) -> tuple[Snapshot, int]:
        """Read the entry at byte ``offset``; return it and the offset of its end."""
        header = SnapshotHeader.unpack(self._take(offset, SnapshotHeader.SIZE))
        offset += SnapshotHeader.SIZE
        extra_size = header.extra_data_size
        if extra_size > MAX_EXTRA_DATA:
            if repair is None:
                raise InvalidImage(
                    f"Too much extra metadata in snapshot table entry {index}",
                    errno=errno.EFBIG,
                    hint="You can force-remove this extra metadata with qemu-img check -r all",
                )
            repair(
                f"Discarding too much extra metadata in snapshot table entry {index} ({extra_size} > {MAX_EXTRA_DATA})"
            )
        return self._entry(header, offset, padded=repair is not None)

    def entry_before_next(self, start: int) -> tuple[Snapshot, int] | None:
        """Read the entry at byte ``start``, of which a length is wrong, and which ends where the next one begins.

        None where no entry is found after it.
        """
        header = SnapshotHeader.unpack(self._take(start, SnapshotHeader.SIZE))
        first = start + SnapshotHeader.SIZE
        for end in range(-(-first // 8) * 8, min(first + _LONGEST, self._file.length - SnapshotHeader.SIZE) + 1, 8):
            if self._is_entry(end) and (lengths := self._lengths(header, first, end - first)) is not None:
                return self._entry(header.replace(**lengths), first)[0], end
        return None

    def _is_entry(self, offset: int) -> bool:
        """Whether byte ``offset`` looks like an entry's: its id is a decimal number, its L1 table lies in the file."""
        header = SnapshotHeader.unpack(self._take(offset, SnapshotHeader.SIZE))
        words = offset + SnapshotHeader.SIZE + header.extra_data_size
        return (
            header.l1_table_offset % 512 == 0
            and 0 < header.l1_table_offset < self._file.length
            and header.extra_data_size <= MAX_EXTRA_DATA
            and 0 < header.id_length <= _ID_LENGTH
            and words + header.id_length + header.name_length <= self._file.length
            and self._take(words, header.id_length).isdigit()
        )

    def _lengths(self, header: SnapshotHeader, offset: int, space: int) -> dict[str, int] | None:
        """The lengths of an entry's extra data, id and name that make them fill ``space`` bytes; None without any."""
        words = header.id_length + header.name_length
        if words <= space:
            extra = (space - words) // 8 * 8
            return {"extra_data_size": extra} if extra <= MAX_EXTRA_DATA else None
        extra = header.extra_data_size
        if extra + min(header.id_length, header.name_length) > space:
            return None
        length = len(self._take(offset + extra, space - extra).rstrip(b"\0"))
        if header.id_length <= length:
            return {"name_length": length - header.id_length}
        return {"id_length": max(0, length - header.name_length)}

    def _entry(self, header: SnapshotHeader, offset: int, *, padded: bool = False) -> tuple[Snapshot, int]:
        """The entry of a header, and the offset of its end; what follows the header begins at byte ``offset``."""
        extra_size = header.extra_data_size
        extra = self._take(offset, min(extra_size, MAX_EXTRA_DATA), padded=padded)
        offset += extra_size
        texts = self._take(offset, header.id_length + header.name_length, padded=padded)
        words = [int.from_bytes(extra[at : at + 8], "big") for at in range(0, KNOWN_EXTRA_DATA, 8)]
        icount = words[2] if len(extra) >= KNOWN_EXTRA_DATA and words[2] != _NO_ICOUNT else None
        snapshot = Snapshot(
            header=header,
            id=texts[: header.id_length],
            name=texts[header.id_length :],
            vm_state_size=words[0] if len(extra) >= 8 else header.vm_state_size,
            disk_size=words[1] if len(extra) >= REQUIRED_EXTRA_DATA else self._disk_size,
            icount=icount,
            extra_data_size=extra_size,
            unknown_extra=extra[KNOWN_EXTRA_DATA:],
        )
        return snapshot, offset + len(texts)

    def _take(self, offset: int, length: int, *, padded: bool = False) -> bytes:
        end = offset + length
        if padded and end > self._file.length:
            inside = max(0, self._file.length - offset)
            return (self._take(offset, inside) if inside else b"").ljust(length, b"\0")
        if end > self._file.length:
            raise InvalidImage("Failed to read snapshot table: it lies beyond the end of the file")
        if not self._start <= offset <= end <= self._start + len(self._window):
            self._start = offset
            # What lies behind the table need not be readable.
            ahead = min(max(length, _AHEAD), self._file.length - offset)
            self._window, failure = read_as_far(self._file, offset, ahead, "Failed to read snapshot table")
            if failure is not None and len(self._window) < length:
                raise failure
        return self._window[offset - self._start : end - self._start]


def serialise(snapshots: list[Snapshot]) -> bytes:
    """Lay a table out; every entry gets at least the extra data that we know.

    Raises:
        NoSpace: with EFBIG; the table would exceed its limits.
    """
    if len(snapshots) > layout.MAX_SNAPSHOTS:
        raise NoSpace("File too large", errno=errno.EFBIG)
    table = bytearray()
    for snapshot in snapshots:
        table += bytes(-len(table) % 8)
        extra = snapshot.vm_state_size.to_bytes(8, "big") + snapshot.disk_size.to_bytes(8, "big")
        extra += (_NO_ICOUNT if snapshot.icount is None else snapshot.icount).to_bytes(8, "big")
        extra += snapshot.unknown_extra
        header = snapshot.header.replace(
            id_length=len(snapshot.id),
            name_length=len(snapshot.name),
            vm_state_size=snapshot.vm_state_size if snapshot.vm_state_size < 1 << 32 else 0,
            extra_data_size=len(extra),
        )
        table += header.pack() + extra + snapshot.id + snapshot.name
        if len(table) > layout.MAX_SNAPSHOT_TABLE_SIZE:
            raise NoSpace("File too large", errno=errno.EFBIG)
    return bytes(table)

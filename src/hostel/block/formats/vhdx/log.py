"""The log: changes of metadata are written there first, and done again where a crash came between.

An entry has a sector of 4 KiB or more with its head and its descriptors, and then a sector for each descriptor that
has data. Entries count only when they carry the GUID that the header says, and one that follows another has the next
number.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from hostel.block.formats.vhdx import layout
from hostel.block.formats.vhdx.header import Headers
from hostel.block.formats.vhdx.layout import (
    LOG_SECTOR,
    NO_GUID,
    LogDescriptor,
    LogEntry,
    checksum,
    new_guid,
    sealed,
)
from hostel.block.formats.vhdx.region import Area
from hostel.block.node import BlockNode
from hostel.errors import CorruptImage, InvalidImage, UnsupportedFeature
from hostel.units import KiB, MiB

MAX_LENGTH: Final = 256 * MiB  # of a log that is looked through; programs make 1 MiB
_STEP: Final = 1024 * KiB
_MOST_DESCRIPTORS: Final = 1 << 14  # of all valid entries: 64 MiB of metadata; a log of 1 MiB has room for 252


class Entry(NamedTuple):
    """A valid entry.

    Attributes:
        offset: where in the log it starts, bytes.
        head: its head.
        descriptors: what it does.
    """

    offset: int
    head: LogEntry
    descriptors: tuple[LogDescriptor, ...]


class Log:
    """An image's log."""

    def __init__(self, file: BlockNode, headers: Headers) -> None:
        self._file = file
        self._headers = headers
        self.area = Area(headers.current.log_offset, headers.current.log_length)
        self._sequence_number = 1
        self._reserved = 0  # bytes of the area that the host has room for

    def is_pending(self) -> bool:
        """Whether anything is to be done again.

        Raises:
            UnsupportedFeature: the log is too long to be looked through.
        """
        return any(self._entries())

    def pending(self) -> list[Entry]:
        """The entries that are to be done again, in their order; none where the image was closed properly.

        Raises:
            UnsupportedFeature: the log is too long to be looked through, or says too much.
        """
        entries: dict[int, Entry] = {}
        left = _MOST_DESCRIPTORS
        for entry in self._entries():
            entries[entry.offset] = entry
            left -= len(entry.descriptors)
            if left < 0:
                raise _too_much()
        best: list[Entry] = []
        followed: set[int] = set()
        for start in entries.values():
            if start.offset in followed:
                continue
            sequence = [start]
            while (following := self._following(entries, sequence[-1])) is not None and following is not start:
                sequence.append(following)
                followed.add(following.offset)
            # Where the log has gone round, the last entries of a sequence are met before its first.
            if not best or _rank(sequence) > _rank(best):
                best = sequence
        return best

    def replay(self, entries: list[Entry]) -> None:
        """Do what the entries say, and empty the log.

        Raises:
            InvalidImage: the file has become shorter since, or an entry reaches where it must not.
        """
        for entry in entries:
            head = entry.head
            if head.flushed_file_offset > self._file.length:
                length = self._file.length
                raise InvalidImage(
                    f"The file has {length} bytes, and {head.flushed_file_offset} when its log was written"
                )
            if head.last_file_offset > 2 * layout.MAX_SIZE:
                raise InvalidImage(f"The log makes a file of {head.last_file_offset} bytes")
            for descriptor in entry.descriptors:
                self._require_place(descriptor, max(self._file.length, head.last_file_offset))
        self._headers.begin_session()
        for entry in entries:
            for offset, data in self._changes(entry):
                if isinstance(data, int):
                    self._file.write_zeroes(offset, data)
                else:
                    self._file.pwrite(offset, data)
            length = -(-entry.head.last_file_offset // layout.UNIT) * layout.UNIT
            if self._file.length < length and self._file.grows:
                self._file.resize(length)
        self._file.flush()
        self._headers.set_log(NO_GUID)

    def reserve(self, sectors: int) -> None:
        """Have the host's room for an entry that changes so many sectors of 4 KiB; the log is empty meanwhile.

        Raises:
            OSError: the host's own errors; the disk is full.
        """
        end = min((_head_sectors(sectors + 1) + sectors) * LOG_SECTOR, self.area.length)
        if end > self._reserved:
            self._file.pwrite(self.area.offset + self._reserved, bytes(end - self._reserved))
            self._reserved = end

    def write(self, changes: Iterable[tuple[int, bytes]]) -> None:
        """Make changes of whole sectors of 4 KiB that survive a crash at any moment, or have not happened.

        What was written before is synced first.

        Raises:
            InvalidImage: the image has no log.
            OSError: the host's own errors; the changes may be there or not.
        """
        batch: list[tuple[int, bytes]] = []
        most = self.area.length // LOG_SECTOR - 1
        if most < 2:
            raise InvalidImage("The image has no log, and cannot be changed without")
        for offset, data in changes:
            for start in range(0, len(data), LOG_SECTOR):
                batch.append((offset + start, data[start : start + LOG_SECTOR]))
                if len(batch) + _head_sectors(len(batch) + 1) >= most:
                    self._write(batch)
                    batch = []
        if batch:
            self._write(batch)

    def _write(self, batch: list[tuple[int, bytes]]) -> None:
        """Write an entry, then let it count, then do what it says, then empty the log."""
        log_guid = new_guid()
        self._file.pwrite(self.area.offset, self._packed(batch, log_guid))
        self._file.flush()
        self._headers.set_log(log_guid)
        for offset, data in batch:
            self._file.pwrite(offset, data)
        self._file.flush()
        self._headers.set_log(NO_GUID)
        self._sequence_number += 1

    def _packed(self, batch: list[tuple[int, bytes]], log_guid: bytes) -> bytes:
        number = self._sequence_number
        heads = _head_sectors(len(batch)) * LOG_SECTOR
        head = LogEntry(
            signature=b"loge",
            checksum=0,
            entry_length=heads + len(batch) * LOG_SECTOR,
            tail=0,
            sequence_number=number,
            descriptor_count=len(batch),
            reserved=0,
            log_guid=log_guid,
            flushed_file_offset=self._file.length,
            last_file_offset=self._file.length,
        )
        parts = [head.pack()]
        for offset, data in batch:
            descriptor = LogDescriptor(
                signature=b"desc",
                trailing=data[-4:],
                leading=data[:8],
                file_offset=offset,
                sequence_number=number,
            )
            parts.append(descriptor.pack())
        described = b"".join(parts).ljust(heads, b"\0")
        high, low = (number >> 32).to_bytes(4, "little"), (number & 0xFFFFFFFF).to_bytes(4, "little")
        return sealed(described + b"".join(b"data" + high + data[8:-4] + low for _, data in batch))

    def _following(self, entries: dict[int, Entry], entry: Entry) -> Entry | None:
        offset = (entry.offset + entry.head.entry_length) % self.area.length
        following = entries.get(offset)
        number = entry.head.sequence_number + 1
        return following if following is not None and following.head.sequence_number == number else None

    def _entries(self) -> Iterator[Entry]:
        """All valid entries. What follows a head begins with other signatures, so that none lies inside another."""
        log_guid, length = self._headers.current.log_guid, self.area.length
        if not self._headers.names_log:
            return
        if length > MAX_LENGTH:
            raise UnsupportedFeature(f"The log has {length} bytes; {MAX_LENGTH} are looked through at most")
        for start in range(0, self.area.length, _STEP):
            part = bytes(self._file.read(self.area.offset + start, min(_STEP, self.area.length - start)))
            for offset in range(0, len(part), LOG_SECTOR):
                if part[offset : offset + 4] == b"loge":
                    entry = self._entry(start + offset, LogEntry.unpack(part, offset), log_guid)
                    if entry is not None:
                        yield entry

    def _entry(self, offset: int, head: LogEntry, log_guid: bytes) -> Entry | None:
        """The entry of a head; None where it is not valid."""
        count = head.descriptor_count
        heads = _head_sectors(count) * LOG_SECTOR
        if head.log_guid != log_guid or not head.sequence_number or head.entry_length > self.area.length:
            return None
        if head.entry_length % LOG_SECTOR or heads > head.entry_length:
            return None
        descriptors = self._descriptors(offset, head)
        if descriptors is None:
            return None
        with_data = sum(each.signature == b"desc" for each in descriptors)
        if head.entry_length != heads + with_data * LOG_SECTOR:  # else entries could lie inside others
            return None
        data = self._read(offset, head.entry_length)
        for sector in range(heads, heads + with_data * LOG_SECTOR, LOG_SECTOR):
            number = data[sector + LOG_SECTOR - 4 : sector + LOG_SECTOR] + data[sector + 4 : sector + 8]
            if data[sector : sector + 4] != b"data" or int.from_bytes(number, "little") != head.sequence_number:
                return None
        return Entry(offset, head, descriptors) if head.checksum == checksum(data) else None

    def _descriptors(self, offset: int, head: LogEntry) -> tuple[LogDescriptor, ...] | None:
        """What an entry does; None where that makes no sense. No more is read than up to where it does not."""
        found: list[LogDescriptor] = []
        count = head.descriptor_count
        for start in range(0, _head_sectors(count) * LOG_SECTOR, LOG_SECTOR):
            sector = self._read((offset + start) % self.area.length, LOG_SECTOR)
            if not start and LogEntry.unpack(sector) != head:
                return None
            first = 0 if start else LogEntry.SIZE
            last = min(LOG_SECTOR, first + (count - len(found)) * LogDescriptor.SIZE)
            for place in range(first, last, LogDescriptor.SIZE):
                descriptor = LogDescriptor.unpack(sector, place)
                if not _is_valid(descriptor, head):
                    return None
                found.append(descriptor)
            if len(found) > _MOST_DESCRIPTORS:
                raise _too_much()
        return tuple(found)

    def _changes(self, entry: Entry) -> Iterator[tuple[int, bytes | int]]:
        """What an entry writes, or how many zeroes, and where."""
        sector = entry.offset + _head_sectors(len(entry.descriptors)) * LOG_SECTOR
        for descriptor in entry.descriptors:
            if descriptor.signature == b"zero":
                yield descriptor.file_offset, int.from_bytes(descriptor.leading, "little")
                continue
            data = self._read(sector % self.area.length, LOG_SECTOR)
            yield descriptor.file_offset, descriptor.leading + data[8:-4] + descriptor.trailing
            sector += LOG_SECTOR

    def _require_place(self, descriptor: LogDescriptor, end: int) -> None:
        is_zero = descriptor.signature == b"zero"
        length = int.from_bytes(descriptor.leading, "little") if is_zero else LOG_SECTOR
        start, stop = descriptor.file_offset, descriptor.file_offset + length
        in_log = start < self.area.end and self.area.offset < stop
        if start < layout.HEADER_SECTION or stop > -(-end // layout.UNIT) * layout.UNIT or in_log:
            raise CorruptImage(
                f"The log writes {length} bytes at offset {start}, where it has no business", errno=errno.EINVAL
            )

    def _read(self, offset: int, length: int) -> bytes:
        """Read from the log, which goes on at its start where it ends."""
        first = min(length, self.area.length - offset)
        data = bytes(self._file.read(self.area.offset + offset, first))
        return data + bytes(self._file.read(self.area.offset, length - first)) if first < length else data


def _too_much() -> UnsupportedFeature:
    return UnsupportedFeature(f"The log changes over {_MOST_DESCRIPTORS} places, which is more than is done again")


def _rank(sequence: list[Entry]) -> tuple[int, int]:
    return sequence[-1].head.sequence_number, len(sequence)


def _head_sectors(descriptors: int) -> int:
    """Sectors of an entry's head, which takes the room of two descriptors, and its descriptors."""
    return -(-(descriptors + 2) // 128)


def _is_valid(descriptor: LogDescriptor, head: LogEntry) -> bool:
    if descriptor.sequence_number != head.sequence_number or descriptor.file_offset % LOG_SECTOR:
        return False
    if descriptor.signature == b"zero":
        return int.from_bytes(descriptor.leading, "little") % LOG_SECTOR == 0
    return descriptor.signature == b"desc"

"""Filter ``blklogwrites``: every write is recorded in a log, in the format of Linux's ``dm-log-writes``.

The log is a superblock, and behind it one entry a request: a sector with what was done, then the data. It can be
replayed up to any entry, which is what a power cut there would have left.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Final, Self

from hostel.block.driver import FilterDriver, OpenMode, Supports
from hostel.block.extent import Extent
from hostel.block.filters.fitting import Fitting, Limits
from hostel.block.filters.option import settle
from hostel.block.lock import require_free
from hostel.block.node import BlockNode
from hostel.block.options import Kind, Option, OptionError, Options
from hostel.units import SECTOR

_MAGIC: Final = 0x6A736677736872
_VERSION: Final = 1
_SUPER: Final = struct.Struct("<QQQI")  # magic, version, entries, bytes of a sector
_ENTRY: Final = struct.Struct("<QQQQ")  # sector, sectors, flags, bytes of data (0: as many as the sectors have)
_FLUSH: Final = 1
_DISCARD: Final = 4
_KNOWN: Final = 15


class _Log:
    """The log's end, and what its superblock says.

    Attributes:
        lock: to be had while it is appended to.
    """

    def __init__(self, node: BlockNode, sector_size: int, interval: int, entries: int, end: int) -> None:
        self._node = node
        self.sector_size = sector_size
        self._interval = interval
        self._entries = entries
        self._end = end  # sectors
        self.lock = threading.RLock()

    def record(self, offset: int, length: int, flags: int, data: memoryview | None, *, zeroes: bool = False) -> None:
        """Append an entry; one for a flush makes the log safe as well."""
        size = self.sector_size
        entry = _ENTRY.pack(offset // size, length // size, flags, 0).ljust(size, b"\0")
        with self.lock:
            place = self._end * size
            stored = length if zeroes or data is not None else 0
            self._entries += 1
            self._end += 1 + stored // size
            self._make_room(place + size + stored)
            self._node.pwrite(place, entry if data is None else b"".join((entry, data)))
            if zeroes and length:
                self._node.write_zeroes(place + size, length)
            if flags & _FLUSH or self._entries % self._interval == 0:
                self.write_super()

    def write_super(self) -> None:
        """Make the entries so far part of the log."""
        block = _SUPER.pack(_MAGIC, _VERSION, self._entries, self.sector_size).ljust(self.sector_size, b"\0")
        self._make_room(self.sector_size)
        self._node.pwrite(0, block)
        self._node.flush()

    def _make_room(self, end: int) -> None:
        if not self._node.driver.supports & Supports.GROWS and self._node.length < end:
            self._node.resize(end)


class BlklogwritesDriver(FilterDriver):
    """Records what changes the child ``file`` in the child ``log``, after it was done."""

    name = "blklogwrites"
    options: Final = Options(  # type: ignore[misc]
        Option("log-append", Kind.BOOL, "Append to an existing log", "off"),
        Option("log-sector-size", Kind.SIZE, "Log sector size"),
        Option(
            "log-super-update-interval",
            Kind.NUMBER,
            "Log superblock update interval (# of write requests)",
            "4096",
        ),
    )

    def __init__(self, children: Mapping[str, BlockNode], log: _Log) -> None:
        super().__init__(children)
        self._log = log
        self.request_alignment = log.sector_size
        self._fitting = Fitting(self, Limits(alignment=log.sector_size), lambda event: None)

    @classmethod
    def open(cls, children: Mapping[str, BlockNode], mode: OpenMode) -> Self:
        """Put the filter on an image, and find the log's end.

        Raises:
            OptionError: an option is wrong, or the log to append to is none.
        """
        values = settle(cls.name, cls.options, mode.options)
        log = children["log"]
        size, entries, end = int(values.get("log-sector-size", SECTOR)), 0, 1
        if values["log-append"]:
            if "log-sector-size" in values:
                raise OptionError("log-append and log-sector-size are mutually exclusive")
            size, entries = _read_super(log)
        if size & (size - 1) or not _ENTRY.size <= size < 1 << 24:
            raise OptionError(f"Invalid log sector size {size}")
        if entries:
            end = _find_end(log, size, entries)
        interval = int(values["log-super-update-interval"])
        if not interval:
            raise OptionError(f"Invalid log superblock update interval {interval}")
        return cls(children, _Log(log, size, interval, entries, end))

    def pread(self, offset: int, buf: memoryview) -> None:
        """Read; nothing is recorded."""
        self._fitting.read(offset, buf)

    def pwrite(self, offset: int, data: memoryview) -> None:
        """Write, and record it."""
        self._fitting.write(offset, data)

    def write_zeroes(self, offset: int, length: int, *, unmap: bool) -> None:
        """Zero, and record it."""
        self._fitting.zero(offset, length, unmap=unmap)

    def discard(self, offset: int, length: int) -> None:
        """Discard, and record it."""
        self._fitting.discard(offset, length)

    def read_fitting(self, offset: int, buf: memoryview) -> None:
        """Read whole sectors."""
        if self.child.driver.supports & Supports.GROWS:
            self.child.pread(offset, buf)
        else:
            self.child.pread_padded(offset, buf)

    def write_fitting(self, offset: int, data: memoryview) -> None:
        """Write whole sectors."""
        self._then(
            lambda: self.child.pwrite(offset, data[: self._inside(offset, len(data))]),
            lambda: self._log.record(offset, len(data), 0, data),
        )

    def zero_fitting(self, offset: int, length: int, *, unmap: bool) -> None:
        """Zero whole sectors."""
        self._then(
            lambda: self.child.write_zeroes(offset, self._inside(offset, length), unmap=unmap),
            lambda: self._log.record(offset, length, 0, None, zeroes=True),
        )

    def discard_fitting(self, offset: int, length: int) -> None:
        """Discard whole sectors."""
        self._then(
            lambda: self.child.discard(offset, self._inside(offset, length)),
            lambda: self._log.record(offset, length, _DISCARD, None),
        )

    def flush(self) -> None:
        """Flush, and record it."""
        self._then(self.child.flush, lambda: self._log.record(0, 0, _FLUSH, None))

    def _then(self, request: Callable[[], None], record: Callable[[], None]) -> None:
        """What failed may have been done in part, and is recorded as well."""
        require_free(self._log.lock)
        try:
            request()
        finally:
            record()

    def _inside(self, offset: int, length: int) -> int:
        grows = self.child.driver.supports & Supports.GROWS
        return length if grows else max(0, min(length, self.child.length - offset))

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """The child's."""
        return self.child.extents(offset, length)

    def close(self) -> None:
        """Make all entries part of the log."""
        if not self.children["log"].read_only:
            self._log.write_super()


def _read_super(log: BlockNode) -> tuple[int, int]:
    """The log's sector size and number of entries; of an empty file, those of an empty log."""
    if not log.length:
        return SECTOR, 0
    magic, version, entries, size = _SUPER.unpack(log.read(0, _SUPER.size))
    if magic != _MAGIC:
        raise OptionError("Invalid log superblock magic")
    if version != _VERSION:
        raise OptionError(f"Unsupported log version {version}")
    return size, entries


def _find_end(log: BlockNode, size: int, entries: int) -> int:
    """The sector behind the last entry."""
    sector = 1
    for index in range(entries):
        if sector * size >= log.length:
            raise OptionError(f"The log ends before its entry {index}, and shall have {entries}")
        _, sectors, flags, _ = _ENTRY.unpack(log.read(sector * size, _ENTRY.size))
        if flags & ~_KNOWN:
            raise OptionError(f"Invalid flags 0x{flags:x} in log entry {index}")
        sector += 1 + (0 if flags & _DISCARD else sectors)
    return sector

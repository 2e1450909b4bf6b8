"""A protocol driver in memory, a log of what is written to it, and faults."""

from __future__ import annotations

import enum
import errno
import os
from collections.abc import Iterable
from typing import NamedTuple

from hostel.block.driver import BlockDriver, Supports
from hostel.block.node import BlockNode
from hostel.block.powers import Preallocation

_BLOCK = 4096


class MemoryDriver(BlockDriver):
    """Bytes in memory that behave as ``FileDriver`` does: writes beyond the end extend them, reads there are zeroes.

    Attributes:
        data: the content.
    """

    name = "memory"
    supports = Supports.WRITE | Supports.ZEROES | Supports.DISCARD | Supports.GROWS

    def __init__(self, data: bytes | bytearray = b"") -> None:
        super().__init__()
        self.data = bytearray(data)

    @property
    def length(self) -> int:
        return len(self.data)

    def pread(self, offset: int, buf: memoryview) -> None:
        part = self.data[offset : offset + len(buf)]
        buf[: len(part)] = part
        buf[len(part) :] = bytes(len(buf) - len(part))

    def pwrite(self, offset: int, data: memoryview) -> None:
        self._extend(offset)
        self.data[offset : offset + len(data)] = data

    def write_zeroes(self, offset: int, length: int, *, unmap: bool) -> None:
        self._extend(offset)
        self.data[offset : offset + length] = bytes(length)

    def discard(self, offset: int, length: int) -> None:
        inside = max(0, min(length, len(self.data) - offset))
        self.data[offset : offset + inside] = bytes(inside)

    def resize(self, size: int, preallocation: Preallocation = Preallocation.OFF) -> None:
        del self.data[size:]
        self._extend(size)

    def preallocate(self, offset: int, length: int) -> None:
        self._extend(offset + length)

    def _extend(self, size: int) -> None:
        if size > len(self.data):
            self.data += bytes(size - len(self.data))


class SmallDisk(MemoryDriver):
    """A sparse file on a disk with room for so many bytes; blocks of zeroes are holes at first.

    Args:
        data: the content.
        room: bytes, of which a block takes 4 KiB.
    """

    def __init__(self, data: bytes | bytearray, room: int) -> None:
        super().__init__(data)
        self._room = room // _BLOCK
        self._used = {block for block in _blocks(0, len(data)) if any(self.data[block * _BLOCK :][:_BLOCK])}

    def pwrite(self, offset: int, data: memoryview) -> None:
        for block in _blocks(offset, len(data)):
            if block not in self._used and len(self._used) >= self._room:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # what there was room for is taken
            self._used.add(block)
        super().pwrite(offset, data)

    def write_zeroes(self, offset: int, length: int, *, unmap: bool) -> None:
        if not unmap:
            self.pwrite(offset, memoryview(bytes(length)))
            return
        super().write_zeroes(offset, length, unmap=unmap)
        self._used.difference_update(range(-(-offset // _BLOCK), (offset + length) // _BLOCK))

    def discard(self, offset: int, length: int) -> None:
        super().discard(offset, length)
        self._used.difference_update(range(-(-offset // _BLOCK), (offset + length) // _BLOCK))


def _blocks(offset: int, length: int) -> range:
    return range(offset // _BLOCK, -(-(offset + length) // _BLOCK))


class Kind(enum.Enum):
    """What can be asked of a protocol driver."""

    READ = "read"
    WRITE = "write"
    ZERO = "zero"
    DISCARD = "discard"
    RESIZE = "resize"
    FLUSH = "flush"


class Entry(NamedTuple):
    """One entry of a write log; a WRITE has its data, the others a length, RESIZE the new size as its offset."""

    kind: Kind
    offset: int = 0
    length: int = 0
    data: bytes = b""

    def apply(self, image: MemoryDriver) -> None:
        """Do to ``image`` what was logged."""
        if self.kind is Kind.WRITE:
            image.pwrite(self.offset, memoryview(self.data))
        elif self.kind is Kind.ZERO:
            image.write_zeroes(self.offset, self.length, unmap=False)
        elif self.kind is Kind.DISCARD:
            image.discard(self.offset, self.length)
        elif self.kind is Kind.RESIZE:
            image.resize(self.offset)

    def torn(self, sectors: Iterable[int]) -> list[Entry]:
        """The parts of a write that lie in some of the 512-byte sectors it touches, counted from 0."""
        first = self.offset // 512
        parts = []
        for sector in sectors:
            start = max(self.offset, (first + sector) * 512)
            end = min(self.offset + len(self.data), (first + sector + 1) * 512)
            part = self.data[start - self.offset : end - self.offset]
            parts.append(Entry(Kind.WRITE, start, len(part), part))
        return parts

    @property
    def sectors(self) -> int:
        """How many 512-byte sectors a write touches."""
        return (self.offset + len(self.data) - 1) // 512 - self.offset // 512 + 1


class LoggedDriver(MemoryDriver):
    """Memory that logs every change and every flush.

    Attributes:
        log: what happened, in order.
    """

    def __init__(self, data: bytes | bytearray = b"") -> None:
        super().__init__(data)
        self.log: list[Entry] = []

    def pwrite(self, offset: int, data: memoryview) -> None:
        self.log.append(Entry(Kind.WRITE, offset, len(data), bytes(data)))
        super().pwrite(offset, data)

    def write_zeroes(self, offset: int, length: int, *, unmap: bool) -> None:
        self.log.append(Entry(Kind.ZERO, offset, length))
        super().write_zeroes(offset, length, unmap=unmap)

    def discard(self, offset: int, length: int) -> None:
        self.log.append(Entry(Kind.DISCARD, offset, length))
        super().discard(offset, length)

    def resize(self, size: int, preallocation: Preallocation = Preallocation.OFF) -> None:
        self.log.append(Entry(Kind.RESIZE, size))
        super().resize(size, preallocation)

    def preallocate(self, offset: int, length: int) -> None:
        # It changes no byte; where it extends the file, it is a resize.
        if offset + length > len(self.data):
            self.log.append(Entry(Kind.RESIZE, offset + length))
        super().preallocate(offset, length)

    def flush(self) -> None:
        self.log.append(Entry(Kind.FLUSH))


class FaultyDriver(MemoryDriver):
    """Memory that fails once, at a chosen call; a failed flush fails ever after, as with ``FileDriver``.

    Attributes:
        calls: the kinds of all calls so far, in order, while armed.
        armed: whether calls count.
    """

    def __init__(self, data: bytes | bytearray = b"") -> None:
        super().__init__(data)
        self.calls: list[Kind] = []
        self.armed = False
        self._fail_at = -1
        self._errno = 0
        self._short = False
        self._sync_error: OSError | None = None

    def arm(self, fail_at: int = -1, errno: int = 0, *, short: bool = False) -> None:
        """Count calls from now on, and fail the one with the index ``fail_at``; ``short``: half a write is done."""
        self.calls.clear()
        self.armed = True
        self._fail_at, self._errno, self._short = fail_at, errno, short

    @property
    def fired(self) -> bool:
        """Whether the fault has happened."""
        return 0 <= self._fail_at < len(self.calls)

    def _call(self, kind: Kind) -> None:
        if not self.armed:
            return
        self.calls.append(kind)
        if len(self.calls) - 1 == self._fail_at:
            raise OSError(self._errno, "an injected fault")

    def pread(self, offset: int, buf: memoryview) -> None:
        self._call(Kind.READ)
        super().pread(offset, buf)

    def pwrite(self, offset: int, data: memoryview) -> None:
        try:
            self._call(Kind.WRITE)
        except OSError:
            if self._short:
                super().pwrite(offset, data[: len(data) // 1024 * 512])
            raise
        super().pwrite(offset, data)

    def write_zeroes(self, offset: int, length: int, *, unmap: bool) -> None:
        self._call(Kind.ZERO)
        super().write_zeroes(offset, length, unmap=unmap)

    def discard(self, offset: int, length: int) -> None:
        self._call(Kind.DISCARD)
        super().discard(offset, length)

    def resize(self, size: int, preallocation: Preallocation = Preallocation.OFF) -> None:
        self._call(Kind.RESIZE)
        super().resize(size, preallocation)

    def preallocate(self, offset: int, length: int) -> None:
        self._call(Kind.RESIZE)
        super().preallocate(offset, length)

    def flush(self) -> None:
        if self._sync_error is not None:
            raise self._sync_error
        try:
            self._call(Kind.FLUSH)
        except OSError as error:
            self._sync_error = error
            raise


def memory_node(driver: MemoryDriver, *, read_only: bool = False) -> BlockNode:
    """A node over a driver in memory."""
    return BlockNode(driver, "memory", read_only=read_only)

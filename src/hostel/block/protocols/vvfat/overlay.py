"""What the guest has written: a temporary file over a disk that itself never changes."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from typing import Final

from hostel.block.bitmap import DirtyBitmap
from hostel.errors import NoSpace
from hostel.units import SECTOR, MiB

_PIECE: Final = MiB


class Overlay:
    """The disk as the guest sees it.

    Args:
        length: of the disk, bytes.
        read_base: fills a buffer with what the disk had before, from an offset on.

    Attributes:
        length: of the disk, bytes.
        written: the sectors that lie in the temporary file.
        fresh: those of them that the guest has written since :meth:`settle` was called.
        is_changed: whether there are any.
    """

    def __init__(self, length: int, read_base: Callable[[int, memoryview], None]) -> None:
        self.length = length
        self._read_base = read_base
        self.written = DirtyBitmap(length, SECTOR)
        self.fresh = DirtyBitmap(length, SECTOR)
        self.is_changed = False
        self._file = tempfile.TemporaryFile(prefix="hostel-", buffering=0)  # noqa: SIM115  # until close()

    def pread(self, offset: int, buf: memoryview) -> None:
        """Fill a buffer with what the guest sees.

        Raises:
            OSError: the temporary file, or what lies below, cannot be read.
        """
        for start, length, own in self.written.ranges(offset, len(buf)):
            part = buf[start - offset : start - offset + length]
            if own:
                self._read(start, part)
            else:
                self._read_base(start, part)

    def read(self, offset: int, length: int) -> bytes:
        """Read bytes as the guest sees them."""
        buffer = bytearray(length)
        self.pread(offset, memoryview(buffer))
        return bytes(buffer)

    def read_what_is_there(self, offset: int, length: int) -> bytes:
        """Read bytes as the guest sees them, and zeroes where they cannot be read any more."""
        try:
            return self.read(offset, length)
        except OSError:
            if length <= SECTOR:
                return bytes(length)
            half = -(-length // (2 * SECTOR)) * SECTOR
            return self.read_what_is_there(offset, half) + self.read_what_is_there(offset + half, length - half)

    def pwrite(self, offset: int, data: memoryview) -> None:
        """Write what the guest writes.

        Raises:
            NoSpace: the temporary file has no room.
            OSError: what shares a sector with it cannot be read.
        """
        head, tail = offset % SECTOR, -(offset + len(data)) % SECTOR
        start = offset - head
        if head or tail:
            whole = bytearray(head + len(data) + tail)
            view = memoryview(whole)
            self.pread(start, view[:SECTOR])
            self.pread(start + len(whole) - SECTOR, view[-SECTOR:])
            view[head : head + len(data)] = data
            data = view
        self._write(start, data)
        self.written.mark(start, len(data))
        self.fresh.mark(start, len(data))
        self.is_changed = True

    def keep(self, offset: int, length: int) -> None:
        """Keep what the disk has in a range, for what lies below is about to change.

        Raises:
            NoSpace: the temporary file has no room.
            OSError: what lies below cannot be read.
        """
        # Whole sectors: what lies below still has all of them.
        first, end = offset - offset % SECTOR, min(self.length, offset + length + -(offset + length) % SECTOR)
        for start, count, own in list(self.written.ranges(first, end - first)):
            for at in range(start, start + count, _PIECE) if not own else ():
                piece = memoryview(bytearray(min(_PIECE, start + count - at)))
                self._read_base(at, piece)
                self._write(at, piece)
                self.written.mark(at, len(piece))

    def settle(self) -> None:
        """What was written so far is dealt with."""
        self.fresh.clear()
        self.is_changed = False

    def changes(self, offset: int, length: int) -> Iterator[tuple[int, int]]:
        """The parts of a range that the guest has written since: offsets on the disk, and lengths."""
        for start, count, fresh in self.fresh.ranges(offset, length):
            if fresh:
                yield start, count

    def is_fresh(self, offset: int, length: int) -> bool:
        """Whether the guest has written in a range since."""
        return next(self.changes(offset, length), None) is not None

    def close(self) -> None:
        """Give the space back."""
        self._file.close()

    def _read(self, offset: int, buf: memoryview) -> None:
        done = 0
        while done < len(buf):
            count = os.preadv(self._file.fileno(), [buf[done:]], offset + done)
            if not count:
                raise NoSpace("The temporary file of a written directory was cut off")
            done += count

    def _write(self, offset: int, data: memoryview) -> None:
        try:
            while data:
                count = os.pwrite(self._file.fileno(), data, offset)
                data, offset = data[count:], offset + count
        except OSError as error:
            raise NoSpace(
                f"The temporary file in '{tempfile.gettempdir()}' cannot hold what is written: {error.strerror}",
                errno=error.errno,
                hint="Set TMPDIR to a directory with more room.",
            ) from None

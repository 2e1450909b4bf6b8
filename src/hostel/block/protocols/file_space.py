"""The space of an open file of this host: what is a hole in it, how it grows, and what it gives back."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from typing import Any, Final

from hostel.block.extent import Extent, Status
from hostel.block.interruption import breaks_in
from hostel.block.marks import DiscardCount
from hostel.block.powers import Preallocation
from hostel.block.protocols.file_requests import FileRequests
from hostel.cause import explain
from hostel.errors import BlockError
from hostel.units import SECTOR, MiB

_FALLOC_KEEP_SIZE: Final = 1
_FALLOC_PUNCH_HOLE: Final = 2
_FALLOC_ZERO_RANGE: Final = 16
# What a file system answers when it has no such operation; everything else is a failure.
UNSUPPORTED: Final = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ENODEV, errno.ENOTTY})
_ZEROES: Final = memoryview(bytes(MiB))
_FIRST_BLOCK: Final = 4096  # bytes
RESIZE_FAILURES: Final = {  # what could not be done where a file does not get its size
    Preallocation.OFF: "Could not resize file",
    Preallocation.METADATA: "Could not resize file",
    Preallocation.FALLOC: "Could not preallocate new data",
    Preallocation.FULL: "Could not write zeros for preallocation",
}


class FileSpace(FileRequests):
    """Zeroes, discards, preallocates and resizes a file."""

    def __init__(self, fd: int, path: str, *, no_flush: bool, direct: bool) -> None:
        super().__init__(fd, path, no_flush=no_flush, direct=direct)
        self.discarded = DiscardCount()
        self._can_zero = True
        self._can_punch = True
        # Where extents() last found data. Finding its end takes a file system as long as the data is large; and what
        # others make a hole meanwhile reads as zeroes all the same.
        self._data = (0, 0)

    @property
    def allocated_length(self) -> int:
        """Bytes that the file occupies on the host."""
        return os.fstat(self._fd).st_blocks * 512

    def write_zeroes(self, offset: int, length: int, *, unmap: bool) -> None:
        """Zero a range by asking the file system, or else by writing."""
        self._data = (0, 0)
        end = offset + length
        is_new = offset >= self.length
        if is_new and not unmap and self._fallocate(_FALLOC_ZERO_RANGE, offset, length):
            return
        if is_new or (unmap and self._can_punch):
            # Never by ftruncate(): another thread may write beyond the end meanwhile, and would lose it again.
            if end > self.length:
                self.pwrite(end - 1, _ZEROES[:1])
            # Growing a file makes a hole, which is all that unmap could give.
            self._can_punch = self._fallocate(_FALLOC_PUNCH_HOLE | _FALLOC_KEEP_SIZE, offset, length)
            if self._can_punch or is_new:
                return
        if self._can_zero:
            self._can_zero = self._fallocate(_FALLOC_ZERO_RANGE, offset, length)
            if self._can_zero:
                return
        self._write_zeroes_out(offset, length)

    def _write_zeroes_out(self, offset: int, length: int) -> None:
        end = offset + length
        for start in range(offset, end, len(_ZEROES)):
            self.pwrite(start, _ZEROES[: min(len(_ZEROES), end - start)])

    def zeroes_fast(self, offset: int, length: int, *, unmap: bool) -> bool:
        """Whether the file system zeroes, as far as is known: a first refusal is remembered."""
        return self._can_zero or (unmap and self._can_punch)

    def discard(self, offset: int, length: int) -> None:
        """Punch a hole, where the file system can."""
        self._data = (0, 0)
        if self._can_punch:
            self._can_punch = self._fallocate(_FALLOC_PUNCH_HOLE | _FALLOC_KEEP_SIZE, offset, length)
        self.discarded.count(length if self._can_punch else 0)

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """Data and holes, as the file system knows them."""
        end = offset + length
        whole = max(end, self.length)
        block = self._direct_file().alignment if self.is_direct else SECTOR
        asked = block if self.is_direct else 1
        while offset < end:
            low, high = self._data
            if not low <= offset < high:
                start = max(offset, self._seek(offset - offset % asked, os.SEEK_DATA, end))
                if start > offset:
                    yield Extent(offset, start - offset, Status.ZERO | Status.ALLOCATED, offset)
                    offset = start
                    if offset == end:
                        return
                high = self._seek(offset, os.SEEK_HOLE, whole)
                # A file that shrinks under us must not stop us from getting on. And a disk has no part of a sector:
                # the one in which the file ends is data to its end, and so is a block of direct input and output.
                high = -(-high // block) * block if high > offset else end
                self._data = (offset, high)
            stop = min(high, end)
            yield Extent(offset, stop - offset, Status.DATA | Status.ALLOCATED, offset)
            offset = stop

    def resize(self, size: int, preallocation: Preallocation = Preallocation.OFF) -> None:
        """Set the file's size.

        Raises:
            BlockError: the host refuses; the old size is then restored.
        """
        self._data = (0, 0)
        old = self.length
        if preallocation is Preallocation.METADATA:
            raise BlockError("Unsupported preallocation mode: metadata", errno=errno.ENOTSUP)
        if preallocation is not Preallocation.OFF and size < old:
            raise BlockError("Cannot use preallocation for shrinking files", errno=errno.EINVAL)
        try:
            os.ftruncate(self._fd, size)
            if size > old and preallocation is Preallocation.FALLOC:
                os.posix_fallocate(self._fd, old, size - old)
            elif size > old and preallocation is Preallocation.FULL:
                self._write_zeroes_out(old, size - old)
                os.ftruncate(self._fd, size)  # direct I/O has written whole blocks
                self._sync(lambda: self._store(os.fsync))
            if not old and preallocation is not Preallocation.FULL:
                self._allocate_first_block(size)
        except OSError as error:
            os.ftruncate(self._fd, old)
            if breaks_in(error):
                raise
            message = f"{RESIZE_FAILURES[preallocation]}: {os.strerror(error.errno or 0)}"
            hint = explain(error.errno, self._path, write=True, needed=size - old)
            raise BlockError(message, errno=error.errno, hint=hint) from None

    def _allocate_first_block(self, size: int) -> None:
        """Give a new file its first block, as QEMU does: some hosts tell the alignment of direct I/O by it."""
        length = _FIRST_BLOCK if size >= _FIRST_BLOCK else SECTOR
        if size < length:
            return
        from mmap import mmap

        with contextlib.suppress(OSError), mmap(-1, length) as aligned:
            os.pwrite(self._fd, aligned, 0)

    def preallocate(self, offset: int, length: int) -> None:
        """Reserve space on the host; bytes that are there stay, and the file grows to the end of the range."""
        try:
            os.posix_fallocate(self._fd, offset, length)
        except OSError as error:
            self._fail(error)

    def _seek(self, offset: int, whence: int, end: int) -> int:
        try:
            return min(self._lseek(offset, whence), end)
        except OSError as error:
            if error.errno == errno.ENXIO:  # no data up to the end
                return end
            return offset if whence == os.SEEK_DATA else end

    def _fallocate(self, mode: int, offset: int, length: int) -> bool:
        with self.changing(offset, length):
            return fallocate(self._fd, self._path, mode, offset, length)


_libc: Any = None


def _libc_fallocate(fd: int, mode: int, offset: int, length: int) -> int:
    """``fallocate(2)``, which Python does not offer; the errno, or 0."""
    global _libc
    import ctypes

    if _libc is None:
        _libc = ctypes.CDLL(None, use_errno=True)
        _libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    while _libc.fallocate(fd, mode, offset, length):
        code = ctypes.get_errno()
        if code != errno.EINTR:
            return code
    return 0


def fallocate(fd: int, path: str, mode: int, offset: int, length: int) -> bool:
    """Ask the file system for a range; False where it has no such operation.

    Raises:
        OSError: it failed.
    """
    code = _libc_fallocate(fd, mode, offset, length)
    if code == 0:
        return True
    if code in UNSUPPORTED:
        return False
    raise OSError(code, os.strerror(code), path)

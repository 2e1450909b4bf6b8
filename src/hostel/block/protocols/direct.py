"""Input and output past the host's page cache (``O_DIRECT``): whole blocks, from and to aligned memory.

What a caller asks for need not be aligned: the blocks in which it begins and ends are read first, and written as a
whole. While that happens no other write goes on, since it might lie in the same block.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from mmap import mmap
from typing import Final

from hostel.block.write_lock import WriteLock
from hostel.errors import BlockError
from hostel.units import MiB

_CANDIDATES: Final = (1, 512, 1024, 2048, 4096)  # bytes
_LARGEST: Final = 4096
_BOUNCE: Final = MiB
Transfer = Callable[[memoryview, int], int]


def probe_alignment(fd: int, path: str) -> int:
    """The bytes of which offsets and lengths must be multiples, found out by reading.

    Raises:
        BlockError: none of the usual ones does.
    """
    with mmap(-1, _LARGEST) as memory, memoryview(memory) as view:
        for size in _CANDIDATES:
            try:
                os.preadv(fd, [view[:size]], 0)
            except OSError as error:
                if error.errno == errno.EINVAL:
                    continue
                # A block that cannot be read says nothing about its size.
            # A byte alone can be read where nothing is allocated yet: that says nothing either.
            return size if size > 1 else _LARGEST
    raise BlockError(
        f"Could not open '{path}': Could not find working O_DIRECT alignment",
        errno=errno.EINVAL,
        hint="Try cache.direct=off",
    )


class DirectFile:
    """An open file with ``O_DIRECT`` set.

    Attributes:
        alignment: bytes of a block.
    """

    def __init__(self, fd: int, alignment: int) -> None:
        self._fd = fd
        self.alignment = alignment
        self._bounces: list[mmap] = []
        self._writes = WriteLock()

    def pread(self, offset: int, buf: memoryview) -> int:
        """Fill ``buf`` up to the file's end; returns the number of bytes."""
        if not (offset | len(buf)) % self.alignment:
            with contextlib.suppress(_Misaligned):
                return self._read_blocks(offset, buf)
        with self._bounce() as bounce:
            done = 0
            while done < len(buf):
                before = (offset + done) % self.alignment
                count = min(len(buf) - done, len(bounce) - before)
                start = offset + done - before
                found = max(0, self._read_blocks(start, bounce[: self._up(before + count)]) - before)
                found = min(found, count)
                buf[done : done + found] = bounce[before : before + found]
                done += found
                if found < count:
                    break
        return done

    def pwrite(self, offset: int, data: memoryview) -> None:
        """Write all of ``data``; a file that ends in the last block grows to that block's end."""
        if (offset | len(data)) % self.alignment:
            with self._writes.alone():
                self._write_around(offset, data)
            return
        with self._writes.together():
            try:
                self._write_blocks(offset, data)
            except _Misaligned:
                self._write_around(offset, data)

    def changing(self, offset: int, length: int) -> contextlib.AbstractContextManager[None]:
        """Change a range otherwise than by writing: meanwhile nobody writes blocks again that were read before."""
        return self._writes.alone() if (offset | length) % self.alignment else self._writes.together()

    def _write_around(self, offset: int, data: memoryview) -> None:
        with self._bounce() as bounce:
            done = 0
            while done < len(data):
                before = (offset + done) % self.alignment
                count = min(len(data) - done, len(bounce) - before)
                length = self._up(before + count)
                start = offset + done - before
                last = length - self.alignment
                if before:
                    self._read_block(start, bounce[: self.alignment])
                if before + count < length and (last or not before):
                    self._read_block(start + last, bounce[last:length])
                bounce[before : before + count] = data[done : done + count]
                self._write_blocks(start, bounce[:length])
                done += count

    def _read_block(self, offset: int, block: memoryview) -> None:
        found = self._read_blocks(offset, block)
        block[found:] = bytes(len(block) - found)

    def _read_blocks(self, offset: int, view: memoryview) -> int:
        done = 0
        while done < len(view):
            count = self._call(lambda part, at: os.preadv(self._fd, [part], at), view, offset, done)
            done += count
            if not count or done % self.alignment:
                break
        return done

    def _write_blocks(self, offset: int, view: memoryview) -> None:
        done = 0
        while done < len(view):
            count = self._call(lambda part, at: os.pwrite(self._fd, part, at), view, offset, done)
            if not count or count % self.alignment:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            done += count

    def _call(self, call: Transfer, view: memoryview, offset: int, done: int) -> int:
        try:
            return call(view[done:], offset + done)
        except OSError as error:
            if error.errno == errno.EINVAL and not done:
                raise _Misaligned(error.errno, error.strerror) from None
            raise

    def _up(self, length: int) -> int:
        return -(-length // self.alignment) * self.alignment

    @contextlib.contextmanager
    def _bounce(self) -> Iterator[memoryview]:
        memory = self._bounces.pop() if self._bounces else mmap(-1, _BOUNCE)
        try:
            with memoryview(memory) as view:
                yield view
        finally:
            self._bounces.append(memory)


class _Misaligned(OSError):
    """The host refuses the memory that it was given, which may not be aligned."""

"""Format ``cloop``: compressed loop devices, version 2, as old live CDs had them; for reading.

A shell script, the size and number of blocks, the offsets of all blocks and of their end, and each block as a zlib
stream. Layout and limits are those of QEMU's ``block/cloop.c``.
"""

from __future__ import annotations

import errno
import zlib
from array import array
from typing import Final, Self

from hostel.block.driver import FormatDriver, FormatInfo, OpenMode
from hostel.block.node import BlockNode
from hostel.codec.table import unpack_table
from hostel.errors import CorruptImage, InvalidImage, ReadOnly
from hostel.units import SECTOR, MiB

SCRIPT: Final = b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\n"
_FIELDS: Final = 128  # where the size and the number of blocks lie
_TABLE: Final = _FIELDS + 8
_PAGE: Final = 4096  # entries
_CHECKED: Final = 1 << 20  # entries
_MAX_BLOCK: Final = 64 * MiB
_MAX_OFFSETS: Final = 512 * MiB  # bytes


class CloopDriver(FormatDriver):
    """An image; the block that was read last is kept, and the offsets around it."""

    name = "cloop"

    def __init__(self, file: BlockNode, block_size: int, count: int) -> None:
        super().__init__()
        self.children["file"] = file
        self._file = file
        self._block_size = block_size
        self._count = count
        self._last = (-1, b"")
        self._page: tuple[int, array[int]] = (-1, array("Q"))

    @classmethod
    def open(cls, file: BlockNode, mode: OpenMode) -> Self:
        """Open an image.

        Raises:
            InvalidImage: the header or the offsets are malformed.
            ReadOnly: it was to be written.
        """
        if not mode.read_only:
            raise ReadOnly("Image is read-only", errno=errno.EACCES)
        fields = bytes(file.read(_FIELDS, 8)) if file.length >= _FIELDS + 8 else bytes(8)
        size, count = int.from_bytes(fields[:4], "big"), int.from_bytes(fields[4:], "big")
        _check(size, count)
        if _TABLE + (count + 1) * 8 > file.length:
            raise InvalidImage("The offsets of the blocks lie beyond the end of the file: the image is truncated")
        driver = cls(file, size, count)
        # Of more blocks than any image has, the offsets are looked at when they are needed.
        for first in range(0, min(count, _CHECKED), _PAGE):
            driver._offsets(first)
        return driver

    @classmethod
    def probe(cls, head: bytes, filename: str) -> int:
        """By the script, which any other program may begin with as well."""
        return 2 if head.startswith(SCRIPT) else 0

    @property
    def length(self) -> int:
        """All blocks, in bytes."""
        return self._block_size * self._count

    def info(self) -> FormatInfo:
        """Nothing is known of it."""
        return FormatInfo(dirty=None)

    def pread(self, offset: int, buf: memoryview) -> None:
        """Read from blocks, each of which is decompressed as a whole.

        Raises:
            CorruptImage: a block is no zlib stream of a block's length.
        """
        done = 0
        while done < len(buf):
            index, within = divmod(offset + done, self._block_size)
            if self._last[0] != index:
                self._last = (index, self._load(index))
            part = self._last[1][within : within + len(buf) - done]
            buf[done : done + len(part)] = part
            done += len(part)

    def _offsets(self, index: int) -> tuple[int, int]:
        """Where a block begins and ends in the file."""
        first = index - index % _PAGE
        if self._page[0] != first:
            entries = min(_PAGE, self._count - first) + 1
            offsets = unpack_table(self._file.read(_TABLE + first * 8, entries * 8))
            _check_offsets(offsets, first)
            self._page = (first, offsets)
        return self._page[1][index - first], self._page[1][index - first + 1]

    def _load(self, index: int) -> bytes:
        start, end = self._offsets(index)
        if end > self._file.length:
            raise CorruptImage(f"Block {index} lies beyond the end of the file: the image is truncated")
        stream = zlib.decompressobj()
        try:
            data = stream.decompress(self._file.read(start, end - start), self._block_size + 1)
        except zlib.error as error:
            raise CorruptImage(f"Block {index} at {start:#x} cannot be decompressed: {error}") from None
        if len(data) != self._block_size:
            raise CorruptImage(f"Block {index} at {start:#x} has not the length of a block")
        return data


def _check(size: int, count: int) -> None:
    """Refuse what QEMU refuses, in its words."""
    if not size:
        raise InvalidImage("block_size cannot be zero")
    if size % SECTOR:
        raise InvalidImage(f"block_size {size} must be a multiple of 512")
    if size > _MAX_BLOCK:
        raise InvalidImage(f"block_size {size} must be {_MAX_BLOCK // MiB} MB or less")
    most = (2**32 - 2) // 8
    if count > most:
        raise InvalidImage(f"n_blocks {count} must be {most} or less")
    if (count + 1) * 8 > _MAX_OFFSETS:
        raise InvalidImage("image requires too many offsets, try increasing block size")


def _check_offsets(offsets: array[int], first: int) -> None:
    """Refuse what QEMU refuses; the offsets are of the blocks from ``first`` on."""
    for index in range(1, len(offsets)):
        length = offsets[index] - offsets[index - 1]
        if length < 0:
            raise InvalidImage(f"offsets not monotonically increasing at index {first + index}, image file is corrupt")
        if length > 2 * _MAX_BLOCK:
            raise InvalidImage(f"invalid compressed block size at index {first + index}, image file is corrupt")

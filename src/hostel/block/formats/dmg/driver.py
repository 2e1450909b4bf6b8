"""The driver of format ``dmg``."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Self

from hostel.block.driver import FormatDriver, FormatInfo, OpenMode, Supports, Threading
from hostel.block.extent import Extent, Status
from hostel.block.formats.dmg import chunk as chunks
from hostel.block.formats.dmg.chunk import Chunk, Chunks, Kind
from hostel.block.formats.dmg.trailer import read_tables, read_trailer
from hostel.block.node import BlockNode, fill_zeroes
from hostel.block.unpacked import Unpacked
from hostel.errors import BlockError, CorruptImage, ReadOnly, UnsupportedFeature


class DmgDriver(FormatDriver):
    """An image. Chunks are unpacked as a whole, by several threads, and the last ones kept."""

    name = "dmg"
    supports = Supports.COMPUTES
    threading = Threading.PARALLEL

    def __init__(self, file: BlockNode, length: int, table: Chunks) -> None:
        super().__init__()
        self.children["file"] = file
        self._file = file
        self._length = length
        self._chunks = table
        self._unpacked = Unpacked()

    @classmethod
    def open(cls, file: BlockNode, mode: OpenMode) -> Self:
        """Open an image.

        Raises:
            InvalidImage: the trailer or the tables are malformed.
            CorruptImage: the tables contradict each other.
            UnsupportedFeature: the image is encrypted, or lies in several files.
            ReadOnly: it was to be written.
        """
        if not mode.read_only:
            raise ReadOnly("Image is read-only", errno=errno.EACCES)
        trailer = read_trailer(file)
        return cls(file, trailer.length, Chunks(read_tables(file, trailer), trailer.data_offset))

    @classmethod
    def probe(cls, head: bytes, filename: str) -> int:
        """By its name, as QEMU does: what tells it from a disk lies at the end of the file."""
        return 2 if len(filename) > 4 and filename.endswith(".dmg") else 0

    @property
    def length(self) -> int:
        """The disk's size in bytes."""
        return self._length

    def info(self) -> FormatInfo:
        """Nothing is known of it."""
        return FormatInfo(dirty=None)

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """Chunks of zeroes are told, and all others are data."""
        end = offset + length
        while offset < end:
            try:
                found = self._chunks[self._chunks.find(offset)]
            except CorruptImage:
                # Reading will say so. The rest of what was asked for may be far from any chunk.
                yield Extent(offset, end - offset, Status.DATA | Status.ALLOCATED)
                return
            stop = min(found.end, end)
            status = Status.ZERO if found.is_zero else Status.DATA
            host = found.offset + offset - found.start if found.kind == Kind.RAW else None
            yield Extent(offset, stop - offset, status | Status.ALLOCATED, host)
            offset = stop

    def unpacked_length(self, offset: int, length: int) -> int:
        """Bytes of the largest chunk in a range that would be unpacked to read it; see :class:`Unpacking`."""
        largest, end = 0, offset + length
        while offset < end:
            try:
                found = self._chunks[self._chunks.find(offset)]
            except CorruptImage:
                break  # reading will say so
            if not found.is_zero and found.kind != Kind.RAW:
                largest = max(largest, found.length)
            offset = found.end
        return largest

    def pread(self, offset: int, buf: memoryview) -> None:
        """Read from chunks.

        Raises:
            CorruptImage: a chunk is broken, or there is none.
            UnsupportedFeature: a chunk's compression is unknown, or its library is missing.
        """
        done = 0
        while done < len(buf):
            index = self._chunks.find(offset + done)
            found = self._chunks[index]
            within = offset + done - found.start
            part = buf[done : done + found.length - within]
            if found.is_zero:
                fill_zeroes(part)
            elif found.kind == Kind.RAW:
                if within + len(part) > found.packed:
                    raise CorruptImage(f"{_name(found)} has {found.packed} bytes instead of {found.length}")
                self._fill(found, found.offset + within, part)
            else:
                data = self._unpacked.part(index, lambda found=found: self._unpack(found))  # type: ignore[misc]
                part[:] = memoryview(data)[within : within + len(part)]
            done += len(part)

    def _unpack(self, found: Chunk) -> bytes:
        if not chunks.is_known(found.kind):
            raise UnsupportedFeature(f"{_name(found)} is of the unknown type {found.kind:#x}", errno=errno.EIO)
        packed = bytearray(found.packed)
        self._fill(found, found.offset, memoryview(packed))
        try:
            return chunks.unpack(found, bytes(packed))
        except BlockError as error:
            error.message = f"{_name(found)} cannot be read: {error.message}"
            raise

    def _fill(self, found: Chunk, offset: int, buf: memoryview) -> None:
        if offset + len(buf) > self._file.length:
            raise CorruptImage(f"{_name(found)} lies beyond the end of the file: the image is truncated")
        self._file.pread(offset, buf)


def _name(found: Chunk) -> str:
    return f"The chunk at {found.offset:#x}"

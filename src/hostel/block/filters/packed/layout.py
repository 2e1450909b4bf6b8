"""Which parts of a compressed file can be unpacked by themselves: blocks of xz, frames of zstd.

*The .xz File Format* 1.2.1; RFC 8878 (zstd).
"""

from __future__ import annotations

import lzma
import zlib
from typing import Final, NamedTuple

from hostel.block.node import BlockNode
from hostel.codec.compress import unzstd
from hostel.codec.stream import XZ_MEMORY
from hostel.errors import CorruptImage, InvalidImage, UnsupportedFeature
from hostel.units import INT64_MAX, KiB, MiB

_XZ: Final = b"\xfd7zXZ\0"
_XZ_FOOTER: Final = 12  # bytes; as many as the header
_MAX_INDEX: Final = 16 * MiB  # bytes of all indexes of a file
_MAX_PADDING: Final = MiB  # bytes of zeroes behind a stream
_ZSTD: Final = 0xFD2FB528
_SKIPPABLE: Final = 0x184D2A50  # and the fifteen numbers that follow it
_MAX_UNITS: Final = 1 << 20
_MAX_BLOCKS: Final = 1 << 22  # of all frames of a file; each has up to 128 KiB
_WINDOW: Final = 64 * KiB  # bytes that are read at once to find the blocks of a frame


class Unit(NamedTuple):
    """A part that can be unpacked by itself; offsets and lengths in bytes.

    Attributes:
        offset: of what is unpacked.
        length: of what is unpacked; None where only unpacking tells.
        place: where it lies in the file.
        packed: how many bytes it has there.
        head: what must be put before it.
    """

    offset: int
    length: int | None
    place: int
    packed: int
    head: bytes = b""


def unpack_xz(unit: Unit, data: bytes) -> bytes:
    """Unpack a block and check it.

    Raises:
        CorruptImage: it is broken, or has another length.
    """
    assert unit.length is not None
    try:
        stream = lzma.LZMADecompressor(lzma.FORMAT_XZ, XZ_MEMORY)
        found = stream.decompress(unit.head + data, unit.length + 1)
    except lzma.LZMAError as error:
        raise CorruptImage(f"The xz block at {unit.place:#x} is broken: {error}") from None
    if len(found) != unit.length or not stream.needs_input:
        raise CorruptImage(f"The xz block at {unit.place:#x} has not the {unit.length} bytes that the index says")
    return found


def unpack_zstd(unit: Unit, data: bytes) -> bytes:
    """Unpack a frame and check it.

    Raises:
        CorruptImage: it is broken, or has another length.
        UnsupportedFeature: the ``zstandard`` package is missing.
    """
    assert unit.length is not None
    try:
        return unzstd(data, unit.length)
    except CorruptImage as error:
        error.message = f"The zstd frame at {unit.place:#x}: {error.message}"
        raise


# ---- xz


def xz_units(file: BlockNode) -> list[Unit]:
    """The blocks of all streams, by their indexes.

    Raises:
        InvalidImage: this is no xz file, or an index makes no sense.
    """
    streams: list[list[tuple[int, int, int, bytes]]] = []
    end, budget = file.length, _MAX_INDEX
    while end:
        end = _before_padding(file, end)
        start, blocks, size = _xz_stream(file, end, budget)
        streams.append(blocks)
        budget -= size
        end = start
    units: list[Unit] = []
    offset = 0
    for blocks in reversed(streams):
        for place, packed, length, head in blocks:
            units.append(Unit(offset, length, place, packed, head))
            offset += length
        if len(units) > _MAX_UNITS or offset > INT64_MAX:
            raise InvalidImage("The xz file has too many blocks, or too large ones")
    if not streams:
        raise InvalidImage("The xz file is empty")
    return units


def _before_padding(file: BlockNode, end: int) -> int:
    first = end
    while end >= 4 and bytes(file.read(end - 4, 4)) == bytes(4):
        end -= 4
        if first - end > _MAX_PADDING:
            raise InvalidImage("The file does not end as an xz file does")
    return end


def _xz_stream(file: BlockNode, end: int, budget: int) -> tuple[int, list[tuple[int, int, int, bytes]], int]:
    """Where the stream that ends at ``end`` begins, its blocks, and how many bytes its index has."""
    if end < 2 * _XZ_FOOTER:
        raise InvalidImage("The file does not end as an xz file does")
    footer = bytes(file.read(end - _XZ_FOOTER, _XZ_FOOTER))
    if footer[10:] != b"YZ" or zlib.crc32(footer[4:10]) != int.from_bytes(footer[:4], "little"):
        raise InvalidImage("The file does not end as an xz file does: it may be cut off")
    size = (int.from_bytes(footer[4:8], "little") + 1) * 4
    place = end - _XZ_FOOTER - size
    if size > budget or place < _XZ_FOOTER:
        raise InvalidImage(f"The index of {size} bytes is too large for the file, or for memory")
    index = bytes(file.read(place, size))
    if index[:1] != b"\0" or zlib.crc32(index[:-4]) != int.from_bytes(index[-4:], "little"):
        raise InvalidImage(f"The xz index at {place:#x} is broken")
    numbers = _numbers(index)
    total = sum(-(-packed // 4) * 4 for packed, _ in numbers)
    start = place - total - _XZ_FOOTER
    head = bytes(file.read(start, _XZ_FOOTER)) if start >= 0 else b""
    if head[:6] != _XZ or head[6:8] != footer[8:10]:
        raise InvalidImage(f"The xz index at {place:#x} does not lead to the start of a stream")
    blocks, at = [], start + _XZ_FOOTER
    for packed, length in numbers:
        whole = -(-packed // 4) * 4
        blocks.append((at, whole, length, head))
        at += whole
    return start, blocks, size


def _numbers(index: bytes) -> list[tuple[int, int]]:
    """The records of an index: the length of each block, packed and not."""
    end = len(index) - 4
    count, at = _number(index, 1, end)
    records = []
    for _ in range(count):
        packed, at = _number(index, at, end)
        length, at = _number(index, at, end)
        records.append((packed, length))
    if any(index[at:end]) or end - at > 3:
        raise InvalidImage("An xz index has more than its blocks")
    return records


def _number(data: bytes, at: int, end: int) -> tuple[int, int]:
    """A number of 7 bits a byte, and where it ends."""
    value = shift = 0
    while at < end and shift < 63:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, at
        shift += 7
    raise InvalidImage("A number in an xz index has no end")


# ---- zstd


class _Reader:
    """Small pieces of a file, read in larger ones."""

    def __init__(self, file: BlockNode, window: int) -> None:
        self._file = file
        self._length = window
        self._window = (0, b"")

    def read(self, offset: int, length: int) -> bytes:
        start, data = self._window
        if not start <= offset or offset + length > start + len(data):
            if offset + length > self._file.length:
                raise InvalidImage("The zstd file is cut off")
            data = bytes(self._file.read(offset, min(max(self._length, length), self._file.length - offset)))
            start, self._window = offset, (offset, data)
        return data[offset - start : offset - start + length]

    def number(self, offset: int, length: int) -> int:
        return int.from_bytes(self.read(offset, length), "little")


def zstd_units(file: BlockNode, *, blocks: int = _MAX_BLOCKS, window: int = _WINDOW) -> list[Unit]:
    """The frames, by the lengths of their blocks: nothing is unpacked.

    Args:
        file: the file.
        blocks: how many are looked at.
        window: bytes that are read at once.

    Raises:
        InvalidImage: this is no zstd file, or it is cut off.
        UnsupportedFeature: it needs a dictionary.
    """
    reader, units = _Reader(file, window), list[Unit]()
    at, offset = 0, 0
    while at < file.length:
        magic = reader.number(at, 4)
        if magic & ~0xF == _SKIPPABLE:
            at += 8 + reader.number(at + 4, 4)
            continue
        if magic != _ZSTD:
            raise InvalidImage(f"No zstd frame begins at {at:#x}")
        length, end, blocks = _frame(reader, at, blocks)
        units.append(Unit(offset, length, at, end - at))
        offset += length or 0
        at = end
        if len(units) > _MAX_UNITS or offset > INT64_MAX:
            raise InvalidImage("The zstd file has too many frames, or too large ones")
    if at > file.length:
        raise InvalidImage("The zstd file is cut off")
    if not units:
        raise InvalidImage("The zstd file is empty")
    return units


def _frame(reader: _Reader, start: int, budget: int) -> tuple[int | None, int, int]:
    """The length of what is in a frame, where the frame ends, and how many more blocks are looked at."""
    flags = reader.number(start + 4, 1)
    is_single = bool(flags & 0x20)
    if flags & 8:
        raise UnsupportedFeature("A zstd frame uses a reserved flag")
    at = start + 5 + (0 if is_single else 1)
    width = (0, 1, 2, 4)[flags & 3]
    if width and reader.number(at, width):
        raise UnsupportedFeature("A zstd frame needs a dictionary")
    at += width
    width = (1 if is_single else 0, 2, 4, 8)[flags >> 6]
    length = reader.number(at, width) + (256 if width == 2 else 0) if width else None
    at += width
    while True:
        budget -= 1
        if budget < 0:
            raise InvalidImage("The zstd file has too many blocks")
        block = reader.number(at, 3)
        kind, size = block >> 1 & 3, block >> 3
        if kind == 3:
            raise InvalidImage(f"The zstd block at {at:#x} is of no known kind")
        at += 3 + (1 if kind == 1 else size)
        if block & 1:
            break
    return length, at + (4 if flags & 4 else 0), budget

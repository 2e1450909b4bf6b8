"""The chunks of a dmg image: which part of the disk each holds, where its bytes lie, and how they are compressed."""

from __future__ import annotations

import bz2
import enum
import itertools
import lzma
import struct
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from hostel.codec import adc, lzfse
from hostel.codec.compress import unzlib
from hostel.errors import CorruptImage, InvalidImage
from hostel.units import INT64_MAX, SECTOR, MiB

_TABLE: Final = b"mish"
_FIELDS: Final = 204  # bytes of a table before its entries
_ENTRY: Final = struct.Struct(">I4xQQQQ")  # kind; from sector, count; from byte, count
_MAX_LENGTH: Final = 64 * MiB  # bytes of a compressed chunk, packed and not
_XZ_MEMORY: Final = 128 * MiB  # what a dictionary may take, bytes


class Kind(enum.IntEnum):
    """How a chunk's bytes are kept."""

    ZERO = 0
    RAW = 1
    IGNORED = 2  # zeroes too: nobody uses them
    ADC = 0x80000004
    ZLIB = 0x80000005
    BZIP2 = 0x80000006
    LZFSE = 0x80000007
    LZMA = 0x80000008


_ZEROES: Final = (Kind.ZERO, Kind.IGNORED)
_NO_CHUNKS: Final = (0x7FFFFFFE, 0xFFFFFFFF)  # a comment; the end of a table


class Chunk(NamedTuple):
    """A part of the disk.

    Attributes:
        kind: a :class:`Kind`, or a number that nobody knows.
        start: bytes from the start of the disk.
        length: bytes of the disk.
        offset: where its bytes lie in the file.
        packed: how many they are there.
    """

    kind: int
    start: int
    length: int
    offset: int
    packed: int

    @property
    def is_zero(self) -> bool:
        """Whether it reads as zeroes."""
        return self.kind in _ZEROES

    @property
    def end(self) -> int:
        """The first byte of the disk after it."""
        return self.start + self.length


class Chunks:
    """All chunks, in the order of the disk. They may be hundreds of thousands.

    Args:
        tables: what may be tables; what is none is passed over.
        data_offset: where in the file the tables count from.

    Raises:
        InvalidImage: a chunk is too large, or of nowhere.
        CorruptImage: two chunks hold the same part of the disk.
    """

    def __init__(self, tables: Iterable[bytes], data_offset: int) -> None:
        chunks: list[Chunk] = []
        for table in tables:
            if len(table) >= _FIELDS + _ENTRY.size and table.startswith(_TABLE):
                first, offset = struct.unpack_from(">Q8xQ", table, 8)
                chunks += _entries(table, first, data_offset + offset)
        chunks.sort(key=lambda chunk: chunk.start)
        for before, after in itertools.pairwise(chunks):
            if before.end > after.start:
                raise CorruptImage(f"Two chunks hold sector {after.start // SECTOR} of the disk")
        self._starts = array("Q", [chunk.start for chunk in chunks])
        self._chunks = array("Q", [field for chunk in chunks for field in chunk])

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, index: int) -> Chunk:
        return Chunk(*self._chunks[index * 5 : index * 5 + 5])

    def find(self, offset: int) -> int:
        """The number of the chunk that holds a byte of the disk.

        Raises:
            CorruptImage: none does.
        """
        index = bisect_right(self._starts, offset) - 1
        if index < 0 or self[index].end <= offset:
            raise CorruptImage(f"No chunk holds sector {offset // SECTOR} of the disk")
        return index


def _entries(table: bytes, first: int, data_offset: int) -> Iterable[Chunk]:
    usable = (len(table) - _FIELDS) // _ENTRY.size * _ENTRY.size
    for kind, sector, sectors, offset, packed in _ENTRY.iter_unpack(table[_FIELDS : _FIELDS + usable]):
        if kind in _NO_CHUNKS or not sectors:
            continue
        start, length = (first + sector) * SECTOR, sectors * SECTOR
        if start + length > INT64_MAX or data_offset + offset + packed > INT64_MAX:
            raise InvalidImage(f"A chunk of {sectors} sectors at sector {first + sector} is too large for any disk")
        if kind not in (*_ZEROES, Kind.RAW):
            _check_packed(length, packed, first + sector)
        yield Chunk(kind, start, length, data_offset + offset, packed)


def _check_packed(length: int, packed: int, sector: int) -> None:
    """Refuse what memory would not take."""
    if length > _MAX_LENGTH:
        raise InvalidImage(
            f"sector count {length // SECTOR} for the chunk at sector {sector} is larger than max "
            f"({_MAX_LENGTH // SECTOR})"
        )
    if packed > _MAX_LENGTH:
        raise InvalidImage(f"length {packed} for the chunk at sector {sector} is larger than max ({_MAX_LENGTH})")


def unpack(chunk: Chunk, data: bytes) -> bytes:
    """Decompress a chunk's bytes; memory is bounded by what the chunk should hold.

    Raises:
        CorruptImage: they are broken, or hold more or less.
        UnsupportedFeature: the compression is unknown, or its library is missing.
    """
    result = _UNPACKERS[Kind(chunk.kind)](data, chunk.length)
    if len(result) != chunk.length:
        raise CorruptImage(f"it holds {len(result)} bytes instead of {chunk.length}")
    return result


def is_known(kind: int) -> bool:
    """Whether there is a decoder for chunks of a kind."""
    return kind in _UNPACKERS


def _unbzip2(data: bytes, length: int) -> bytes:
    stream = bz2.BZ2Decompressor()
    try:
        result = stream.decompress(data, length + 1)
    except (OSError, ValueError) as error:
        raise CorruptImage(f"it cannot be decompressed: {error}") from None
    if not stream.eof and len(result) <= length:
        raise CorruptImage("it is cut off")
    return result


def _unlzma(data: bytes, length: int) -> bytes:
    try:
        stream = lzma.LZMADecompressor(lzma.FORMAT_AUTO, _XZ_MEMORY)
        result = stream.decompress(data, length + 1)
    except lzma.LZMAError as error:
        raise CorruptImage(f"it cannot be decompressed: {error}") from None
    if not stream.eof and len(result) <= length:
        raise CorruptImage("it is cut off")
    return result


_UNPACKERS: Final[dict[int, Callable[[bytes, int], bytes]]] = {
    Kind.ADC: adc.unpack,
    Kind.ZLIB: unzlib,
    Kind.BZIP2: _unbzip2,
    Kind.LZFSE: lzfse.unpack,
    Kind.LZMA: _unlzma,
}

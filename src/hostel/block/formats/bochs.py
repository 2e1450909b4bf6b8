"""Format ``bochs``: growing disk images of the Bochs emulator, for reading.

A header, a catalog that says for each extent of the disk which one of the file it is, and the extents, each behind a
bitmap of its sectors. Layout and limits are those of QEMU's ``block/bochs.c``; Bochs calls such an image a redolog.
"""

from __future__ import annotations

import errno
from array import array
from typing import Final, NamedTuple, Self

from hostel.block.driver import FormatDriver, FormatInfo, OpenMode, Threading
from hostel.block.node import BlockNode, fill_zeroes
from hostel.codec.table import unpack_table
from hostel.errors import BlockError, InvalidImage, ReadOnly
from hostel.units import SECTOR, MiB

MAGIC: Final = b"Bochs Virtual HD Image\0"
_TYPE: Final = b"Redolog\0"
_SUBTYPE: Final = b"Growing\0"
_SIZE_AT: Final = {0x00010000: 84, 0x00020000: 88}  # by version: where the disk's size lies
_HEADER: Final = 512
_MAX_CATALOG: Final = MiB  # entries
_MAX_EXTENT: Final = 8 * MiB  # bytes
_UNALLOCATED: Final = 0xFFFFFFFF


class Layout(NamedTuple):
    """Where things lie in the file.

    Attributes:
        data_offset: bytes before the first extent's bitmap.
        extent_size: bytes.
        bitmap_size: bytes of an extent's bitmap, in whole sectors.
    """

    data_offset: int
    extent_size: int
    bitmap_size: int

    def bitmap_offset(self, number: int) -> int:
        """Where the bitmap of the file's extent of a number lies, and behind it the extent."""
        return self.data_offset + number * (self.bitmap_size + self.extent_size)


class BochsDriver(FormatDriver):
    """An image: sectors that were never written are zeroes."""

    name = "bochs"
    threading = Threading.PARALLEL

    def __init__(self, file: BlockNode, size: int, layout: Layout, catalog: array[int]) -> None:
        super().__init__()
        self.children["file"] = file
        self._file = file
        self._size = size
        self._layout = layout
        self._catalog = catalog

    @classmethod
    def open(cls, file: BlockNode, mode: OpenMode) -> Self:
        """Open an image.

        Raises:
            InvalidImage: the header or the catalog is malformed.
            ReadOnly: it was to be written.
        """
        if not mode.read_only:
            raise ReadOnly("Image is read-only", errno=errno.EACCES)
        header = bytes(file.read(0, min(file.length, _HEADER))).ljust(_HEADER, b"\0")
        if not cls.probe(header, file.filename):
            raise InvalidImage("Image not in Bochs format")
        version, offset, entries, bitmap, extent = (_u32(header, at) for at in range(64, 84, 4))
        size = int.from_bytes(header[_SIZE_AT[version] :][:8], "little") // SECTOR * SECTOR
        _check(entries, extent, bitmap, size)
        table = offset + entries * 4
        if table > file.length:
            raise InvalidImage("The catalog lies beyond the end of the file: the image is truncated")
        catalog = unpack_table(file.read(offset, entries * 4), "I", "little")
        return cls(file, size, Layout(table, extent, -(-bitmap // SECTOR) * SECTOR), catalog)

    @classmethod
    def probe(cls, head: bytes, filename: str) -> int:
        """By its three names and the version."""
        names = head[:32].startswith(MAGIC) and head[32:48].startswith(_TYPE) and head[48:64].startswith(_SUBTYPE)
        return 100 if names and _u32(head, 64) in _SIZE_AT else 0

    @property
    def length(self) -> int:
        """The disk's size in bytes."""
        return self._size

    def info(self) -> FormatInfo:
        """Nothing is known of it."""
        return FormatInfo(dirty=None)

    def pread(self, offset: int, buf: memoryview) -> None:
        """Read sectors that were written; the others are zeroes.

        Raises:
            BlockError: an extent lies beyond the end of the file.
        """
        done = 0
        while done < len(buf):
            at = offset + done
            index, within = divmod(at, self._layout.extent_size)
            count = min(len(buf) - done, self._layout.extent_size - within)
            self._read_extent(self._catalog[index], within, buf[done : done + count])
            done += count

    def _read_extent(self, number: int, within: int, buf: memoryview) -> None:
        if number == _UNALLOCATED:
            fill_zeroes(buf)
            return
        start = self._layout.bitmap_offset(number)
        first, end = within // SECTOR, -(-(within + len(buf)) // SECTOR)
        base = first // 8  # of the bytes of the bitmap that are wanted
        bits = self._load(start + base, -(-end // 8) - base)
        done = 0
        while done < len(buf):
            sector = (within + done) // SECTOR
            present = _bit(bits, sector - base * 8)
            stop = sector + 1
            while stop < end and _bit(bits, stop - base * 8) == present:
                stop += 1
            part = buf[done : min(len(buf), stop * SECTOR - within)]
            if present:
                self._fill(start + self._layout.bitmap_size + within + done, part)
            else:
                fill_zeroes(part)
            done += len(part)

    def _load(self, offset: int, length: int) -> bytearray:
        data = bytearray(length)
        self._fill(offset, memoryview(data))
        return data

    def _fill(self, offset: int, buf: memoryview) -> None:
        if offset + len(buf) > self._file.length:
            raise BlockError(f"An extent at {offset:#x} lies beyond the end of the file: the image is truncated")
        self._file.pread(offset, buf)


def _check(entries: int, extent: int, bitmap: int, size: int) -> None:
    """Refuse what QEMU refuses, in its words; and a bitmap that would go on in the extent behind it."""
    if entries > _MAX_CATALOG:
        raise InvalidImage("Catalog size is too large", errno=errno.EFBIG)
    if extent < SECTOR:
        raise InvalidImage("Extent size must be at least 512")
    if extent & (extent - 1):
        raise InvalidImage(f"Extent size {extent} is not a power of two")
    if extent > _MAX_EXTENT:
        raise InvalidImage(f"Extent size {extent} is too large")
    if entries < -(-size // extent):
        raise InvalidImage("Catalog size is too small for this disk size")
    if bitmap * 8 < extent // SECTOR:
        raise InvalidImage(f"Bitmap size {bitmap} is too small for this extent size")


def _u32(data: bytes, offset: int) -> int:
    return int.from_bytes(data[offset : offset + 4], "little")


def _bit(bits: bytearray, index: int) -> int:
    return bits[index >> 3] >> (index & 7) & 1

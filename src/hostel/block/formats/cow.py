"""Format ``cow``: overlays of user-mode Linux, and of QEMU before 2.2, for reading.

A header that names the backing file, a bitmap of the disk's sectors, and the disk: a sector whose bit is set is the
overlay's own. Layouts are those of Linux' ``arch/um/drivers/cow_user.c`` and of QEMU's former ``block/cow.c``. Both
wrote C structures as the compiler laid them out, so that an image's version alone does not tell where its fields are.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from typing import Final, Literal, NamedTuple, Self

from hostel.block.driver import FormatDriver, FormatInfo, OpenMode, Reference, Supports, Threading
from hostel.block.extent import Extent, Status
from hostel.block.node import BlockNode, fill_zeroes
from hostel.errors import CorruptImage, InvalidImage, ReadOnly, UnsupportedFeature
from hostel.units import INT64_MAX, SECTOR, KiB

MAGIC: Final = b"OOOM"
_MAGIC_1: Final = b"MOOO"  # of version 1 written by a little-endian machine
_MAX_SECTOR: Final = 64 * KiB
_MAX_ALIGNMENT: Final = 1 << 30  # bytes
_PAGE: Final = 4 * KiB  # bytes of the bitmap that are kept
_HEADER: Final = 4136  # bytes of the longest


class _Layout(NamedTuple):
    """Where a header's fields are, in bytes."""

    name: int
    name_length: int
    size: int
    sector_size: int
    header: int
    qemu: bool = False  # written by QEMU, whose backing files are of any format
    alignment: int = 0  # where that of bitmap and data is; 0 where there is none


# By version, the likeliest first. A field of a later layout lies where an earlier one has zeroes, or its bitmap.
_LAYOUTS: Final[dict[int, tuple[_Layout, ...]]] = {
    1: (_Layout(8, 256, 268, 276, 280), _Layout(8, 256, 272, 280, 288)),
    2: (
        _Layout(8, 1024, 1040, 1048, 1056, qemu=True),
        _Layout(8, 1024, 1036, 1044, 1048, qemu=True),
        _Layout(8, 4096, 4108, 4116, 4120),
        _Layout(8, 4096, 4112, 4120, 4128),
    ),
    # Of the second one, made on machines of 64 bits until 2005, the size may look like the first one's sector.
    3: (_Layout(32, 4096, 12, 20, 4128, alignment=24), _Layout(36, 4096, 16, 24, 4136, alignment=28)),
}


class _Geometry(NamedTuple):
    """An image's parts.

    Attributes:
        size: of the disk, whole sectors of 512 bytes.
        sector_size: bytes that a bit stands for.
        bitmap: where the bitmap begins.
        data: where the disk begins, which is also where the bitmap has ended.
    """

    size: int
    sector_size: int
    bitmap: int
    data: int


class CowDriver(FormatDriver):
    """An overlay; what its bitmap does not claim is the backing file's."""

    name = "cow"
    supports = Supports.BACKING
    threading = Threading.PARALLEL

    def __init__(self, file: BlockNode, geometry: _Geometry, backing: Reference | None) -> None:
        super().__init__()
        self.children["file"] = file
        self._file = file
        self._geometry = geometry
        self._backing = backing
        self._page: tuple[int, str] = (-1, "")

    @classmethod
    def open(cls, file: BlockNode, mode: OpenMode) -> Self:
        """Open an image.

        Raises:
            InvalidImage: the header is malformed, or the file ends before the disk begins.
            UnsupportedFeature: it is of a later version.
            ReadOnly: it was to be written.
        """
        if not mode.read_only:
            raise ReadOnly("Image is read-only", errno=errno.EACCES)
        header = bytes(file.read(0, min(file.length, _HEADER))).ljust(_HEADER, b"\0")
        version, order = _version(header)
        if version not in _LAYOUTS:
            if not version:
                raise InvalidImage("Image not in COW format")
            raise UnsupportedFeature(f"COW version {version} is not supported")
        layout = _layout(header, version, order)
        geometry = _geometry(header, layout, version, order)
        if geometry.bitmap + _bitmap_length(geometry) > file.length:
            raise InvalidImage("The bitmap lies beyond the end of the file: the image is truncated")
        name = header[layout.name : layout.name + layout.name_length].partition(b"\0")[0]
        backing = None
        if name:
            # User-mode Linux knows no other formats.
            backing = Reference("backing", name.decode(errors="surrogateescape"), None if layout.qemu else "raw")
        return cls(file, geometry, backing)

    @classmethod
    def probe(cls, head: bytes, filename: str) -> int:
        """By magic and version."""
        return 100 if _version(head.ljust(8, b"\0"))[0] in _LAYOUTS else 0

    @property
    def length(self) -> int:
        """The disk's size in bytes."""
        return self._geometry.size

    def references(self) -> Sequence[Reference]:
        """The backing file."""
        return () if self._backing is None else (self._backing,)

    def info(self) -> FormatInfo:
        """Nothing is known of it."""
        return FormatInfo(dirty=None)

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """The overlay's own sectors, and those that are not."""
        end = offset + length
        while offset < end:
            own, stop = self._run(offset, end)
            status = Status.DATA | Status.ALLOCATED if own else Status.UNALLOCATED
            yield Extent(offset, stop - offset, status, self._geometry.data + offset if own else None)
            offset = stop

    def pread(self, offset: int, buf: memoryview) -> None:
        """Read the overlay's own sectors from it, and others from the backing file.

        Raises:
            CorruptImage: a sector lies beyond the end of the file.
        """
        end, at = offset + len(buf), offset
        while at < end:
            own, stop = self._run(at, end)
            part = buf[at - offset : stop - offset]
            if own:
                self._read_own(at, part)
            elif (backing := self.children.get("backing")) is not None:
                backing.pread_padded(at, part)
            else:
                fill_zeroes(part)
            at = stop

    def _read_own(self, offset: int, buf: memoryview) -> None:
        place = self._geometry.data + offset
        if place + len(buf) > self._file.length:
            raise CorruptImage(f"A sector at {place:#x} lies beyond the end of the file: the image is truncated")
        self._file.pread(place, buf)

    def _run(self, offset: int, end: int) -> tuple[bool, int]:
        """Whether a byte is the overlay's own, and up to where, at most ``end``, the same is known of the next ones."""
        unit = self._geometry.sector_size
        page, bit = divmod(offset // unit, _PAGE * 8)
        bits = self._bits(page)
        own = bits[bit] == "1"
        change = bits.find("0" if own else "1", bit)
        stop = (page * _PAGE * 8 + (change if change >= 0 else len(bits))) * unit
        return own, min(stop, end)

    def _bits(self, page: int) -> str:
        """A page of the bitmap, a character a bit: a string is searched fast."""
        kept = self._page
        if kept[0] == page:
            return kept[1]
        length = min(_PAGE, _bitmap_length(self._geometry) - page * _PAGE)
        data = self._file.read(self._geometry.bitmap + page * _PAGE, length)
        bits = f"{int.from_bytes(data, 'little'):0{length * 8}b}"[::-1]
        self._page = (page, bits)
        return bits


def _version(header: bytes) -> tuple[int, Literal["big", "little"]]:
    """The version, and the order of the header's bytes; 0 where this is none."""
    if header[:4] == MAGIC:
        return int.from_bytes(header[4:8], "big"), "big"
    if header[:8] == _MAGIC_1 + b"\1\0\0\0":
        return 1, "little"
    return 0, "big"


def _layout(header: bytes, version: int, order: Literal["big", "little"]) -> _Layout:
    """The layout by which the size of a sector is one, and a name ends."""
    layouts = _LAYOUTS[version]
    if version == 3:  # no name begins with zeroes: Linux tells them by that, too
        layouts = layouts[1:] if not any(header[32:36]) and header[36] else layouts[:1]
    for layout in layouts:
        sector = int.from_bytes(header[layout.sector_size : layout.sector_size + 4], order)
        is_sector = SECTOR <= sector <= _MAX_SECTOR and not sector & (sector - 1)
        if is_sector and b"\0" in header[layout.name : layout.name + layout.name_length]:
            return layout
    raise InvalidImage("The size of a sector makes no sense, or the backing file's name has no end")


def _geometry(header: bytes, layout: _Layout, version: int, order: Literal["big", "little"]) -> _Geometry:
    """Work out the parts as those did who wrote the image.

    Raises:
        InvalidImage: a number makes no sense, or the bitmap goes on where the disk has begun.
        UnsupportedFeature: the sectors are not marked by a bitmap.
    """
    size = int.from_bytes(header[layout.size : layout.size + 8], order)
    sector = int.from_bytes(header[layout.sector_size : layout.sector_size + 4], order)
    if size > INT64_MAX // 2:
        raise InvalidImage(f"A disk of {size} bytes is too large")
    align, bitmap = sector, layout.header
    if layout.qemu:
        length = _whole(size // SECTOR, 8)
    elif version < 3:
        length = (size + sector - 1) // (8 * sector)  # one too few unless the last byte is full
    else:
        align = int.from_bytes(header[layout.alignment : layout.alignment + 4], order)
        if header[layout.alignment + 4 : layout.alignment + 8] != bytes(4):
            raise UnsupportedFeature("Sectors are not marked by a bitmap")
        if not 0 < align <= _MAX_ALIGNMENT:
            raise InvalidImage(f"An alignment of {align} bytes makes no sense")
        bitmap = _whole(bitmap, align) * align
        length = _whole(size, 8 * sector)
    data = _whole(bitmap + length, align) * align
    geometry = _Geometry(size // SECTOR * SECTOR, sector, bitmap, data)
    if bitmap + _bitmap_length(geometry) > data:
        raise InvalidImage("The bitmap's last byte is the disk's first: which of them it is cannot be told")
    return geometry


def _bitmap_length(geometry: _Geometry) -> int:
    return _whole(geometry.size, 8 * geometry.sector_size)


def _whole(number: int, unit: int) -> int:
    """How many units something takes."""
    return -(-number // unit)

"""The format extension: a cluster of features, of which dirty bitmaps are the only one there is ("Format Extension").

It is read. Whoever writes the image drops it, as the specification wants where a program does not keep it up to date:
bitmaps that do not record what is written would tell a backup program that nothing was.
"""

from __future__ import annotations

import hashlib
import uuid
from typing import TYPE_CHECKING, Annotated, Final, NamedTuple

from hostel.block.bitmap import DirtyBitmap
from hostel.codec.record import Record, u32, u64
from hostel.codec.table import unpack_table
from hostel.errors import InvalidImage, UnsupportedFeature
from hostel.units import SECTOR, MiB

if TYPE_CHECKING:
    from hostel.block.formats.parallels.layout import Header
    from hostel.block.node import BlockNode

_MAGIC: Final = 0xAB234CEF23DCEA87
_BITMAP: Final = 0x20385FAE252CB34A
_PIECE: Final = MiB
_MAX_FEATURES: Final = 1000
_MAX_BITMAP: Final = 64 * MiB  # bytes of a bitmap: at QEMU's usual granularity of 64 KiB, of a disk of 32 TiB
_MIN_GRANULARITY: Final = SECTOR
_MAX_GRANULARITY: Final = 1 << 31


class _ExtensionHeader(Record, endian="little"):
    magic: u64
    check_sum: Annotated[bytes, 16]  # MD5 of the rest of the cluster


class _Feature(Record, endian="little"):
    magic: u64
    flags: u64
    data_size: u32  # bytes
    unused: u32


class _BitmapFeature(Record, endian="little"):
    size: u64  # sectors
    id: Annotated[bytes, 16]
    granularity: u32  # sectors
    l1_size: u32  # entries of the table that follows


class StoredBitmap(NamedTuple):
    """A dirty bitmap in an image.

    Attributes:
        name: its identifier, as a UUID.
        granularity: bytes of the image that one bit stands for.
        table: host offset of its table, bytes.
        entries: of its table, each of which stands for a cluster of bits.
    """

    name: str
    granularity: int
    table: int
    entries: int


def read_extension(file: BlockNode, header: Header) -> list[StoredBitmap]:
    """Read and check the extension that a header points to; the bitmaps in it.

    Raises:
        InvalidImage: it is malformed, in QEMU's words.
        UnsupportedFeature: it has features that are not known, or must be.
    """
    start = header.ext_off * SECTOR
    end = start + header.cluster_size
    if start < header.table_end or end > file.length:
        raise InvalidImage("The Format Extension lies outside the file")
    head = _ExtensionHeader.unpack(file.read(start, min(_ExtensionHeader.SIZE, header.cluster_size)))
    if head.magic != _MAGIC:
        raise InvalidImage(f"Wrong parallels Format Extension magic: {head.magic:#x}, expected: {_MAGIC:#x}")
    if _digest(file, start + _ExtensionHeader.SIZE, end) != head.check_sum:
        raise InvalidImage("Wrong checksum in Format Extension header. Format extension is corrupted.")
    return _features(file, header, start + _ExtensionHeader.SIZE, end)


def _digest(file: BlockNode, start: int, end: int) -> bytes:
    digest = hashlib.md5(usedforsecurity=False)
    for place in range(start, end, _PIECE):
        digest.update(file.read(place, min(_PIECE, end - place)))
    return digest.digest()


def _features(file: BlockNode, header: Header, start: int, end: int) -> list[StoredBitmap]:
    bitmaps: list[StoredBitmap] = []
    place = start
    for _ in range(_MAX_FEATURES):
        if end - place < _Feature.SIZE:
            raise InvalidImage(
                f"Can not read feature header, as remaining bytes ({end - place}) in Format Extension is less than "
                f"Feature header size ({_Feature.SIZE})"
            )
        feature = _Feature.unpack(file.read(place, _Feature.SIZE))
        place += _Feature.SIZE
        if feature.flags:
            raise UnsupportedFeature("Flags for extension feature are unsupported")
        if feature.data_size > end - place:
            raise InvalidImage("Feature data_size exceedes Format Extension cluster")
        if not feature.magic:
            return bitmaps
        if feature.magic != _BITMAP:
            raise UnsupportedFeature(f"Unknown feature: {feature.magic:#x}")
        bitmaps.append(_bitmap(file, header, place, feature.data_size))
        place += -(-feature.data_size // 8) * 8
    raise InvalidImage(f"The Format Extension has more than {_MAX_FEATURES} features")


def _bitmap(file: BlockNode, header: Header, place: int, length: int) -> StoredBitmap:
    if length < _BitmapFeature.SIZE:
        raise InvalidImage(
            f"Too small Bitmap Feature area in Parallels Format Extension: {length} bytes, expected at least "
            f"{_BitmapFeature.SIZE} bytes"
        )
    feature = _BitmapFeature.unpack(file.read(place, _BitmapFeature.SIZE))
    granularity = feature.granularity * SECTOR
    if feature.size * SECTOR != header.size:
        raise InvalidImage(
            f"Bitmap size (in sectors) {feature.size} differs from disk size in sectors {header.size // SECTOR}"
        )
    if feature.l1_size * 8 > length - _BitmapFeature.SIZE:
        raise InvalidImage("Bitmaps feature corrupted: l1 table exceeds extension data_size")
    if not _MIN_GRANULARITY <= granularity <= _MAX_GRANULARITY or granularity & (granularity - 1):
        raise InvalidImage(f"Bitmap granularity {granularity} is not a power of two within its limits")
    expected = -(-_bytes(header.size, granularity) // header.cluster_size)
    if feature.l1_size != expected:
        raise InvalidImage(
            f"Bitmap table size {feature.l1_size} does not correspond to bitmap size and cluster size. "
            f"Expected {expected}"
        )
    name = str(uuid.UUID(bytes=feature.id))
    return StoredBitmap(name, granularity, place + _BitmapFeature.SIZE, feature.l1_size)


def _bytes(size: int, granularity: int) -> int:
    """Bytes of a bitmap, of whole words as QEMU stores it."""
    bits = -(-size // granularity)
    return -(-bits // 64) * 8


def load_bitmap(file: BlockNode, header: Header, stored: StoredBitmap) -> DirtyBitmap:
    """The bits of a bitmap.

    Raises:
        InvalidImage: a part of it lies outside the file, or it is too large to be kept in memory.
    """
    size, cluster = _bytes(header.size, stored.granularity), header.cluster_size
    if size > _MAX_BITMAP:
        raise InvalidImage(f"Bitmap '{stored.name}' has {size} bytes, and may have {_MAX_BITMAP}")
    table = unpack_table(file.read(stored.table, stored.entries * 8), "Q", "little")
    bits = bytearray(size)
    for index, entry in enumerate(table):
        start = index * cluster
        length = min(cluster, size - start)
        if entry == 1:
            bits[start : start + length] = b"\xff" * length
        elif entry:
            place = entry * SECTOR
            if place < header.table_end or place + length > file.length:
                raise InvalidImage(f"Bitmap '{stored.name}' lies outside the file")
            bits[start : start + length] = file.read(place, length)
    used = -(-header.size // stored.granularity)
    return DirtyBitmap(header.size, stored.granularity, bits[: -(-used // 8)])


def clusters(file: BlockNode, header: Header, found: list[StoredBitmap]) -> list[int]:
    """Host offsets of the clusters that the extension uses, itself among them, bytes."""
    places = [header.ext_off * SECTOR]
    for stored in found:
        table = unpack_table(file.read(stored.table, stored.entries * 8), "Q", "little")
        places += [entry * SECTOR for entry in table if entry > 1]
    return places

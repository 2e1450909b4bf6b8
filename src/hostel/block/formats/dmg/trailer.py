"""Where a dmg image says what it is made of: the trailer at its end, and the tables that the trailer leads to.

The tables (they begin with ``mish``) lie in the data elements of a property list, which is XML, or in a resource fork.
Layout and limits are those of QEMU's ``block/dmg.c``; Apple has published none.
"""

from __future__ import annotations

import binascii
import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from hostel.block.node import BlockNode
from hostel.block.reading import read_or_say
from hostel.errors import InvalidImage, UnsupportedFeature
from hostel.units import INT64_MAX, SECTOR, MiB

MAGIC: Final = b"koly"
_ENCRYPTED: Final = b"encrcdsa"
_LENGTH: Final = 512
_SEARCHED: Final = 515  # bytes in which the trailer begins, of a file whose length is rounded up to sectors
_MAX_TABLES: Final = 16 * MiB  # bytes of a property list or resource fork


class Trailer(NamedTuple):
    """What the trailer says; offsets and lengths are bytes of the file.

    Attributes:
        offset: where it lies itself; all else lies before it.
        data_offset: from where on the tables count.
        resource: place and length of the resource fork; without one the length is 0.
        plist: the same of the property list.
        length: the disk's, in bytes.
    """

    offset: int
    data_offset: int
    resource: tuple[int, int]
    plist: tuple[int, int]
    length: int


def read_trailer(file: BlockNode) -> Trailer:
    """Find the trailer and read it.

    Raises:
        InvalidImage: there is none, or it makes no sense.
        UnsupportedFeature: the image is encrypted, or lies in several files.
    """
    offset = _find(file)
    data = _read(file, offset, _LENGTH, "The trailer")
    (data_offset,) = struct.unpack_from(">Q", data, 24)
    resource = struct.unpack_from(">QQ", data, 40)
    (segments,) = struct.unpack_from(">I", data, 60)
    plist = struct.unpack_from(">QQ", data, 216)
    (sectors,) = struct.unpack_from(">Q", data, 492)
    if segments > 1:
        raise UnsupportedFeature(f"The image is one of {segments} parts: only images of one file can be read")
    if data_offset > offset:
        raise InvalidImage(f"The data begin at {data_offset:#x}, behind the trailer")
    for what, (start, length) in (("resource fork", resource), ("property list", plist)):
        if start >= offset or length > offset - start:
            raise InvalidImage(f"The {what} at {start:#x} does not lie before the trailer")
    if sectors > INT64_MAX // SECTOR:
        raise InvalidImage(f"A disk of {sectors} sectors is too large")
    return Trailer(offset, data_offset, resource, plist, sectors * SECTOR)


def _find(file: BlockNode) -> int:
    whole = -(-file.length // SECTOR) * SECTOR
    if whole < _LENGTH:
        raise InvalidImage("dmg file must be at least 512 bytes long")
    start = max(0, whole - 2 * SECTOR + 1)
    found = read_or_say(file, start, min(_SEARCHED, file.length - start), "Failed while reading UDIF trailer").find(
        MAGIC
    )
    if found < 0:
        if file.read(0, len(_ENCRYPTED)) == _ENCRYPTED:
            raise UnsupportedFeature("Encrypted disk images are not supported")
        raise InvalidImage("Could not locate UDIF trailer in dmg file")
    return start + found


def read_tables(file: BlockNode, trailer: Trailer) -> Iterator[bytes]:
    """What lies in the resource fork or, where there is none, the property list: tables, and other things.

    Raises:
        InvalidImage: they are malformed, or too large.
    """
    if trailer.resource[1]:
        return _resources(file, *trailer.resource)
    if trailer.plist[1]:
        return _data_elements(file, *trailer.plist)
    raise InvalidImage("The image has neither a resource fork nor a property list")


def _resources(file: BlockNode, start: int, length: int) -> Iterator[bytes]:
    """The resources of a fork; the map of their names is left alone."""
    offset, _, count = struct.unpack(">III", _read(file, start, 12, "The resource fork"))
    if not count or offset > length or offset + count > length:
        raise InvalidImage("The resource fork is too short for its data")
    if count > _MAX_TABLES:
        raise InvalidImage(f"The resource fork holds {count} bytes; {_MAX_TABLES} are the most")
    data = _read(file, start + offset, count, "The resource fork")
    at = 0
    while at < count:
        if count - at < 4:
            raise InvalidImage("The resource fork ends within a resource")
        (size,) = struct.unpack_from(">I", data, at)
        at += 4
        if not size or size > count - at:
            raise InvalidImage(f"A resource of {size} bytes does not fit the resource fork")
        yield data[at : at + size]
        at += size


def _data_elements(file: BlockNode, start: int, length: int) -> Iterator[bytes]:
    """The bytes of the ``data`` elements of a property list. The rest of it is not read."""
    if length > _MAX_TABLES:
        raise InvalidImage(f"The property list has {length} bytes; {_MAX_TABLES} are the most")
    text = _read(file, start, length, "The property list")
    at = 0
    while (begin := text.find(b"<data>", at)) >= 0:
        end = text.find(b"</data>", begin)
        if end < 0:
            raise InvalidImage("The property list ends within its data")
        try:
            yield binascii.a2b_base64(text[begin + 6 : end])
        except binascii.Error as error:
            raise InvalidImage(f"The property list holds data that are no base64: {error}") from None
        at = end


def _read(file: BlockNode, offset: int, length: int, what: str) -> bytes:
    if offset + length > file.length:
        raise InvalidImage(f"{what} lies beyond the end of the file: the image is truncated")
    return bytes(file.read(offset, length))

"""What images of formats that we do not open claim: how large they are, and which other files they name.

Read from fixed places, without the formats' own checks: it is shown to who must decide about an image that is refused
anyway. Text is scanned as text; a name found is a name to show, never to open.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, Literal, NamedTuple

from hostel.units import INT64_MAX, SECTOR, KiB

Read = Callable[[int, int], bytes]

MAX_NAMES: Final = 64
_MAX_TEXT: Final = 1024 * KiB  # bytes of a descriptor that are looked at; VMware's have a few kilobytes
_MAX_NAME: Final = 4096
_FOOTER: Final = 0xFFFFFFFFFFFFFFFF  # the grain directory's offset of a VMDK whose real header is at its end
_EXTENT: Final = re.compile(
    rb'^[ \t]*(?:RW|RDONLY|NOACCESS)[ \t]+(\d{1,19})[ \t]+[A-Z]+(?:[ \t]+"([^"\r\n]*)")?', re.MULTILINE | re.IGNORECASE
)
_PARENT: Final = re.compile(rb'^[ \t]*parentFileNameHint[ \t]*=[ \t]*"?([^"\r\n]*)', re.MULTILINE | re.IGNORECASE)


class Claim(NamedTuple):
    """Another file that an image names.

    Attributes:
        role: ``backing`` or ``extent``.
        filename: as recorded.
        format: as recorded; None where the image does not say.
    """

    role: str
    filename: str
    format: str | None = None


class Claims(NamedTuple):
    """What an image says of itself.

    Attributes:
        virtual_size: bytes; None where it says nothing believable.
        names: the other files, :data:`MAX_NAMES` at most.
    """

    virtual_size: int | None = None
    names: tuple[Claim, ...] = ()


class _Place(NamedTuple):
    """Where a header gives the virtual size: an unsigned number of 8 bytes, in units of so many bytes."""

    offset: int
    order: Literal["big", "little"]
    unit: int = 1


_LENGTHS: Final = {
    "qcow": _Place(24, "big"),
    "qcow2": _Place(24, "big"),
    "qed": _Place(48, "little"),
    "vdi": _Place(368, "little"),
    "vmdk": _Place(12, "little", SECTOR),
    "vpc": _Place(48, "big"),
}


def claims(format: str, read: Read, length: int) -> Claims:
    """What an image of a format claims; ``read`` gives bytes at an offset, fewer where the file ends at ``length``.

    Raises:
        OSError: what ``read`` raises.
    """
    if format == "vmdk":
        return _vmdk(read, length)
    size = recorded_length(format, read)
    if format == "qcow":
        return Claims(size, _backing(read, "big", read(8, 12)))
    return Claims(size)


def recorded_length(format: str, read: Read) -> int | None:
    """The virtual size that a header gives, read from its fixed place; None where there is none to believe."""
    place = _LENGTHS.get(format)
    data = read(place.offset, 8) if place is not None else b""
    if place is None or len(data) < 8:
        return None
    length = int.from_bytes(data, place.order) * place.unit
    return length if 0 < length <= INT64_MAX else None


def text(raw: bytes) -> str:
    """A name as text; what is no UTF-8 is kept."""
    return raw.split(b"\0")[0].decode(errors="surrogateescape")


def _backing(read: Read, order: Literal["big", "little"], place: bytes) -> tuple[Claim, ...]:
    """The backing file whose name has its offset (8 bytes) and length (4 bytes) in ``place``."""
    offset, length = int.from_bytes(place[:8], order), int.from_bytes(place[8:12], order)
    if not offset or not length or offset > INT64_MAX - _MAX_NAME:
        return ()
    name = text(read(offset, min(length, _MAX_NAME)))
    return (Claim("backing", name),) if name else ()


def _vmdk(read: Read, length: int) -> Claims:
    head = read(0, SECTOR)
    if not head.startswith(b"KDMV"):
        return _descriptor(read(0, _MAX_TEXT), None)
    found = _sparse(read, head)
    if int.from_bytes(head[56:64], "little") == _FOOTER:
        # The header is only a first guess then: the one that counts is the last but one sector.
        footer = read(max(0, length - 2 * SECTOR), SECTOR)
        if footer.startswith(b"KDMV"):
            last = _sparse(read, footer)
            names = (*found.names, *(each for each in last.names if each not in found.names))
            return Claims(last.virtual_size or found.virtual_size, names[:MAX_NAMES])
    return found


def _sparse(read: Read, header: bytes) -> Claims:
    """A sparse extent's own descriptor; its extents are the file itself where the file stands alone."""
    capacity = int.from_bytes(header[12:20], "little") * SECTOR
    offset = int.from_bytes(header[28:36], "little") * SECTOR
    length = int.from_bytes(header[36:44], "little") * SECTOR
    size = capacity if 0 < capacity <= INT64_MAX else None
    if not offset or offset > INT64_MAX - _MAX_TEXT:
        return Claims(size)
    return _descriptor(read(offset, min(length, _MAX_TEXT)), size)


def _descriptor(data: bytes, size: int | None) -> Claims:
    names: list[Claim] = []
    sectors = 0
    for match in _EXTENT.finditer(data):
        sectors += int(match[1])
        if match[2] is not None and len(names) < MAX_NAMES:
            names.append(Claim("extent", text(match[2][:_MAX_NAME])))
    parent = _PARENT.search(data)
    if parent is not None and (name := text(parent[1][:_MAX_NAME])):
        names.append(Claim("backing", name))
    claimed = sectors * SECTOR
    return Claims(size or (claimed if 0 < claimed <= INT64_MAX else None), tuple(names))

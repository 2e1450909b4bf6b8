"""What images of formats that we do not open claim: how large they are, and which other files they name.

Read from fixed places, without the formats' own checks: it is shown to who must decide about an image that is refused
anyway. A name found is a name to show, never to open.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal, NamedTuple

from hostel.units import INT64_MAX, SECTOR

Read = Callable[[int, int], bytes]

_MAX_NAME: Final = 4096


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
        names: the other files.
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
    size = recorded_length(format, read)
    if format == "qcow":
        return Claims(size, _backing(read, "big", read(8, 12)))
    return Claims(size)


def recorded_length(format: str, read: Read) -> int | None:
    """The virtual size that a header gives, read from its fixed place; None where there is none to believe."""
    place = _LENGTHS.get(format)
    if format == "vmdk" and read(0, 4) != b"KDMV":
        return None  # text, or a disk of ESX
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

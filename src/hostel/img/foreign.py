"""What images claim before a driver has looked at them: how large they are, and which other files they name.

Read from fixed places, without the formats' own checks: it is shown to who must decide about an image that is refused
anyway. A name found is a name to show, never to open.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal, NamedTuple

from hostel.units import INT64_MAX, SECTOR

Read = Callable[[int, int], bytes]


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


def recorded_length(format: str, read: Read) -> int | None:
    """The virtual size that a header gives, read from its fixed place; None where there is none to believe.

    ``read`` gives bytes at an offset, fewer where the file ends.

    Raises:
        OSError: what ``read`` raises.
    """
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

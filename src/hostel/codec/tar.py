"""Where the files of a tar archive lie, as OVF archives use it: POSIX ``ustar``, with the long names of GNU and pax.

Headers are read and nothing else, so that an archive of any size takes little memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from hostel.errors import InvalidImage
from hostel.units import INT64_MAX, KiB

BLOCK: Final = 512
_MAX_EXTRA: Final = 64 * KiB  # bytes of a long name or of pax records
_REGULAR: Final = (b"0", b"\0", b"7")

# Gives bytes at an offset, fewer where the file ends.
Read = Callable[[int, int], bytes]


class Member(NamedTuple):
    """A regular file.

    Attributes:
        name: as the archive has it.
        offset: where its bytes begin, a multiple of 512.
        size: bytes; zeroes follow up to the next multiple of 512.
    """

    name: str
    offset: int
    size: int


def members(read: Read, length: int, most: int) -> Iterator[Member]:
    """The regular files of an archive of ``length`` bytes.

    Args:
        read: reads the archive.
        length: the archive's, bytes.
        most: how many headers are looked at.

    Raises:
        InvalidImage: the archive is malformed, cut off, or has more files.
    """
    at, extra = 0, dict[str, str]()
    for _ in range(most):
        header = read(at, BLOCK)
        if len(header) < BLOCK or not any(header):
            return
        _check(header, at)
        size, kind = _number(header[124:136], at), header[156:157]
        start = at + BLOCK
        if kind in (b"x", b"L"):
            if size > _MAX_EXTRA:
                raise InvalidImage(f"The tar header at {at:#x} has a name of {size} bytes")
            extra |= _extra(kind, read(start, size), at)
        else:
            if "size" in extra:
                size = _decimal(extra["size"], at)
            if kind in _REGULAR:
                if size > INT64_MAX or start + size > length:
                    raise InvalidImage(f"The file at {at:#x} in the archive lies beyond its end: it is cut off")
                yield Member(extra.get("path", _name(header)), start, size)
            if kind != b"g":
                extra = {}
        at = start + -(-size // BLOCK) * BLOCK
    raise InvalidImage(f"The archive has more than {most} files")


def _check(header: bytes, at: int) -> None:
    expected = _number(header[148:156], at)
    if sum(header[:148]) + 8 * 32 + sum(header[156:]) != expected:
        raise InvalidImage(f"The tar header at {at:#x} is broken")


def _name(header: bytes) -> str:
    name = header[:100].partition(b"\0")[0]
    prefix = header[345:500].partition(b"\0")[0] if header[257:263] == b"ustar\0" else b""
    return (prefix + b"/" + name if prefix else name).decode(errors="surrogateescape")


def _number(field: bytes, at: int) -> int:
    """An octal number, or one of base 256 behind a set bit."""
    if field[0] & 0x80:
        return int.from_bytes(field, "big") & (1 << 8 * len(field) - 1) - 1
    text = field.strip(b" \0")
    try:
        return int(text or b"0", 8)
    except ValueError:
        raise InvalidImage(f"A number in the tar header at {at:#x} is none") from None


def _decimal(text: str, at: int) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 19:
        raise InvalidImage(f"A number in the tar header at {at:#x} is none")
    return int(text)


def _extra(kind: bytes, data: bytes, at: int) -> dict[str, str]:
    """What a header says of the file after it."""
    if kind == b"L":
        return {"path": data.partition(b"\0")[0].decode(errors="surrogateescape")}
    found = {}
    while data.strip(b"\0"):
        count, blank, _ = data.partition(b" ")
        length = _decimal(count.decode("latin-1"), at)
        if not blank or not len(count) < length <= len(data):
            raise InvalidImage(f"The pax records at {at:#x} are broken")
        key, _, value = data[len(count) + 1 : length].removesuffix(b"\n").partition(b"=")
        found[key.decode(errors="surrogateescape")] = value.decode(errors="surrogateescape")
        data = data[length:]
    return found

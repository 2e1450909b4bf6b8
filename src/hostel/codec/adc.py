"""Apple Data Compression, as disk images of Mac OS before 10.2 have it: bytes as they are, and copies of earlier ones.

There is no document of it. A first byte over 0x7f is followed by up to 128 bytes as they are; one over 0x3f starts a
copy of 4 to 67 bytes from up to 64 KiB back, any other one a copy of 3 to 18 bytes from up to 1 KiB back.
"""

from __future__ import annotations

from hostel.errors import CorruptImage


def unpack(data: bytes | bytearray | memoryview, length: int) -> bytes:
    """Decompress to exactly ``length`` bytes; what follows them is ignored.

    Raises:
        CorruptImage: the data ends too early, reaches back before its start, or holds more.
    """
    out = bytearray()
    at = 0
    try:
        while len(out) < length:
            first = data[at]
            if first & 0x80:
                count = (first & 0x7F) + 1
                part = data[at + 1 : at + 1 + count]
                if len(part) != count:
                    raise IndexError
                out += part
                at += 1 + count
            elif first & 0x40:
                _copy(out, (first & 0x3F) + 4, (data[at + 1] << 8 | data[at + 2]) + 1)
                at += 3
            else:
                _copy(out, (first >> 2) + 3, ((first & 3) << 8 | data[at + 1]) + 1)
                at += 2
    except IndexError:
        raise CorruptImage(f"it ends after {len(out)} of {length} bytes") from None
    if len(out) != length:
        raise CorruptImage(f"it holds more than {length} bytes")
    return bytes(out)


def _copy(out: bytearray, count: int, back: int) -> None:
    """Append bytes from so far back; they overlap where there are fewer of them than wanted."""
    start = len(out) - back
    if start < 0:
        raise CorruptImage("it reaches back before its start")
    part = out[start : start + count]
    while len(part) < count:
        part += part[: count - len(part)]
    out += part

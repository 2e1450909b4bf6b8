"""What is in a compressed file, by its first bytes, and how large it may become: nothing else of it is unpacked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from hostel.block import probe
from hostel.block.content import look as look_at_content
from hostel.block.filters.packed.layout import xz_units, zstd_units
from hostel.codec.stream import gunzip, unxz, unzstd_frames
from hostel.errors import BlockError, UnsupportedFeature
from hostel.img import foreign
from hostel.img.inspection import Inside, Level, Look
from hostel.units import KiB

_HEAD: Final = 68 * KiB  # bytes: as far as the signatures of file systems lie
_STREAMS: Final[dict[str, Callable[[Callable[[int], bytes]], Iterator[bytes]]]] = {
    "gzip": gunzip,
    "xz": unxz,
    "zstd": unzstd_frames,
}
_GZIP_RATIO: Final = 1032  # deflate makes no more of a byte
_ZSTD_BLOCKS: Final = 1 << 16


def look_inside_wrapper(look: Look, wrapper: str, limit: int | None) -> Inside | None:
    """Look at the start of what is in a compressed file, and hold its size against ``limit``, bytes.

    None for what cannot be looked into.
    """
    stream = _STREAMS.get(wrapper)
    if stream is None:
        return None
    try:
        head = _head(look, stream)
        size = _size(look, wrapper)
    except UnsupportedFeature as error:
        look.add(Level.UNSAFE, "unsupported-feature", f"The compressed file cannot be looked into: {error}")
        return None
    except BlockError as error:
        look.add(Level.UNSAFE, "malformed", f"The compressed file is broken: {error}")
        return None
    found = probe.matching(head, "")
    content = look_at_content(lambda offset, length: head[offset : offset + length])
    format = found[0] if found else next(iter(content.names()), "raw")
    claimed = foreign.recorded_length(found[0], lambda at, length: head[at : at + length]) if found else None
    largest = look.length * _GZIP_RATIO if wrapper == "gzip" else size
    inside = Inside(wrapper, format, size, largest, claimed)
    _judge(look, inside, limit)
    return inside


def _head(look: Look, stream: Callable[[Callable[[int], bytes]], Iterator[bytes]]) -> bytes:
    at = 0

    def read(length: int) -> bytes:
        nonlocal at
        data = look.read(at, length if length >= 0 else _HEAD)
        at += len(data)
        return data

    head = b""
    for piece in stream(read):
        head += piece
        if len(head) >= _HEAD:
            break
    return head[:_HEAD]


def _size(look: Look, wrapper: str) -> int | None:
    """What the file says of itself; gzip's own number counts to 4 GiB and begins again."""
    if wrapper == "gzip":
        return None
    units = xz_units(look.file) if wrapper == "xz" else zstd_units(look.file, blocks=_ZSTD_BLOCKS, window=64)
    lengths = [unit.length for unit in units if unit.length is not None]
    return sum(lengths) if len(lengths) == len(units) else None


def _judge(look: Look, inside: Inside, limit: int | None) -> None:
    if limit is None:
        return
    if inside.largest is None or inside.largest > limit:
        much = "nobody knows how many" if inside.largest is None else f"up to {inside.largest}"
        look.add(Level.UNSAFE, "unpacked-size", f"The compressed file may hold {much} bytes; {limit} are allowed")
    if inside.virtual_size is not None and inside.virtual_size > limit:
        look.add(
            Level.UNSAFE,
            "virtual-size",
            f"The virtual size of the image inside is {inside.virtual_size} bytes, and may not be over {limit}",
        )

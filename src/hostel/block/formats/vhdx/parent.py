"""The parent of a differencing image: how it is named, and which sectors are its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from hostel.block.driver import Reference
from hostel.block.formats.block_table import ABSENT, Run
from hostel.block.formats.vhdx.layout import VHDX_PARENT
from hostel.block.node import BlockNode
from hostel.block.parent import from_windows
from hostel.errors import InvalidImage, UnsupportedFeature
from hostel.units import KiB

_PIECE: Final = 4 * KiB  # bytes of a bitmap that are looked at together
_NAMES: Final = ("relative_path", "absolute_win32_path", "volume_path")  # the best first


def parent_of(locator: bytes) -> Reference:
    """The parent that a locator describes.

    Raises:
        InvalidImage: the locator is malformed.
        UnsupportedFeature: the parent is of another kind.
    """
    if len(locator) < 20:
        raise InvalidImage("The VHDX parent locator is cut off")
    if locator[:16] != VHDX_PARENT:
        raise UnsupportedFeature("The parent of the VHDX image is none of VHDX")
    count = int.from_bytes(locator[18:20], "little")
    values: dict[str, str] = {}
    for at in range(20, 20 + 12 * count, 12):
        entry = locator[at : at + 12]
        key_offset, value_offset = int.from_bytes(entry[:4], "little"), int.from_bytes(entry[4:8], "little")
        key_length, value_length = int.from_bytes(entry[8:10], "little"), int.from_bytes(entry[10:12], "little")
        ends = max(key_offset + key_length, value_offset + value_length)
        if len(entry) < 12 or ends > len(locator):
            raise InvalidImage("The VHDX parent locator is cut off")
        key = locator[key_offset : key_offset + key_length].decode("utf-16-le", "replace")
        values[key] = locator[value_offset : value_offset + value_length].decode("utf-16-le", "replace")
    linkage = values.get("parent_linkage", "").strip("{}").lower()
    if not linkage:
        raise InvalidImage("The VHDX parent locator does not say which image the parent is")
    name = next((values[key] for key in _NAMES if values.get(key)), "")
    return Reference("backing", from_windows(name), "vhdx", unique_id=linkage)


def split_by_bitmap(file: BlockNode, bitmap: int, run: Run, first: int, sector_size: int) -> Iterator[Run]:
    """A run split where the bitmap of its chunk changes between the image's own sectors and its parent's.

    Args:
        file: what the bitmap lies in.
        bitmap: where the chunk's bitmap begins, bytes.
        run: inside one block.
        first: the chunk's first byte on the disk.
        sector_size: bytes of a sector, which has one bit; the first has the lowest of the first byte.
    """
    offset, end = run.offset, run.offset + run.length
    start, current = offset, -1
    while offset < end:
        sector = (offset - first) // sector_size
        place = sector // 8 // _PIECE * _PIECE
        bits = int.from_bytes(file.read(bitmap + place, _PIECE), "little")
        index, limit = sector - 8 * place, 8 * _PIECE
        while offset < end and index < limit:
            value = bits >> index & 1
            rest = bits >> index
            # How many bits are the same: trailing zeroes of the rest, or of its complement.
            other = ~rest if value else rest
            same = (other & -other).bit_length() - 1 if other else limit - index
            same = min(same, limit - index)
            if value != current:
                if current >= 0 and offset > start:
                    yield _part(run, start, offset, current)
                start, current = offset, value
            index += same
            offset = min(end, first + (8 * place + index) * sector_size)
    if current >= 0:
        yield _part(run, start, end, current)


def _part(run: Run, start: int, end: int, present: int) -> Run:
    return Run(start, end - start, run.host + start - run.offset if present else ABSENT)

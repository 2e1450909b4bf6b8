"""Checking the block allocation table: blocks lie inside the file, apart from the rest and from each other."""

from __future__ import annotations

import errno
import itertools
from array import array
from collections.abc import Iterator
from typing import Final

from hostel.block.formats.block_table import BlockTable
from hostel.block.formats.findings import Findings
from hostel.block.formats.vhdx import layout
from hostel.block.formats.vhdx.layout import BlockState
from hostel.block.formats.vhdx.region import Metadata, Regions
from hostel.block.powers import CheckResult, Report
from hostel.errors import CorruptImage, InvalidImage
from hostel.units import INT64_MAX, MiB

_TRUNCATED: Final = "Image has probably been truncated."


def require_sound_table(table: BlockTable, metadata: Metadata, regions: Regions, length: int) -> None:
    """Refuse an image whose blocks lie outside the file of ``length`` bytes, or over its other parts.

    Raises:
        InvalidImage: a block lies beyond the end.
        CorruptImage: a block lies where it must not.
    """
    for line in _findings(table, metadata, regions, length):
        raise (InvalidImage if line.endswith(_TRUNCATED) else CorruptImage)(line, errno=errno.EINVAL)


def check_table(table: BlockTable, metadata: Metadata, regions: Regions, length: int, report: Report) -> CheckResult:
    """Report what is wrong with a table, in QEMU's words; blocks over blocks, and states that say nothing, are ours."""
    findings = Findings(report)
    for line in (
        *_findings(table, metadata, regions, length),
        *_overlaps(table, metadata),
        *_senseless(table, metadata),
    ):
        findings.corruption(line)
    return findings.result


def last_end(table: BlockTable, metadata: Metadata, regions: Regions) -> int:
    """Where the last part of the image ends, bytes; what lies behind it in a file is of nobody."""
    end = max(area.end for area in regions.areas)
    for index, entry in _placed(table):
        is_bitmap = index % (metadata.chunk + 1) == metadata.chunk
        end = max(end, (entry & layout.PLACE_MASK) + (MiB if is_bitmap else metadata.block_size))
    return end


def _findings(table: BlockTable, metadata: Metadata, regions: Regions, length: int) -> Iterator[str]:
    chunk, size = metadata.chunk, metadata.block_size
    for index, entry in _placed(table, max(area.end for area in regions.areas), length - size):
        offset = entry & layout.PLACE_MASK
        is_bitmap = index % (chunk + 1) == chunk
        block = index - index // (chunk + 1)
        # QEMU once made last blocks that are no longer than the disk.
        real = MiB if is_bitmap else min(size, metadata.size - block * size)
        if offset > INT64_MAX - size:
            yield f"VHDX BAT entry {index} offset overflow."
        elif offset >= length:
            yield (f"VHDX BAT entry {index} start offset {offset} points after end of file ({length}). {_TRUNCATED}")
        elif offset + real > length:
            yield (
                f"VHDX BAT entry {index} end offset {offset + real - 1} points after end of file ({length}). "
                f"{_TRUNCATED}"
            )
        end = offset + (MiB if is_bitmap else size)
        for area in regions.areas:
            if offset < area.end and area.offset < end:
                yield f"VHDX region {offset}-{end} overlaps with region {area.offset}-{area.end}."
                break


def _overlaps(table: BlockTable, metadata: Metadata) -> Iterator[str]:
    chunk, size = metadata.chunk, metadata.block_size
    places = sorted(
        (entry & layout.PLACE_MASK, index, MiB if index % (chunk + 1) == chunk else size)
        for index, entry in _placed(table)
    )
    for (offset, index, length), (following, other, _) in itertools.pairwise(places):
        if following < offset + length:
            yield f"VHDX BAT entries {index} and {other} overlap, at {offset} and {following}"


def _senseless(table: BlockTable, metadata: Metadata) -> Iterator[str]:
    """Entries of blocks that no driver reads: of an unknown state, or there in part and there is no parent."""
    wrong = {4} if metadata.parent is not None else {4, BlockState.PARTIALLY_PRESENT}
    for first, entries in table.pages():
        if _is_uniform(entries) and entries[0] & layout.STATE_MASK not in wrong:
            continue
        for index, entry in enumerate(entries, first):
            if entry & layout.STATE_MASK in wrong and index % (metadata.chunk + 1) != metadata.chunk:
                yield f"VHDX BAT entry {index} is 0x{entry:x}, whose state makes no sense"


def _placed(table: BlockTable, low: int = 0, high: int = -1) -> Iterator[tuple[int, int]]:
    """The entries that have places, by their indexes, but for pages with all places between ``low`` and ``high``."""
    for first, entries in table.pages():
        if _is_uniform(entries) and not _has_place(entries[0]):
            continue
        placed = [entry for entry in entries if entry & 6 == 6]  # fully or partially present
        if placed and not (low <= min(placed) and max(placed) & layout.PLACE_MASK <= high):
            yield from ((index, entry) for index, entry in enumerate(entries, first) if entry & 6 == 6)


def _is_uniform(entries: array[int]) -> bool:
    return entries == entries[:1] * len(entries)


def _has_place(entry: int) -> bool:
    return entry & layout.STATE_MASK in (BlockState.FULLY_PRESENT, BlockState.PARTIALLY_PRESENT)

"""Checking a disk's tables: each grain lies in its file, after the metadata, and belongs to one place of the disk only.

QEMU looks at what lies beyond a file's end only, and stops at the first; here all of it is counted. Nothing is
repaired: what a wrong entry should have been, nobody knows.
"""

from __future__ import annotations

from array import array
from typing import Final

from hostel.block.formats.findings import Findings
from hostel.block.formats.vmdk.extent import FlatExtent, Kind
from hostel.block.formats.vmdk.image import VmdkImage
from hostel.block.formats.vmdk.mapped import MappedExtent
from hostel.block.formats.vmdk.sparse import SparseExtent
from hostel.block.powers import CheckResult, Report
from hostel.errors import BlockError
from hostel.units import SECTOR

# Bytes that an entry can take of what is remembered: a hostile one leads far from all others, and its file has holes.
_PAGE: Final = 512


def check_image(image: VmdkImage, report: Report) -> CheckResult:
    """Check all extents; each finding is a line to ``report``."""
    findings = Findings(report)
    for extent in image.extents:
        if isinstance(extent, FlatExtent):
            if extent.offset >= extent.file.length:
                findings.corruption(f"ERROR: cluster offset for sector {extent.start // SECTOR} points after EOF")
        else:
            assert isinstance(extent, MappedExtent)
            _check_mapped(findings, extent)
    return findings.result


def _check_mapped(findings: Findings, extent: MappedExtent) -> None:
    seen = _SeenSectors() if extent.compressed or extent.grain_size == SECTOR else _Seen(extent.grain_size)
    index, count = 0, -(-extent.length // extent.reach)
    while index < count:
        if absent := extent.directory.absent(index):
            index += absent
            continue
        start = index * extent.reach
        sector = (extent.start + start) // SECTOR
        try:
            table = extent.tables[index]
            if table is not None and isinstance(extent, SparseExtent) and not extent.has_footer:
                extent.require_tables(index)
        except BlockError as error:
            findings.corruption(f"ERROR: could not get cluster_offset for sector {sector}: {error}")
        else:
            if table is not None:
                _check_table(findings, extent, table, start, seen)
        index += 1


def _check_table(
    findings: Findings, extent: MappedExtent, table: array[int], start: int, seen: _Seen | _SeenSectors
) -> None:
    for at, entry in enumerate(table):
        offset = start + at * extent.grain_size
        if not entry or offset >= extent.length:
            continue
        sector = (extent.start + offset) // SECTOR
        try:
            kind, host = extent.decode(entry)
        except BlockError as error:
            findings.corruption(f"ERROR: could not get cluster_offset for sector {sector}: {error}")
            continue
        if kind is Kind.ZERO:
            continue
        if host >= extent.file_end:
            findings.corruption(f"ERROR: cluster offset for sector {sector} points after EOF")
        elif host < extent.first_grain:
            findings.corruption(f"ERROR: cluster offset for sector {sector} points into the metadata")
        elif seen.add(host):
            findings.corruption(f"ERROR: cluster offset for sector {sector} is that of another sector too")


class _Seen:
    """Which grains of a file have been seen: where one begins in each grain's length of it, in pages made when wanted.

    Two that begin in one such length share bytes, and so do some that begin in neighbours.
    """

    def __init__(self, grain_size: int) -> None:
        self._unit = grain_size
        units = grain_size // SECTOR
        self._typecode = "B" if units < 1 << 8 else "H" if units < 1 << 16 else "I"
        self._cells = _PAGE // array(self._typecode).itemsize
        self._pages: dict[int, array[int]] = {}

    def add(self, host: int) -> bool:
        """Note a grain; whether one that was noted has some of its bytes."""
        cell, rest = divmod(host, self._unit)
        number, at = divmod(cell, self._cells)
        page = self._pages.get(number)
        if page is None:
            page = self._pages[number] = array(self._typecode, bytes(_PAGE))
        rest = rest // SECTOR + 1  # 0 is none
        before = page[at - 1] if at else self._at(cell - 1)
        after = page[at + 1] if at + 1 < self._cells else self._at(cell + 1)
        if page[at] or before > rest or 0 < after < rest:
            return True
        page[at] = rest
        return False

    def _at(self, cell: int) -> int:
        page = self._pages.get(cell // self._cells)
        return page[cell % self._cells] if page is not None else 0


class _SeenSectors:
    """In which sectors of a file grains have been seen to begin, a bit for each; at most one begins in a sector.

    Of compressed grains no more is known, and those of one sector cannot begin anywhere else.
    """

    def __init__(self) -> None:
        self._pages: dict[int, bytearray] = {}

    def add(self, host: int) -> bool:
        """Note a grain; whether one that was noted begins in the same sector."""
        number, bit = divmod(host // SECTOR, _PAGE * 8)
        page = self._pages.get(number)
        if page is None:
            page = self._pages[number] = bytearray(_PAGE)
        at, mask = bit >> 3, 1 << (bit & 7)
        if page[at] & mask:
            return True
        page[at] |= mask
        return False

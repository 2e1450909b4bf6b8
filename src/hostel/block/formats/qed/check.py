"""Checking and repairing a qed image ("Consistency checking" in the specification).

Each cluster has one reference at most, and lies inside the file. A reference that makes no sense is dropped, as QEMU
does; a data cluster that several entries share is copied for all but one of them, which QEMU leaves alone. Clusters
that nothing refers to can be given back at the end of the file only.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from hostel.block.formats.findings import Findings
from hostel.block.formats.pieces import pieces
from hostel.block.formats.qcow2.reference_count import ReferenceCounts
from hostel.block.formats.qed.layout import ZERO_CLUSTER
from hostel.block.powers import CheckResult, Repair, Report
from hostel.errors import UnsupportedFeature
from hostel.units import MiB

if TYPE_CHECKING:
    from hostel.block.formats.qed.driver import QedDriver

_PIECE: Final = MiB // 2  # bytes copied at once
_PAGE: Final = 512  # clusters


def check_image(driver: QedDriver, repair: Repair, report: Report) -> CheckResult:
    """Check an image whose tables are all on the disk, and repair what ``repair`` allows.

    Raises:
        OSError: a repair could not be written.
    """
    findings = Findings(report, repair)
    _Check(driver, findings).run()
    return findings.result


class _Check:
    def __init__(self, driver: QedDriver, findings: Findings) -> None:
        self._driver = driver
        self._header = driver.header
        self._file = driver.file
        self._file_end = driver.end
        self._findings = findings
        self._counts = ReferenceCounts(_PAGE)
        self._tables: list[int] = []  # host offsets of sound L2 tables
        self._fixes: list[tuple[int, int]] = []  # where an entry lies, and what it becomes
        self.result = findings.result

    def run(self) -> None:
        header, result = self._header, self.result
        size = header.cluster_size
        result.total_clusters = -(-header.image_size // size)
        self._counts.add(header.l1_table_offset // size, header.table_size)
        for place, table in self._entries(header.l1_table_offset):
            self._check_table(place, table)
        for table in self._tables:
            self._check_l2(table)
        shared = {cluster for cluster, _ in self._counts.above(1)}
        if shared and self._findings.repair is Repair.ALL and not result.check_errors:
            # Copies take the place of what nothing refers to at the end of the file: between others it would stay lost.
            self._driver.end = self._counts.end() * size
        if shared:
            self._check_shared(shared)
        self._write_fixes()
        if not result.check_errors:
            self._check_leaks()

    def _entries(self, table: int) -> Iterator[tuple[int, int]]:
        """The entries of a table that are not 0, each with the host offset where it lies."""
        for start, entries in self._pieces(table):
            for index, entry in enumerate(entries):
                if entry:
                    yield start + index * 8, entry

    def _pieces(self, table: int) -> Iterator[tuple[int, array[int]]]:
        """A table in pieces, without the holes that the host's file has in it."""
        try:
            yield from pieces(self._file, table, self._header.table_bytes, "Q", "little")
        except OSError as error:
            self.result.check_errors += 1
            self._findings.say(f"ERROR the table at offset {table:#x} cannot be read: {error.strerror}")

    def _check_table(self, place: int, table: int) -> None:
        header = self._header
        if not header.is_table(table, self._driver.end) or header.is_in_l1(table, header.table_bytes):
            self._drop(place, f"ERROR L2 table offset {table:#x} is invalid")
            return
        first = table // header.cluster_size
        shared = sum(self._counts[first + index] > 0 for index in range(header.table_size))
        if shared:
            # Only one of the two can be right, and nobody knows which.
            self.result.corruptions += shared
            self._findings.say(f"ERROR L2 table at offset {table:#x} overlaps another table")
            return
        self._counts.add(first, header.table_size)
        self._tables.append(table)

    def _check_l2(self, table: int) -> None:
        result, header = self.result, self._header
        size, end = header.cluster_size, self._driver.end
        last = 0
        for start, entries in self._pieces(table):
            index, stop = 0, len(entries)
            while index < stop:
                entry = entries[index]
                if entry <= ZERO_CLUSTER:
                    index += 1
                    continue
                result.fragmented_clusters += bool(last and last + size != entry)
                count = _run(entries, index, size) if header.is_cluster(entry, end) else 1
                count = min(count, (end - entry) // size) if count > 1 else 1
                result.allocated_clusters += count
                if header.is_cluster(entry, end):
                    self._counts.add(entry // size, count)
                else:
                    self._drop(start + index * 8, f"ERROR cluster offset {entry:#x} is invalid")
                last = entry + (count - 1) * size
                index += count

    def _check_shared(self, shared: set[int]) -> None:
        """Give each data cluster that has several references one of its own for all but the first of them."""
        size = self._header.cluster_size
        taken = set()
        tables = ReferenceCounts(_PAGE)
        for table in (self._header.l1_table_offset, *self._tables):
            tables.add(table // size, self._header.table_size)
        for table in self._tables:
            for place, entry in self._entries(table):
                cluster = entry // size
                if entry <= ZERO_CLUSTER or cluster not in shared or entry % size:
                    continue
                if cluster not in taken and not tables[cluster]:
                    taken.add(cluster)
                    continue
                self._findings.corruption(f"ERROR cluster at offset {entry:#x} has another reference")
                if self._findings.repairs_errors:
                    self._fixes.append((place, self._copy(entry)))

    def _copy(self, offset: int) -> int:
        size = self._header.cluster_size
        place = self._driver.take(size)
        for start in range(0, size, _PIECE):
            self._file.pwrite(place + start, self._file.read(offset + start, min(_PIECE, size - start)))
        self._counts.add(place // size, 1)
        return place

    def _drop(self, place: int, text: str) -> None:
        self._findings.corruption(text)
        if self._findings.repairs_errors:
            self._fixes.append((place, 0))

    def _write_fixes(self) -> None:
        if not self._fixes:
            return
        self._file.flush()
        for place, entry in self._fixes:
            self._file.pwrite(place, entry.to_bytes(8, "little"))
        self._file.flush()

    def _check_leaks(self) -> None:
        header, result = self._header, self.result
        size = header.cluster_size
        end = max(self._file_end, self._driver.end) // size
        used = sum(len(page) - page.count(0) for page in self._counts.pages.values())
        result.leaks = end - header.header_size - used
        if not result.leaks:
            return
        last = self._counts.end()
        self._findings.say(f"Leaked clusters: {result.leaks} of the file's {end}, {end - last} of them at its end")
        if self._findings.repairs_leaks and last < end:
            try:
                self._file.resize(last * size)
            except UnsupportedFeature:
                self._driver.end = end * size
                return  # a device, which has the size it has
            self._driver.end = last * size
            result.leaks_fixed = end - last
            result.leaks -= end - last


def _run(entries: array[int], index: int, size: int) -> int:
    """How many entries from ``index`` on point to one cluster after the other."""
    first, start = entries[index], index
    step = 1
    while index < len(entries) and entries[index] == first + (index - start) * size:
        stop = min(len(entries), index + step)
        expected = first + (index - start) * size
        if expected + (stop - index) * size >= 1 << 64:
            return max(1, index - start)
        if entries[index:stop] == array("Q", range(expected, expected + (stop - index) * size, size)):
            index, step = stop, step * 2
        elif step == 1:
            break
        else:
            step = max(1, step // 4)
    return index - start

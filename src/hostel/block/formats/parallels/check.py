"""Checking and repairing a parallels image, with QEMU 7.2's findings and words, and those of 8.1 on shared clusters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hostel.block.formats.findings import Findings
from hostel.block.formats.parallels import layout
from hostel.block.formats.parallels.extension import clusters, read_extension
from hostel.block.formats.qcow2.reference_count import ReferenceCounts
from hostel.block.powers import CheckResult, Repair, Report
from hostel.errors import InvalidImage, UnsupportedFeature
from hostel.units import SECTOR, MiB

if TYPE_CHECKING:
    from hostel.block.formats.parallels.driver import ParallelsDriver

_PAGE = 512  # clusters


def check_image(driver: ParallelsDriver, repair: Repair, report: Report) -> CheckResult:
    """Check an image whose table is on the disk, and repair what ``repair`` allows.

    Raises:
        OSError: the table cannot be read, or a repair not written.
    """
    findings = Findings(report, repair)
    _Check(driver, findings).run()
    return findings.result


class _Check:
    def __init__(self, driver: ParallelsDriver, findings: Findings) -> None:
        self._driver = driver
        self._header = driver.header
        self._file = driver.file
        self._findings = findings
        self._used = ReferenceCounts(_PAGE)
        self._base: int | None = None  # where in a cluster's length the first place lies, bytes
        self._odd: list[tuple[int, int | None]] = []  # places elsewhere in it, with their entries
        self._end = self._header.data_start
        self.result = findings.result

    def run(self) -> None:
        header, result = self._header, self.result
        result.total_clusters = header.bat_entries
        unclean = header.inuse == layout.IN_USE
        if unclean:
            self._count("image was not closed correctly")
        if unclean and self._findings.repairs_errors:
            # Bitmaps that may have missed a write are of no use.
            self._header = header.replace(inuse=0, ext_off=0)
        self._look_at_extension()
        shared = self._check_table()
        result.image_end_offset = self._end
        self._check_leaks()
        self._part(shared)
        if self._driver.bat.changed:
            self._file.flush()
            self._driver.bat.write()
        if self._header is not header:
            self._file.flush()
            self._file.pwrite(0, self._header.pack())
            self._driver.header = self._header
        if self._findings.repair:
            self._file.flush()

    def _look_at_extension(self) -> None:
        if not self._header.ext_off:
            return
        places = [self._header.ext_off * SECTOR]
        try:
            places = clusters(self._file, self._header, read_extension(self._file, self._header))
        except InvalidImage as error:
            self._count(f"format extension is dropped: {error}")
            if self._findings.repairs_errors:
                self._header = self._header.replace(ext_off=0)
                return
        except UnsupportedFeature as error:
            self.result.check_errors += 1
            self._findings.say(f"ERROR {error}")
        for place in places:
            if place < self._file.length:
                self._use(place)

    def _check_table(self) -> list[int]:
        """Look at each entry; returns the indices of those whose cluster another has, or that lies over another."""
        bat, header, result = self._driver.bat, self._header, self.result
        shared: list[int] = []
        last = -1
        place = 0
        index = bat.next_used(0, header.bat_entries)
        while index < header.bat_entries:
            before, place = (place if last == index - 1 else 0), bat[index] * header.unit
            last = index
            if place >= self._file.length or place < header.table_end:
                self._count(f"cluster {index} is outside image")
                if self._findings.repairs_errors:
                    bat[index] = 0
                    place = 0
                    index = bat.next_used(index + 1, header.bat_entries)
                    continue
            elif self._use(place, index):
                shared.append(index)
            result.allocated_clusters += 1
            result.fragmented_clusters += bool(before and before + header.cluster_size != place)
            index = bat.next_used(index + 1, header.bat_entries)
        return shared + self._overlapping()

    def _use(self, place: int, index: int | None = None) -> bool:
        """Count a cluster as used, that of an entry or of the extension; whether another has its place.

        Clusters usually lie a whole number of clusters apart. Of those that do not, whose entries count sectors, it
        cannot be told before all are known.
        """
        size = self._header.cluster_size
        self._end = max(self._end, place + size)
        if self._base is None:
            self._base = place % size
        cell, rest = divmod(place - self._base + size, size)
        if rest:
            self._odd.append((place, index))
            return False
        found = self._used[cell] > 0
        self._used.add(cell, 1)
        return found

    def _overlapping(self) -> list[int]:
        """The indices of entries whose clusters lie across others."""
        size, base, found = self._header.cluster_size, self._base or 0, []
        end = 0
        for place, index in sorted(self._odd, key=lambda each: (each[0], each[1] is not None)):
            cell = (place - base + size) // size
            if index is not None and (place < end or self._used[cell] or self._used[cell + 1]):
                found.append(index)
            else:
                end = place + size
        return found

    def _part(self, shared: list[int]) -> None:
        """Give each entry whose cluster is another's a copy of it."""
        size = self._header.cluster_size
        for index in shared:
            self._count(f"duplicate offset in BAT entry {index}")
            if not self._findings.repairs_errors:
                continue
            source = self._driver.bat[index] * self._header.unit
            start = self._header.data_start
            place = start + -(-(self._end - start) // size) * size
            for at in range(0, size, MiB):
                self._file.pwrite(place + at, self._file.read(source + at, min(MiB, size - at)))
            self._driver.bat[index] = place // self._header.unit
            self._end = place + size
            self.result.image_end_offset = self._end

    def _check_leaks(self) -> None:
        size, end = self._file.length, self.result.image_end_offset
        if size <= end:
            return
        count = -(-(size - end) // self._header.cluster_size)
        fixing = self._findings.repairs_leaks
        self._findings.say(f"{'Repairing' if fixing else 'ERROR'} space leaked at the end of the image {size - end}")
        if fixing:
            try:
                self._file.resize(end)
            except UnsupportedFeature:
                fixing = False  # a device, which has the size it has
        if fixing:
            self.result.leaks_fixed += count
        else:
            self.result.leaks += count

    def _count(self, text: str) -> None:
        self._findings.corruption(f"{'Repairing' if self._findings.repairs_errors else 'ERROR'} {text}")

"""Checking an image: count the references to every cluster and compare them with the refcounts.

Works on the bytes of the file alone, whatever the open image believes; see "Refcounts", "Cluster mapping" and
"Snapshots" in the qcow2 specification. The texts and the counts are QEMU's (``qemu-img check``).
"""

from __future__ import annotations

import errno
from array import array
from collections.abc import Iterator, Sequence
from typing import Final, Protocol

from hostel.block.formats.qcow2 import layout, snapshot_table
from hostel.block.formats.qcow2.geometry import Geometry
from hostel.block.formats.qcow2.header_limits import validate_table
from hostel.block.formats.qcow2.l2_table import L2Table
from hostel.block.formats.qcow2.layout import Autoclear, Extension, ExtensionType, Header, Incompatible
from hostel.block.formats.qcow2.reference_count import DiskRefcounts, ReferenceCounts, sum_of_ramp
from hostel.block.formats.qcow2.snapshot_table import Snapshot
from hostel.block.node import BlockNode
from hostel.block.powers import CheckResult, Repair, Report
from hostel.codec.table import unpack_table
from hostel.errors import BlockError, InvalidImage

_MAX_CLUSTERS: Final = 0x7FFFFFFF
_OVERFLOW_HINT: Final = (
    "Use qemu-img amend to increase the refcount entry width or qemu-img convert to create a clean copy if the "
    "image cannot be opened for writing"
)


class CheckedImage(Protocol):
    """What is needed of an image to check it."""

    @property
    def file(self) -> BlockNode:
        """The node that holds the image."""

    @property
    def header(self) -> Header:
        """The header's fixed fields."""

    @property
    def extensions(self) -> tuple[Extension, ...]:
        """The header's extensions."""

    @property
    def geometry(self) -> Geometry:
        """The derived sizes."""


def check_image(image: CheckedImage, repair: Repair, report: Report) -> CheckResult:
    """Check an image, and repair what ``repair`` allows; each finding is a line to ``report``.

    Nothing of the image may be held back in memory, and after a repair its tables must be read again.

    Raises:
        BlockError: the check could not be carried through.
        OSError: the host's own errors.
    """
    if repair:
        from hostel.block.formats.qcow2.repair import repair_image

        return repair_image(image, repair, report)
    return Check(image, report).run()


def _fault(what: str, error: BlockError, hint: str | None) -> InvalidImage:
    return InvalidImage(f"{what} {error.message}", errno=error.errno or errno.EINVAL, hint=hint)


class Check:
    """One pass over an image; changes nothing.

    Attributes:
        result: counts of the references' side and of the comparison.
        snapshots_size: bytes of the snapshot table that are counted as references.
        snapshot_corruptions: bad entries of the snapshot table: they are repaired after everything else.
        counts: the references counted.
        rebuild: the refcount structure itself is broken.
        unaligned_zeroes: host offsets of L2 entries that are zero and preallocated nowhere, with their references.
        outside: indexes of refcount blocks that lie outside the image.
        mismatches: per refcount block, slot to (refcount, references).
    """

    def __init__(self, image: CheckedImage, report: Report, repair: Repair = Repair.NOTHING) -> None:
        self.image = image
        self.file = image.file
        self.header = image.header
        self.geometry = image.geometry
        self.report = report
        self.repair = repair
        self.result = CheckResult()
        self.snapshots: list[Snapshot] = []
        self.snapshots_size = 0
        self.snapshot_corruptions = 0
        self.counts = ReferenceCounts(self.geometry.block_entries)
        self.rebuild = False
        self.unaligned_zeroes: dict[int, int] = {}
        self.outside: list[int] = []
        self.mismatches: dict[int, dict[int, tuple[int, int]]] = {}
        self._unread: set[int] = set()
        self.external = bool(self.header.incompatible_features & Incompatible.DATA_FILE)
        self.file_length = self.file.length
        self.total_clusters = self.geometry.clusters(self.file_length)
        if self.total_clusters > _MAX_CLUSTERS:
            raise BlockError("The file has too many clusters to be checked", errno=errno.EFBIG)
        self.result.total_clusters = self.geometry.clusters(self.header.size & ~511)
        self.refcounts = DiskRefcounts(self.file, self.geometry, self._reftable())
        step = self.geometry.cluster_size
        entries = self.geometry.l2_entries
        self._ramp = sum_of_ramp(entries, step)
        self._runs: dict[int, int] = {}  # the first entry of each L2 table that maps neighbours, by the table's place
        self.l1: array[int] = array("Q")

    def run(self) -> CheckResult:
        """Count, compare, and check the COPIED flags."""
        self.read_snapshots()
        self.count()
        self.compare()
        self.check_copied()
        self.result.corruptions += self.snapshot_corruptions
        return self.result

    def _reftable(self) -> list[int]:
        header = self.header
        length = header.refcount_table_clusters << self.geometry.cluster_bits
        if length > layout.MAX_REFTABLE_SIZE:
            raise InvalidImage("Image does not contain a reference count table of a valid size")
        return unpack_table(self.file.read(header.refcount_table_offset, length)).tolist()

    def read_snapshots(self) -> None:
        """Read the snapshot table.

        Raises:
            InvalidImage: it cannot be read.
        """
        header = self.header
        count = header.nb_snapshots
        repair = bool(self.repair & Repair.ERRORS)
        overhanging = max(0, count - layout.MAX_SNAPSHOTS) if repair else 0
        try:
            if overhanging:
                self.report(f"Discarding {overhanging} overhanging snapshots")
            validate_table(
                self.geometry,
                header.snapshots_offset,
                count - overhanging,
                40,
                40 * layout.MAX_SNAPSHOTS,
                "snapshot table",
            )
        except InvalidImage as error:
            more = count - layout.MAX_SNAPSHOTS
            hint = f"You can force-remove all {more} overhanging snapshots with qemu-img check -r all"
            raise _fault("ERROR", error, hint if more > 0 and not repair else error.hint) from error
        try:
            table = snapshot_table.read(
                self.file,
                header.snapshots_offset,
                count - overhanging,
                header.size,
                repair=self.report if repair else None,
            )
        except BlockError as error:
            raise _fault("ERROR failed to read the snapshot table:", error, error.hint) from error
        self.snapshots, self.snapshots_size = table.snapshots, table.size
        self.snapshot_corruptions = overhanging + table.dropped + table.shortened
        if header.version < 3:
            return
        for index, snapshot in enumerate(table.snapshots):
            if snapshot.extra_data_size < snapshot_table.REQUIRED_EXTRA_DATA:
                self.snapshot_corruptions += 1
                self.report(f"{'Repairing' if repair else 'ERROR'} snapshot table entry {index} is incomplete")

    # ---- counting

    def count(self) -> None:
        """Count the references to every cluster."""
        header = self.header
        self.refer(0, self.geometry.cluster_size)
        active: dict[int, int] = {}
        inactive: dict[int, int] = {}
        self.l1 = self._count_l1(header.l1_table_offset, header.l1_size, active, 1)
        tables: dict[tuple[int, int], int] = {}
        for snapshot in self.snapshots:
            if self._l1_is_sane(snapshot):
                key = (snapshot.l1_table_offset, snapshot.l1_size)
                tables[key] = tables.get(key, 0) + 1
        for (offset, size), weight in tables.items():
            self._count_l1(offset, size, inactive, weight)
        for offset, weight in active.items():
            self._count_l2(offset, weight, inactive.pop(offset, 0))
        for offset, weight in inactive.items():
            self._count_l2(offset, 0, weight)
        if not self.refer(header.snapshots_offset, self.snapshots_size):
            self.snapshots_size = 0
        self.refer(header.refcount_table_offset, len(self.refcounts.table) * 8)
        self._count_extensions()
        self._count_refcount_blocks()
        for cluster, value in self.counts.above(self.geometry.refcount_max):
            self.report(f"ERROR: overflow cluster offset={cluster << self.geometry.cluster_bits:#x}")
            self.report(_OVERFLOW_HINT)
            self.result.corruptions += value - self.geometry.refcount_max

    def refer(self, offset: int, length: int, weight: int = 1) -> bool:
        """Count references to every cluster of a range, unless it lies beyond the end of the file; whether it did."""
        if length <= 0:
            return False
        geometry = self.geometry
        if offset + length - self.file_length >= geometry.cluster_size:
            self.report(
                "ERROR: counting reference for region exceeding the end of the file by one cluster or more: "
                f"offset {offset:#x} size {length:#x}"
            )
            self.result.corruptions += weight
            return False
        first = offset >> geometry.cluster_bits
        last = (offset + length - 1) >> geometry.cluster_bits
        self.counts.add(first, last - first + 1, weight)
        return True

    def _l1_is_sane(self, snapshot: Snapshot) -> bool:
        offset, size = snapshot.l1_table_offset, snapshot.l1_size
        info = snapshot.info()
        if self.geometry.in_cluster(offset):
            fault = f"l1_offset={offset:#x}: L1 table is not cluster aligned"
        elif size > layout.MAX_L1_SIZE // 8:
            fault = f"l1_size={size:#x}: L1 table is too large"
        else:
            return True
        self.report(f"ERROR snapshot {info.id} ({info.name}) {fault}; snapshot table entry corrupted")
        self.result.corruptions += 1
        return False

    def _count_l1(self, offset: int, size: int, found: dict[int, int], weight: int) -> array[int]:
        """Count an L1 table and the L2 tables it names; these go to ``found``, each with its number of references."""
        if not size:
            return array("Q")
        self.refer(offset, size * 8, weight)
        if offset >= self.file_length:
            return array("Q", bytes(size * 8))
        table = unpack_table(self._read(offset, size * 8, "check_refcounts_l1"))
        for entry in table:
            if not entry:
                continue
            if entry & layout.L1_RESERVED:
                self.report(f"ERROR found L1 entry with reserved bits set: {entry:x}")
                self.result.corruptions += weight
            l2_offset = entry & layout.OFFSET_MASK
            self.refer(l2_offset, self.geometry.cluster_size, weight)
            if self.geometry.in_cluster(l2_offset):
                self.report(f"ERROR l2_offset={l2_offset:x}: Table is not cluster aligned; L1 entry corrupted")
                self.result.corruptions += weight
            found[l2_offset] = found.get(l2_offset, 0) + weight
        return table

    def _read(self, offset: int, length: int, where: str) -> bytearray:
        """Read a table without which nothing can be said, nor repaired: QEMU repairs then, and drops what it hides."""
        try:
            return self.file.read(offset, length)
        except OSError:
            self.report(f"ERROR: I/O error in {where}")
            raise

    def _count_l2(self, offset: int, active: int, inactive: int) -> None:
        """Count what an L2 table refers to, as often as active and inactive L1 tables refer to it."""
        geometry = self.geometry
        if offset >= self.file_length:
            return
        raw = self._read(offset, geometry.cluster_size, "check_refcounts_l2")
        first = int.from_bytes(raw[:8], "big")
        if not first and raw.count(0) == len(raw):
            return
        if not geometry.extended and not self.external and self._is_run(raw, first):
            self.result.allocated_clusters += active * geometry.l2_entries
            start = (first & layout.OFFSET_MASK) >> geometry.cluster_bits
            self.counts.add(start, geometry.l2_entries, active + inactive)
            self._runs[offset] = first
            return
        table = L2Table.unpack(offset, raw, geometry)
        if table.bitmaps is not None:
            self._check_bitmaps(table, active + inactive)
        if self.external:
            self._count_external(table, active, active + inactive)
        else:
            self._count_entries(table, active, active + inactive)

    def _is_run(self, raw: bytearray, first: int) -> bool:
        """Whether a table maps neighbours, in order, all within the file: less a ramp, all its entries are the same."""
        start = first & layout.OFFSET_MASK
        if first & ~(layout.OFFSET_MASK | layout.COPIED) or not start or self.geometry.in_cluster(start):
            return False
        if start + self.geometry.l2_reach > self.file_length:
            return False
        level = int.from_bytes(raw, "big") - self._ramp
        return level >= 0 and level.to_bytes(len(raw), "big") == raw[:8] * self.geometry.l2_entries

    def _check_bitmaps(self, table: L2Table, weight: int) -> None:
        """Subclusters that are two things at once."""
        for index, (entry, bitmap) in enumerate(table.pairs(0, len(table.entries))):
            if entry & layout.COMPRESSED:
                if bitmap and not self.external:  # else that it is compressed says it all
                    self.report(
                        f"ERROR compressed cluster {index} with non-zero subcluster allocation bitmap, entry={entry:#x}"
                    )
                    self.result.corruptions += weight
            elif entry & layout.OFFSET_MASK or (self.external and entry & layout.COPIED):
                if bitmap >> 32 & bitmap:
                    where = f"offset={entry & layout.OFFSET_MASK:x}"
                    self.report(f"ERROR {where}: Allocated cluster has corrupted subcluster allocation bitmap")
                    self.result.corruptions += weight
            elif bitmap & layout.ALL_ALLOCATED:
                self.report("ERROR: Unallocated cluster has non-zero subcluster allocation map")
                self.result.corruptions += weight

    def _count_external(self, table: L2Table, active: int, weight: int) -> None:
        """Entries that point into an external data file, where clusters have no refcounts."""
        expected = -1
        for index, entry in enumerate(table.entries):
            offset = entry & layout.OFFSET_MASK
            if entry & layout.COMPRESSED:
                if entry & layout.COPIED:
                    self._report_copied(entry, weight)
                self.report(f"ERROR compressed cluster {index} with data file, entry={entry & ~layout.COPIED:#x}")
                self.result.corruptions += weight
                continue
            if entry & layout.L2_RESERVED or self.geometry.in_cluster(offset):
                self._count_special(table, index, entry, weight)
            if offset or entry & layout.COPIED:
                self.result.allocated_clusters += active
                self.result.fragmented_clusters += active if expected not in (-1, offset) else 0
                expected = offset + self.geometry.cluster_size

    def _count_entries(self, table: L2Table, active: int, weight: int) -> None:
        geometry, result = self.geometry, self.result
        size = geometry.cluster_size
        special = layout.L2_RESERVED | layout.COMPRESSED | (size - 1 & layout.OFFSET_MASK)
        allocated = fragmented = compressed = 0
        expected = 0  # where a contiguous cluster would lie next
        start = 0  # of the run not yet counted
        for index, entry in enumerate(table.entries):
            if not entry:
                continue
            if entry & special:
                if start < expected:  # what was found before is told before
                    self._refer_run(start, expected, weight)
                    start = expected
                offset = self._count_special(table, index, entry, weight)
                if entry & layout.COMPRESSED:
                    compressed += 1
                    continue
            else:
                offset = entry & layout.OFFSET_MASK
            if not offset:
                continue
            allocated += 1
            if offset != expected:
                if expected:
                    fragmented += 1
                    self._refer_run(start, expected, weight)
                start = offset
            expected = offset + size
        self._refer_run(start, expected, weight)
        result.allocated_clusters += (allocated + compressed) * active
        result.fragmented_clusters += (fragmented + compressed) * active
        result.compressed_clusters += compressed * active

    def _refer_run(self, start: int, end: int, weight: int) -> None:
        """Count a run of whole clusters; those beyond the end of the file are reported one by one."""
        size = self.geometry.cluster_size
        if start < end and end - self.file_length < size and not self.geometry.in_cluster(start):
            self.counts.add(start >> self.geometry.cluster_bits, (end - start) >> self.geometry.cluster_bits, weight)
            return
        for offset in range(start, end, size):
            self.refer(offset, size, weight)

    def _count_special(self, table: L2Table, index: int, entry: int, weight: int) -> int:
        """Look closer at an L2 entry: compressed, reserved bits, unaligned; return the offset to count as a cluster."""
        result = self.result
        if entry & layout.COMPRESSED:
            if entry & layout.COPIED:
                self._report_copied(entry, weight)
            offset, length = self.geometry.compressed_range(entry & ~layout.COPIED & ~layout.COMPRESSED)
            self.refer(offset, length, weight)
            return 0
        if entry & layout.L2_RESERVED:
            self.report(f"ERROR found l2 entry with reserved bits set: {entry:x}")
            result.corruptions += weight
        offset = entry & layout.OFFSET_MASK
        if not offset or not self.geometry.in_cluster(offset):
            return offset
        result.corruptions += weight
        zero = not table.bitmaps[index] & layout.ALL_ALLOCATED if table.bitmaps is not None else entry & layout.ZERO
        if not zero:
            self.report(f"ERROR offset={offset:x}: Data cluster is not properly aligned; L2 entry corrupted.")
            return offset
        repairing = bool(self.repair & Repair.ERRORS)
        self.report(
            f"{'Repairing' if repairing else 'ERROR'} offset={offset:x}: Preallocated cluster is not properly "
            "aligned; L2 entry corrupted."
        )
        if not repairing:
            return offset
        self.unaligned_zeroes[table.offset + index * self.geometry.entry_size] = weight
        return 0

    def _report_copied(self, entry: int, weight: int) -> None:
        """A compressed cluster is never written in place, whatever its entry says."""
        where = entry & ((1 << self.geometry.csize_shift) - 1)
        self.report(f"ERROR: coffset={where:#x}: copied flag must never be set for compressed clusters")
        self.result.corruptions += weight

    def _count_extensions(self) -> None:
        for kind, data in self.image.extensions:
            if kind == ExtensionType.CRYPTO_HEADER and len(data) >= 16:
                self.refer(int.from_bytes(data[:8], "big"), int.from_bytes(data[8:16], "big"))
            elif kind == ExtensionType.BITMAPS and self.header.autoclear_features & Autoclear.BITMAPS:
                from hostel.block.formats.qcow2.bitmap_reference import count_bitmaps

                count_bitmaps(self, data)

    def _count_refcount_blocks(self) -> None:
        geometry, result = self.geometry, self.result
        repairing = bool(self.repair & Repair.ERRORS)
        for index, entry in enumerate(self.refcounts.table):
            if not entry:
                continue
            offset = entry & layout.REFTABLE_OFFSET_MASK
            if entry & layout.REFTABLE_RESERVED:
                self.report(f"ERROR refcount table entry {index} has reserved bits set")
            elif geometry.in_cluster(offset):
                self.report(f"ERROR refcount block {index} is not cluster aligned; refcount table entry corrupted")
            elif offset >> geometry.cluster_bits >= max(self.total_clusters, self.counts.end()):
                # A block of zeroes: what it counted shows as references without a refcount, which rebuilds.
                self.report(f"{'Repairing' if repairing else 'ERROR'} refcount block {index} is outside image")
                self.outside.append(index)
                result.corruptions += 1
                continue
            else:
                self.refer(offset, geometry.cluster_size)
                value = self.counts[offset >> geometry.cluster_bits]
                if value == 1:
                    continue
                self.report(f"ERROR refcount block {index} refcount={value}")
            result.corruptions += 1
            self.rebuild = True

    # ---- comparing

    def compare(self) -> None:
        """Compare the references with the refcounts, and find where the image ends."""
        entries = self.geometry.block_entries
        end = max(self.total_clusters, self.counts.end())
        highest = 0
        indexes = set(self.counts.pages)
        indexes.update(index for index, entry in enumerate(self.refcounts.table) if entry)
        for index in sorted(indexes):
            first = index * entries
            if first >= end:
                break
            if not self.refcounts.readable(index):
                self._unreadable(index, min(entries, end - first))
                continue
            stored = self.refcounts.page(index)[: end - first]
            counted = self.counts.pages.get(index)
            references = bytes(len(stored)) if counted is None else bytes(counted[: end - first])
            highest = max(highest, first + max(len(stored.rstrip(b"\0")), len(references.rstrip(b"\0"))) - 1)
            if stored != references or 255 in references:
                self._compare_page(index, stored, references)
        self.result.image_end_offset = (highest + 1) << self.geometry.cluster_bits

    def tell_unread(self) -> None:
        """Count the blocks that could not be read any more after everything was compared."""
        for index in sorted(self.refcounts.failures.keys() - self._unread):
            self._unreadable(index, self.geometry.block_entries)

    def _unreadable(self, index: int, clusters: int) -> None:
        self._unread.add(index)
        first = index * self.geometry.block_entries
        reason = self.refcounts.failures.get(index, "Input/output error")
        self.report(f"Can't get refcount for cluster {first}: {reason}")
        if clusters > 1:
            self.report(f"(nor for the {clusters - 1} clusters after it)")
        self.result.check_errors += clusters

    def _compare_page(self, index: int, stored: bytes, references: bytes) -> None:
        first = index * self.geometry.block_entries
        limit = self.geometry.refcount_max
        found: dict[int, tuple[int, int]] = {}
        for slot, (have, want) in enumerate(zip(stored, references, strict=True)):
            if have == want != 255:
                continue
            cluster = first + slot
            refcount, reference = self.refcounts.get(cluster), min(self.counts[cluster], limit)
            if refcount == reference:
                continue
            word = "ERROR" if refcount < reference else "Leaked"
            self.report(f"{word} cluster {cluster} refcount={refcount} reference={reference}")
            if refcount < reference:
                self.result.corruptions += 1
            else:
                self.result.leaks += 1
            if not refcount:
                self.rebuild = True
            found[slot] = (refcount, reference)
        if found:
            self.mismatches[index] = found

    # ---- COPIED

    def check_copied(self, fix: bool = False) -> None:
        """Check that COPIED is set, in the active tables, exactly where a refcount is one; and set it right."""
        geometry = self.geometry
        for index, entry in enumerate(self.l1):
            offset = entry & layout.OFFSET_MASK
            if not offset:
                continue
            refcount = self.refcount_at(offset)
            if refcount is None:
                continue
            if (refcount == 1) != bool(entry & layout.COPIED):
                word = "Repairing" if fix else "ERROR"
                self.report(f"{word} OFLAG_COPIED L2 cluster: l1_index={index} l1_entry={entry:x} refcount={refcount}")
                if fix:
                    self.l1[index] = entry ^ layout.COPIED
                    place = self.header.l1_table_offset + index * 8
                    self.file.pwrite(place, self.l1[index].to_bytes(8, "big"))
                    self.result.corruptions_fixed += 1
                else:
                    self.result.corruptions += 1
            if offset < self.file_length and not self._is_own_run(offset):
                self._check_copied_l2(offset, self._read(offset, geometry.cluster_size, "check_oflag_copied"), fix)
        self.tell_unread()

    def _is_own_run(self, table_offset: int) -> bool:
        """Whether a table maps neighbours that nobody else has, as its flags say; it was looked at before."""
        first = self._runs.get(table_offset, 0)
        start = (first & layout.OFFSET_MASK) >> self.geometry.cluster_bits
        return bool(first & layout.COPIED) and self._all_one(start, self.geometry.l2_entries)

    def refcount_at(self, offset: int) -> int | None:
        """The refcount of the cluster at a host offset; None where it cannot be read."""
        cluster = offset >> self.geometry.cluster_bits
        if not self.refcounts.readable(cluster // self.geometry.block_entries):
            return None
        return self.refcounts.get(cluster)

    def _all_one(self, cluster: int, count: int) -> bool:
        """Whether the refcounts of ``count`` neighbours are all one."""
        entries = self.geometry.block_entries
        while count > 0:
            index, slot = divmod(cluster, entries)
            length = min(count, entries - slot)
            if not self.refcounts.readable(index) or self.refcounts.page(index).count(1, slot, slot + length) != length:
                return False
            cluster += length
            count -= length
        return True

    def _wrongly_copied(self, entries: Sequence[int]) -> Iterator[tuple[int, int, int]]:
        """The entries of a table whose COPIED says something else than the refcount: index, entry, refcount."""
        bits, block_entries = self.geometry.cluster_bits, self.geometry.block_entries
        at, page = -1, b""
        for index, entry in enumerate(entries):
            offset = entry & layout.OFFSET_MASK
            if not offset or entry & layout.COMPRESSED:
                continue
            if self.external:
                if not entry & layout.COPIED:
                    yield index, entry, 1
                continue
            block, slot = divmod(offset >> bits, block_entries)
            if block != at:  # neighbours have theirs in one block
                at, page = block, self.refcounts.page(block) if self.refcounts.readable(block) else b""
            if page and (page[slot] == 1) != bool(entry & layout.COPIED):
                yield index, entry, self.refcounts.get(offset >> bits)

    def _check_copied_l2(self, table_offset: int, raw: bytearray, fix: bool) -> None:
        geometry = self.geometry
        if raw.count(0) == len(raw):
            return
        changed = 0
        entries = L2Table.unpack(table_offset, raw, geometry).entries
        for index, entry, refcount in self._wrongly_copied(entries):
            word = "Repairing" if fix else "ERROR"
            self.report(f"{word} OFLAG_COPIED data cluster: l2_entry={entry:x} refcount={refcount}")
            changed += 1
            if fix:
                raw[index * geometry.entry_size] ^= 0x80
        if changed and fix:
            self.file.pwrite(table_offset, raw)
            self.result.corruptions_fixed += changed
        else:
            self.result.corruptions += changed

"""Repairing an image: refcounts, COPIED flags, the refcount structure, the snapshot table.

Every step leaves, at each write, an image that is at worst what it was: a new structure is complete and on the disk
before the header points to it, and the old one is given up only afterwards.
"""

from __future__ import annotations

import errno

from hostel.block.formats.qcow2 import header as headers
from hostel.block.formats.qcow2 import layout, snapshot_table
from hostel.block.formats.qcow2.check import Check, CheckedImage
from hostel.block.formats.qcow2.layout import Header, Incompatible
from hostel.block.powers import CheckResult, Repair, Report
from hostel.codec.table import pack_table, unpack_table
from hostel.errors import BlockError, NoSpace


class _Rewritten:
    """An image whose header was changed in the file."""

    def __init__(self, image: CheckedImage, header: Header) -> None:
        self.file = image.file
        self.header = header
        self.extensions = image.extensions
        self.geometry = image.geometry


def repair_image(image: CheckedImage, repair: Repair, report: Report) -> CheckResult:
    """Check an image and repair what ``repair`` allows.

    Only the file is changed: whoever holds tables of the image in memory reads them again.

    Raises:
        BlockError: the check could not be carried through, or the refcount structure must be rebuilt and may not.
        OSError: the host's own errors.
    """
    current = _Rewritten(image, image.header)
    check = Check(current, report, repair)
    check.read_snapshots()
    if check.header.nb_snapshots != len(check.snapshots):
        _shorten_snapshot_table(check, current)
    check.count()
    _zero_unaligned(check)
    check.compare()
    errors = bool(repair & Repair.ERRORS)
    rewrite = errors and check.snapshot_corruptions > 0
    if errors and (check.rebuild or check.outside):
        check = _rebuild(check, current, repair, report)
    elif check.rebuild:
        report("ERROR need to rebuild refcount structures")
        raise BlockError("The refcount structures need to be rebuilt", errno=errno.EIO, hint="Use check -r all.")
    elif check.mismatches:
        fix_refcounts(check, repair)
    result = check.result
    sound = not (result.check_errors or result.corruptions or result.leaks)
    found = check.snapshot_corruptions
    if rewrite and not check.rebuild:
        # Before the flags are looked at: a table that claimed clusters of others gives them up.
        check = _rewrite_snapshots(check, current, repair, report)
        found = 0
    check.check_copied(fix=errors or sound)
    result = check.result
    result.corruptions += found
    check.file.flush()
    if not result.check_errors and not result.corruptions:
        _clear_marks(current)
    _clear_autoclear(current)
    return result


def fix_refcounts(check: Check, repair: Repair) -> None:
    """Set differing refcounts right, as far as allowed; the counts of what was found become counts of what is left."""
    result = check.result
    for index, found in check.mismatches.items():
        changes: dict[int, int] = {}
        for slot, (refcount, reference) in found.items():
            leak = refcount > reference
            if refcount and repair & (Repair.LEAKS if leak else Repair.ERRORS):
                cluster = index * check.geometry.block_entries + slot
                check.report(f"Repairing cluster {cluster} refcount={refcount} reference={reference}")
                changes[slot] = reference
                if leak:
                    result.leaks -= 1
                    result.leaks_fixed += 1
                else:
                    result.corruptions -= 1
                    result.corruptions_fixed += 1
        if changes:
            check.refcounts.write(index, changes)
    check.file.flush()


def _shorten_snapshot_table(check: Check, current: _Rewritten) -> None:
    """Cut the entries beyond the limits off; what they refer to becomes leaks."""
    dropped = check.header.nb_snapshots - len(check.snapshots)
    current.header = check.header = check.header.replace(nb_snapshots=len(check.snapshots))
    offset = Header.OFFSET["nb_snapshots"]
    check.file.pwrite(offset, len(check.snapshots).to_bytes(4, "big"))
    check.file.flush()
    check.snapshot_corruptions -= dropped
    check.result.corruptions_fixed += dropped


def _zero_unaligned(check: Check) -> None:
    """L2 entries without data that are preallocated at an impossible place lose that place.

    Of a cluster with subclusters the bitmap stays: those that are not zero show what lies below.
    """
    word = 0 if check.geometry.extended else layout.ZERO
    for place in check.unaligned_zeroes:
        check.file.pwrite(place, word.to_bytes(8, "big"))
    if check.unaligned_zeroes:
        check.file.flush()
        fixed = sum(check.unaligned_zeroes.values())
        check.result.corruptions -= fixed
        check.result.corruptions_fixed += fixed


def _rebuild(check: Check, current: _Rewritten, repair: Repair, report: Report, snapshots: bytes = b"") -> Check:
    """Write a new refcount structure from what was counted, and check again with it.

    Args:
        check: what was found.
        current: the image as it is now.
        repair: what may be repaired.
        report: gets a line for each finding.
        snapshots: a new snapshot table, to be written as well.
    """
    report("Rebuilding refcount structure")
    table_offset = 0
    if snapshots:
        table_offset = check.counts.allocate(check.geometry.clusters(len(snapshots)), 0) << check.geometry.cluster_bits
    _write_refcount_structure(check, current)
    if snapshots:
        _write_snapshot_table(check, current, snapshots, table_offset)
    check.tell_unread()
    before = check.result
    again = Check(current, report)
    again.snapshots, again.snapshot_corruptions = check.snapshots, check.snapshot_corruptions
    again.snapshots_size = len(snapshots) or check.snapshots_size
    again.count()
    # The old structures are leaks now, and ours: that they go is no finding.
    if repair & Repair.LEAKS:
        again.report = lambda line: None if line.startswith("Leaked cluster") else report(line)
    again.compare()
    again.report = report
    if repair & Repair.LEAKS and not again.rebuild:
        fix_refcounts(again, Repair.LEAKS)
        again.result.leaks_fixed = 0
    if again.rebuild:
        report("ERROR rebuilt refcount structure is still broken")
    result = again.result
    result.check_errors += before.check_errors  # as with QEMU: what could not be read may be worth a look
    result.corruptions_fixed = before.corruptions_fixed + max(0, before.corruptions - result.corruptions)
    result.leaks_fixed = before.leaks_fixed + max(0, before.leaks - result.leaks)
    return again


def _rewrite_snapshots(check: Check, current: _Rewritten, repair: Repair, report: Report) -> Check:
    """Write the snapshot table without what was wrong in it; the refcounts are right.

    New clusters are counted before the header points to them, and the old ones given up after it does.
    """
    table = snapshot_table.serialise(check.snapshots)
    count = check.geometry.clusters(len(table))
    first = check.counts.allocate(count, 0) if table else 0
    if not _are_free(check, first, count):
        # No block counts a free cluster: only a new structure has room.
        check.counts.add(first, count, -1)
        check = _rebuild(check, current, repair, report, table)
    elif table:
        old, size = check.header.snapshots_offset, check.snapshots_size
        _add_refcounts(check, first, count, 1)
        _write_snapshot_table(check, current, table, first << check.geometry.cluster_bits)
        if size:
            bits = check.geometry.cluster_bits
            _add_refcounts(check, old >> bits, ((old + size - 1) >> bits) - (old >> bits) + 1, -1)
    check.result.corruptions_fixed += check.snapshot_corruptions
    return check


def _are_free(check: Check, first: int, count: int) -> bool:
    """Whether clusters have a refcount, and it is 0."""
    entries, refcounts = check.geometry.block_entries, check.refcounts
    for cluster in range(first, first + count):
        index = cluster // entries
        if index >= len(refcounts.table) or not refcounts.table[index] or not refcounts.readable(index):
            return False
        if refcounts.get(cluster):
            return False
    return True


def _add_refcounts(check: Check, first: int, count: int, delta: int) -> None:
    """Change the refcounts of neighbours in the file, and sync."""
    entries = check.geometry.block_entries
    changes: dict[int, dict[int, int]] = {}
    for cluster in range(first, first + count):
        index, slot = divmod(cluster, entries)
        if not check.refcounts.readable(index):
            continue  # of what is given up, which stays a leak
        changes.setdefault(index, {})[slot] = max(0, check.refcounts.get(cluster) + delta)
    for index, slots in changes.items():
        check.refcounts.write(index, slots)
    check.file.flush()


def _write_refcount_structure(check: Check, current: _Rewritten) -> None:
    """Allocate and write refcount blocks and a table that cover everything counted, themselves included."""
    geometry, counts, file = check.geometry, check.counts, check.file
    blocks: dict[int, int] = {}
    table_offset = table_clusters = 0
    while True:
        missing = [index for index in sorted(counts.pages) if index not in blocks and any(counts.pages[index])]
        for index in missing:
            # Where it may, a block lies within its own reach, as QEMU places it.
            blocks[index] = counts.allocate(1, index * counts.page_size) << geometry.cluster_bits
        needed = geometry.clusters((max(counts.pages) + 1) * 8)
        if needed > table_clusters:
            # What was allocated for a smaller table stays free again: nothing was written there.
            if table_clusters:
                counts.add(table_offset >> geometry.cluster_bits, table_clusters, -1)
            table_clusters = needed
            table_offset = counts.allocate(needed, 0) << geometry.cluster_bits
        elif not missing:
            break
    if table_clusters << geometry.cluster_bits > layout.MAX_REFTABLE_SIZE:
        raise NoSpace("The image is too large for a refcount table: convert it with a larger cluster size")
    for index, offset in blocks.items():
        file.pwrite(offset, counts.pack_page(index, geometry))
    entries = (table_clusters << geometry.cluster_bits) // 8
    table = unpack_table(bytes(entries * 8))
    for index, offset in blocks.items():
        table[index] = offset
    file.pwrite(table_offset, pack_table(table))
    file.flush()
    file.pwrite(
        Header.OFFSET["refcount_table_offset"], table_offset.to_bytes(8, "big") + table_clusters.to_bytes(4, "big")
    )
    file.flush()
    current.header = current.header.replace(refcount_table_offset=table_offset, refcount_table_clusters=table_clusters)


def _write_snapshot_table(check: Check, current: _Rewritten, table: bytes, offset: int) -> None:
    """Write the table where its clusters are counted already, then point the header to it."""
    check.file.pwrite(offset, table)
    check.file.flush()
    pointer = len(check.snapshots).to_bytes(4, "big") + offset.to_bytes(8, "big")
    check.file.pwrite(Header.OFFSET["nb_snapshots"], pointer)
    check.file.flush()
    current.header = current.header.replace(nb_snapshots=len(check.snapshots), snapshots_offset=offset)


def _clear_autoclear(current: _Rewritten) -> None:
    """Whoever set a bit that we do not know must not trust what it stands for after us."""
    header = current.header
    unknown = headers.unknown_autoclear(header) if header.version >= 3 else 0
    if unknown:
        features = header.autoclear_features & ~unknown
        current.file.pwrite(Header.OFFSET["autoclear_features"], features.to_bytes(8, "big"))
        current.file.flush()
        current.header = header.replace(autoclear_features=features)


def _clear_marks(current: _Rewritten) -> None:
    """The image is sound: it is neither dirty nor corrupt any more."""
    header = current.header
    marks = int(Incompatible.DIRTY | Incompatible.CORRUPT)
    if header.version < 3 or not header.incompatible_features & marks:
        return
    features = header.incompatible_features & ~marks
    current.file.pwrite(Header.OFFSET["incompatible_features"], features.to_bytes(8, "big"))
    current.file.flush()
    current.header = header.replace(incompatible_features=features)

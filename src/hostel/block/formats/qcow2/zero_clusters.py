"""Images without zero clusters, as version 2 must be: of the active state and of all snapshots.

Where nothing lies below, a zero cluster without a place becomes an unallocated one; else it gets a place, and zeroes
there. Tables that change are written anew, and one header write makes the image consist of them: see
:mod:`hostel.block.formats.qcow2.transaction`.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

from hostel.block.formats.qcow2 import layout, snapshot_table
from hostel.block.formats.qcow2.encryption import Encryption
from hostel.block.formats.qcow2.image import Qcow2Image
from hostel.block.formats.qcow2.l2_table import L2Table
from hostel.block.formats.qcow2.snapshot import load_l1, read_l2, replace_snapshots, table_offsets
from hostel.block.formats.qcow2.transaction import Transaction, adopt_l1, in_place, replace_l1
from hostel.codec.table import pack_table

Report = Callable[[int, int], None]
_STEPS: Final = 1024  # how often at least progress is reported, where there is that much to do


def expand_zero_clusters(
    image: Qcow2Image, *, backed: bool, report: Report, encryption: Encryption | None = None
) -> None:
    """Turn zero clusters into unallocated or data clusters; the image has no subclusters and no external data file.

    Args:
        image: open for writing.
        backed: something lies below it, which an unallocated cluster would show.
        report: told how far it is, of how much.
        encryption: what encrypts the data.

    Raises:
        CorruptImage: a table makes no sense; the image is as it was.
        OSError: the host's own errors; the image is as it was, or as it shall be.
    """
    image.begin_write()
    image.flush_metadata()
    snapshots = snapshot_table.load(image)
    tables = [image.l1, *(load_l1(image, snapshot) for snapshot in snapshots)]
    if not any(True for offset in _offsets(image, tables) if has_zero(read_l2(image, offset).entries)):
        return
    if not snapshots and encryption is None:
        _expand_in_place(image, backed=backed, report=report)
        return
    with in_place(image) as transaction:
        expansion = _Expansion(image, transaction, encryption, backed=backed)
        total, done = sum(map(len, tables)), 0
        changed = []
        for l1 in (image.l1, *tables[1:]):
            changed.append(expansion.expand(l1, partial(_tell_beyond, report, done, total)))
            done += len(l1)
        kept = []
        for snapshot, old, new in zip(snapshots, tables[1:], changed[1:], strict=True):
            if new == old:
                kept.append(snapshot)
                continue
            image.refcounts.free(snapshot.l1_table_offset, len(old) * 8)
            offset = transaction.allocate(len(new) * 8)
            transaction.write(offset, pack_table(new))
            kept.append(snapshot._replace(header=snapshot.header.replace(l1_table_offset=offset)))
        fields = replace_l1(image, transaction, changed[0])
        if snapshots:
            fields |= replace_snapshots(image, transaction, kept)
        # What was zeroed where it is must be zeroes before the tables say that it is data.
        image.file.flush()
        transaction.commit(**fields)
    adopt_l1(image, changed[0])


def _tell(report: Report, done: int, total: int) -> None:
    if done % max(1, total // _STEPS) == 0:
        report(done, total)


def _tell_beyond(report: Report, before: int, total: int, done: int) -> None:
    _tell(report, before + done, total)


def _expand_in_place(image: Qcow2Image, *, backed: bool, report: Report) -> None:
    """Without snapshots each table says the same before and after: it is written where it is, as for any write."""
    size = image.geometry.cluster_size
    for l1_index in range(len(image.l1)):
        table = image.l2_table(l1_index)
        if table is not None and has_zero(table.entries):
            table = image.l2_for_write(l1_index)
            for index, entry in enumerate(table.entries):
                if entry & layout.ZERO and not entry & layout.COMPRESSED:
                    image.validate_entry(entry, l1_index, index)
                    table.entries[index] = _expanded_in_place(image, entry, size, backed=backed)
                    image.touch(l1_index, index, index + 1)
            image.space.settle()
        _tell(report, l1_index + 1, len(image.l1))
    image.flush_metadata()


def _expanded_in_place(image: Qcow2Image, entry: int, size: int, *, backed: bool) -> int:
    host = entry & layout.OFFSET_MASK
    if host and image.is_own(entry):
        image.prevent_overlap(host, size)
        image.file.write_zeroes(host, size)
        return entry & ~layout.ZERO
    if host:
        image.space.release(host, size)
    if not backed:
        return 0
    place = image.space.allocate(size, "data cluster")
    try:
        image.file.write_zeroes(place, size)
    except BaseException:
        image.refcounts.free(place, size)
        raise
    return place | layout.COPIED


def has_compressed_clusters(image: Qcow2Image) -> bool:
    """Whether the active state or a snapshot has any.

    Raises:
        CorruptImage: a table makes no sense.
    """
    image.flush_metadata()
    tables = [image.l1, *(load_l1(image, snapshot) for snapshot in snapshot_table.load(image))]
    return any(
        entry & layout.COMPRESSED for offset in _offsets(image, tables) for entry in read_l2(image, offset).entries
    )


def has_zero(entries: array[int]) -> bool:
    """Whether there is a zero cluster among L2 entries."""
    return any(entry & layout.ZERO and not entry & layout.COMPRESSED for entry in entries)


def _offsets(image: Qcow2Image, tables: list[array[int]]) -> Iterator[int]:
    """The host offset of each L2 table, once."""
    seen: set[int] = set()
    for l1 in tables:
        for _, offset in table_offsets(image, l1):
            if offset not in seen:
                seen.add(offset)
                yield offset


class _Expansion:
    """Rewrites L2 tables; one that several L1 tables share stays shared."""

    def __init__(
        self, image: Qcow2Image, transaction: Transaction, encryption: Encryption | None, *, backed: bool
    ) -> None:
        self._image = image
        self._encryption = encryption
        self._transaction = transaction
        self._backed = backed
        self._places: dict[int, int] = {}  # where each L2 table lies now, by where it lay

    def expand(self, l1: array[int], report: Callable[[int], object]) -> array[int]:
        """The L1 table that refers to the rewritten tables; ``report`` is told how many of its entries are done."""
        result = array("Q", l1)
        tables = dict(table_offsets(self._image, l1))
        for index in range(len(l1)):
            offset = tables.get(index)
            if offset is None:
                report(index + 1)
                continue
            place = self._places.get(offset)
            if place is None:
                place = self._places[offset] = self._rewrite(offset, index * self._image.geometry.l2_reach)
            result[index] = place | (l1[index] & layout.COPIED)
            report(index + 1)
        return result

    def _rewrite(self, offset: int, guest: int) -> int:
        """Write a table, which maps from ``guest`` on, anew where it has zero clusters; returns its place."""
        image, size = self._image, self._image.geometry.cluster_size
        table = read_l2(image, offset)
        if not has_zero(table.entries):
            return offset
        cluster = offset >> image.geometry.cluster_bits
        owners = image.refcounts.get(cluster)
        for index, entry in enumerate(table.entries):
            if entry & layout.ZERO and not entry & layout.COMPRESSED:
                host = entry & layout.OFFSET_MASK
                if image.geometry.in_cluster(host):
                    where = f"(L2 offset: {offset:#x}, L2 index: {layout.c_hex(index)})"
                    image.corrupt(f"Cluster allocation offset {host:#x} unaligned {where}")
                table.entries[index] = self._expanded(entry, owners, guest + index * size)
        place = self._transaction.allocate(size)
        image.refcounts.update(place >> image.geometry.cluster_bits, 1, owners - 1)
        image.refcounts.update(cluster, 1, -owners)
        self._transaction.write(place, L2Table(place, table.entries, None).pack())
        return place

    def _expanded(self, entry: int, owners: int, guest: int) -> int:
        image, bits = self._image, self._image.geometry.cluster_bits
        size = image.geometry.cluster_size
        host = entry & layout.OFFSET_MASK
        if host and image.refcounts.get(host >> bits) == 1:
            image.prevent_overlap(host, size)
            if self._encryption is None:
                image.file.write_zeroes(host, size)
            else:
                self._encryption.write(image.file, guest, host, bytes(size))
            return entry & ~layout.ZERO
        if host:
            # Others may have data there.
            image.refcounts.update(host >> bits, 1, -owners)
        if not self._backed:
            return 0
        place = self._transaction.allocate(size)
        zeroes = bytes(size)
        if self._encryption is not None:
            zeroes = bytes(self._encryption.encrypt(guest, place, zeroes))
        self._transaction.write(place, zeroes)
        image.refcounts.update(place >> bits, 1, owners - 1)
        return place | (layout.COPIED if owners == 1 else 0)

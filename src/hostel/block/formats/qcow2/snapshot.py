"""Internal snapshots: create, apply, delete ("Snapshots" in the qcow2 specification).

Each is one :class:`~hostel.block.formats.qcow2.transaction.Transaction`. An active L2 table whose COPIED flags change
is written anew instead of being changed in place, so that flags and refcounts never disagree on disk.
"""

from __future__ import annotations

import errno
from array import array
from collections.abc import Iterator
from typing import Final

from hostel.block.formats.qcow2 import layout, snapshot_table
from hostel.block.formats.qcow2.header_limits import validate_table
from hostel.block.formats.qcow2.image import Qcow2Image
from hostel.block.formats.qcow2.l2_table import L2Table
from hostel.block.formats.qcow2.layout import SnapshotHeader
from hostel.block.formats.qcow2.neighbours import Neighbours
from hostel.block.formats.qcow2.refcount_bytes import has_above
from hostel.block.formats.qcow2.snapshot_table import Snapshot
from hostel.block.formats.qcow2.transaction import Transaction, adopt_l1, in_place, replace_l1
from hostel.block.powers import SnapshotInfo
from hostel.codec.table import pack_table, unpack_table
from hostel.errors import BlockError, CorruptImage, InvalidImage, ReadOnly, UnsupportedFeature
from hostel.units import SECTOR

_FEW: Final = 8  # clusters whose refcounts are looked at one by one
# For the leading bytes of L2 entries, which have the COPIED flag, and for refcounts of one byte each.
_COPIED: Final = layout.COPIED >> 56
_WITHOUT_COPIED: Final = bytes(value & ~_COPIED for value in range(256))
_ONLY_COPIED: Final = bytes(value & _COPIED for value in range(256))
_AS_COUNT: Final = bytes(value >> 7 for value in range(256))
_FLAG_OF_ONE: Final = bytes(_COPIED if value == 1 else 0 for value in range(256))


def snapshots(image: Qcow2Image) -> list[SnapshotInfo]:
    """All snapshots, in the order of the table."""
    return [snapshot.info() for snapshot in snapshot_table.load(image)]


def create_snapshot(image: Qcow2Image, name: str, date: tuple[int, int], icount: int | None = 0) -> SnapshotInfo:
    """Keep the present state; ``date`` is seconds and nanoseconds since 1970.

    Raises:
        BlockError: there are too many snapshots, or a refcount cannot grow (EINVAL); the image is as it was.
        OSError: the host's own errors; the image is as it was.
    """
    _require_internal(image)
    encoded = name.encode(errors="surrogateescape")
    if image.header.nb_snapshots >= layout.MAX_SNAPSHOTS or len(encoded) > 0xFFFF:
        raise BlockError("File too large", errno=errno.EFBIG)
    table = snapshot_table.load(image)
    image.begin_write()
    image.flush_metadata()
    for first, count in _runs(image, image.l1):  # before anything moves
        image.refcounts.require_countable(first, count)
    snapshot = _new(image, table, encoded, date)._replace(icount=icount)
    shared = [
        index
        for index, offset in table_offsets(image, image.l1)
        if image.l1[index] & layout.COPIED and _has_copied(image, offset)
    ]
    room = sum(map(image.geometry.clusters, (len(image.l1) * 8, len(snapshot_table.serialise([*table, snapshot])))))
    with in_place(image, shared, room) as transaction:
        _count(image, image.l1, 1)
        l1 = array("Q", image.l1)
        for index, offset in table_offsets(image, l1):
            active = _read_raw(image, offset)
            if _clear_copied(image, active):
                # The active state and the snapshot share the new table.
                image.refcounts.free(offset, image.geometry.cluster_size)
                image.refcounts.free(offset, image.geometry.cluster_size)
                offset = transaction.allocate(image.geometry.cluster_size, ("L2 table", index))
                image.refcounts.update(offset >> image.geometry.cluster_bits, 1, 1)
                transaction.write(offset, bytes(active))
            l1[index] = offset
        kept = transaction.allocate(len(l1) * 8)
        transaction.write(kept, pack_table(l1))
        snapshot = snapshot._replace(header=snapshot.header.replace(l1_table_offset=kept))
        fields = replace_l1(image, transaction, l1) | replace_snapshots(image, transaction, [*table, snapshot])
        transaction.commit(**fields)
    adopt_l1(image, l1)
    return snapshot.info()


def apply_snapshot(image: Qcow2Image, id_or_name: str) -> None:
    """Go back to a snapshot's state, its virtual size included.

    Raises:
        BlockError: there is no such snapshot (ENOENT), or it cannot be applied; the image is as it was.
        OSError: the host's own errors; the image is as it was.
    """
    _require_internal(image)
    if image.bitmaps.all():
        raise BlockError("Device has active dirty bitmaps", errno=errno.EBUSY)
    snapshot = _find(snapshot_table.load(image), id_or_name)
    header = image.header
    if snapshot.disk_size != header.size and header.version < 3:
        raise UnsupportedFeature("Can't resize a v2 image which has snapshots")
    if snapshot.disk_size != header.size and snapshot.disk_size % SECTOR:
        raise InvalidImage("The new size must be a multiple of 512")
    l1 = load_l1(image, snapshot)
    entries = max(len(l1), image.geometry.l1_entries(snapshot.disk_size))
    if entries > layout.MAX_L1_SIZE // 8:
        raise CorruptImage(f"The snapshot's size ({snapshot.disk_size} bytes) is beyond what the format can map")
    l1.extend([0] * (entries - len(l1)))
    with in_place(image) as transaction:
        _count(image, l1, 1)
        _count(image, image.l1, -1)
        l1 = _with_copied(image, transaction, l1)
        transaction.commit(size=snapshot.disk_size, **replace_l1(image, transaction, l1))
    adopt_l1(image, l1)


def delete_snapshot(image: Qcow2Image, id_or_name: str) -> None:
    """Drop a snapshot.

    Raises:
        BlockError: there is no such snapshot (ENOENT), or its L1 table makes no sense; the image is as it was.
        OSError: the host's own errors; the image is as it was.
    """
    _require_internal(image)
    table = snapshot_table.load(image)
    snapshot = _find(table, id_or_name)
    dropped = load_l1(image, snapshot)
    with in_place(image) as transaction:
        _count(image, dropped, -1)
        if dropped:
            image.refcounts.free(snapshot.l1_table_offset, len(dropped) * 8)
        l1 = _with_copied(image, transaction, image.l1)
        fields = replace_snapshots(image, transaction, [each for each in table if each is not snapshot])
        transaction.commit(**replace_l1(image, transaction, l1) | fields)
    adopt_l1(image, l1)


def _require_internal(image: Qcow2Image) -> None:
    if image.external:
        raise UnsupportedFeature("Operation not supported")


def load_snapshot(image: Qcow2Image, id: str | None, name: str | None) -> None:
    """Let an image that is open for reading show a snapshot's state; nothing on disk changes.

    Raises:
        BlockError: there is no such snapshot (ENOENT), or its L1 table makes no sense.
        ReadOnly: the image is open for writing.
    """
    if not image.mode.read_only:
        raise ReadOnly("A snapshot's content can only be shown where the image is opened for reading")
    wanted = [None if text is None else text.encode(errors="surrogateescape") for text in (id, name)]
    for snapshot in snapshot_table.load(image):
        if wanted[0] in (None, snapshot.id) and wanted[1] in (None, snapshot.name):
            break
    else:
        raise BlockError("Can't find snapshot", errno=errno.ENOENT)
    l1 = load_l1(image, snapshot)
    entries = image.geometry.l1_entries(snapshot.disk_size)
    if entries > layout.MAX_L1_SIZE // 8:
        raise CorruptImage(f"The snapshot's size ({snapshot.disk_size} bytes) is beyond what the format can map")
    l1.extend([0] * (entries - len(l1)))
    image.tables.clear()
    image.l1 = l1
    image.preamble = image.preamble._replace(header=image.header.replace(size=snapshot.disk_size))


def _new(image: Qcow2Image, table: list[Snapshot], name: bytes, date: tuple[int, int]) -> Snapshot:
    """An entry for the present state, whose L1 table has no place yet."""
    header = SnapshotHeader(
        l1_table_offset=0,
        l1_size=len(image.l1),
        id_length=0,
        name_length=0,
        date_sec=date[0] & 0xFFFFFFFF,
        date_nsec=date[1],
        vm_clock_nsec=0,
        vm_state_size=0,
        extra_data_size=0,
    )
    return Snapshot(
        header=header,
        id=_next_id(table),
        name=name,
        vm_state_size=0,
        disk_size=image.size,
        icount=None,
        extra_data_size=snapshot_table.KNOWN_EXTRA_DATA,
    )


def _find(table: list[Snapshot], id_or_name: str) -> Snapshot:
    wanted = id_or_name.encode(errors="surrogateescape")
    for snapshot in table:
        if snapshot.id == wanted:
            return snapshot
    for snapshot in table:
        if snapshot.name == wanted:
            return snapshot
    raise BlockError("snapshot not found", errno=errno.ENOENT)


def _next_id(table: list[Snapshot]) -> bytes:
    highest = 0
    for snapshot in table:
        digits = snapshot.id[: len(snapshot.id) - len(snapshot.id.lstrip(b"0123456789"))]
        highest = max(highest, min(int(digits[:20] or b"0"), (1 << 64) - 2))
    return str(highest + 1).encode()


def load_l1(image: Qcow2Image, snapshot: Snapshot) -> array[int]:
    """Read a snapshot's L1 table.

    Raises:
        InvalidImage: it is out of its limits.
        CorruptImage: it lies beyond the end of the file.
    """
    offset, entries = snapshot.l1_table_offset, snapshot.l1_size
    validate_table(image.geometry, offset, entries, 8, layout.MAX_L1_SIZE, "Snapshot L1 table")
    if offset + entries * 8 > image.file.length:
        raise CorruptImage("Snapshot L1 table lies beyond the end of the file")
    return unpack_table(image.file.read(offset, entries * 8))


def inactive_tables(image: Qcow2Image) -> set[int]:
    """The clusters of all snapshots' L2 tables.

    Raises:
        InvalidImage: an L1 table is out of its limits.
        CorruptImage: one lies beyond the end of the file.
    """
    tables = (load_l1(image, snapshot) for snapshot in snapshot_table.load(image))
    return {(entry & layout.OFFSET_MASK) >> image.geometry.cluster_bits for l1 in tables for entry in l1 if entry}


def table_offsets(image: Qcow2Image, l1: array[int]) -> Iterator[tuple[int, int]]:
    """L1 indexes with the host offsets of their L2 tables."""
    geometry = image.geometry
    for index, entry in enumerate(l1):
        if not entry:
            continue
        offset = entry & layout.OFFSET_MASK
        if geometry.in_cluster(offset) or not offset:
            raise CorruptImage(f"L2 table offset {offset:#x} unaligned (L1 index: {layout.c_hex(index)})")
        if offset >= image.file.length:
            raise CorruptImage(
                f"L2 table offset {offset:#x} lies beyond the end of the file (L1 index: {layout.c_hex(index)})"
            )
        yield index, offset


def read_l2(image: Qcow2Image, offset: int) -> L2Table:
    """Read an L2 table of the active state or of a snapshot, beside the tables in memory."""
    return L2Table.unpack(offset, _read_raw(image, offset), image.geometry)


def _read_raw(image: Qcow2Image, offset: int) -> bytearray:
    return image.file.read(offset, image.geometry.cluster_size)


def _runs(image: Qcow2Image, l1: array[int]) -> Iterator[tuple[int, int]]:
    """All clusters that an L1 table refers to, once for each reference: first cluster and number."""
    geometry = image.geometry
    bits = geometry.cluster_bits
    neighbours = Neighbours(geometry)
    for _, l2_offset in table_offsets(image, l1):
        for entry, count in neighbours.runs(read_l2(image, l2_offset).entries):
            if entry & layout.COMPRESSED:
                where, length = geometry.compressed_range(entry & ~(layout.COMPRESSED | layout.COPIED))
                yield where >> bits, ((where + length - 1) >> bits) - (where >> bits) + 1
                continue
            offset = entry & layout.OFFSET_MASK
            if geometry.in_cluster(offset):
                raise CorruptImage(f"Cluster allocation offset {offset:#x} unaligned (L2 offset: {l2_offset:#x})")
            yield offset >> bits, count
        yield l2_offset >> bits, 1


def _count(image: Qcow2Image, l1: array[int], delta: int) -> None:
    for first, count in _runs(image, l1):
        image.refcounts.update(first, count, delta)


def _has_copied(image: Qcow2Image, offset: int) -> bool:
    """Whether an L2 table has an entry with the COPIED flag."""
    return has_above(_read_raw(image, offset)[:: image.geometry.entry_size], _COPIED - 1)


def _clear_copied(image: Qcow2Image, raw: bytearray) -> bool:
    """Drop all COPIED flags of a table; whether there were any."""
    leading = raw[:: image.geometry.entry_size]
    raw[:: image.geometry.entry_size] = cleared = leading.translate(_WITHOUT_COPIED)
    return cleared != leading


def _with_copied(image: Qcow2Image, transaction: Transaction, l1: array[int]) -> array[int]:
    """An L1 table that maps the same, its tables' COPIED flags set exactly where a refcount is one."""
    refcounts, bits = image.refcounts, image.geometry.cluster_bits
    neighbours = Neighbours(image.geometry)
    result = array("Q", l1)
    replaced = []
    for index, offset in table_offsets(image, l1):
        raw = _read_raw(image, offset)
        if _set_copied(image, neighbours, raw):
            replaced.append(offset)
            offset = transaction.allocate(image.geometry.cluster_size)
            transaction.write(offset, bytes(raw))
        result[index] = offset | (layout.COPIED if refcounts.get(offset >> bits) == 1 else 0)
    for offset in replaced:  # only now: after each of them the search for room would begin anew
        refcounts.free(offset, image.geometry.cluster_size)
    return result


def _set_copied(image: Qcow2Image, neighbours: Neighbours, raw: bytearray) -> bool:
    """Make a table's COPIED flags right; whether any was wrong."""
    refcounts, bits = image.refcounts, image.geometry.cluster_bits
    leading = raw[:: image.geometry.entry_size]
    entries = L2Table.unpack(0, raw, image.geometry).entries
    counts = leading.translate(_AS_COUNT)  # an entry without a place, or of a compressed cluster, stays what it is
    for index, end in neighbours.find(entries):
        if entries[index] & layout.COMPRESSED:
            continue
        first = (entries[index] & layout.OFFSET_MASK) >> bits
        if end - index < _FEW:
            for at in range(index, end):
                counts[at] = refcounts.get(first + at - index) == 1
        else:
            counts[index:end], _ = refcounts.counts(first, end - index)
    flags = counts.translate(_FLAG_OF_ONE)
    if flags == leading.translate(_ONLY_COPIED):
        return False
    changed = int.from_bytes(leading.translate(_WITHOUT_COPIED), "big") | int.from_bytes(flags, "big")
    raw[:: image.geometry.entry_size] = changed.to_bytes(len(leading), "big")
    return True


def replace_snapshots(image: Qcow2Image, transaction: Transaction, table: list[Snapshot]) -> dict[str, int]:
    """Write another snapshot table and free the present one; returns the header's fields."""
    header = image.header
    # Its end is not recorded: it is found by reading it.
    old_size = snapshot_table.read(image.file, header.snapshots_offset, header.nb_snapshots, header.size).size
    if old_size:
        image.refcounts.free(header.snapshots_offset, old_size)
    data = snapshot_table.serialise(table)
    offset = transaction.allocate(len(data))
    transaction.write(offset, data)
    image.map.expect_snapshots(offset, table, len(data))
    return {"nb_snapshots": len(table), "snapshots_offset": offset}

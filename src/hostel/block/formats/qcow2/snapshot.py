"""Internal snapshots: create, apply, delete ("Snapshots" in the qcow2 specification).

The order of writes is what keeps them safe: refcounts go up, and what is new is written and flushed, before one
write to the header makes it live; what is old loses its references after that. A failure on the way up is undone;
one on the way down leaves leaks.
"""

from __future__ import annotations

import contextlib
import errno
from array import array
from collections.abc import Iterator
from typing import Any, Protocol

from hostel.block.driver import SnapshotInfo
from hostel.block.formats.qcow2 import layout, snapshot_table
from hostel.block.formats.qcow2.geometry import Geometry
from hostel.block.formats.qcow2.layout import Header, Incompatible, SnapshotHeader
from hostel.block.formats.qcow2.snapshot_table import Snapshot
from hostel.block.node import BlockNode
from hostel.codec.table import pack_table, unpack_table
from hostel.errors import BlockError, CorruptImage, UnsupportedFeature


class Refcounts(Protocol):
    """The image's allocator."""

    def get(self, cluster_index: int) -> int:
        """The refcount of a cluster."""

    def update(self, first_cluster: int, count: int, delta: int) -> None:
        """Change the refcounts of neighbours."""

    def allocate(self, length_bytes: int) -> int:
        """Find free clusters and count them; returns their host offset."""

    def free(self, host_offset: int, length: int) -> None:
        """Give clusters back."""


class SnapshottedImage(Protocol):
    """What is needed of an image to keep snapshots in it."""

    file: BlockNode
    header: Header
    geometry: Geometry
    l1: array[int]
    refcounts: Any
    l2_cache: Any

    def flush_metadata(self) -> None:
        """Write all held-back metadata and sync it."""


def snapshots(image: SnapshottedImage) -> list[SnapshotInfo]:
    """All snapshots, in the order of the table."""
    return [snapshot.info() for snapshot in snapshot_table.load(image)]


def create_snapshot(image: SnapshottedImage, name: str, date: tuple[int, int]) -> SnapshotInfo:
    """Keep the present state; ``date`` is seconds and nanoseconds since 1970.

    Raises:
        BlockError: there are too many snapshots, or a refcount cannot grow (EINVAL); the image is as it was.
        OSError: the host's own errors; the image's old state is live.
    """
    table = _prepare(image)
    encoded = name.encode(errors="surrogateescape")
    if len(table) >= layout.MAX_SNAPSHOTS or len(encoded) > 0xFFFF:
        raise BlockError("File too large", errno=errno.EFBIG)
    _require_room(image, image.l1)
    geometry = image.geometry
    length = len(image.l1) * 8
    offset = image.refcounts.allocate(length) if length else 0
    with contextlib.ExitStack() as undo:
        if length:
            undo.callback(_quietly, image.refcounts.free, offset, length)
            image.file.pwrite(offset, pack_table(_without_copied(image.l1)).ljust(geometry.align(length), b"\0"))
        undo.callback(_quietly, _mark_copied, image)
        _count(image, image.l1, 1, undo)
        _mark_copied(image)
        image.flush_metadata()
        snapshot = Snapshot(
            header=SnapshotHeader(
                l1_table_offset=offset,
                l1_size=len(image.l1),
                id_length=0,
                name_length=0,
                date_sec=date[0] & 0xFFFFFFFF,
                date_nsec=date[1],
                vm_clock_nsec=0,
                vm_state_size=0,
                extra_data_size=0,
            ),
            id=_next_id(table),
            name=encoded,
            vm_state_size=0,
            disk_size=image.header.size,
            icount=0,  # as qemu-img writes it
            extra_data_size=snapshot_table.KNOWN_EXTRA_DATA,
        )
        _write_table(image, [*table, snapshot], undo)
    return snapshot.info()


def apply_snapshot(image: SnapshottedImage, id_or_name: str) -> None:
    """Go back to a snapshot's state, its virtual size included.

    One write to the header changes the L1 table and the size together.

    Raises:
        BlockError: there is no such snapshot (ENOENT), or it cannot be applied; the image is as it was.
        OSError: the host's own errors; the old state or the new one is live.
    """
    snapshot = _find(_prepare(image), id_or_name)
    l1 = _load_l1(image, snapshot)
    header = image.header
    if snapshot.disk_size != header.size and header.version < 3:
        raise UnsupportedFeature("Can't resize a v2 image which has snapshots")
    entries = max(len(l1), image.geometry.l1_entries(snapshot.disk_size))
    if entries > layout.MAX_L1_SIZE // 8:
        raise CorruptImage(f"The snapshot's size ({snapshot.disk_size} bytes) is beyond what the format can map")
    l1.extend([0] * (entries - len(l1)))
    _require_room(image, l1)
    length = entries * 8
    offset = image.refcounts.allocate(length) if length else header.l1_table_offset
    fresh = _without_copied(l1)
    switched = header.replace(size=snapshot.disk_size, l1_size=entries, l1_table_offset=offset)
    with contextlib.ExitStack() as undo:
        if length:
            undo.callback(_quietly, image.refcounts.free, offset, length)
            image.file.pwrite(offset, pack_table(fresh).ljust(image.geometry.align(length), b"\0"))
        _count(image, fresh, 1, undo)
        image.flush_metadata()
        undo.pop_all()  # from here on the header may have changed, even where the write fails
        _write_fields(image, switched, "size", "refcount_table_offset")
    old, old_offset = image.l1, header.l1_table_offset
    image.header, image.l1 = switched, fresh
    image.l2_cache.clear()
    _count(image, old, -1, None)
    if old:
        image.refcounts.free(old_offset, len(old) * 8)
    _mark_copied(image)
    image.flush_metadata()


def delete_snapshot(image: SnapshottedImage, id_or_name: str) -> None:
    """Drop a snapshot.

    Raises:
        BlockError: there is no such snapshot (ENOENT), or its L1 table makes no sense; the image is as it was.
        OSError: the host's own errors; clusters may have leaked.
    """
    table = _prepare(image)
    snapshot = _find(table, id_or_name)
    l1 = _load_l1(image, snapshot)
    _write_table(image, [each for each in table if each is not snapshot], contextlib.ExitStack())
    _count(image, l1, -1, None)
    if l1:
        image.refcounts.free(snapshot.l1_table_offset, len(l1) * 8)
    _mark_copied(image)
    image.flush_metadata()


def _prepare(image: SnapshottedImage) -> list[Snapshot]:
    if image.header.incompatible_features & Incompatible.DATA_FILE:
        raise UnsupportedFeature("Operation not supported")
    image.flush_metadata()
    return snapshot_table.load(image)


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


def _load_l1(image: SnapshottedImage, snapshot: Snapshot) -> array[int]:
    offset, entries = snapshot.l1_table_offset, snapshot.l1_size
    snapshot_table.validate_table(image.geometry, offset, entries, 8, layout.MAX_L1_SIZE, "Snapshot L1 table")
    if offset + entries * 8 > image.file.length:
        raise CorruptImage("Snapshot L1 table lies beyond the end of the file")
    return unpack_table(image.file.read(offset, entries * 8))


def _without_copied(l1: array[int]) -> array[int]:
    return array("Q", [entry & ~layout.COPIED for entry in l1])


def _l2_tables(image: SnapshottedImage, l1: array[int]) -> Iterator[tuple[int, array[int]]]:
    """The L2 tables of an L1 table, with their host offsets."""
    geometry = image.geometry
    for index, entry in enumerate(l1):
        offset = entry & layout.OFFSET_MASK
        if not offset:
            continue
        if geometry.in_cluster(offset):
            raise CorruptImage(f"L2 table offset {offset:#x} unaligned (L1 index: {index:#x})")
        if offset + geometry.cluster_size > image.file.length:
            raise CorruptImage(f"L2 table offset {offset:#x} lies beyond the end of the file (L1 index: {index:#x})")
        yield offset, unpack_table(image.file.read(offset, geometry.cluster_size))


def _runs(image: SnapshottedImage, l1: array[int]) -> Iterator[tuple[int, int]]:
    """All clusters that an L1 table refers to, once for each reference: first cluster and number."""
    geometry = image.geometry
    for l2_offset, table in _l2_tables(image, l1):
        first = count = 0
        for entry in table:
            if not entry:
                continue
            if entry & layout.COMPRESSED:
                where, length = geometry.compressed_range(entry & ~(layout.COMPRESSED | layout.COPIED))
                start = where >> geometry.cluster_bits
                yield start, ((where + length - 1) >> geometry.cluster_bits) - start + 1
                continue
            offset = entry & layout.OFFSET_MASK
            if not offset:
                continue
            if geometry.in_cluster(offset):
                raise CorruptImage(f"Cluster allocation offset {offset:#x} unaligned (L2 offset: {l2_offset:#x})")
            cluster = offset >> geometry.cluster_bits
            if count and cluster == first + count:
                count += 1
                continue
            if count:
                yield first, count
            first, count = cluster, 1
        if count:
            yield first, count
        yield l2_offset >> geometry.cluster_bits, 1


def _require_room(image: SnapshottedImage, l1: array[int]) -> None:
    """Refuse, before anything is changed, what would overflow a refcount."""
    limit = image.geometry.refcount_max
    rising: dict[int, int] = {}
    for first, count in _runs(image, l1):
        for cluster in range(first, first + count):
            more = 1
            if limit <= 0xFF:
                more = rising[cluster] = rising.get(cluster, 0) + 1
            if image.refcounts.get(cluster) + more > limit:
                raise BlockError("Invalid argument", errno=errno.EINVAL, hint="The refcounts are too narrow for it.")


def _count(image: SnapshottedImage, l1: array[int], delta: int, undo: contextlib.ExitStack | None) -> None:
    for first, count in _runs(image, l1):
        image.refcounts.update(first, count, delta)
        if undo is not None:
            undo.callback(_quietly, image.refcounts.update, first, count, -delta)


def _mark_copied(image: SnapshottedImage) -> None:
    """Set COPIED in the active tables exactly where a refcount is one, in the file and in memory."""
    get = image.refcounts.get
    bits = image.geometry.cluster_bits
    for offset, table in _l2_tables(image, image.l1):
        changed = False
        for index, entry in enumerate(table):
            host = entry & layout.OFFSET_MASK
            if not host or entry & layout.COMPRESSED:
                continue
            if (get(host >> bits) == 1) != bool(entry & layout.COPIED):
                table[index] = entry ^ layout.COPIED
                changed = True
        if changed:
            image.file.pwrite(offset, pack_table(table))
    l1 = array("Q", image.l1)
    for index, entry in enumerate(l1):
        host = entry & layout.OFFSET_MASK
        if host and (get(host >> bits) == 1) != bool(entry & layout.COPIED):
            l1[index] = entry ^ layout.COPIED
    if l1 != image.l1:
        image.file.pwrite(image.header.l1_table_offset, pack_table(l1))
        image.l1[:] = l1
    image.l2_cache.clear()


def _write_table(image: SnapshottedImage, table: list[Snapshot], undo: contextlib.ExitStack) -> None:
    """Write a new table, point the header to it, free the old one; ``undo`` is given up before the header changes."""
    header = image.header
    # Its end is not recorded: it is found by reading it.
    old_size = snapshot_table.read(image.file, header.snapshots_offset, header.nb_snapshots, header.size).size
    data = snapshot_table.serialise(table)
    offset = image.refcounts.allocate(len(data)) if data else 0
    switched = header.replace(nb_snapshots=len(table), snapshots_offset=offset)
    with undo:
        if data:
            undo.callback(_quietly, image.refcounts.free, offset, len(data))
            image.file.pwrite(offset, data.ljust(image.geometry.align(len(data)), b"\0"))
        image.flush_metadata()
        undo.pop_all()  # from here on the header may have changed, even where the write fails
    _write_fields(image, switched, "nb_snapshots", "incompatible_features")
    image.header = switched
    if old_size:
        _quietly(image.refcounts.free, header.snapshots_offset, old_size)


def _write_fields(image: SnapshottedImage, header: Header, first: str, end: str) -> None:
    """Write the header's fields from ``first`` up to ``end`` in one write, and sync."""
    start, stop = Header.OFFSET[first], Header.OFFSET[end]
    image.file.flush()
    image.file.pwrite(start, header.pack()[start:stop])
    image.file.flush()


def _quietly(call: Any, *arguments: Any) -> None:
    """Undo as far as it goes: the error that made it necessary is the one to report, and a leak harms nobody."""
    with contextlib.suppress(OSError):
        call(*arguments)

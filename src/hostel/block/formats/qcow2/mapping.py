"""From guest to host: the runs of an image ("Cluster mapping" in the qcow2 specification)."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import TYPE_CHECKING

from hostel.block.formats.qcow2 import layout
from hostel.block.formats.run import Kind, Run
from hostel.codec.table import equal_entries

if TYPE_CHECKING:
    from hostel.block.formats.qcow2.image import Qcow2Image
    from hostel.block.formats.qcow2.l2_table import L2Table


def classify(entry: int, *, external: bool) -> Kind:
    """What a standard L2 entry says; in an external data file, offset 0 is as good a place as any."""
    if entry & layout.COMPRESSED:
        return Kind.COMPRESSED
    if entry & layout.ZERO:
        return Kind.ZERO
    if entry & layout.OFFSET_MASK or (external and entry & layout.COPIED):
        return Kind.DATA
    return Kind.UNALLOCATED


def runs(image: Qcow2Image, offset: int, length: int, *, every_place: bool = False) -> Iterator[Run]:
    """The runs of a guest range, in order and without gaps. A run ends with its L2 table at the latest.

    Args:
        image: whose.
        offset: bytes from the start of the disk.
        length: bytes.
        every_place: tell, too, where a cluster has room for subclusters that hold nothing.

    Raises:
        CorruptImage: an entry makes no sense.
        OSError: a table cannot be read.
    """
    geometry = image.geometry
    reach = geometry.l2_reach
    end = offset + length
    while offset < end:
        l1_index = offset // reach
        table = image.l2_table(l1_index)
        if table is None:
            stop = min(end, image.next_l2(l1_index + 1, -(-end // reach)) * reach)
            yield Run(offset, stop - offset, Kind.UNALLOCATED, 0)
        else:
            stop = min(end, (l1_index + 1) * reach)
            if table.bitmaps is None:
                yield from _table_runs(image, table.entries, l1_index, offset, stop)
            else:
                yield from extended_runs(image, table, l1_index, offset, stop, every_place=every_place)
        offset = stop


def _table_runs(image: Qcow2Image, table: array[int], l1_index: int, offset: int, end: int) -> Iterator[Run]:
    bits = image.geometry.cluster_bits
    base = l1_index * image.geometry.l2_reach
    last = (end - 1 - base) >> bits
    index = (offset - base) >> bits
    while index <= last:
        entry = table[index]
        kind = classify(entry, external=image.external)
        host = entry & layout.OFFSET_MASK
        if kind is Kind.COMPRESSED:
            next_index, host = index + 1, entry
        elif host or kind is Kind.DATA:
            if kind is Kind.ZERO or entry & image.suspicious:
                image.validate_entry(entry, l1_index, index)
            if image.external:
                require_own_place(image, host, l1_index, index)
            next_index = _same_run(table, index, last, host, entry & layout.ZERO, 1 << bits)
            host += (offset - base) & ((1 << bits) - 1)
        else:
            if entry:
                image.validate_entry(entry, l1_index, index)
            next_index = equal_entries(table, index, last + 1)
        stop = min(end, base + (next_index << bits))
        yield Run(offset, stop - offset, kind, host)
        offset, index = stop, next_index


def extended_runs(
    image: Qcow2Image, table: L2Table, l1_index: int, offset: int, end: int, *, every_place: bool = False
) -> Iterator[Run]:
    """The runs of a range inside one extended L2 table, neighbours of one kind joined; see :func:`runs`."""
    last: Run | None = None
    for run in _subcluster_runs(image, table, l1_index, offset, end, every_place=every_place):
        if last is not None and last.kind is run.kind is not Kind.COMPRESSED:
            placed = last.host or last.kind is Kind.DATA
            continues = last.host + last.length == run.host if placed else not run.host
            if continues or not (every_place or run.kind is Kind.DATA):
                last = last._replace(length=last.length + run.length, host=last.host if continues else 0)
                continue
        if last is not None:
            yield last
        last = run
    if last is not None:
        yield last


def _subcluster_runs(
    image: Qcow2Image, table: L2Table, l1_index: int, offset: int, end: int, *, every_place: bool
) -> Iterator[Run]:
    geometry = image.geometry
    assert table.bitmaps is not None
    base = l1_index * geometry.l2_reach
    while offset < end:
        index, within = divmod(offset - base, geometry.cluster_size)
        stop = min(end, offset - within + geometry.cluster_size)
        entry, bitmap = table.entries[index], table.bitmaps[index]
        if entry & layout.COMPRESSED:
            yield Run(offset, stop - offset, Kind.COMPRESSED, entry)
            offset = stop
            continue
        host = entry & layout.OFFSET_MASK
        if entry & image.suspicious:
            image.validate_entry(entry, l1_index, index)
        if contradicts(image, entry, bitmap):
            # Two spaces where it is read, as QEMU has it.
            where = f"(L2 offset: {table.offset:#x}, L2 index: {layout.c_hex(index)})"
            image.corrupt(f"Invalid cluster entry found  {where}")
        placed = bool(host or (image.external and entry & layout.COPIED))
        if placed and image.external:
            require_own_place(image, host, l1_index, index)
        while offset < stop:
            within = geometry.in_cluster(offset)
            kind, after = subcluster_run(bitmap, within // geometry.subcluster_size)
            length = min(stop - offset, after * geometry.subcluster_size - within)
            told = placed and (every_place or kind is not Kind.UNALLOCATED)
            yield Run(offset, length, kind, host + within if told else 0)
            offset += length


def require_own_place(image: Qcow2Image, host: int, l1_index: int, index: int) -> None:
    """Refuse a place in an external data file that is not where the guest has it: another cluster may be there.

    Raises:
        CorruptImage: it is not.
    """
    guest = l1_index * image.geometry.l2_reach + index * image.geometry.cluster_size
    if host != guest:
        # An opening bracket is missing, as in QEMU's.
        where = f"guest cluster offset: {layout.c_hex(guest)}, L2 index: {layout.c_hex(index)})"
        image.corrupt(f"External data file host cluster offset {layout.c_hex(host)} does not match {where}")


def contradicts(image: Qcow2Image, entry: int, bitmap: int) -> bool:
    """Whether an uncompressed cluster has a subcluster that is allocated and zero, or allocated nowhere."""
    placed = entry & layout.OFFSET_MASK or (image.external and entry & layout.COPIED)
    return bool(bitmap >> 32 & bitmap or (bitmap & layout.ALL_ALLOCATED and not placed))


def subcluster_run(bitmap: int, index: int) -> tuple[Kind, int]:
    """The kind of the subcluster at ``index``, and the index after the neighbours of the same kind."""
    kind = _subcluster_kind(bitmap, index)
    if bitmap in (0, layout.ALL_ALLOCATED, layout.ALL_ZERO):
        return kind, layout.SUBCLUSTERS
    index += 1
    while index < layout.SUBCLUSTERS and _subcluster_kind(bitmap, index) is kind:
        index += 1
    return kind, index


def _subcluster_kind(bitmap: int, index: int) -> Kind:
    if bitmap >> (32 + index) & 1:
        return Kind.ZERO
    return Kind.DATA if bitmap >> index & 1 else Kind.UNALLOCATED


def _same_run(table: array[int], index: int, last: int, host: int, zero: int, step: int) -> int:
    """The index after the neighbours that lie one after the other on the host."""
    index += 1
    expected = (host + step) | zero
    while index <= last and table[index] & ~layout.COPIED == expected:
        index += 1
        expected += step
    return index

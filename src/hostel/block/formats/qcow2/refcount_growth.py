"""Growing the refcount table: a larger one at the end of the image, with the blocks that count it.

The new table and its blocks are on the disk before the header points to them with one write between two syncs; the
place of the old table is free from then on. See "Host cluster management" in the qcow2 specification.
"""

from __future__ import annotations

from hostel.block.formats.qcow2 import layout
from hostel.block.formats.qcow2.geometry import Geometry
from hostel.block.formats.qcow2.image import Qcow2Image
from hostel.codec.table import pack_table
from hostel.errors import NoSpace


def grow_table(image: Qcow2Image, start: int) -> None:
    """Move the refcount table to where it has room for half as many entries more.

    Args:
        image: open for writing, outside a transaction.
        start: index of a refcount block; what it counts, and everything behind, is free.

    Raises:
        NoSpace: the table has reached its limit.
        OSError: the host's own errors; before the header was written nothing has happened.
    """
    geometry, refcounts = image.geometry, image.refcounts
    image.file.debug_event("reftable_grow")
    limit = layout.MAX_REFTABLE_SIZE // 8
    total = _blocks(geometry, start * geometry.block_entries)
    if total > limit:
        raise NoSpace("File too large: the refcount table has reached its limit", errno=27)
    clusters = geometry.clusters(min(total + -(-total // 2), limit) * 8)
    first = start * geometry.block_entries
    indexes = range(start, total)
    for place, index in enumerate(indexes, first):
        refcounts.place_block(index, place)
    offset = (first + len(indexes)) << geometry.cluster_bits
    length = clusters << geometry.cluster_bits
    try:
        refcounts.update(first, len(indexes) + clusters, 1)
        _write(image, offset, length)
    except BaseException:
        for index in reversed(indexes):
            refcounts.drop_block(index)
        raise
    old, old_length = refcounts.move_table(offset, clusters)
    image.map.place("refcount table", offset, length)
    image.map.blocks = {entry >> geometry.cluster_bits for entry in refcounts.table if entry}
    _free(image, old, old_length)


def _free(image: Qcow2Image, offset: int, length: int) -> None:
    """Give the old table's place up; what cannot be done at once is tried again, and told, with the next flush."""
    bits = image.geometry.cluster_bits
    try:
        if image.map.find(offset >> bits, length >> bits) is None:
            image.refcounts.free(offset, length)
            return
    except OSError:
        pass
    image.space.release(offset, length)


def _blocks(geometry: Geometry, clusters: int) -> int:
    """How many refcount blocks count ``clusters``, themselves, and a table of one and a half times their number."""
    table = blocks = 0
    generous = False
    while True:
        before = blocks, table
        blocks = -(-(clusters + table + blocks) // geometry.block_entries)
        table = geometry.clusters(blocks * 8)
        if (blocks, table) != before:
            continue
        if generous:
            return blocks
        clusters += -(-table // 2)
        generous = True


def _write(image: Qcow2Image, offset: int, length: int) -> None:
    """Write the blocks and the table, and make the header point to it."""
    refcounts = image.refcounts
    image.refuse_block_overlap()
    image.file.debug_event("refblock_alloc_write_blocks")
    refcounts.write_blocks()
    image.file.debug_event("refblock_alloc_write_table")
    image.file.pwrite(offset, pack_table(refcounts.table).ljust(length, b"\0"))
    image.file.debug_event("refblock_alloc_switch_table")
    fields = {"refcount_table_offset": offset, "refcount_table_clusters": length >> image.geometry.cluster_bits}
    image.write_header_fields(image.header.replace(**fields), "refcount_table_offset", "nb_snapshots")

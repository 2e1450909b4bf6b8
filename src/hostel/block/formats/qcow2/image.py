"""The live image: header, L1 and L2 tables, refcounts, and the order in which they reach the disk.

Tables are changed in memory and written by :meth:`Qcow2Image.write_metadata`, in the order that leaves leaks at worst
wherever it is cut off: refcounts, a sync, L2 tables, a sync, L1 entries, a sync. Only then the clusters that nothing on
disk refers to any more lose their references, and may be used again.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NoReturn

from hostel.block import incident, notice
from hostel.block.driver import OpenMode
from hostel.block.formats.qcow2 import header as headers
from hostel.block.formats.qcow2 import layout
from hostel.block.formats.qcow2.bitmap import Bitmaps
from hostel.block.formats.qcow2.geometry import Geometry
from hostel.block.formats.qcow2.header import Preamble, read_preamble
from hostel.block.formats.qcow2.header_limits import validate_header
from hostel.block.formats.qcow2.header_update import steps
from hostel.block.formats.qcow2.l2_table import L2Table
from hostel.block.formats.qcow2.layout import Autoclear, Compatible, Extension, Header, Incompatible
from hostel.block.formats.qcow2.overlap import MetadataMap
from hostel.block.formats.qcow2.refcount import Allocator
from hostel.block.formats.qcow2.runtime import guards_inactive_tables
from hostel.block.node import BlockNode
from hostel.block.reading import read_or_say
from hostel.codec.table import drop_zeroes_at_end, unpack_table
from hostel.errors import CorruptImage, InvalidImage
from hostel.units import MiB

if TYPE_CHECKING:
    from hostel.block.formats.qcow2.space import Space

_CACHE_LIMIT: Final = 32 * MiB  # bytes of L2 tables kept in memory, as QEMU's default l2-cache-size
_MIN_TABLES: Final = 16


class Qcow2Image:
    """An open image.

    Attributes:
        file: the node that holds the metadata.
        data: the node that holds the guest's clusters.
        external: that is a file of its own, where a cluster's host offset is its guest offset.
        preamble: the header cluster as it is on disk.
        geometry: the sizes that follow from the header.
        l1: the active L1 table.
        refcounts: the allocator; it counts nothing while the image is open for reading only.
        space: what finds and frees clusters; only of an image that is open for writing.
        suspicious: bits that an ordinary data entry must not have.
    """

    space: Space

    def __init__(self, file: BlockNode, mode: OpenMode) -> None:
        self.file = file
        self.data = file
        self.mode = mode
        self.preamble = read_preamble(file)
        self.geometry = Geometry.of(self.header)
        self.external = bool(self.header.incompatible_features & Incompatible.DATA_FILE)
        self.suspicious = layout.L2_RESERVED | (self.geometry.cluster_size - 1 & ~layout.ZERO)
        self.l1: array[int] = array("Q")
        self.refcounts = Allocator(file, self.geometry, array("Q"), 0, 0)
        self.tables: dict[int, L2Table] = {}  # by L1 index, the least recently used first
        self.map = MetadataMap(self.geometry)
        self.bitmaps = Bitmaps(self)
        self._dirty_l1: set[int] = set()
        self._dirty_tables: set[int] = set()
        self._writing = False
        self._told = False  # that it is corrupt
        self.called: Callable[[], str] = str
        self._owed = False  # something is held back that was accepted before the present request
        self.broken: str | None = None
        self.end_of_bytes = 0  # host offset after the last compressed payload; 0 where the next starts a cluster
        self.last_cluster: tuple[int, bytes] | None = None  # an L2 entry and what it decompresses to
        self._inactive_tables: set[int] | None = None
        if guards_inactive_tables(mode.options):
            self.map.inactive_tables = self._find_inactive_tables
        if not mode.read_only:
            from hostel.block.formats.qcow2.space import Space

            self.space = Space(self)
        validate_header(self.header, self.geometry, mode)
        if not mode.no_io and not mode.check:
            self.load_tables()
        if mode.check:
            self.bitmaps.warn_of_stale()
        else:
            self._place_snapshots()
            self.bitmaps.inspect()

    @property
    def header(self) -> Header:
        """The header's fixed fields."""
        return self.preamble.header

    @property
    def extensions(self) -> tuple[Extension, ...]:
        """The header's extensions."""
        return self.preamble.extensions

    @property
    def size(self) -> int:
        """The virtual size in bytes."""
        return int(self.header.size)

    @property
    def raw_external(self) -> bool:
        """Whether the external data file must read like the image."""
        return self.external and bool(self.header.autoclear_features & Autoclear.DATA_FILE_RAW)

    @property
    def lazy(self) -> bool:
        """Whether refcounts on disk may wait, with the dirty bit set."""
        recorded = bool(self.header.compatible_features & Compatible.LAZY_REFCOUNTS)
        return bool(self.mode.options.get("lazy-refcounts", recorded))

    # ---- loading

    def load_tables(self) -> None:
        """Read the L1 table and, for writing, the refcount table.

        Raises:
            InvalidImage: a table lies beyond the end of the file.
        """
        header = self.header
        self.tables.clear()
        self.l1 = self._read_table(header.l1_table_offset, header.l1_size, "L1 table")
        if not self.mode.read_only:
            self.load_refcounts()

    def load_refcounts(self) -> None:
        """Read the refcount table.

        Raises:
            InvalidImage: the table lies beyond the end of the file.
        """
        header, geometry = self.header, self.geometry
        length = header.refcount_table_clusters << geometry.cluster_bits
        self.file.debug_event("reftable_load")
        table = self._read_table(header.refcount_table_offset, length // 8, "refcount table", padded=True)
        drop_zeroes_at_end(table)
        self.refcounts = Allocator(
            self.file, geometry, table, header.refcount_table_offset, header.refcount_table_clusters
        )
        if not self.mode.check:
            self.refcounts.corrupt = self.corrupt
            self.refcounts.outgrown = self._grow_table

    def _grow_table(self, start: int) -> None:
        from hostel.block.formats.qcow2.refcount_growth import grow_table

        grow_table(self, start)

    def _read_table(self, offset: int, entries: int, name: str, *, padded: bool = False) -> array[int]:
        # A table is allocated in whole clusters; the file may end before the unused rest of the last one.
        end = offset + (1 if padded else entries * 8)
        if entries and end > self.file.length:
            raise InvalidImage(f"The {name} lies beyond the end of the file: the image is truncated")
        failure = "Could not initialize refcount handling" if padded else f"Could not read {name}"
        return unpack_table(read_or_say(self.file, offset, entries * 8, failure))

    def reload(self) -> None:
        """Read everything again: the file was changed beside us."""
        self.preamble = read_preamble(self.file)
        self.bitmaps.forget()
        self.map = MetadataMap(self.geometry)
        self.end_of_bytes, self.last_cluster = 0, None
        self._writing = False
        if not self.mode.check:
            self.load_tables()

    # ---- L2 tables

    def next_l2(self, l1_index: int, end: int | None = None) -> int:
        """The first L1 index from ``l1_index`` up to ``end`` with an L2 table; a very large number without one."""
        l1 = self.l1
        for index in range(l1_index, len(l1) if end is None else min(end, len(l1))):
            if l1[index]:
                return index
        return 1 << 63

    def l2_table(self, l1_index: int) -> L2Table | None:
        """An active L2 table, for reading; None where there is none."""
        table = self.tables.get(l1_index)
        if table is not None:
            return table
        entry = self.l1[l1_index] if l1_index < len(self.l1) else 0
        if not entry:
            return None
        offset = entry & layout.OFFSET_MASK
        if entry & layout.L1_RESERVED or self.geometry.in_cluster(offset) or not offset:
            self.corrupt(f"L2 table offset {offset:#x} unaligned (L1 index: {layout.c_hex(l1_index)})")
        if offset >= self.file.length:
            self.corrupt(f"L2 table offset {offset:#x} beyond the end of the file (L1 index: {layout.c_hex(l1_index)})")
        self._make_room()
        self.file.debug_event("l2_load")
        table = L2Table.unpack(offset, self.file.read(offset, self.geometry.cluster_size), self.geometry)
        self.tables[l1_index] = table
        return table

    def _make_room(self) -> None:
        limit = max(_MIN_TABLES, _CACHE_LIMIT >> self.geometry.cluster_bits)
        if len(self.tables) < limit:
            return
        if len(self._dirty_tables) > limit // 2:
            self.write_metadata()
        for index in [each for each in self.tables if each not in self._dirty_tables][: limit // 4]:
            del self.tables[index]

    def l2_for_write(self, l1_index: int) -> L2Table:
        """The active L2 table of an L1 index, ready to be changed: made, or copied from the snapshots, when needed."""
        entry = self.l1[l1_index]
        table = self.l2_table(l1_index)
        if table is not None and entry & layout.COPIED:
            if l1_index not in self._dirty_tables:
                self.refuse_overlap("write on", table.offset, self.geometry.cluster_size, "active L2 table")
            return table
        self._make_room()
        offset = self.space.allocate(self.geometry.cluster_size, "L2 table")
        try:
            # The host shall have room for the table, and its L1 entry, before what it leads to is written: on a full
            # disk a later flush could keep none of it.
            if not entry and l1_index not in self._dirty_l1:
                self.file.pwrite(self.header.l1_table_offset + l1_index * 8, bytes(8))
            self.file.pwrite(offset, bytes(self.geometry.cluster_size))
            if self.lazy:
                # Refcounts of data may wait; those of tables are right whatever happens.
                self._write_refcounts()
        except BaseException:
            self.refcounts.free(offset, self.geometry.cluster_size)
            raise
        if table is not None:
            self.file.debug_event("l2_alloc_cow_read")
        fresh = L2Table.empty(offset, self.geometry) if table is None else table.copy(offset)
        self.tables[l1_index] = fresh
        self.touch(l1_index, 0, self.geometry.l2_entries)
        self.l1[l1_index] = offset | layout.COPIED
        self._dirty_l1.add(l1_index)
        self.map.tables.add(offset >> self.geometry.cluster_bits)
        if table is not None:
            self.map.tables.discard(table.offset >> self.geometry.cluster_bits)
            self.space.release(table.offset, self.geometry.cluster_size)
        return fresh

    def drop_l2(self, l1_index: int) -> None:
        """Give up an L2 table whose entries nothing needs any more."""
        offset = self.l1[l1_index] & layout.OFFSET_MASK
        self.tables.pop(l1_index, None)
        self._dirty_tables.discard(l1_index)
        self.l1[l1_index] = 0
        self._dirty_l1.add(l1_index)
        self.map.tables.discard(offset >> self.geometry.cluster_bits)
        self.space.release(offset, self.geometry.cluster_size)

    def touch(self, l1_index: int, low: int, high: int) -> None:
        """Entries ``low`` to ``high`` of a table in memory changed."""
        self.tables[l1_index].touch(low, high)
        self._dirty_tables.add(l1_index)

    def validate_entry(self, entry: int, l1_index: int, index: int) -> None:
        """Refuse an L2 entry that makes no sense."""
        where = f"(L2 offset: {self.l1[l1_index] & layout.OFFSET_MASK:#x}, L2 index: {layout.c_hex(index)})"
        offset = entry & layout.OFFSET_MASK
        if self.geometry.in_cluster(offset):
            kind = "Preallocated zero cluster" if entry & layout.ZERO else "Cluster allocation"
            self.corrupt(f"{kind} offset {offset:#x} unaligned {where}")
        if entry & layout.ZERO and self.header.version < 3:
            self.corrupt(f"Zero cluster entry found in pre-v3 image {where}")

    def is_own(self, entry: int) -> bool:
        """Whether a cluster may be written in place: allocated, uncompressed, and nobody else's."""
        own = entry & layout.COPIED and not entry & layout.COMPRESSED
        return bool(own and (self.external or entry & layout.OFFSET_MASK))

    # ---- protecting

    def prevent_overlap(self, offset: int, length: int) -> None:
        """Refuse to write guest data over metadata.

        Raises:
            CorruptImage: an L2 entry points to metadata; the image is marked.
        """
        if not self.external:
            self.refuse_overlap("write on", offset, length)

    def refuse_overlap(self, what: str, offset: int, length: int, own: str = "") -> None:
        """Refuse a change where there is metadata that is not ``own``, as :class:`MetadataMap` names it.

        Args:
            what: the change, in QEMU's words.
            offset: where in the file, in bytes.
            length: how much, in bytes.
            own: what may be there.

        Raises:
            CorruptImage: there is; the image is marked.
        """
        bits = self.geometry.cluster_bits
        first = offset >> bits
        found = self.map.find(first, ((offset + length - 1) >> bits) - first + 1, own)
        if found is not None:
            self.corrupt(f"Preventing invalid {what} metadata (overlaps with {found})", offset, length)

    def corrupt(self, message: str, offset: int | None = None, length: int | None = None) -> NoReturn:
        """Raise for metadata that contradicts itself; an image that we may write is marked and written no more.

        Args:
            message: what is wrong, in QEMU's words.
            offset: where in the file somebody wanted to write, in bytes; None where that is not what it is about.
            length: how much, in bytes.

        Raises:
            CorruptImage: always.
        """
        if not self.mode.read_only and self.broken is None:
            self.broken = message
            self._told = True
            notice.tell(f"qcow2: Marking image as corrupt: {message}; further corruption events will be suppressed")
            self._tell_owner(message, offset, length, fatal=True)
            if self.header.version >= 3:
                self.set_features(self.header.incompatible_features | Incompatible.CORRUPT)
            raise CorruptImage(f"Marking image as corrupt: {message}", hint="Use qemu-img check -r all to repair it.")
        if not self._told:
            self._told = True
            notice.tell(f"qcow2: Image is corrupt: {message}; further non-fatal corruption events will be suppressed")
            self._tell_owner(message, offset, length, fatal=False)
        raise CorruptImage(message)

    def _tell_owner(self, message: str, offset: int | None, length: int | None, *, fatal: bool) -> None:
        name = self.called()
        members = {"node-name": name or None, "offset": offset, "size": length}
        given = {key: value for key, value in members.items() if value is not None}
        incident.tell("BLOCK_IMAGE_CORRUPTED", {"device": "", "msg": message, "fatal": fatal, **given})

    # ---- writing

    def begin_write(self) -> None:
        """Before the first change: clear autoclear bits, and mark the image dirty where refcounts are lazy.

        Raises:
            CorruptImage: the image was found corrupt since it was opened, or what its header says is not known.
        """
        self.last_cluster = None  # what lies at its place may be something else soon
        self._refuse_broken()
        self._owed = bool(self._dirty_tables or self._dirty_l1)
        if self._writing:
            return
        self.place_metadata()
        header = self.header
        if headers.unknown_autoclear(header):
            kept = header.autoclear_features & ~headers.unknown_autoclear(header)
            self.write_header_fields(header.replace(autoclear_features=kept), "autoclear_features", "refcount_order")
        if self.lazy:
            self.set_features(self.header.incompatible_features | Incompatible.DIRTY)
        self.bitmaps.begin()
        self._writing = True

    def _refuse_broken(self) -> None:
        if self.broken is not None:
            raise CorruptImage(f"The image is not written any more: {self.broken}")

    def place_metadata(self) -> None:
        """Learn where the metadata lies.

        Raises:
            InvalidImage: the snapshot table is malformed.
        """
        header, bits, place = self.header, self.geometry.cluster_bits, self.map.place
        place("active L1 table", header.l1_table_offset, header.l1_size * 8)
        place("refcount table", header.refcount_table_offset, header.refcount_table_clusters << bits)
        place("encryption header", *self.preamble.encryption_header)
        self._place_snapshots()
        self.map.tables = {(entry & layout.OFFSET_MASK) >> bits for entry in self.l1 if entry}
        self.map.blocks = {entry >> bits for entry in self.refcounts.table if entry}

    def _place_snapshots(self) -> None:
        offset, count = self.header.snapshots_offset, self.header.nb_snapshots
        self._inactive_tables = None
        if not self.map.place_snapshots(offset, count):
            from hostel.block.formats.qcow2 import snapshot_table

            snapshots, size = snapshot_table.find(self.file, offset, count, self.header.size)
            self.map.expect_snapshots(offset, snapshots, size)
            self.map.place_snapshots(offset, count)

    def _find_inactive_tables(self) -> set[int]:
        from hostel.block.formats.qcow2.snapshot import inactive_tables

        if self._inactive_tables is None:
            self._inactive_tables = inactive_tables(self)
        return self._inactive_tables

    def set_features(self, incompatible: int) -> None:
        """Write the incompatible features and sync."""
        header = self.header.replace(incompatible_features=int(incompatible))
        self.write_header_fields(header, "incompatible_features", "compatible_features")

    def write_preamble(self, preamble: Preamble) -> None:
        """Replace the header cluster's content; see :mod:`hostel.block.formats.qcow2.header_update`."""
        head = bytes(self.file.read(0, min(self.file.length, self.geometry.cluster_size)))
        self._write_header(*steps(self.preamble, head, preamble))
        self.preamble = headers.parse(headers.serialise(preamble))

    def write_header_fields(self, header: Header, first: str, end: str) -> None:
        """Write the header's fields from ``first`` up to ``end``, and no others, with one write between two syncs."""
        start, stop = Header.OFFSET[first], Header.OFFSET[end]
        data, present = header.pack()[start:stop], self.header.pack()
        self._write_header((start, data))
        self.preamble = self.preamble._replace(header=Header.unpack(present[:start] + data + present[stop:]))

    def _write_header(self, *writes: tuple[int, bytes]) -> None:
        self.file.flush()
        try:
            for offset, data in writes:
                self.file.pwrite(offset, data)
                self.file.flush()
        except BaseException:
            # The disk may have the old header or the new one: nobody may write on as if it were known.
            self.broken = "its header could not be written; open it again"
            self._owed = True
            raise

    def flush_data(self) -> None:
        """Sync an external data file, so that its data is there before what points to it."""
        if self.external and self.data is not self.file:
            self.data.flush()

    def write_metadata(self) -> None:
        """Write what is held back, in order, and sync.

        Raises:
            CorruptImage: the image is not written any more.
            OSError: the host's own errors; what is not written yet is still held back.
        """
        self._refuse_broken()
        synced = not self.lazy and self._write_refcounts() and self.data is self.file
        if self._dirty_tables and not synced:
            # What an entry says must not be on the disk before the data that it points to.
            self.data.flush()
        self._write_tables()
        self._write_l1()
        self.file.flush()
        self._free_released()

    def flush_metadata(self) -> None:
        """Write everything that is held back, the freed clusters included, and sync."""
        self.flush_data()
        self.write_metadata()
        while self.refcounts.dirty:
            self._write_refcounts()
            self._free_released()

    def _free_released(self) -> None:
        if not self.mode.read_only:
            self.space.free_released()

    def _write_refcounts(self) -> bool:
        """Write the refcounts that changed; whether there were any, and with them everything before was synced."""
        if not self.refcounts.dirty:
            return False
        self.refuse_block_overlap()
        self.refcounts.write()
        self.map.blocks = {entry >> self.geometry.cluster_bits for entry in self.refcounts.table if entry}
        return True

    def refuse_block_overlap(self) -> None:
        """Refuse to write refcount blocks over other metadata."""
        for index, block in self.refcounts.blocks.items():
            if block.dirty:
                place = self.refcounts.block_offset(index)
                self.refuse_overlap("write on", place, self.geometry.cluster_size, "refcount block")

    def _write_tables(self) -> None:
        for index in sorted(self._dirty_tables):
            table = self.tables[index]
            place = table.offset + table.low * self.geometry.entry_size
            if index in self._dirty_l1:
                self.file.debug_event("l2_alloc_write")
            self.file.debug_event("l2_update")
            self.file.pwrite(place, table.pack(table.low, table.high))
            table.clean()
            self._dirty_tables.discard(index)

    def _write_l1(self) -> None:
        if not self._dirty_l1:
            return
        self.file.flush()
        for index in sorted(self._dirty_l1):
            self.file.debug_event("l1_update")
            self.file.pwrite(self.header.l1_table_offset + index * 8, self.l1[index].to_bytes(8, "big"))
        self._dirty_l1.clear()

    def close(self) -> None:
        """Write what is held back; the image is clean afterwards.

        Raises:
            CorruptImage: the image is not written any more, and something accepted before is lost.
            OSError: the host's own errors; what was not written is lost.
        """
        lost = self._owed and bool(self._dirty_tables or self._dirty_l1)
        if self._writing and (self.broken is None or lost):
            try:
                self.end_write()
            except InvalidImage as error:
                part = "refcount" if self.refcounts.dirty else "L2"
                message = f"Failed to flush the {part} block cache: {os.strerror(error.errno or 0)}"
                raise InvalidImage(message, errno=error.errno, hint=error.message) from error

    def end_write(self) -> None:
        """Write what is held back and clear the dirty bit, until :meth:`begin_write` is called again.

        Raises:
            CorruptImage: the image is not written any more.
            OSError: the host's own errors.
        """
        self.flush_metadata()
        self.bitmaps.store()
        if self.header.incompatible_features & Incompatible.DIRTY:
            self.set_features(self.header.incompatible_features & ~int(Incompatible.DIRTY))
        self._writing = False

"""The allocator: refcounts in memory, which clusters are free, and the refcount blocks on disk.

Nothing is written before :meth:`Allocator.write`, and there the order is: blocks, a sync, then the table's entries that
point to new blocks. See "Host cluster management" in the qcow2 specification.
"""

from __future__ import annotations

import errno
import re
from array import array
from collections.abc import Callable, Iterator
from typing import Final, NoReturn

from hostel.block.formats.qcow2 import layout
from hostel.block.formats.qcow2.geometry import Geometry
from hostel.block.formats.qcow2.refcount_block import NARROW, Block, NegativeCount
from hostel.block.formats.qcow2.refcount_bytes import WIDE, has_above, unpack_refcounts
from hostel.block.node import BlockNode
from hostel.errors import BlockError, CorruptImage, NoSpace

_CACHE_LIMIT: Final = 32 << 20  # bytes of blocks kept in memory
_FULL: Final = "File too large: the refcount table has reached its limit"
_MAX_CLUSTER: Final = 1 << 47  # host offsets have 56 bits


def _refuse(message: str) -> NoReturn:
    raise CorruptImage(message)


class Allocator:
    """Refcounts and free clusters of one image.

    Attributes:
        table: the refcount table; it may be longer than on disk until it is written.
        table_offset: host offset of the table on disk, bytes.
        table_clusters: clusters of the table on disk.
        recording: inside a transaction: blocks keep what they were.
        corrupt: raises for what makes no sense, and may mark the image.
        outgrown: outside a transaction, makes the table larger: the blocks from this index on are free, to the end.
    """

    def __init__(
        self, file: BlockNode, geometry: Geometry, table: array[int], table_offset: int, table_clusters: int
    ) -> None:
        self._file = file
        self._geometry = geometry
        self.table = table
        self.table_offset = table_offset
        self.table_clusters = table_clusters
        self.recording = False
        self.corrupt: Callable[[str], NoReturn] = _refuse
        self.outgrown: Callable[[int], None] | None = None
        self.blocks: dict[int, Block] = {}
        self._new_entries: set[int] = set()
        self._hint = 0

    # ---- looking

    def get(self, cluster: int) -> int:
        """The refcount of a cluster."""
        index, slot = divmod(cluster, self._geometry.block_entries)
        block = self._block(index)
        return 0 if block is None else block.get(slot)

    def counts(self, first: int, count: int) -> tuple[bytearray, dict[int, int]]:
        """The refcounts of ``count`` neighbours from cluster ``first`` on, as in a :class:`Block`."""
        values, wide = bytearray(), dict[int, int]()
        while count > 0:
            index, slot = divmod(first, self._geometry.block_entries)
            length = min(count, self._geometry.block_entries - slot)
            block = self._block(index)
            if block is None:
                values += bytes(length)
            else:
                shift = len(values) - slot
                wide |= {at + shift: value for at, value in block.wide.items() if slot <= at < slot + length}
                values += block.values[slot : slot + length]
            first += length
            count -= length
        return values, wide

    def unused(self, first: int, count: int) -> Iterator[tuple[int, int]]:
        """The runs of free clusters among ``count`` neighbours: the first of each, and how many."""
        for run in re.finditer(rb"\0+", self.counts(first, count)[0]):
            yield first + run.start(), len(run[0])

    def end(self) -> int:
        """One more than the last cluster in use."""
        for index in range(len(self.table) - 1, -1, -1):
            block = self._block(index)
            if block is not None and (used := len(block.values.rstrip(b"\0"))):
                return index * self._geometry.block_entries + used
        return 0

    def count_used(self, clusters: int, enough: int) -> int:
        """How many of the first ``clusters`` are in use; counting may stop once it has reached ``enough``."""
        entries = self._geometry.block_entries
        used = 0
        for first in range(0, clusters, entries):
            block = self._block(first // entries)
            if block is not None:
                end = min(entries, clusters - first)
                used += end - block.values.count(0, 0, end)
            if used >= enough:
                break
        return used

    def _block(self, index: int) -> Block | None:
        block = self.blocks.get(index)
        if block is None and index < len(self.table) and self.table[index]:
            self._make_room()
            block = self.blocks[index] = self._load(index)
        return block

    def _load(self, index: int) -> Block:
        geometry = self._geometry
        entry = self.table[index]
        offset = entry & layout.REFTABLE_OFFSET_MASK
        if entry & layout.REFTABLE_RESERVED or geometry.in_cluster(offset):
            self.corrupt(f"Refblock offset {offset:#x} unaligned (reftable index: {layout.c_hex(index)})")
        if offset >= self._file.length:
            self.corrupt(f"Refblock offset {offset:#x} lies beyond the end of the file (index: {index:#x})")
        self._file.debug_event("refblock_load")
        values, wide = unpack_refcounts(self._file.read(offset, geometry.cluster_size), geometry.refcount_bits)
        return Block(bytearray(values), wide)

    def _make_room(self) -> None:
        if len(self.blocks) * self._geometry.block_entries < _CACHE_LIMIT:
            return
        for index in [each for each, block in self.blocks.items() if not block.dirty and block.before is None]:
            del self.blocks[index]

    # ---- counting

    def update(self, first: int, count: int, delta: int) -> None:
        """Add ``delta`` to the refcounts of ``count`` neighbours: all of them or, where that fails, none.

        Raises:
            BlockError: a refcount cannot get that large (EINVAL).
            CorruptImage: a refcount would get negative.
            NoSpace: the refcount table cannot cover the clusters.
        """
        done: list[tuple[Block, int, bytes, dict[int, int]]] = []
        if delta < 0:
            self._hint = min(self._hint, first)
        try:
            while count > 0:
                index, slot = divmod(first, self._geometry.block_entries)
                length = min(count, self._geometry.block_entries - slot)
                block = self._counting_block(index)
                if count > 1:  # else there is nothing that only some have got
                    done.append((block, slot, bytes(block.values[slot : slot + length]), dict(block.wide)))
                self._add(block, index, slot, length, delta)
                first += length
                count -= length
        except BaseException:
            for block, slot, values, wide in done:
                block.put_back(slot, values, wide)
            raise

    def _counting_block(self, index: int) -> Block:
        """The block of this index, made where there is none, to change what it counts."""
        self._file.debug_event("refblock_alloc")
        block = self._block(index)
        if block is None:
            block = self._add_block(index)
        if self.recording:
            block.record()
        return block

    def require_countable(self, first: int, count: int) -> None:
        """Refuse what :meth:`update` by one would refuse, and to count what no refcount block counts.

        Raises:
            BlockError: a refcount cannot get larger (EINVAL), or there is no block (EAGAIN).
            NoSpace: the refcount table cannot cover the clusters.
        """
        entries = self._geometry.block_entries
        last = (first + count - 1) // entries
        if (last + 1) * 8 > layout.MAX_REFTABLE_SIZE:
            raise NoSpace(_FULL, errno=errno.EFBIG)
        if not all(index < len(self.table) and self.table[index] for index in range(first // entries, last + 1)):
            hint = "It refers to clusters that it does not count: repair it with qemu-img check -r all."
            raise BlockError("Resource temporarily unavailable", errno=errno.EAGAIN, hint=hint)
        values, wide = self.counts(first, count)
        if has_above(values, min(self._geometry.refcount_max, WIDE) - 1) and (
            not wide or max(wide.values()) >= self._geometry.refcount_max
        ):
            raise BlockError("Invalid argument", errno=errno.EINVAL, hint=NARROW)

    def _add(self, block: Block, index: int, slot: int, length: int, delta: int) -> None:
        try:
            block.add(slot, length, delta, self._geometry.refcount_max)
        except NegativeCount as error:
            place = (index * self._geometry.block_entries + error.slot) << self._geometry.cluster_bits
            raise CorruptImage(f"The refcount of the cluster at {place:#x} is wrong") from None

    def _add_block(self, index: int) -> Block:
        """Make a refcount block for a range that has none."""
        entries = self._geometry.block_entries
        if (index + 1) * 8 > layout.MAX_REFTABLE_SIZE:
            raise NoSpace(_FULL, errno=errno.EFBIG)
        while True:
            cluster = self.find(1, "refcount block")
            home = cluster // entries
            # A block in a range that has none either counts itself; that range must come first.
            if home == index or self._block(home) is not None:
                break
            self._add_block(home)
        self.place_block(index, cluster)
        block = self.blocks[index]
        if self.recording:
            block.before = bytes(entries)
        try:
            self.update(cluster, 1, 1)
            if not self.recording:
                # Room on the host for it, as for an L2 table.
                self._file.pwrite(self.block_offset(index), bytes(self._geometry.cluster_size))
            if self.outgrown is not None and not self.recording and index * 8 >= self._table_length():
                self.outgrown(max(index, cluster // entries) + 1)
        except BaseException:
            self.drop_block(index)
            raise
        return block

    def _table_length(self) -> int:
        return self.table_clusters << self._geometry.cluster_bits

    def place_block(self, index: int, cluster: int) -> None:
        """Make a refcount block for a range that has none, at a place that nothing counts yet."""
        if index >= len(self.table):
            self.table.extend([0] * (index + 1 - len(self.table)))
        block = self.blocks[index] = Block(bytearray(self._geometry.block_entries), {})
        block.touch(0, len(block.values))
        self.table[index] = cluster << self._geometry.cluster_bits
        self._new_entries.add(index)

    def drop_block(self, index: int) -> None:
        """Forget a block that the disk's table does not name, and what it counts; its place is given back."""
        home, slot = divmod(self.block_offset(index) >> self._geometry.cluster_bits, self._geometry.block_entries)
        self.table[index] = 0
        while self.table and not self.table[-1]:
            self.table.pop()
        self._new_entries.discard(index)
        del self.blocks[index]
        counting = self.blocks.get(home)
        if counting is not None and counting.values[slot]:
            counting.values[slot] -= 1
            counting.touch(slot, slot + 1)

    # ---- allocating

    def find(self, count: int, purpose: str = "cluster") -> int:
        """The first of ``count`` free neighbours; nothing is counted yet; ``purpose`` says what they are for.

        Raises:
            CorruptImage: the header's own cluster seems free.
        """
        entries = self._geometry.block_entries
        index, slot = divmod(self._hint, entries)
        start = run = 0
        while True:
            if run:
                lead = self._leading(index)
                if run + lead >= count or lead == entries:
                    run += lead
                else:
                    run, slot = 0, lead
            if not run:
                start, run = self._search(index, slot, count)
            if run >= count:
                break
            index, slot = index + 1, 0
            if index * entries > _MAX_CLUSTER:
                raise NoSpace("File too large: no host offset is left", errno=27)
        if start == 0:
            self.corrupt(f"Preventing invalid allocation of {purpose} at offset 0")
        return start

    def _leading(self, index: int) -> int:
        """How many clusters at the start of a block's range are free."""
        view = self._view(index)
        return self._geometry.block_entries if view is None else len(view) - len(view.lstrip(b"\0"))

    def _search(self, index: int, slot: int, count: int) -> tuple[int, int]:
        """Find free neighbours in one block's range from ``slot`` on, or else those at its end: first and number."""
        entries = self._geometry.block_entries
        view = self._view(index)
        if view is None:
            return index * entries + slot, entries - slot
        found = view.find(bytes(count), slot) if count <= entries - slot else -1
        if found >= 0:
            return index * entries + found, count
        tail = entries - max(slot, len(view.rstrip(b"\0")))
        return (index + 1) * entries - tail, tail

    def _view(self, index: int) -> bytes | bytearray | None:
        """What a block says of which clusters are free; None where there is none."""
        block = self._block(index)
        return None if block is None else block.usable()

    def allocate_clusters(self, count: int, purpose: str = "cluster") -> int:
        """Find ``count`` free neighbours and count them once; returns the first."""
        while True:
            first = self.find(count, purpose)
            # A refcount block that counting needs goes behind, so that what is allocated together stays together. Where
            # there is no room, it may take the very place.
            self._hint = first + count
            made = self.reserve(first, first + count - 1)
            self._hint = min(self._hint, first)  # what a table that has moved left is before
            if not made or self.find(count, purpose) == first:
                break
        self.update(first, count, 1)
        self._hint = first + count
        return first

    def allocate_behind(self, first: int, most: int) -> int:
        """Count the free neighbours from cluster ``first`` on once, ``most`` at most; returns how many."""
        while True:
            values, _ = self.counts(first, most)
            count = len(values) - len(values.lstrip(b"\0"))
            if not count or not self.reserve(first, first + count - 1):
                break
        if count:
            self.update(first, count, 1)
        return count

    def reserve(self, first: int, last: int) -> bool:
        """Make refcount blocks for clusters ``first`` to ``last`` where there are none; whether any was made."""
        made = False
        for index in range(first // self._geometry.block_entries, last // self._geometry.block_entries + 1):
            if self._block(index) is None:
                self._add_block(index)
                made = True
        return made

    def skip(self, cluster: int) -> None:
        """No cluster before ``cluster`` is free that :meth:`find` would find."""
        self._hint = max(self._hint, cluster)

    def allocate(self, length: int) -> int:
        """Allocate clusters for ``length`` bytes; returns their host offset in bytes."""
        return self.allocate_clusters(self._geometry.clusters(length), "metadata") << self._geometry.cluster_bits

    def free(self, offset: int, length: int) -> None:
        """Drop one reference to each cluster of a host range, in bytes. Nothing on disk may refer to it any more."""
        bits = self._geometry.cluster_bits
        self._file.debug_event("cluster_free")
        first = offset >> bits
        self.update(first, ((offset + length - 1) >> bits) - first + 1, -1)

    def drop_empty_blocks(self) -> bool:
        """Forget blocks that count nothing but perhaps themselves, on disk as well; whether there were any.

        Nothing is dirty. The table's entries go first, and with a sync: cut off, it leaves leaks.
        """
        dropped = False
        while empty := [index for index, entry in enumerate(self.table) if entry and self._is_empty(index)]:
            dropped = True
            places = [self.block_offset(index) for index in empty]
            for index in empty:
                self._file.pwrite(self.table_offset + index * 8, bytes(8))
            self._file.flush()
            for index in empty:
                self.table[index] = 0
                self.blocks.pop(index, None)
            while self.table and not self.table[-1]:
                self.table.pop()
            for place in places:
                home = (place >> self._geometry.cluster_bits) // self._geometry.block_entries
                if self._block(home) is not None:  # else it counted itself, or another that is gone did
                    self.free(place, self._geometry.cluster_size)
        return dropped

    def _is_empty(self, index: int) -> bool:
        try:
            block = self._block(index)
        except CorruptImage:
            return False
        if block is None or block.wide:
            return False
        home, slot = divmod(self.block_offset(index) >> self._geometry.cluster_bits, self._geometry.block_entries)
        used = len(block.values) - block.values.count(0)
        return not used or (used == 1 and home == index and block.values[slot] == 1)

    # ---- transactions

    def begin(self) -> array[int]:
        """From now on blocks keep what they were; returns the table as it is. Nothing is dirty."""
        self.recording = True
        return self.table[:]

    def touch_all(self) -> None:
        """All blocks are to be written, wherever they lie then."""
        for index in range(len(self.table)):
            block = self._block(index)
            if block is not None:
                block.touch(0, len(block.values))

    def roll_back(self, table: array[int]) -> None:
        """Make everything what it was at :meth:`begin`."""
        for index, block in list(self.blocks.items()):
            if index >= len(table) or not table[index]:
                del self.blocks[index]
            else:
                block.roll_back()
        self.table = table
        self._end()

    def commit(self, offset: int, clusters: int) -> list[tuple[int, int]]:
        """Everything is on disk; the table has moved where ``clusters`` is not 0.

        Returns:
            The runs of clusters that were in use before and are free now: first and number.
        """
        freed = self._freed()
        if clusters:
            self.table_offset, self.table_clusters = offset, clusters
        self._end()
        return freed

    def _freed(self) -> list[tuple[int, int]]:
        runs: list[tuple[int, int]] = []
        for index, block in sorted(self.blocks.items()):
            base = index * self._geometry.block_entries
            for slot, length in block.freed():
                first, count = runs[-1] if runs else (0, 0)
                if count and first + count == base + slot:
                    runs[-1] = (first, count + length)
                else:
                    runs.append((base + slot, length))
        return runs

    def _end(self) -> None:
        self.recording = False
        self._new_entries.clear()
        self._hint = 0
        for block in self.blocks.values():
            block.end()

    # ---- writing

    @property
    def dirty(self) -> bool:
        """Whether anything is to be written."""
        return bool(self._new_entries) or any(block.dirty for block in self.blocks.values())

    def block_offset(self, index: int) -> int:
        """Host offset of a block, bytes."""
        return self.table[index] & layout.REFTABLE_OFFSET_MASK

    def write(self) -> None:
        """Write changed blocks, sync, then the table's new entries, and sync."""
        self.write_blocks()
        for indexes in self._new_in_order():
            for index in indexes:
                self._file.debug_event("refblock_alloc_hookup")
                self._file.pwrite(self.table_offset + index * 8, self.table[index].to_bytes(8, "big"))
            self._file.flush()
        self._new_entries.clear()

    def write_blocks(self) -> None:
        """Write changed blocks and sync; the disk's table does not name the new ones yet."""
        for index, block in self.blocks.items():
            if block.dirty:
                self._write_block(index, block)
        self._file.flush()

    def _new_in_order(self) -> Iterator[list[int]]:
        """Indexes of new blocks, group by group: a block comes after the one that counts it."""
        waiting = set(self._new_entries)
        while waiting:
            homes = {
                each: (self.table[each] >> self._geometry.cluster_bits) // self._geometry.block_entries
                for each in waiting
            }
            ready = sorted(each for each, home in homes.items() if home == each or home not in waiting)
            yield ready
            waiting.difference_update(ready)

    def capacity(self) -> int:
        """Entries that the table shall have room for: a whole number of clusters."""
        per_cluster = self._geometry.cluster_size // 8
        needed = len(self.table)
        on_disk = self.table_clusters * per_cluster
        if needed <= on_disk:
            return on_disk
        wanted = min(max(needed, on_disk + on_disk // 2 + 1), max(needed, layout.MAX_REFTABLE_SIZE // 8))
        return -(-wanted // per_cluster) * per_cluster

    def move_table(self, offset: int, clusters: int) -> tuple[int, int]:
        """The header points to another table; returns the old one's host offset and length in bytes, to be freed."""
        old = self.table_offset, self._table_length()
        self.table_offset, self.table_clusters = offset, clusters
        self._new_entries.clear()
        return old

    def _write_block(self, index: int, block: Block) -> None:
        bits = self._geometry.refcount_bits
        per_byte = max(1, 8 // bits)
        low = block.low // per_byte * per_byte
        high = -(-block.high // per_byte) * per_byte
        self._file.debug_event("refblock_alloc_write" if index in self._new_entries else "refblock_update_part")
        self._file.pwrite(self.block_offset(index) + low * bits // 8, block.pack(low, high, bits))
        block.clean()

"""A virtual disk of a Sheepdog cluster: its inode, and the objects that hold its data."""

from __future__ import annotations

import contextlib
import errno
from array import array
from collections.abc import Callable
from typing import Final

from hostel.block.protocols.sheepdog.address import Disk
from hostel.block.protocols.sheepdog.connection import Connection, failed, require
from hostel.codec.table import equal_entries, pack_table, unpack_table, zero_table
from hostel.errors import BlockError, CorruptImage, UnsupportedFeature
from hostel.units import MiB
from hostel.wire.sheepdog import protocol
from hostel.wire.sheepdog.client import Reply
from hostel.wire.sheepdog.protocol import ENTRY_SIZE, MAX_NAME, TABLE_OFFSET, Flag, Inode, Op, Result

_AT_ONCE: Final = 4 * MiB  # bytes of a request with data
_TRIALS: Final = 4  # of a change, where the disk is snapshotted meanwhile


def named(name: str, tag: str | None = None) -> bytes:
    """A name, and where one is given a tag, as the protocol has them."""
    found = name.encode(errors="surrogateescape").ljust(MAX_NAME, b"\0")
    return found if tag is None else found + tag.encode(errors="surrogateescape").ljust(MAX_NAME, b"\0")


def find(connection: Connection, disk: Disk, *, lock: bool) -> int:
    """The number of a disk, which nobody else uses then where it is locked.

    Raises:
        BlockError: there is no such disk, or somebody uses it; the text is QEMU's.
    """
    op = Op.LOCK_VDI if lock else Op.GET_VDI_INFO
    reply = connection.vdi(op, payload=named(disk.name, disk.tag), snapshot_id=disk.snapshot_id)
    if reply.result != Result.SUCCESS:
        error = failed(reply, "cannot get vdi info, ")
        error.message += f", {disk.name} {disk.snapshot_id} {disk.tag}".rstrip()
        if reply.result == Result.VDI_LOCKED:
            error.hint = "Only reading, with -U or force-share=on, is possible beside whoever uses it."
        raise error
    return protocol.VdiAnswer.unpack(reply.rest).vdi_id


def read_inode(connection: Connection, vdi_id: int, flags: Flag) -> Inode:
    """The beginning of a disk's inode.

    Raises:
        BlockError: it cannot be read.
    """
    data = bytearray(Inode.SIZE)
    reply = connection.object(Op.READ, protocol.inode_oid(vdi_id), 0, target=memoryview(data), flags=flags)
    _complete(reply, len(data), "Can't read snapshot inode: ")
    return Inode.unpack(data)


class Vdi:
    """An open disk.

    Args:
        connection: to a server of its cluster.
        disk: which.
        vdi_id: its number.
        flags: how the server caches.

    Attributes:
        inode: as it was when it was read.
        size: bytes.
        object_size: bytes of a data object.

    Raises:
        BlockError: it cannot be read, or makes no sense.
    """

    def __init__(self, connection: Connection, disk: Disk, vdi_id: int, flags: Flag) -> None:
        self._connection = connection
        self._disk = disk
        self._flags = flags
        self.id = vdi_id
        self._load()

    def _load(self) -> None:
        """Read the inode, and the part of its table that the size needs."""
        inode = read_inode(self._connection, self.id, self._flags)
        self._check(inode)
        self.inode = inode
        self.size = inode.size
        self.is_snapshot = bool(inode.snapshotted)
        self.object_size = 1 << inode.object_bits
        self._table = zero_table(0, "I")
        self._read_table(self.size)

    def _check(self, inode: Inode) -> None:
        name = inode.name.split(b"\0")[0].decode(errors="surrogateescape")
        if inode.vdi_id != self.id or name != self._disk.name:
            raise CorruptImage(
                f"the inode of vdi {self.id:x}, '{self._disk.name}', is that of vdi {inode.vdi_id:x}, '{name}'"
            )
        if not protocol.MIN_OBJECT_BITS <= inode.object_bits <= protocol.MAX_OBJECT_BITS:
            raise CorruptImage(f"'{name}' has objects of 2^{inode.object_bits} bytes")
        if inode.store_policy:
            raise UnsupportedFeature(f"'{name}' is a hypervolume, whose table is a tree")
        if inode.size > protocol.MAX_OBJECTS << inode.object_bits:
            raise CorruptImage(f"'{name}' has more bytes than its table has room for: {inode.size}")

    def _read_table(self, size: int) -> None:
        """Read the entries that a size needs beyond those that are known."""
        known, needed = len(self._table), -(-size // self.object_size)
        if needed <= known:
            return
        data = bytearray((needed - known) * ENTRY_SIZE)
        place = TABLE_OFFSET + known * ENTRY_SIZE
        reply = self._connection.object(
            Op.READ, protocol.inode_oid(self.id), place, target=memoryview(data), flags=self._flags
        )
        _complete(reply, len(data), "Can't read snapshot inode: ")
        self._table.extend(unpack_table(data, "I", "little"))

    @property
    def allocated(self) -> int:
        """Bytes of the objects that exist."""
        return (len(self._table) - self._table.count(0)) * self.object_size

    def has_data(self, index: int) -> bool:
        """Whether a data object exists."""
        return bool(self._table[index])

    def read(self, offset: int, buf: memoryview) -> None:
        """Fill ``buf`` from within the disk."""
        for index, within, start, count in self._pieces(offset, len(buf)):
            piece = buf[start : start + count]
            owner = self._table[index]
            if not owner:
                piece[:] = bytes(count)
                continue
            oid = protocol.data_oid(owner, index)
            reply = self._connection.object(Op.READ, oid, within, target=piece, flags=self._flags)
            _complete(reply, count, f"cannot read object {oid:x}: ")

    def write(self, offset: int, data: memoryview) -> None:
        """Write all of ``data`` within the disk: objects first, then the table that names them."""
        self._following(lambda: self._write_once(offset, data))

    def _following(self, change: Callable[[], None]) -> None:
        """Make a change, and again on the disk's new inode where it is snapshotted meanwhile."""
        for _ in range(_TRIALS):
            try:
                change()
            except _Snapshotted:
                self._follow()
            else:
                return
        raise BlockError(f"'{self._disk.name}' is snapshotted again and again, and cannot be written")

    def _follow(self) -> None:
        """Go on with what is the disk now; what has no name in the snapshot's table is forgotten, and written anew."""
        found, size = find(self._connection, self._disk, lock=False), self.size
        if found == self.id:
            raise BlockError(f"cannot write '{self._disk.name}': Object is read-only", errno=errno.EROFS)
        self.switch(found)
        if self.size != size:
            raise BlockError(f"'{self._disk.name}' had {size} bytes, and after a snapshot has {self.size}")

    def _write_once(self, offset: int, data: memoryview) -> None:
        before = self._table[:]
        changed: list[int] = []
        try:
            for index, within, start, count in self._pieces(offset, len(data)):
                if self._write_piece(index, within, data[start : start + count]):
                    changed.append(index)
        except _Snapshotted:
            raise
        except BlockError:
            # What has been written is named also where the rest failed.
            with contextlib.suppress(BlockError):
                self._name(changed, before)
            raise
        self._name(changed, before)

    def _write_piece(self, index: int, within: int, data: memoryview) -> bool:
        """Write to one object; whether it is a new one."""
        owner, flags, cow = self._table[index], self._flags, 0
        op = Op.WRITE if owner == self.id else Op.CREATE_AND_WRITE
        if owner not in (0, self.id):
            flags, cow = flags | Flag.COW, protocol.data_oid(owner, index)
        oid = protocol.data_oid(self.id, index)
        reply = self._connection.object(
            op, oid, within, payload=data, flags=flags, cow_oid=cow, copies=self.inode.copies
        )
        _written(reply, f"cannot write object {oid:x}: ")
        self._table[index] = self.id
        return owner != self.id

    def _name(self, changed: list[int], before: array[int]) -> None:
        """Write the part of the table that names new objects; where that fails, they are not ours."""
        if not changed:
            return
        try:
            self._write_table(min(changed), max(changed) + 1)
        except BaseException:
            self._table = before
            raise

    def switch(self, vdi_id: int) -> None:
        """Go on with another number: that of the disk after a snapshot.

        Raises:
            BlockError: it cannot be read.
        """
        self.id = vdi_id
        self._load()

    def set_tag(self, tag: bytes) -> None:
        """Say what the snapshot is called that the disk becomes next."""
        self._write_inode(Inode.OFFSET["tag"], tag.ljust(MAX_NAME, b"\0"))

    def _write_table(self, start: int, end: int) -> None:
        payload = pack_table(self._table[start:end], "little")
        self._write_inode(TABLE_OFFSET + start * ENTRY_SIZE, payload)

    def _write_inode(self, offset: int, payload: bytes) -> None:
        reply = self._connection.object(
            Op.WRITE, protocol.inode_oid(self.id), offset, payload=payload, flags=self._flags, copies=self.inode.copies
        )
        _written(reply, "failed to update an inode: ")

    def drop(self, start: int, end: int) -> None:
        """Give whole objects back, by their numbers; they read as zeroes then."""
        self._following(lambda: self._drop_once(start, end))

    def _drop_once(self, start: int, end: int) -> None:
        while start < end:
            if not self._table[start]:
                start = equal_entries(self._table, start, end)
                continue
            stop = start
            while stop < end and self._table[stop]:
                stop += 1
            before = self._table[:]
            self._table[start:stop] = zero_table(stop - start, "I")
            self._name([start, stop - 1], before)
            start = stop

    def resize(self, size: int) -> None:
        """Make the disk larger; what is new reads as zeroes.

        Raises:
            BlockError: it would be smaller, or have more objects than there can be; the text is QEMU's.
        """
        if size < self.size:
            raise UnsupportedFeature("shrinking is not supported")
        if size > protocol.MAX_OBJECTS * self.object_size:
            raise BlockError("too big image size", errno=errno.EINVAL)
        known = len(self._table)
        self._read_table(size)
        # A disk that was made smaller by other means may have left some.
        self.drop(known, len(self._table))
        self._following(lambda: self._write_inode(Inode.OFFSET["size"], size.to_bytes(8, "little")))
        self.size = size
        self._read_table(size)

    def flush(self) -> None:
        """Have the server store what it caches."""
        reply = self._connection.object(Op.FLUSH_VDI, protocol.inode_oid(self.id), 0, flags=self._flags)
        if reply.result != Result.INVALID_PARAMETERS:  # it caches nothing
            require(reply, "cannot flush: ")

    def _pieces(self, offset: int, length: int) -> list[tuple[int, int, int, int]]:
        """A range by objects and requests: an object's number, an offset in it, one in the range, and bytes."""
        found = []
        done = 0
        while done < length:
            index, within = divmod(offset + done, self.object_size)
            count = min(length - done, self.object_size - within, _AT_ONCE)
            found.append((index, within, done, count))
            done += count
        return found


class _Snapshotted(BlockError):
    """What is to be written has become a snapshot's."""


def _written(reply: Reply, what: str) -> None:
    if reply.result == Result.READ_ONLY:
        raise _Snapshotted(f"{what}{protocol.result_text(reply.result)}")
    require(reply, what)


def _complete(reply: Reply, length: int, what: str) -> None:
    require(reply, what)
    if reply.length != length:
        raise BlockError(f"{what}the server sent {reply.length} of {length} bytes")

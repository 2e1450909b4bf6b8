"""The protocol driver ``sheepdog``."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple, Self

from hostel.block.driver import FormatInfo, OpenMode, Supports
from hostel.block.extent import Extent, Status
from hostel.block.options import Kind, Option, OptionError, Options
from hostel.block.powers import Preallocation, SnapshotInfo
from hostel.block.protocol import SIZE, Creation, ProtocolDriver
from hostel.block.protocols.sheepdog import address, snapshot
from hostel.block.protocols.sheepdog.address import Disk
from hostel.block.protocols.sheepdog.connection import TIMEOUT, Connection, require
from hostel.block.protocols.sheepdog.vdi import Vdi, find, named
from hostel.errors import BlockError, ReadOnly, UnsupportedFeature
from hostel.units import SECTOR, GiB, MiB
from hostel.wire.sheepdog import protocol
from hostel.wire.sheepdog.protocol import MAX_COPIES, MAX_STRIPS, Flag, Op, Result

_CREATE_OPTIONS: Final = Options(
    SIZE,
    Option("preallocation", Kind.STRING, "Preallocation mode (allowed values: off, full)"),
    Option("redundancy", Kind.STRING, "Redundancy of the image"),
    Option("object_size", Kind.SIZE, "Object size of the image"),
)
_ZEROES: Final = memoryview(bytes(MiB))
_DATA_STRIPS: Final = (2, 4, 8, 16)


class SheepdogDriver(ProtocolDriver):
    """A disk of a Sheepdog cluster, or a snapshot of one, which can only be read.

    Reads beyond the end are zeroes and writes beyond it make the disk larger; it never gets smaller. The disk is locked
    where the cluster has locks, unless its users are to share it.
    """

    name = "sheepdog"
    supports = Supports.WRITE | Supports.ZEROES | Supports.DISCARD | Supports.GROWS
    creation = Creation.NEW
    options: Final = address.OPTIONS  # type: ignore[misc]
    create_options: Final = _CREATE_OPTIONS  # type: ignore[misc]

    def __init__(self, connection: Connection, disk: Disk, mode: OpenMode) -> None:
        super().__init__()
        self.filename = str(disk)
        self._connection = connection
        self._disk = disk
        self._no_flush = mode.cache.no_flush
        self._locked = 0
        found = find(connection, disk, lock=not mode.force_share)
        if not mode.force_share:
            self._locked = found
        try:
            self._flags = Flag.DIRECT if mode.cache.direct else Flag.CACHE
            self._vdi = Vdi(connection, disk, found, self._flags)
            if not mode.read_only and (disk.is_snapshot or self._vdi.is_snapshot):
                raise ReadOnly("sheepdog snapshots are read-only", errno=errno.EACCES)
        except BaseException:
            with contextlib.suppress(BlockError):
                self._release()
            raise

    @classmethod
    def parse_filename(cls, name: str) -> dict[str, str]:
        """See :func:`address.parse_filename`."""
        return address.parse_filename(name)

    @classmethod
    def open(
        cls, options: Mapping[str, Any], mode: OpenMode, *, creating: bool = False, timeout: float = TIMEOUT
    ) -> Self:
        """Open a disk, or with ``creating`` make one, of the cluster that the options name.

        Args:
            options: where it is.
            mode: how.
            creating: make it.
            timeout: seconds for an answer.

        Raises:
            OptionError: the options are wrong.
            BlockError: no server can be reached, or it refuses; the text is QEMU's.
        """
        disk = address.disk(cls.converted(options))
        asked = _asked(mode.options) if creating else None
        connection = Connection(disk.server, timeout=timeout)
        try:
            if asked is not None:
                _create(connection, disk, asked)
            return cls(connection, disk, mode)
        except BaseException:
            connection.close()
            raise

    @property
    def length(self) -> int:
        """The disk's size, in whole sectors."""
        return -(-self._vdi.size // SECTOR) * SECTOR

    @property
    def allocated_length(self) -> int:
        """Bytes of the objects that the disk has; copies are not counted."""
        return self._vdi.allocated

    def pread(self, offset: int, buf: memoryview) -> None:
        """Fill ``buf``; what is beyond the end reads as zeroes."""
        inside = max(0, min(len(buf), self._vdi.size - offset))
        self._vdi.read(offset, buf[:inside])
        buf[inside:] = bytes(len(buf) - inside)

    def pwrite(self, offset: int, data: memoryview) -> None:
        """Write all of ``data``."""
        self._grow(offset + len(data))
        self._vdi.write(offset, data)

    def _grow(self, end: int) -> None:
        if end > self._vdi.size:
            self._vdi.resize(-(-end // SECTOR) * SECTOR)

    def write_zeroes(self, offset: int, length: int, *, unmap: bool) -> None:
        """Zero a range, and give back the objects that lie in it where that may be; what does not exist is zero."""
        end = offset + length
        self._grow(end)
        size = self._vdi.object_size
        while offset < end:
            index = offset // size
            stop = min((index + 1) * size, end)
            if self._vdi.has_data(index):
                if unmap and stop - offset == size:
                    self._vdi.drop(index, index + 1)
                else:
                    for position in range(offset, stop, len(_ZEROES)):
                        self._vdi.write(position, _ZEROES[: min(len(_ZEROES), stop - position)])
            offset = stop

    def zeroes_fast(self, offset: int, length: int, *, unmap: bool) -> bool:
        """Whether whole objects are given back."""
        return unmap

    def discard(self, offset: int, length: int) -> None:
        """Give back the objects that lie in a range, the last one too where the disk ends in it."""
        size = self._vdi.object_size
        end = offset + length
        stop = -(-end // size) if end >= self._vdi.size else end // size
        self._vdi.drop(-(-offset // size), min(stop, -(-self._vdi.size // size)))

    def flush(self) -> None:
        """Have the server store what was written."""
        if not self._no_flush:
            self._vdi.flush()

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """The objects that exist, and between them zeroes."""
        end = offset + length
        size = self._vdi.object_size
        while offset < end:
            stop = min((offset // size + 1) * size, end)
            if offset < self._vdi.size and self._vdi.has_data(offset // size):
                yield Extent(offset, stop - offset, Status.DATA | Status.ALLOCATED, offset)
            else:
                yield Extent(offset, stop - offset, Status.ZERO | Status.ALLOCATED)
            offset = stop

    def info(self) -> FormatInfo:
        """Nothing beyond the sizes."""
        return FormatInfo(dirty=None)

    def resize(self, size: int, preallocation: Preallocation = Preallocation.OFF) -> None:
        """Make the disk larger.

        Raises:
            BlockError: it would be smaller, or the cluster refuses.
        """
        if preallocation not in (Preallocation.OFF, Preallocation.FULL):
            raise UnsupportedFeature(f"Unsupported preallocation mode '{preallocation.value}'")
        before = self._vdi.size
        if size != before:
            self._vdi.resize(size)
        if preallocation is Preallocation.FULL:
            for position in range(before, size, len(_ZEROES)):
                self._vdi.write(position, _ZEROES[: min(len(_ZEROES), size - position)])

    def snapshots(self) -> list[SnapshotInfo]:
        """The cluster's, of this disk."""
        return snapshot.listed(self._connection, self._disk, self._flags)

    def snapshot_create(self, name: str, *, date: tuple[int, int], icount: int | None = 0) -> SnapshotInfo:
        """Keep the present state; the cluster knows when that was, and gives the number."""
        number, size = self._vdi.inode.snapshot_id, self._vdi.size
        self._vdi.flush()
        snapshot.create(self._connection, self._disk, self._vdi, name)
        return SnapshotInfo(str(number), name, 0, *date, 0, None, size)

    def snapshot_apply(self, id_or_name: str) -> None:
        """Go back to a snapshot's state."""
        wanted = snapshot.meant(self._disk, id_or_name)
        snapshot.apply(self._connection, self._disk, self._vdi, wanted, self._flags)

    def snapshot_delete(self, id_or_name: str) -> None:
        """Drop a snapshot."""
        snapshot.delete(self._connection, snapshot.meant(self._disk, id_or_name))

    def snapshot_load(self, id: str | None, name: str | None) -> None:
        """Refuse: the name of the disk can say which snapshot is meant.

        Raises:
            BlockError: always.
        """
        raise UnsupportedFeature(
            "Block format 'sheepdog' used by device '' does not support temporarily loading internal snapshots",
            hint=f"Name the snapshot with the disk: sheepdog://.../VDI#{name if id is None else id}",
        )

    def close(self) -> None:
        """Unlock the disk, and disconnect."""
        try:
            self._release()
        finally:
            self._connection.close()

    def _release(self) -> None:
        locked, self._locked = self._locked, 0
        if locked and not self._connection.is_lost:
            reply = self._connection.vdi(Op.RELEASE_VDI, payload=named(self._disk.name), base_id=locked)
            if reply.result != Result.VDI_NOT_LOCKED:
                require(reply, f"cannot unlock '{self._disk.name}': ")


class _Asked(NamedTuple):
    """What is asked for of a new disk, which has its size when it is laid out; 0 for what the cluster chooses."""

    size: int
    copies: int
    copy_policy: int
    object_bits: int


def _asked(options: Mapping[str, Any]) -> _Asked:
    copies, policy = _redundancy(str(options["redundancy"])) if "redundancy" in options else (0, 0)
    return _Asked(int(options.get("size", 0)), copies, policy, _object_bits(int(options.get("object_size", 0))))


def _redundancy(text: str) -> tuple[int, int]:
    """``COPIES``, or the strips of erasure coding as ``DATA:PARITY``: a number of copies, and a policy."""
    copies, colon, parity = text.partition(":")
    if copies.isascii() and copies.isdecimal() and not colon and 1 <= int(copies) <= MAX_COPIES:
        return int(copies), 0
    if copies in map(str, _DATA_STRIPS) and parity in map(str, range(1, MAX_STRIPS)):
        return int(copies) + int(parity), (int(copies) // 2 << 4) + int(parity)
    raise OptionError("Invalid redundancy mode")


def _object_bits(size: int) -> int:
    if not size:
        return 0
    bits = size.bit_length() - 1
    if size & (size - 1) or not protocol.MIN_OBJECT_BITS <= bits <= protocol.MAX_OBJECT_BITS:
        raise OptionError("Invalid object_size. It must be a power of 2, from 1M to 2G")
    return bits


def _create(connection: Connection, disk: Disk, asked: _Asked) -> None:
    if disk.is_snapshot:
        raise OptionError("Can't use snapshot name for image creation")
    bits = asked.object_bits
    if not bits:
        reply = connection.vdi(Op.GET_CLUSTER_DEFAULT)
        answered = reply.result == Result.SUCCESS
        bits = protocol.ClusterAnswer.unpack(reply.rest).object_bits if answered else protocol.DEFAULT_OBJECT_BITS
    if asked.size > protocol.MAX_OBJECTS << bits:
        raise OptionError(f"An image is too large. The maximum image size is {(protocol.MAX_OBJECTS << bits) // GiB}GB")
    reply = connection.vdi(
        Op.NEW_VDI,
        payload=named(disk.name),
        copies=asked.copies,
        copy_policy=asked.copy_policy,
        object_bits=bits,
    )
    if reply.result != Result.SUCCESS:
        raise BlockError(
            f"{protocol.result_text(reply.result)}, {disk.name}", errno=protocol.result_errno(reply.result)
        )

"""The disk that a guest sees: what virtio-blk's requests do to a node."""

from __future__ import annotations

import contextlib
import errno
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from hostel.block.chain import rounded_length
from hostel.block.gate import BYPASS, Gate
from hostel.block.host_file import host_file
from hostel.block.node import BlockNode
from hostel.errors import BlockError, RemoteProtocolError
from hostel.export.vhost_user_blk.shortcut import UNUSUAL, shortcut
from hostel.export.vhost_user_blk.unflushed import Unflushed
from hostel.units import SECTOR, MiB
from hostel.wire.virtio.blk import (
    BARRIER,
    ID_BYTES,
    MAX_RANGE,
    MAX_SEGMENTS,
    RANGE,
    REQUEST,
    UNMAP,
    Config,
    Feature,
    RequestType,
    Status,
)
from hostel.wire.virtio.memory import GuestMemory
from hostel.wire.virtio.ring import Chain, SplitRing, Table

SERIAL: Final = b"vhost_user_blk"
_MOST: Final = 2**31 - SECTOR  # bytes of a request, as QEMU has it: buffers may name the same memory again and again
_WINDOW: Final = MiB  # bytes that are copied at once where a request's buffers are many
# Plain numbers: an operation on an enum's member takes longer than the rest of a request.
_IN, _OUT = int(RequestType.IN), int(RequestType.OUT)
_OK, _FAILED, _UNSUPPORTED = int(Status.OK), int(Status.IOERR), int(Status.UNSUPP)
_HEAD: Final = REQUEST.size
_READ_REQUEST: Final = REQUEST.unpack_from


def _unusual(memory: GuestMemory, table: Table) -> int:
    return UNUSUAL


class _Way(NamedTuple):
    """How requests are answered, found out of the graph at one time, and used by all queues at once.

    Attributes:
        generation: of the graph, before it was asked.
        holds_back: the image may keep what leads to written data in memory.
        gate: of the file that the short way leads to; None where there is no short way.
        direct: the short way.
    """

    generation: int
    holds_back: bool
    gate: Gate | None = None
    direct: Callable[[GuestMemory, Table], int] = _unusual


class BlkDevice:
    """A node as a virtio disk; used by the threads of all queues.

    Small reads and writes of an image that lies in a file as it is go past the nodes, straight between the file and
    the guest's memory.

    Args:
        node: the image, which stays its owner's to close.
        writable: the guest may write.
        block_size: bytes of a logical block.
        queues: how many queues there are.

    Attributes:
        flushes: each write is made durable, since the driver will not ask for it.
        unflushed: what the front end is to know of the writes that are not durable yet.
    """

    def __init__(self, node: BlockNode, *, writable: bool, block_size: int = SECTOR, queues: int = 1) -> None:
        self.node = node
        self.writable = writable and not node.read_only
        self.block_size = block_size
        self.queues = queues
        self.flushes = False
        self.unflushed = Unflushed()
        self._writeback = True
        self._length = -1
        self.resized()

    def features(self) -> int:
        """What the device offers, as :class:`Feature`."""
        found = (
            Feature.SEG_MAX | Feature.BLK_SIZE | Feature.FLUSH | Feature.TOPOLOGY | Feature.CONFIG_WCE | Feature.MQ
            | Feature.DISCARD | Feature.WRITE_ZEROES | Feature.INDIRECT_DESC | Feature.EVENT_IDX | Feature.VERSION_1
        )  # fmt: skip
        return int(found if self.writable else found | Feature.RO)

    def use_features(self, features: int) -> None:
        """Take note of what the driver agreed on: one without flushes needs each write to be durable."""
        self.flushes = not features & Feature.FLUSH
        self._change_way()

    def resized(self) -> bool:
        """Take the node's size anew; whether it is another one."""
        before, self._length = self._length, rounded_length(self.node)
        if self._length == before:
            return False
        self._change_way()
        return True

    def config(self) -> bytes:
        """The configuration space."""
        sectors = self.block_size // SECTOR
        return Config(
            capacity=self._length // SECTOR,
            size_max=0,
            seg_max=MAX_SEGMENTS,
            cylinders=0,
            heads=0,
            sectors=0,
            blk_size=self.block_size,
            physical_block_exp=0,
            alignment_offset=0,
            min_io_size=1,
            opt_io_size=1,
            wce=int(self._writeback),
            unused0=0,
            num_queues=self.queues,
            max_discard_sectors=MAX_RANGE,
            max_discard_seg=1,
            discard_sector_alignment=sectors,
            max_write_zeroes_sectors=MAX_RANGE,
            max_write_zeroes_seg=1,
            write_zeroes_may_unmap=1,
            unused1=0,
            unused2=0,
        ).pack()

    def set_config(self, offset: int, data: bytes) -> bool:
        """Change the configuration space, of which the cache mode alone can be; False where it was something else."""
        if offset != Config.OFFSET["wce"] or len(data) != 1 or data[0] > 1:
            return False
        self._writeback = bool(data[0])
        self._change_way()
        return True

    def answer_all(self, ring: SplitRing, chains: Sequence[Chain]) -> list[tuple[int, int]]:
        """Do what requests say, in their order.

        Returns:
            The head of each, and how many bytes were written to its buffers.

        Raises:
            RemoteProtocolError: one is malformed so that it cannot even be failed.
        """
        way = self._present_way()
        if (gate := way.gate) is not None:
            direct, memory, done, me = way.direct, ring.memory, [], threading.get_ident()
            gate.come(me)  # as a with statement does, without its calls
            if gate.holder:
                gate.go(me)
                gate.__enter__()
            try:
                if way.generation == BYPASS.generation:
                    for head, table in chains:
                        written = direct(memory, table)
                        done.append((head, self._answer(*ring.buffers(table)) if written == UNUSUAL else written))
                    return done
            finally:
                gate.go(me)
                if gate.holder:
                    gate.left()
        # The nodes keep an account of who is in them. A limit or a lost server may hold a request up for long there,
        # and nobody could change what stands on that file meanwhile.
        return [(head, self._answer(*ring.buffers(table))) for head, table in chains]

    def _change_way(self) -> None:
        """Have every queue look anew, also one that has looked at what was, and not told yet what it found."""
        BYPASS.changed()
        self._take_shortcut()

    def _take_shortcut(self) -> _Way:
        # In this order: what was found of a graph that changed meanwhile has another number.
        generation, length = BYPASS.generation, self._length
        file = None if BYPASS.changing.holder else host_file(self.node, writable=self.writable)
        # What is written to a file as it is, the host has, whatever becomes of us.
        holds_back = file is None and not self.node.cache.writethrough
        if file is None:
            self._way = way = _Way(generation, holds_back)
            return way
        if self.flushes or not self._writeback:
            file = file._replace(guarded=length)  # writes are the node's
        self._way = way = _Way(generation, holds_back, file.gate, shortcut(file, length, self.block_size))
        return way

    def _present_way(self) -> _Way:
        way = self._way
        return way if way.generation == BYPASS.generation else self._take_shortcut()

    def _answer(self, readable: list[memoryview], writable: list[memoryview]) -> int:
        if not readable or not writable:
            raise RemoteProtocolError("a request has no header, or no place for its status")
        head = readable[0]
        if len(head) == _HEAD:
            kind, _, sector = _READ_REQUEST(head)
            del readable[0]
        else:
            kind, _, sector = REQUEST.unpack(_take(readable, _HEAD))
        status = writable[-1]
        if len(status) == 1:
            del writable[-1]
        else:
            writable[-1], status = status[:-1], status[-1:]
        if kind == _IN:
            length = sum(map(len, writable))
            status[0] = self._read(sector * SECTOR, writable, length)
            return length + 1
        if kind == _OUT:
            status[0] = self._write(sector * SECTOR, readable, sum(map(len, readable)))
            return 1
        written, code = self._other(kind & ~BARRIER, sector, readable, writable)
        status[0] = code
        return written + 1

    def _fits(self, offset: int, length: int) -> bool:
        """Whether a range is whole sectors of the disk, not too many at once, and begins with a block."""
        whole = not (length % SECTOR or offset % self.block_size)
        return whole and length <= _MOST and offset + length <= self._length

    def _read(self, offset: int, buffers: list[memoryview], length: int) -> int:
        if not self._fits(offset, length):
            return _FAILED
        try:
            for buffer in buffers:
                self.node.pread(offset, buffer)
                offset += len(buffer)
        except OSError:
            return _FAILED
        return _OK

    def _write(self, offset: int, buffers: list[memoryview], length: int) -> int:
        if not self.writable or not self._fits(offset, length):
            return _FAILED
        try:
            for data in _windows(buffers):
                self.node.pwrite(offset, data)
                offset += len(data)
            self._wrote()
        except OSError:
            return _FAILED
        return _OK

    def _other(self, kind: int, sector: int, readable: list[memoryview], writable: list[memoryview]) -> tuple[int, int]:
        """The rarer requests: how many bytes they wrote, and their status."""
        try:
            match kind:
                case RequestType.IN:
                    length = sum(map(len, writable))
                    return length, self._read(sector * SECTOR, writable, length)
                case RequestType.OUT:
                    return 0, self._write(sector * SECTOR, readable, sum(map(len, readable)))
                case RequestType.FLUSH:
                    self._flush()
                    return 0, _OK
                case RequestType.GET_ID:
                    return _scatter((SERIAL + b"\0")[:ID_BYTES], writable), _OK
                case RequestType.DISCARD | RequestType.WRITE_ZEROES:
                    return 0, self._range(kind, readable)
        except OSError as error:
            unsupported = isinstance(error, BlockError) and error.errno == 95  # ENOTSUP
            return 0, _UNSUPPORTED if unsupported else _FAILED
        return 0, _UNSUPPORTED

    def _range(self, kind: int, readable: list[memoryview]) -> int:
        """Discard or zero; one range a request, as the configuration space says."""
        if not self.writable:
            return _FAILED
        length = sum(map(len, readable))
        if length != RANGE.size:
            return _UNSUPPORTED if length > RANGE.size else _FAILED
        sector, sectors, flags = RANGE.unpack(_take(readable, RANGE.size))
        offset, length = sector * SECTOR, sectors * SECTOR
        if sectors > MAX_RANGE or not self._fits(offset, length):
            return _FAILED
        if flags & ~UNMAP or (flags and kind == RequestType.DISCARD):
            return _UNSUPPORTED
        if kind == RequestType.DISCARD:
            self.node.discard(offset, length)
        else:
            self.node.write_zeroes(offset, length, unmap=bool(flags))
        self._wrote()
        return _OK

    def rest(self) -> None:
        """No queue runs: leave nothing that the next back end would have to call lost.

        The machine may move to another host, with the buffer in which it is said and without us.
        """
        if self.unflushed.is_owed:
            with contextlib.suppress(OSError):  # then it stays so
                self._flush()

    def settle(self) -> None:
        """The front end goes, or starts the disk anew."""
        self.rest()
        self.unflushed.forget()

    def _wrote(self) -> None:
        """A write is done that went by the node.

        Raises:
            OSError: it had to be made durable, which failed.
        """
        if self._present_way().holds_back:
            self.unflushed.wrote()
        if self.flushes or not self._writeback:
            self._flush()

    def _flush(self) -> None:
        """Make all writes durable.

        Raises:
            OSError: that failed; also where a back end before us took some with it.
        """
        written = self.unflushed.written
        self.node.flush()
        self.unflushed.flushed(written)
        if self.unflushed.lost:
            raise BlockError("writes that were not flushed may be gone", errno=errno.EIO)


def _take(buffers: list[memoryview], length: int) -> bytes:
    """Take bytes off the start of buffers.

    Raises:
        RemoteProtocolError: there are not so many.
    """
    found = b""
    while len(found) < length:
        if not buffers:
            raise RemoteProtocolError("a request ends before its header does")
        part = bytes(buffers[0][: length - len(found)])
        found += part
        if len(part) == len(buffers[0]):
            del buffers[0]
        else:
            buffers[0] = buffers[0][len(part) :]
    return found


def _scatter(data: bytes, buffers: list[memoryview]) -> int:
    """Fill buffers with as much of some bytes as there is room for; returns how much that was."""
    done = 0
    for buffer in buffers:
        part = data[done : done + len(buffer)]
        buffer[: len(part)] = part
        done += len(part)
    return done


def _windows(buffers: list[memoryview]) -> Iterator[bytes]:
    """What buffers hold, copied piece by piece: the guest may change them while formats look at what they write."""
    waiting: list[memoryview] = []
    size = 0
    for buffer in buffers:
        for start in range(0, len(buffer), _WINDOW):
            part = buffer[start : start + _WINDOW]
            if size + len(part) > _WINDOW:
                yield b"".join(waiting)
                waiting, size = [], 0
            waiting.append(part)
            size += len(part)
    if waiting:
        yield b"".join(waiting)

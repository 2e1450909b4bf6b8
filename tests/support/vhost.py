"""The guest's side of vhost-user-blk without a guest: shared memory, a ring, and the messages that set them up."""

from __future__ import annotations

import array
import contextlib
import mmap
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from hostel.block.node import BlockNode
from hostel.export.vhost_user_blk.server import VhostUserBlk
from hostel.net.address import UnixAddress, listen

GUEST = 0x1_0000_0000  # where the memory begins for the guest
USER = 0x7F00_0000_0000  # and for us, as far as the other side knows
MIB = 1 << 20
IN, OUT, FLUSH, GET_ID, DISCARD, WRITE_ZEROES = 0, 1, 4, 8, 11, 13
NEXT, WRITE, INDIRECT = 1, 2, 4
EVENT_IDX, INDIRECT_DESC, VERSION_1, PROTOCOL = 1 << 29, 1 << 28, 1 << 32, 1 << 30
F_FLUSH, F_RO = 1 << 9, 1 << 5


class FrontEnd:
    """A connection to a back end, and the memory that both share."""

    def __init__(self, path: Path | str, *, memory: int = 64 * MIB, leave_out: int = 0) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(20)
        self.sock.connect(str(path))
        self.fd = os.memfd_create("guest", os.MFD_CLOEXEC)
        os.ftruncate(self.fd, memory)
        self.memory = mmap.mmap(self.fd, memory)
        self.size = memory
        self.channel: socket.socket | None = None
        self.features = self.ask(1) & ~leave_out
        self.protocol = 0
        if self.features & PROTOCOL:
            self.protocol = self.ask(15)

    def __enter__(self) -> FrontEnd:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.sock.close()
        if self.channel is not None:
            self.channel.close()
        os.close(self.fd)

    def tell(self, request: int, payload: bytes = b"", fds: Sequence[int] = (), *, flags: int = 1) -> None:
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self.sock.sendmsg([struct.pack("<III", request, flags, len(payload)) + payload], ancillary)

    def receive(self) -> tuple[int, bytes]:
        head = self.exactly(12)
        request, flags, size = struct.unpack("<III", head)
        assert flags & 7 == 5, "an answer of version 1"
        return request, self.exactly(size)

    def exactly(self, length: int) -> bytes:
        data = b""
        while len(data) < length:
            part = self.sock.recv(length - len(data))
            if not part:
                raise ConnectionResetError("the back end ended")
            data += part
        return data

    def call(self, request: int, payload: bytes = b"") -> bytes:
        self.tell(request, payload)
        answered, data = self.receive()
        assert answered == request
        return data

    def ask(self, request: int) -> int:
        return int(struct.unpack("<Q", self.call(request))[0])

    def number(self, request: int, value: int, fds: Sequence[int] = (), *, flags: int = 1) -> None:
        self.tell(request, struct.pack("<Q", value), fds, flags=flags)

    def config(self) -> bytes:
        return self.call(24, struct.pack("<III", 0, 60, 0) + bytes(60))[12:]

    def negotiate(self) -> None:
        """Own the device, agree on everything offered, and share the memory."""
        self.number(16, self.protocol)
        self.tell(3)
        self.number(2, self.features)
        self.share()

    def share(self) -> None:
        self.tell(5, struct.pack("<IIQQQQ", 1, 0, GUEST, self.size, USER, 0), [self.fd])

    def new_log(self, queues: int = 1, size: int = 128) -> tuple[int, bytes]:
        """Ask for the buffer that outlives a back end; its descriptor, and what is said of it."""
        self.tell(31, struct.pack("<QQHHI", 0, 0, queues, size, 0))
        data, descriptors, _, _ = socket.recv_fds(self.sock, 36, 1)
        assert struct.unpack("<III", data[:12]) == (31, 5, 24)
        return descriptors[0], data[12:]

    def keep_log(self, fd: int, described: bytes) -> None:
        """Give the back end the buffer."""
        self.tell(32, described, [fd])
        self.ask(1)  # what it takes is done by then

    def open_channel(self) -> socket.socket:
        """Give the back end the channel for its own requests."""
        self.channel, theirs = socket.socketpair()
        self.channel.settimeout(20)
        self.tell(21, fds=[theirs.fileno()])
        theirs.close()
        return self.channel


class Queue:
    """A driver's end of one queue: tables and buffers in the front end's memory, from ``place`` on."""

    def __init__(self, front: FrontEnd, index: int = 0, *, size: int = 128, place: int = 0, base: int = 0) -> None:
        self.front, self.index, self.size = front, index, size
        self.event_index = bool(front.features & EVENT_IDX)
        self.table = place
        self.available = place + 16 * size
        self.used = -(-(self.available + 6 + 2 * size) // 4096) * 4096
        self.data = -(-(self.used + 6 + 8 * size) // 4096) * 4096
        view = memoryview(front.memory)
        self.bytes = view
        self.descriptors = view[self.table : self.available].cast("Q")
        self.available_ring = view[self.available : self.available + 6 + 2 * size].cast("H")
        self.used_head = view[self.used : self.used + 4].cast("H")
        self.used_ring = view[self.used + 4 : self.used + 4 + 8 * size].cast("I")
        self.used_event = view[self.used + 4 + 8 * size : self.used + 6 + 8 * size].cast("H")
        self.kick = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.called = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.broken = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.put = self.kicked = self.seen = base
        self.available_ring[1] = base
        self.used_head[1] = base
        self.poll = select.poll()
        self.poll.register(self.called, select.POLLIN)

    def start(self, *, base: int | None = None) -> None:
        front, index = self.front, self.index
        front.tell(8, struct.pack("<II", index, self.size))
        front.tell(10, struct.pack("<II", index, self.put if base is None else base))
        tables = USER + self.table, USER + self.used, USER + self.available, 0
        front.tell(9, struct.pack("<IIQQQQ", index, 0, *tables))
        front.number(13, index, [self.called])
        front.number(14, index, [self.broken])
        front.number(12, index, [self.kick])
        if front.features & PROTOCOL:
            front.tell(18, struct.pack("<II", index, 1))

    def stop(self) -> int:
        """Stop the queue; returns the entry that the back end would take next."""
        return int(struct.unpack("<II", self.front.call(11, struct.pack("<II", self.index, 0)))[1])

    def describe(self, at: int, parts: Sequence[tuple[int, int, int]], *, table: memoryview | None = None) -> None:
        """Write a chain of descriptors; parts are offset in the memory, length and flags."""
        table = self.descriptors if table is None else table
        for position, (offset, length, flags) in enumerate(parts):
            last = position == len(parts) - 1
            word = length | (flags | (0 if last else NEXT)) << 32 | (0 if last else at + position + 1) << 48
            table[2 * (at + position)] = GUEST + offset
            table[2 * (at + position) + 1] = word

    def offer(self, *heads: int) -> None:
        """Make chains available, and kick where that is wanted."""
        for head in heads:
            self.available_ring[2 + self.put % self.size] = head
            self.put += 1
        self.available_ring[1] = self.put & 0xFFFF
        old, self.kicked = self.kicked, self.put
        if self.event_index:
            wanted = int.from_bytes(self.bytes[self.used + 4 + 8 * self.size :][:2], "little")
            if (self.put - wanted - 1) & 0xFFFF >= (self.put - old) & 0xFFFF:
                return
        elif self.used_head[0] & 1:
            return
        os.eventfd_write(self.kick, 1)

    def take(self) -> list[tuple[int, int]]:
        """What the back end has handed back since: heads, and bytes written."""
        found = []
        while self.seen & 0xFFFF != self.used_head[1]:
            place = 2 * (self.seen % self.size)
            found.append((self.used_ring[place], self.used_ring[place + 1]))
            self.seen += 1
        return found

    def wait(self, timeout: float = 20) -> list[tuple[int, int]]:
        """Wait until something is handed back, and take it."""
        if not (found := self.take()):
            self.wait_for_call(timeout)
            found = self.take()
        return found

    def wait_for_call(self, timeout: float = 20) -> None:
        """Sleep until something is handed back."""
        until = time.monotonic() + timeout
        while True:
            if self.event_index:
                self.available_ring[2 + self.size] = self.seen & 0xFFFF
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self.called)
            if self.seen & 0xFFFF != self.used_head[1]:
                return
            left = until - time.monotonic()
            if left <= 0:
                raise TimeoutError("the back end does not answer")
            self.poll.poll(left * 1000)

    def is_broken(self, timeout: float = 20) -> bool:
        """Whether the back end says that the queue is broken."""
        return bool(select.select([self.broken], [], [], timeout)[0])

    def request(
        self,
        kind: int,
        sector: int = 0,
        data: bytes = b"",
        *,
        read: int = 0,
        parts: Sequence[int] = (),
        indirect: bool = False,
    ) -> tuple[int, bytes]:
        """Do one request, its data in buffers of the given lengths; returns its status, and what was read."""
        head, status = self.data, self.data + 16
        body = self.data + 4096
        self.bytes[head : head + 16] = struct.pack("<IIQ", kind, 0, sector)
        self.bytes[status] = 0xFF
        self.bytes[body : body + len(data)] = data
        flags, length = (WRITE, read) if read else (0, len(data))
        chain = [(head, 16, 0)]
        lengths = parts or ((length,) if length else ())
        assert sum(lengths) == length
        for size in lengths:
            chain.append((body, size, flags))
            body += size
        chain.append((status, 1, WRITE))
        if indirect:
            table = self.data + 2048
            self.describe(0, chain, table=self.bytes[table : table + 16 * len(chain)].cast("Q"))
            self.descriptors[0] = GUEST + table
            self.descriptors[1] = 16 * len(chain) | INDIRECT << 32
        else:
            self.describe(0, chain)
        self.offer(0)
        ((answered, written),) = self.wait()
        assert answered == 0
        assert written == read + 1 or self.bytes[status] or kind == GET_ID
        return self.bytes[status], bytes(self.bytes[self.data + 4096 :][:read])

    def close(self) -> None:
        for fd in (self.kick, self.called, self.broken):
            os.close(fd)


@contextlib.contextmanager
def driver(
    path: Path | str, *, size: int = 128, leave_out: int = 0, memory: int = 64 * MIB
) -> Iterator[tuple[FrontEnd, Queue]]:
    """A front end with one queue that runs."""
    with FrontEnd(path, leave_out=leave_out, memory=memory) as front:
        front.negotiate()
        queue = Queue(front, size=size)
        try:
            queue.start()
            yield front, queue
        finally:
            queue.close()


class Served:
    """A back end of ours in this process.

    Attributes:
        path: where front ends connect.
        log: what it reported.
    """

    def __init__(self, path: Path, back_end: VhostUserBlk, log: list[str]) -> None:
        self.path, self.back_end, self.log = path, back_end, log

    def has_said(self, text: str, timeout: float = 20) -> bool:
        """Whether it reports something within a time."""
        until = time.monotonic() + timeout
        while time.monotonic() < until:
            if any(text in line for line in self.log):
                return True
            time.sleep(0.01)
        return False


@contextlib.contextmanager
def serving(
    folder: Path, node: BlockNode, *, writable: bool = True, block_size: int = 512, queues: int = 1
) -> Iterator[Served]:
    """Serve a node, in a thread, until the block ends."""
    path = folder / "vhost.sock"
    log: list[str] = []
    back_end = VhostUserBlk(node, writable=writable, block_size=block_size, queues=queues, report=log.append)
    server = back_end.server(listen(UnixAddress(str(path)), 1))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield Served(path, back_end, log)
    finally:
        server.stop()
        thread.join(30)
        assert not thread.is_alive()

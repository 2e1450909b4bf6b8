"""A connected socket that a :class:`~hostel.net.reactor.Reactor` waits for: it never blocks the loop.

What is received is given to a handler in the loop. Any thread sends. What the peer does not take at once is kept; a
thread that must not get ahead of the peer waits instead.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from hostel.errors import NetworkError
from hostel.net.reactor import READABLE, WRITABLE, Reactor
from hostel.net.transport import Bytes

_FDS: Final = 32  # of one message; the kernel drops more
_ANCILLARY: Final = socket.CMSG_SPACE(_FDS * struct.calcsize("i"))
_PARTS: Final = 64  # of one sendmsg
_DESCRIPTOR: Final = b"\0"  # the byte that a descriptor comes with
_NEVER: Final = (BlockingIOError, InterruptedError)


class Channel:
    """One connection.

    Args:
        reactor: waits for it, once :meth:`start` was called.
        sock: connected; the channel's from now on.
        limit: bytes that may wait to be sent; a peer that lets more wait is cut off.

    Attributes:
        receive: called in the loop with bytes, and with the descriptors that came with them.
        closed: called in the loop, once, with the reason; None where the peer or we ended in order.
        room: called in the loop before receiving: where to put the rest of something long, or None.
        received: called in the loop with how many bytes were put there.
        takes_fds: whether descriptors can be passed.
    """

    def __init__(self, reactor: Reactor, sock: socket.socket, *, limit: int) -> None:
        self.socket = sock
        self.receive: Callable[[bytes, Sequence[int]], None] = _ignore
        self.closed: Callable[[Exception | None], None] = _ignore
        self.room: Callable[[], memoryview | None] = _nowhere
        self.received: Callable[[int], None] = _ignore
        self._reactor = reactor
        self._limit = limit
        self.takes_fds = sock.family == socket.AF_UNIX
        self._buffer = reactor.buffer
        self._lock = threading.Lock()
        self._pushing = 0  # threads that send what waits themselves; the socket is open as long as there are any
        self._queue: deque[memoryview | int] = deque()  # an int is a descriptor
        self._queued = 0
        self._events = 0
        self._reading = True
        self._is_closed = False
        self._ending = False
        self._error: Exception | None = None
        sock.setblocking(False)

    def start(self) -> None:
        """Let the reactor wait for it; called in the loop."""
        self._events = READABLE
        self._reactor.add(self.socket.fileno(), READABLE, self._ready)

    @property
    def queued(self) -> int:
        """Bytes that wait to be sent."""
        return self._queued

    @property
    def is_closed(self) -> bool:
        """Whether it is over."""
        return self._is_closed

    def read(self, wanted: bool) -> None:
        """Receive on, or not until told again; called in the loop."""
        with self._lock:
            if self._reading != wanted:
                self._reading = wanted
                self._watch()

    def send(self, *parts: Bytes | int) -> None:
        """Send parts, of which an int is a descriptor that is closed once it is sent; never blocks.

        A buffer that is not ``bytes`` must not change while any of it waits.
        """
        with self._lock:
            if self._is_closed or self._ending:
                close_all(parts)
                return
            if not self._queue and len(parts) == 1 and isinstance(parts[0], bytes):
                # Nearly every answer goes this way, at once and whole.
                rest = self._send_at_once(parts[0])
                if rest is None:
                    return
                parts = (rest,)
            for part in parts:
                if isinstance(part, int):
                    self._queue.append(part)
                elif len(part):
                    self._queue.append(memoryview(part))
                    self._queued += len(part)
            if not self._events & WRITABLE:
                self._flush()
            if self._queued > self._limit:
                self._fail(NetworkError("The peer does not take what it asked for", errno=errno.ENOBUFS))

    def _send_at_once(self, data: bytes) -> Bytes | None:
        """Send what the peer takes; the rest, None where there is none. The lock is held."""
        try:
            sent = self._write([data])
        except OSError:
            return data  # it is found out again, and told, when the queue is sent
        return None if sent == len(data) else memoryview(data)[sent:]

    def push(self, parts: Sequence[Bytes], timeout: float) -> None:
        """Send parts from a thread that may wait: until the peer's side has taken them, and what waited before.

        Raises:
            NetworkError: the connection is over.
            TimeoutError: the peer took nothing for ``timeout`` seconds.
        """
        with self._lock:
            self._pushing += 1
        try:
            self.send(*parts)
            poll = select.poll()
            while self._waits() and not self._is_closed:
                before = self._queued
                poll.register(self.socket, select.POLLOUT)
                if not poll.poll(timeout * 1000) and self._queued == before:
                    raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
                with self._lock:
                    if not self._is_closed:
                        self._flush()
        finally:
            with self._lock:
                self._pushing -= 1
                self._watch()
                if self._is_closed and not self._pushing:
                    self.socket.close()
        if self._is_closed or self._error is not None:
            raise NetworkError(os.strerror(errno.EPIPE), errno=errno.EPIPE)
        if self._ending:
            self._reactor.call_soon(self._after_sending)

    def end(self) -> None:
        """Close once everything is sent; called in the loop."""
        with self._lock:
            self._ending = True
            waits = self._waits()
        if not waits:
            self.close(None)

    def close(self, error: Exception | None) -> None:
        """Close now; called in the loop. Once is enough."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            self._reactor.remove(self.socket.fileno())
            close_all(self._queue)
            self._queue.clear()
            self._queued = 0
            if self._pushing:
                # Who waits for the peer wakes up, and the last of them closes: the number must not be another's before.
                with contextlib.suppress(OSError):
                    self.socket.shutdown(socket.SHUT_RDWR)
            else:
                self.socket.close()
        self.closed(error)

    def _ready(self, events: int) -> None:
        if events & WRITABLE:
            with self._lock:
                self._flush()
            self._after_sending()
        if events & ~WRITABLE and not self._is_closed:
            if not self._reading:
                # Nobody wants to hear it, but it is over.
                self.close(NetworkError(os.strerror(errno.ECONNRESET), errno=errno.ECONNRESET))
                return
            try:
                self._receive()
            except _NEVER:
                return
            except OSError as error:
                self.close(error)

    def _after_sending(self) -> None:
        if self._error is not None:
            self.close(self._error)
        elif self._ending and not self._waits():
            self.close(None)

    def _receive(self) -> None:
        room = self.room()
        if room is not None and not self.takes_fds:
            count = self._read_into(room)
            if count:
                self.received(count)
                return
            self.close(None)
            return
        fds: Sequence[int] = ()
        if self.takes_fds:
            target = room if room is not None else self._buffer
            count, ancillary, _, _ = self.socket.recvmsg_into([target], _ANCILLARY, socket.MSG_CMSG_CLOEXEC)
            if ancillary:
                fds = _descriptors(ancillary)
            if count and room is not None and not fds:
                self.received(count)
                return
            data = bytes(target[:count])
        else:
            count = self._read_into(self._buffer)
            data = bytes(self._buffer[:count])
        if count:
            self.receive(data, fds)
        else:
            close_all(fds)
            self.close(None)

    def _waits(self) -> bool:
        """Whether anything waits to be sent."""
        return bool(self._queue)

    def _read_into(self, target: memoryview) -> int:
        return self.socket.recv_into(target)

    def _finish_writing(self) -> None:
        """Send what :meth:`_write` has taken and not sent."""

    def _write(self, parts: Sequence[Bytes]) -> int:
        return self.socket.send(parts[0]) if len(parts) == 1 else self.socket.sendmsg(parts)

    def _flush(self) -> None:
        """Send what the peer takes at once; the lock is held."""
        queue = self._queue
        try:
            while queue:
                first = queue[0]
                if isinstance(first, int):
                    socket.send_fds(self.socket, [_DESCRIPTOR], [first])
                    queue.popleft()  # whatever comes of closing it, its number is not ours any more
                    os.close(first)
                    continue
                parts = [first] if len(queue) == 1 else _leading_buffers(queue)
                self._forget(self._write(parts))
            self._finish_writing()
        except _NEVER:
            pass
        except OSError as error:
            self._fail(error)
            return
        self._watch()

    def _forget(self, count: int) -> None:
        """Drop ``count`` sent bytes from the queue."""
        self._queued -= count
        queue = self._queue
        while count:
            first = queue[0]
            assert isinstance(first, memoryview)
            if count < len(first):
                queue[0] = first[count:]
                return
            count -= len(first)
            queue.popleft()

    def _fail(self, error: Exception) -> None:
        """Let the loop close; the lock is held, and this may be any thread."""
        if self._error is None:
            self._error = error
            self._reactor.call_soon(lambda: self.close(error))

    def _watch(self) -> None:
        events = (READABLE if self._reading else 0) | (WRITABLE if self._waits() and not self._pushing else 0)
        if events != self._events and not self._is_closed:
            self._events = events
            self._reactor.modify(self.socket.fileno(), events)


def _leading_buffers(queue: deque[memoryview | int]) -> list[memoryview]:
    parts: list[memoryview] = []
    for part in queue:
        if isinstance(part, int) or len(parts) == _PARTS:
            break
        parts.append(part)
    return parts


def _descriptors(ancillary: Sequence[tuple[int, int, bytes]]) -> list[int]:
    found: list[int] = []
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found += struct.unpack(f"{len(data) // 4}i", data[: len(data) // 4 * 4])
    return found


def close_all(parts: Sequence[object] | deque[memoryview | int]) -> None:
    """Close what are descriptors of parts that will not be sent."""
    for part in parts:
        if isinstance(part, int):
            with contextlib.suppress(OSError):
                os.close(part)


def _ignore(*_arguments: object) -> None:
    return None


def _nowhere() -> memoryview | None:
    return None

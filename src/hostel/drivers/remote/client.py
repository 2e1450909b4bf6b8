"""A connection to a daemon: calls from any thread, streams, events, and keepalive."""

from __future__ import annotations

import contextlib
import errno
import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from hostel.drivers.base.closing import CloseReason
from hostel.drivers.fault import fault
from hostel.errors import ErrorCode, ErrorDomain, HostelError, VirtError
from hostel.net.transport import SocketTransport, Transport
from hostel.units import KiB
from hostel.wire.rpc import keepalive
from hostel.wire.rpc.connection import (
    Call,
    ClientConnection,
    ClientEvent,
    Message,
    Reply,
    StreamData,
    StreamEnd,
    StreamFrames,
    StreamHole,
)
from hostel.wire.rpc.procedure import Program
from hostel.wire.rpc.programs import PROGRAMS, REMOTE

_PORTION: Final = 256 * KiB
_AHEAD: Final = 32  # pieces of a download that may wait for who reads them
_INTERVAL: Final = 5  # seconds of silence after which the daemon is asked
_COUNT: Final = 5  # questions without an answer after which it is dead
_NO_CALLBACK: Final[Callable[[Message], None]] = lambda message: None  # noqa: E731


class _Waiting:
    """Who waits for an answer."""

    __slots__ = ("done", "reply")

    def __init__(self) -> None:
        self.done = threading.Event()
        self.reply: Reply | None = None


class RpcStream:
    """A stream of a call; used by one thread.

    Attributes:
        result: the members of the call's answer.
    """

    def __init__(self, client: RpcClient, call: Call) -> None:
        self.result: tuple[Any, ...] = ()
        self._client = client
        self._frames = StreamFrames.of(call)
        self._serial = call.serial
        self._arrived: queue.Queue[StreamData | StreamHole | StreamEnd] = queue.Queue(_AHEAD)
        self._failure: VirtError | None = None

    def arrived(self, event: StreamData | StreamHole | StreamEnd) -> None:
        """Take what the daemon sends; called by the thread that reads, which waits while nobody takes it."""
        if isinstance(event, StreamEnd) and event.error is not None:
            self._failure = event.error
        while not self._client.is_closed:
            try:
                self._arrived.put(event, timeout=1)
                return
            except queue.Full:
                continue

    def failed(self, error: VirtError) -> None:
        """The connection is gone."""
        self._failure = error
        with contextlib.suppress(queue.Full):
            self._arrived.put_nowait(StreamEnd(self._serial, error))

    def send(self, data: bytes | memoryview) -> None:
        """Send bytes.

        Raises:
            VirtError: the daemon has ended the stream for a reason.
        """
        self._check()
        self._client.send(self._frames.data_header(len(data)), data)

    def send_hole(self, length: int) -> None:
        """Send a hole."""
        self._check()
        self._client.send(self._frames.hole(length))

    def receive(self, timeout: float | None = None) -> StreamData | StreamHole | StreamEnd | None:
        """What comes next; None when nothing did for ``timeout`` seconds.

        Raises:
            VirtError: the daemon has ended the stream for a reason.
        """
        try:
            event = self._arrived.get(timeout=timeout)
        except queue.Empty:
            self._check()
            return None
        if isinstance(event, StreamEnd) and event.error is not None:
            raise event.error
        return event

    def finish(self) -> None:
        """End in order, and wait until the daemon has.

        Raises:
            VirtError: it could not.
        """
        try:
            self._check()
            self._client.send(self._frames.finish())
            while not isinstance(self.receive(), StreamEnd):
                pass
        finally:
            self._client.forget(self._serial)

    def abort(self) -> None:
        """Give up."""
        try:
            self._client.send(self._frames.abort())
            with contextlib.suppress(VirtError):
                while not isinstance(self.receive(10), StreamEnd | None):
                    pass
        except VirtError:
            return
        finally:
            self._client.forget(self._serial)

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure


class RpcClient:
    """A connection, and the thread that reads it.

    Args:
        transport: connected; the client's from now on.
        reason: asked why the connection ended, where the transport knows that.

    Attributes:
        message: called by the thread that reads with each event.
        closed: called by it with the reason, once, when the connection is over, before those who wait are told.
    """

    def __init__(self, transport: Transport, reason: Callable[[], str] = str) -> None:
        self.message: Callable[[Message], None] = _NO_CALLBACK
        self.closed: Callable[[CloseReason], None] = lambda reason: None
        self._transport = transport
        self._reason = reason
        self._machine = ClientConnection(PROGRAMS)
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        self._waiting: dict[int, _Waiting] = {}
        self._streams: dict[int, RpcStream] = {}
        self._over: VirtError | None = None
        self._alive: keepalive.KeepAlive | None = None
        self._knows_keepalive = False
        self._reader = threading.Thread(target=self._read, name="rpc", daemon=True)
        self._reader.start()

    @property
    def is_closed(self) -> bool:
        """Whether the connection is over."""
        return self._over is not None

    def call(self, name: str, *arguments: Any, program: Program = REMOTE) -> tuple[Any, ...]:
        """Call a procedure; the members of its answer.

        Raises:
            VirtError: the daemon's own, or the connection is over.
        """
        return self._call(name, arguments, program)[1]

    def call_with_files(
        self, name: str, files: Sequence[int], *arguments: Any, program: Program = REMOTE
    ) -> tuple[Any, ...]:
        """Call a procedure that open files go with, which stay the caller's.

        Raises:
            VirtError: likewise; ``ARGUMENT_UNSUPPORTED``: nothing but bytes goes through the connection.
        """
        if not (isinstance(self._transport, SocketTransport) and self._transport.passes_files):
            raise fault(ErrorCode.ARGUMENT_UNSUPPORTED, "fd passing is not supported by this connection")
        for file in files:
            try:
                os.fstat(file)
            except (OSError, OverflowError) as error:
                # Found out while it is sent, it would be the end of the connection.
                reason = error.strerror if isinstance(error, OSError) else os.strerror(errno.EBADF)
                what = f"Cannot duplicate FD {file}: {reason}"
                raise VirtError(ErrorCode.SYSTEM_ERROR, what, domain=ErrorDomain.RPC) from None
        return self._call(name, arguments, program, files=files)[1]

    def open_stream(self, name: str, *arguments: Any) -> RpcStream:
        """Call a procedure that has a stream.

        Raises:
            VirtError: likewise.
        """
        stream, result = self._call(name, arguments, REMOTE, streams=True)
        assert stream is not None
        stream.result = result
        return stream

    def _call(
        self, name: str, arguments: Sequence[Any], program: Program, *, streams: bool = False, files: Sequence[int] = ()
    ) -> tuple[RpcStream | None, tuple[Any, ...]]:
        waiting = _Waiting()
        with self._lock:
            self._check()
            call, data = self._machine.call(program, program.by_name[name], arguments, len(files))
            self._waiting[call.serial] = waiting
            stream = RpcStream(self, call) if streams else None
            if stream is not None:
                # What it brings may come with the answer.
                self._streams[call.serial] = stream
        try:
            self.send(data, files=files)
            waiting.done.wait()
        except BaseException:
            self.forget(call.serial)
            raise
        reply = waiting.reply
        if reply is None:
            raise self._over or _gone("connection closed")
        for fd in reply.fds:
            os.close(fd)
        if reply.error is not None:
            self.forget(call.serial)
            raise reply.error
        return stream, reply.result

    def send(self, *parts: bytes | memoryview, files: Sequence[int] = ()) -> None:
        """Send, and open files after it; from any thread.

        Raises:
            VirtError: the connection is over.
        """
        try:
            with self._sending:
                self._check()
                self._transport.send(parts)
                if files and isinstance(self._transport, SocketTransport):
                    self._transport.send_files(files)
        except OSError as error:
            raise self._end(_gone(self._reason() or f"Cannot write data: {error.strerror or error}")) from None

    def forget(self, serial: int) -> None:
        """A stream is over."""
        with self._lock:
            self._streams.pop(serial, None)

    def start_keepalive(self) -> None:
        """Ask the daemon when it is silent, from now on."""
        self._knows_keepalive = True
        self.set_keepalive(_INTERVAL, _COUNT)

    def set_keepalive(self, interval: int, count: int) -> bool:
        """Ask a silent daemon every so many seconds, and so many times; an interval of 0 or less asks no more.

        Returns:
            Whether the daemon answers such questions.
        """
        if not self._knows_keepalive:
            return False
        self._alive = keepalive.KeepAlive(interval, count, time.monotonic()) if interval > 0 else None
        if self._alive is not None:
            threading.Thread(target=self._ask, args=(self._alive,), name="keepalive", daemon=True).start()
        return True

    def take_leave(self) -> None:
        """Tell the daemon, if it is still there, and end the connection."""
        try:
            if not self.is_closed:
                self.call("connect_close")
        except VirtError:
            return
        finally:
            self.close()

    def close(self) -> None:
        """End the connection. Once is enough."""
        self._end(_gone("connection closed"), CloseReason.CLIENT)
        if threading.current_thread() is not self._reader:
            self._reader.join(10)
        self._transport.close()

    def _check(self) -> None:
        if self._over is not None:
            raise self._over

    def _read(self) -> None:
        buffer = memoryview(bytearray(_PORTION))
        splitter = self._machine.splitter
        try:
            while True:
                room = splitter.room()
                count = self._transport.recv_into(buffer if room is None else room)
                if not count:
                    ended = _gone(self._reason() or "End of file while reading data: Input/output error")
                    self._end(ended, CloseReason.EOF)
                    return
                if self._alive is not None:
                    self._alive.heard(time.monotonic())
                packets = splitter.feed(bytes(buffer[:count])) if room is None else splitter.received(count)
                for event in self._machine.receive(packets) if packets else ():
                    self._take(event)
                if self._machine.out:
                    answers = list(self._machine.out)
                    self._machine.out.clear()
                    self.send(*answers)
        except OSError as error:
            # A command that ends with what we sent unread resets the connection, where one that read it just ends it.
            self._end(_gone(self._reason() or f"Cannot recv data: {error.strerror or error}"))
        except HostelError as error:
            self._end(error if isinstance(error, VirtError) else _gone(str(error)))

    def _take(self, event: ClientEvent) -> None:
        if isinstance(event, Reply):
            with self._lock:
                waiting = self._waiting.pop(event.serial, None)
            if waiting is not None:
                waiting.reply = event
                waiting.done.set()
        elif isinstance(event, Message):
            self.message(event)
        elif isinstance(event, StreamData | StreamHole | StreamEnd):
            with self._lock:
                stream = self._streams.get(event.serial)
            if stream is not None:
                stream.arrived(event)

    def _ask(self, alive: keepalive.KeepAlive) -> None:
        while not self.is_closed and self._alive is alive:
            time.sleep(max(0.05, min(_INTERVAL, alive.deadline - time.monotonic())))
            try:
                if self._alive is alive and alive.due(time.monotonic()):
                    self.send(keepalive.ping)
            except TimeoutError as error:
                self._end(_gone(f"received hangup event on socket: {error}"), CloseReason.KEEPALIVE)
            except VirtError:
                return

    def _end(self, error: VirtError, reason: CloseReason = CloseReason.ERROR) -> VirtError:
        """The connection is over: everybody who waits is told; the reason that was the first."""
        with self._lock:
            if self._over is not None:
                return self._over
            self._over = error
            waiting = list(self._waiting.values())
            self._waiting.clear()
            streams = list(self._streams.values())
            self._streams.clear()
        self._transport.shutdown()
        try:
            self.closed(reason)
        finally:
            for one in waiting:
                one.done.set()
            for stream in streams:
                stream.failed(error)
        return error


def _gone(reason: str) -> VirtError:
    return VirtError(ErrorCode.SYSTEM_ERROR, reason, domain=ErrorDomain.RPC)

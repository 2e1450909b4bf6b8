"""Calls that a daemon answers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, Final

from hostel.drivers.base.closing import CloseReason
from hostel.drivers.remote.client import RpcClient, RpcStream
from hostel.errors import VirtError
from hostel.libvirt.method import Peer
from hostel.wire.rpc.connection import Message, StreamData, StreamEnd, StreamHole
from hostel.wire.rpc.packet import STREAM_MAX
from hostel.wire.rpc.procedure import Procedure
from hostel.wire.rpc.programs import program_of

_PATIENCE: Final = 60.0  # seconds of one wait of those for what comes
_LOOK: Final = 0.001  # seconds that a look at what has come may take


class RemoteCaller:
    """Calls over a connection to a daemon.

    Args:
        client: the connection.
        encrypted: nobody on the way can listen.
    """

    def __init__(self, client: RpcClient, *, encrypted: bool) -> None:
        self._client = client
        self._encrypted = encrypted
        self._closing = False

    def call(self, procedure: Procedure, arguments: Sequence[Any]) -> Sequence[Any]:
        """Make a call; see :class:`hostel.libvirt.method.Caller`."""
        return self._client.call(procedure.name, *arguments, program=program_of(procedure))

    def call_with_files(self, procedure: Procedure, arguments: Sequence[Any], files: Sequence[int]) -> Sequence[Any]:
        """Likewise, with open files."""
        return self._client.call_with_files(procedure.name, files, *arguments, program=program_of(procedure))

    def open_stream(self, procedure: Procedure, arguments: Sequence[Any]) -> tuple[Sequence[Any], Peer]:
        """Make a call that opens a stream."""
        stream = self._client.open_stream(procedure.name, *arguments)
        return stream.result, Stream(stream)

    def listen(self, heard: Callable[[Procedure, Sequence[Any]], None], ended: Callable[[int], None]) -> None:
        """Tell messages, and when the daemon is gone."""

        def message(message: Message) -> None:
            heard(message.procedure, message.values)

        def closed(reason: CloseReason) -> None:
            if not self._closing:
                ended(int(reason))

        self._client.message, self._client.closed = message, closed

    def is_alive(self) -> bool:
        """Whether the daemon is still there."""
        return not self._client.is_closed

    def is_test(self) -> bool:
        """A daemon answers."""
        return False

    def is_encrypted(self) -> bool:
        """Whether nobody on the way can listen."""
        return self._encrypted

    def set_keepalive(self, interval: int, count: int) -> bool:
        """Ask the daemon every ``interval`` seconds that it is silent; 0 does not ask."""
        return self._client.set_keepalive(interval, count)

    def close(self) -> None:
        """End the connection."""
        self._closing = True
        self._client.take_leave()


class Stream:
    """A stream of a daemon's."""

    def __init__(self, stream: RpcStream) -> None:
        self._stream = stream
        self._rest: bytes | memoryview = b""
        self._is_over = False
        self._next: StreamData | StreamHole | StreamEnd | VirtError | None = None  # has come, and was not asked for
        self._lock = threading.Lock()

    def receive(self, length: int, *, block: bool) -> bytes | int | None:
        """The next bytes, or the next hole."""
        while not self.wait(_PATIENCE if block else 0):
            if not block:
                return None
        if not self._rest and not self._is_over:
            event, self._next = self._next, None
            if isinstance(event, VirtError):
                raise event
            if isinstance(event, StreamHole):
                return event.length
            if isinstance(event, StreamData) and event.data:
                self._rest = event.data
            else:
                self._is_over = True
        data, self._rest = self._rest[:length], self._rest[length:]
        return bytes(data)

    def wait(self, timeout: float) -> bool:
        """Whether something has come."""
        with self._lock:
            if self._rest or self._is_over or self._next is not None:
                return True
            try:
                self._next = self._stream.receive(max(timeout, _LOOK))
            except VirtError as error:
                self._next = error
            return self._next is not None

    def send(self, data: bytes) -> None:
        """Send bytes."""
        for start in range(0, len(data), STREAM_MAX):
            self._stream.send(data[start : start + STREAM_MAX])

    def send_hole(self, length: int) -> None:
        """Send a hole."""
        self._stream.send_hole(length)

    def finish(self) -> None:
        """End in order."""
        self._stream.finish()

    def abort(self) -> None:
        """End at once."""
        self._stream.abort()

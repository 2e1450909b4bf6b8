"""Streams: bytes that come from, or go to, what a call has opened."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from hostel.daemon.access import api_name
from hostel.drivers.fault import fault
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.libvirt import event
from hostel.libvirt.error import failed, libvirtError, virResetLastError
from hostel.libvirt.method import Handle, Peer, performed, unsupported
from hostel.libvirt.watching import Watching
from hostel.wire.rpc.programs import REMOTE

_AGAIN, _IN_HOLE = -2, -3  # what sending and receiving answer instead of a number of bytes
_PIECE = 256 << 10  # bytes
_NONBLOCK = 1


class virStream(Handle):
    """A stream; ``virConnect.newStream`` makes one, and a call that takes one opens it."""

    def __init__(self, conn: Any, _obj: Any = None) -> None:
        super().__init__(conn, _obj)
        self._peer: Peer | None = None
        self._watching: Watching | None = None
        self._hole = 0  # bytes of one that was met and not asked for
        self._block = not (operator.index(_obj or 0) & _NONBLOCK)

    def _opened(self, what: str) -> Peer:
        if self._peer is None:
            unsupported(what)
        virResetLastError()
        return self._peer

    def _unwatch(self) -> None:
        if self._watching is not None:
            self._watching.close()
            self._watching = None

    def _ended(self) -> None:
        """Nothing more comes or goes."""
        self._unwatch()
        self._peer = None

    def recv(self, nbytes: int) -> Any:
        """At most ``nbytes`` bytes; none at the end; -2 where none are there yet and the stream does not wait."""
        return self._receive(nbytes, "virStreamRecv")

    def recvFlags(self, nbytes: int, flags: int = 0) -> Any:
        """As :meth:`recv`; with ``VIR_STREAM_RECV_STOP_AT_HOLE`` -3 where a hole begins."""
        return self._receive(nbytes, "virStreamRecvFlags", stop=bool(flags & 1))

    def _receive(self, nbytes: int, what: str, *, stop: bool = False) -> Any:
        peer = self._opened(what)
        if not self._hole:
            try:
                got = peer.receive(nbytes, block=self._block)
            except VirtError as error:
                self._ended()
                failed(error, what)
            if got is None:
                return _AGAIN
            if not isinstance(got, int):
                return got
            self._hole = got
        if stop:
            return _IN_HOLE
        count = min(nbytes, self._hole)
        self._hole -= count
        return bytes(count)

    def recvHole(self, flags: int = 0) -> int:
        """The length of the hole that begins here; 0 where none does."""
        self._opened("virStreamRecvHole")
        length, self._hole = self._hole, 0
        return length

    def send(self, data: bytes) -> int:
        """Send bytes; how many."""
        self._try("virStreamSend", lambda peer: peer.send(data))
        return len(data)

    def sendHole(self, length: int, flags: int = 0) -> int:
        """Send a hole."""
        self._try("virStreamSendHole", lambda peer: peer.send_hole(length))
        return 0

    def finish(self) -> int:
        """End in order."""
        self._unwatch()
        self._try("virStreamFinish", lambda peer: peer.finish())
        self._ended()
        return 0

    def abort(self) -> int:
        """End at once, where it has begun."""
        self._unwatch()
        if self._peer is not None:
            self._try("virStreamAbort", lambda peer: peer.abort())
            self._ended()
        return 0

    def _try(self, what: str, action: Callable[[Peer], None]) -> None:
        peer = self._opened(what)
        try:
            action(peer)
        except VirtError as error:
            self._ended()
            failed(error, what)

    def recvAll(self, handler: Callable[[virStream, bytes, Any], int | None], opaque: Any) -> None:
        """Give all that comes to ``handler(stream, data, opaque)``; where it answers -1, end."""
        self._refuse_nonblocking("recvAll")
        while data := self.recv(_PIECE):
            self._handled(handler(self, data, opaque), "recvAll")

    def sendAll(self, handler: Callable[[virStream, int, Any], bytes], opaque: Any) -> None:
        """Send what ``handler(stream, length, opaque)`` gives, until it gives nothing."""
        self._refuse_nonblocking("sendAll")
        while data := self._asked(handler, opaque, "sendAll"):
            self.send(data)

    def sparseRecvAll(
        self,
        handler: Callable[[virStream, bytes, Any], int | None],
        holeHandler: Callable[[virStream, int, Any], int | None],
        opaque: Any,
    ) -> None:
        """As :meth:`recvAll`; holes go to ``holeHandler(stream, length, opaque)``."""
        self._refuse_nonblocking("sparseRecvAll")
        while True:
            got = self.recvFlags(_PIECE, 1)
            if got == _IN_HOLE:
                self._handled(holeHandler(self, self.recvHole(), opaque), "sparseRecvAll")
            elif not got:
                return
            else:
                self._handled(handler(self, got, opaque), "sparseRecvAll")

    def sparseSendAll(
        self,
        handler: Callable[[virStream, int, Any], bytes],
        holeHandler: Callable[[virStream, Any], tuple[bool, int]],
        skipHandler: Callable[[virStream, int, Any], int],
        opaque: Any,
    ) -> None:
        """As :meth:`sendAll`; ``holeHandler`` says whether data or a hole comes, and how long it is."""
        self._refuse_nonblocking("sparseSendAll")
        while True:
            in_data, length = holeHandler(self, opaque)
            if not in_data and length:
                self.sendHole(length)
                self._handled(skipHandler(self, length, opaque), "sparseSendAll")
                continue
            if not length:
                return
            while length and (data := self._asked(handler, opaque, "sparseSendAll", min(length, _PIECE))):
                self.send(data)
                length -= len(data)

    def _asked(self, handler: Callable[..., bytes], opaque: Any, what: str, length: int = _PIECE) -> bytes:
        try:
            data = handler(self, length, opaque)
        except Exception:
            self.abort()
            raise
        if isinstance(data, int):
            self._handled(data, what)
            return b""
        return data

    def _handled(self, answer: Any, what: str) -> None:
        if isinstance(answer, int) and answer < 0:
            self.abort()
            raise libvirtError(f"virStream.{what}: the handler gave up")

    def _refuse_nonblocking(self, what: str) -> None:
        if not self._block:
            error = fault(
                ErrorCode.OPERATION_INVALID, "data sources cannot be used for non-blocking streams", ErrorDomain.STREAMS
            )
            failed(error, f"virStream.{what}")

    def eventAddCallback(self, events: int, cb: Callable[[virStream, int, Any], None], opaque: Any) -> None:
        """Call ``cb(stream, events, opaque)`` from the event loop when the stream can be used.

        Args:
            events: those of ``VIR_STREAM_EVENT_`` that are waited for; how a stream ends is told as readable.
            cb: who is called.
            opaque: given to it.

        Raises:
            libvirtError: nothing has opened the stream, there is no event loop, or it has a callback.
        """
        peer = self._opened("virStreamEventAddCallback")
        if self._watching is not None:
            self._refuse("multiple stream callbacks not supported", "virStreamEventAddCallback")
        if not event.is_registered():
            self._refuse("there is no event loop", "virStreamEventAddCallback")
        self._watching = Watching(peer, events, lambda ready: cb(self, ready, opaque))

    def eventUpdateCallback(self, events: int) -> int:
        """Wait for other events; see :meth:`eventAddCallback`."""
        self._watched("virStreamEventUpdateCallback").update(events)
        return 0

    def eventRemoveCallback(self) -> int:
        """Wait no more; see :meth:`eventAddCallback`."""
        self._watched("virStreamEventRemoveCallback").close()
        self._watching = None
        return 0

    def _watched(self, what: str) -> Watching:
        self._opened(what)
        if self._watching is None:
            self._refuse("no stream callback registered", what)
        return self._watching

    def _refuse(self, reason: str, what: str) -> NoReturn:
        failed(fault(ErrorCode.INTERNAL_ERROR, reason, ErrorDomain.STREAMS), what)


def begin(stream: Any, procedure: str, *arguments: Any) -> Sequence[Any]:
    """Call a procedure that opens a stream; the members of its answer.

    Raises:
        libvirtError: it failed, or ``stream`` is None.
        TypeError: ``stream`` is no stream, or the arguments are not what the procedure takes.
    """
    row = REMOTE.by_name[procedure]
    function = api_name(procedure)
    if stream is None:
        error = VirtError(ErrorCode.INVALID_STREAM, f"invalid stream pointer in {function}", domain=ErrorDomain.STREAMS)
        failed(error, function)
    if not isinstance(stream, virStream):
        raise TypeError(f"{function}() takes a virStream, not {type(stream).__name__}")
    result, stream._peer = performed(row, arguments, (), lambda given: stream._caller.open_stream(row, given))
    return result

"""Streams of a client: each in a thread of its own, and no faster than the slower side."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final, Protocol

from hostel.drivers.base import ConsoleStream, Hole
from hostel.drivers.base.storage import piece_size
from hostel.errors import ErrorCode, ErrorDomain, HostelError, VirtError
from hostel.units import MiB
from hostel.wire.rpc.connection import StreamData, StreamEnd, StreamFrames, StreamHole
from hostel.wire.rpc.packet import STREAM_MAX

if TYPE_CHECKING:
    from hostel.daemon.client import Client

_AHEAD: Final = 4 * MiB  # bytes of an upload that may wait for the disk
_DOWNLOADED: Final = MiB  # bytes in one message; clients have taken so much since libvirt 0.9.13
_STALLED: Final = 600.0  # seconds after which a side that moves nothing ends the stream
_LAST_WORDS: Final = 1.0  # seconds in which a guest may take what its console was sent before the end
_CONSOLE_WAIT: Final = 0.1  # seconds after which it is seen that the client has ended it
_CONSOLE_READ: Final = 4096  # bytes


class Stream(Protocol):
    """What a client's connection knows of a stream."""

    def receive(self, event: StreamData | StreamHole | StreamEnd) -> None:
        """Take what the client sends; called in the loop."""

    def cut(self) -> None:
        """The connection is gone."""


class Inflow:
    """What a client has sent and nobody has taken yet; ends with an error, or in order.

    Args:
        pause: told whether the client should send no more for now; called with the lock held.
    """

    def __init__(self, pause: Callable[[bool], None]) -> None:
        self._pause = pause
        self._changed = threading.Condition()
        self._pieces: deque[bytes | memoryview | Hole] = deque()
        self._size = 0
        self._paused = False
        self._ended = False
        self._error: VirtError | None = None

    def put(self, piece: bytes | memoryview | Hole) -> None:
        """Add what came."""
        with self._changed:
            if self._ended:
                return
            self._pieces.append(piece)
            # A hole takes no room but must count, or there is no end of them.
            self._size += STREAM_MAX if isinstance(piece, Hole) else len(piece)
            if self._size > _AHEAD and not self._paused:
                self._paused = True
                self._pause(True)
            self._changed.notify()

    def end(self, error: VirtError | None) -> None:
        """No more comes."""
        with self._changed:
            if not self._ended:
                self._ended = True
                self._error = error
                if error is not None:
                    self._pieces.clear()
                self._changed.notify()

    def get(self, timeout: float) -> bytes | memoryview | Hole | None:
        """The next piece; None at the end.

        Raises:
            VirtError: the client gave up, or sent nothing for too long.
        """
        with self._changed:
            while not self._pieces:
                if self._error is not None:
                    raise self._error
                if self._ended:
                    return None
                if not self._changed.wait(timeout):
                    raise _stalled()
            piece = self._pieces.popleft()
            self._size -= STREAM_MAX if isinstance(piece, Hole) else len(piece)
            if self._paused and self._size < _AHEAD // 2:
                self._paused = False
                self._pause(False)
            return piece


class Upload:
    """The client sends, a driver takes.

    Args:
        client: whose stream it is.
        frames: its messages.
        take: called in the stream's thread with what comes; returns when all of it is where it belongs.
        accepted: called when ``take`` asks for the first piece: the call is answered then.
        refused: called in place of that with the error of ``take``.
        length: bytes that the client has announced; 0 where it has not.

    Attributes:
        is_settling: all that was announced is here, and the driver has not asked for more: what it has made of it is
            not ready to be used.
    """

    def __init__(
        self,
        client: Client,
        frames: StreamFrames,
        take: Callable[[Iterator[bytes | memoryview | Hole]], None],
        accepted: Callable[[], None],
        refused: Callable[[Exception], None],
        length: int = 0,
    ) -> None:
        self.is_settling = False
        self._client = client
        self._frames = frames
        self._length = length
        self._coming = length  # bytes of what was announced that are still to come
        self._take = take
        self._accepted = accepted
        self._refused = refused
        self._inflow = Inflow(lambda on: client.pause(self, on))
        self._asked = False
        self._client_aborted = False

    def receive(self, event: StreamData | StreamHole | StreamEnd) -> None:
        """See :class:`Stream`."""
        if isinstance(event, StreamData):
            self._put(event.data)
        elif isinstance(event, StreamHole):
            self._put(Hole(event.length))
        else:
            self._client_aborted = event.error is not None
            self._inflow.end(event.error)

    def _put(self, piece: bytes | memoryview | Hole) -> None:
        if self._coming > 0:
            self._coming -= piece_size(piece)
            self.is_settling = self._coming <= 0
        self._inflow.put(piece)

    def cut(self) -> None:
        """See :class:`Stream`."""
        self._inflow.end(_gone())

    def run(self) -> None:
        """Bring it all to the driver; called in the stream's thread."""
        try:
            self._carry()
        finally:
            self._settle()

    def _carry(self) -> None:
        try:
            self._take(self._pieces())
        except Exception as error:
            self._client.forget(self._frames.serial, self)
            if not self._asked:
                self._refused(error)
            elif self._client_aborted:
                self._client.send(self._frames.finish())
            else:
                self._client.send(self._frames.abort(self._client.described(error)))
            return
        if not self._asked:
            self._accept()
        self._client.forget(self._frames.serial, self)
        self._client.send(self._frames.finish())

    def _pieces(self) -> Iterator[bytes | memoryview | Hole]:
        self._accept()
        given = 0
        while True:
            if self._length and given >= self._length:
                self._settle()
            piece = self._inflow.get(_STALLED)
            if piece is None:
                return
            given += piece_size(piece)
            yield piece

    def _settle(self) -> None:
        self.is_settling = False
        self._client.settled()

    def _accept(self) -> None:
        self._asked = True
        self._accepted()


class Farewell:
    """Answers the end that a client makes of a stream, once the driver has let go of what it used for that.

    What the client does next may be about the same.

    Args:
        client: whose stream it is.
        frames: its messages.
        stream: which is over then.
    """

    def __init__(self, client: Client, frames: StreamFrames, stream: Stream) -> None:
        self._client = client
        self._frames = frames
        self._stream = stream
        self._lock = threading.Lock()
        self._is_asked = self._is_free = False

    def ask(self) -> None:
        """The client has made an end, and waits to hear that."""
        with self._lock:
            self._is_asked = True
        self._answer()

    def let_go(self) -> None:
        """The driver has nothing open any more."""
        with self._lock:
            self._is_free = True
        self._answer()

    def _answer(self) -> None:
        with self._lock:
            if not self._is_asked or not self._is_free:
                return
            self._is_asked = False
        self._client.forget(self._frames.serial, self._stream)
        self._client.send(self._frames.finish())


class Download:
    """A driver gives, the client takes.

    Args:
        client: whose stream it is.
        frames: its messages.
        first: what was given already.
        source: what follows; a piece is good until the next one is asked for.
    """

    def __init__(
        self, client: Client, frames: StreamFrames, first: memoryview | Hole | None, source: Iterator[memoryview | Hole]
    ) -> None:
        self._client = client
        self._frames = frames
        self._first = first
        self._source = source
        self._over = threading.Event()  # the client has ended it, in order or not
        self._farewell = Farewell(client, frames, self)

    def receive(self, event: StreamData | StreamHole | StreamEnd) -> None:
        """See :class:`Stream`."""
        if isinstance(event, StreamEnd):
            self._over.set()
            self._farewell.ask()

    def cut(self) -> None:
        """See :class:`Stream`."""
        self._over.set()

    def run(self) -> None:
        """Send it all; called in the stream's thread."""
        end: bytes | None = None
        try:
            if self._first is not None:
                self._send(self._first)
            for piece in self._source:
                if self._over.is_set():
                    break
                self._send(piece)
            end = self._frames.data_header(0)
        except Exception as error:
            if not self._over.is_set():
                self._client.forget(self._frames.serial, self)
                end = self._frames.abort(self._client.described(error))
        finally:
            # Before the client hears of the end: what it does next may be about the same volume.
            close: Any = getattr(self._source, "close", None)
            if close is not None:
                close()
        if end is not None and not self._over.is_set():
            self._client.send(end)
        self._farewell.let_go()

    def _send(self, piece: memoryview | Hole) -> None:
        channel = self._client.channel
        if isinstance(piece, Hole):
            channel.send(self._frames.hole(piece.length))
            return
        for start in range(0, len(piece), _DOWNLOADED):
            part = piece[start : start + _DOWNLOADED]
            # The driver uses its buffer again: all of it must be gone.
            channel.push([self._frames.data_header(len(part)), part], _STALLED)


class Console:
    """A guest's console: both ways at once.

    Args:
        client: whose stream it is.
        frames: its messages.
        console: attached.
    """

    def __init__(self, client: Client, frames: StreamFrames, console: ConsoleStream) -> None:
        self._client = client
        self._frames = frames
        self._console = console
        self._inflow = Inflow(lambda on: client.pause(self, on))
        self._over = threading.Event()
        self._farewell = Farewell(client, frames, self)

    def receive(self, event: StreamData | StreamHole | StreamEnd) -> None:
        """See :class:`Stream`."""
        if isinstance(event, StreamData):
            self._inflow.put(event.data)
        elif isinstance(event, StreamEnd):
            self._over.set()
            self._inflow.end(event.error)
            self._farewell.ask()

    def cut(self) -> None:
        """See :class:`Stream`."""
        self._over.set()
        self._inflow.end(_gone())

    def run(self) -> None:
        """Carry what the guest says; called in the stream's thread."""
        writer = threading.Thread(target=self._write, name="console", daemon=True)
        writer.start()
        try:
            self._read()
        except Exception as error:
            self._end(self._frames.abort(self._client.described(error)))
        finally:
            self._over.set()
            self._inflow.end(_gone())
            writer.join(_LAST_WORDS)
            self._console.close()  # which ends a writer whose guest reads nothing
            writer.join()
            self._farewell.let_go()

    def _read(self) -> None:
        while not self._over.is_set():
            data = self._console.read(_CONSOLE_READ, _CONSOLE_WAIT)
            if data:
                self._client.channel.push([self._frames.data_header(len(data)), data], _STALLED)
            elif data is not None:
                self._end(self._frames.data_header(0))
                return

    def _write(self) -> None:
        with contextlib.suppress(OSError, HostelError):
            while (piece := self._inflow.get(_STALLED * 1000)) is not None:
                if not isinstance(piece, Hole):
                    self._console.write(bytes(piece))

    def _end(self, message: bytes) -> None:
        if not self._over.is_set():
            self._client.send(message)


def _gone() -> VirtError:
    return VirtError(ErrorCode.RPC, "stream had unexpected termination", domain=ErrorDomain.STREAMS)


def _stalled() -> VirtError:
    return VirtError(ErrorCode.OPERATION_TIMEOUT, "the stream stands still", domain=ErrorDomain.STREAMS)

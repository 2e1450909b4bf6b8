"""Bytes that arrived and are not parsed yet, and the machines whose parsers are generators over them.

A parser reads top to bottom, like blocking code, and yields wherever bytes are missing::

    size, flags = HEADER.unpack((yield from stream.exact(HEADER.size)))
    yield from stream.into(buffer)

Whoever has the bytes puts them where :meth:`Stream.room` says, tells :meth:`Stream.received` how many there are, and
lets the parser go on.
"""

from __future__ import annotations

import abc
from collections.abc import Generator
from typing import Final, Generic, TypeVar

from hostel.errors import LocalProtocolError, RemoteProtocolError
from hostel.units import KiB

END_OF_FILE: Final = "Unexpected end-of-file before all bytes were read"


class Stream:
    """The unparsed bytes of one direction of a connection.

    Args:
        limit: bytes that :meth:`exact` may be asked for at once, and thereby the most that is ever held here.
        capacity: bytes held at first; grows only for a longer :meth:`exact`.

    Attributes:
        at_end: the peer will send no more.
        wanted: what the parser waits for, where it said that.
    """

    __slots__ = ("_buffer", "_end", "_limit", "_start", "_target", "_view", "at_end", "wanted")

    def __init__(self, limit: int, *, capacity: int = 4 * KiB) -> None:
        self._limit = max(limit, capacity)
        self._buffer = bytearray(capacity)
        self._view = memoryview(self._buffer)
        self._start = 0
        self._end = 0
        self._target: memoryview | None = None
        self.at_end = False
        self.wanted = ""

    def __len__(self) -> int:
        """Bytes that wait to be parsed."""
        return self._end - self._start

    def room(self) -> memoryview:
        """Where to put what arrives next; never empty while the parser wants more."""
        if self._target is not None:
            return self._target
        if self._start == self._end:
            self._start = self._end = 0
        elif self._start and self._end == len(self._buffer):
            length = self._end - self._start
            self._view[:length] = self._view[self._start : self._end]
            self._start, self._end = 0, length
        return self._view[self._end :]

    def received(self, count: int) -> None:
        """Say that ``count`` bytes were put into :meth:`room`."""
        if self._target is not None:
            self._target = self._target[count:] if count < len(self._target) else None
        else:
            self._end += count

    def put(self, data: memoryview) -> int:
        """Copy as much of ``data`` as there is room for; the number of bytes taken."""
        room = self.room()
        count = min(len(room), len(data))
        room[:count] = data[:count]
        self.received(count)
        return count

    def exact(self, length: int, what: str = "") -> Generator[None, None, bytes]:
        """Wait for ``length`` bytes and take them; ``what`` names them when the peer ends before.

        Raises:
            LocalProtocolError: more than the stream's limit.
            RemoteProtocolError: the peer ended before.
        """
        if length > self._limit:
            raise LocalProtocolError(f"{length} bytes at once are more than the limit of {self._limit}")
        if length > len(self._buffer):
            self._grow(length)
        while self._end - self._start < length:
            self._require(what)
            yield
        start = self._start
        self._start += length
        return bytes(self._view[start : self._start])

    def into(self, target: memoryview, what: str = "") -> Generator[None, None, None]:
        """Fill ``target``; what has not arrived yet goes straight into it.

        Raises:
            RemoteProtocolError: the peer ended before.
        """
        ready = min(len(target), self._end - self._start)
        target[:ready] = self._view[self._start : self._start + ready]
        self._start += ready
        if ready < len(target):
            self._target = target[ready:]
            while self._target is not None:
                self._require(what)
                yield

    def skip(self, length: int, what: str = "") -> Generator[None, None, None]:
        """Drop ``length`` bytes as they come.

        Raises:
            RemoteProtocolError: the peer ended before.
        """
        while length:
            ready = min(length, self._end - self._start)
            self._start += ready
            length -= ready
            if length:
                self._require(what)
                yield

    def rest(self) -> bytes:
        """Take all that waits to be parsed."""
        start, self._start = self._start, self._end
        return bytes(self._view[start : self._end])

    def _require(self, what: str) -> None:
        self.wanted = what
        if self.at_end:
            raise RemoteProtocolError(f"Failed to read {what}: {END_OF_FILE}" if what else END_OF_FILE)

    def _grow(self, length: int) -> None:
        held = bytes(self._view[self._start : self._end])
        self._buffer = bytearray(length)
        self._view = memoryview(self._buffer)
        self._view[: len(held)] = held
        self._start, self._end = 0, len(held)


Event = TypeVar("Event")


class Machine(abc.ABC, Generic[Event]):
    """One side of a protocol, without a socket: bytes in, events out, and bytes to write.

    A subclass's :meth:`_parse` reads :attr:`stream`, appends to :attr:`events` and :attr:`out`, and returns when the
    protocol, or its part of it, is over.

    Args:
        limit: see :class:`Stream`.
        capacity: likewise.
    """

    def __init__(self, limit: int, *, capacity: int = 4 * KiB) -> None:
        self.stream = Stream(limit, capacity=capacity)
        self.events: list[Event] = []
        self.out: list[bytes] = []
        self.finished = False
        self._beyond = b""
        self._parser = self._parse()

    @abc.abstractmethod
    def _parse(self) -> Generator[None, None, None]:
        """Read the stream from top to bottom."""

    def receive(self, data: bytes | bytearray | memoryview) -> list[Event]:
        """Parse bytes from the peer, in any portions.

        Raises:
            RemoteProtocolError: the peer broke the protocol; close the connection, once what is outgoing is written.
        """
        view = memoryview(data)
        while view and not self.finished:
            view = view[self.stream.put(view) :]
            self.advance()
        self._beyond += view
        return self.take_events()

    def receive_eof(self) -> None:
        """The peer will send no more.

        Raises:
            RemoteProtocolError: it was in the middle of something.
        """
        self.stream.at_end = True
        self.advance()

    def outgoing(self) -> list[bytes]:
        """What to write now."""
        out = list(self.out)
        self.out.clear()
        return out

    def take_events(self) -> list[Event]:
        """What has happened since the last call."""
        # The same list goes on: a parser may have been stopped with a hand on it.
        events = list(self.events)
        self.events.clear()
        return events

    def rest(self) -> bytes:
        """What the peer sent beyond the part of the protocol that this machine speaks."""
        rest = self.stream.rest() + self._beyond
        self._beyond = b""
        return rest

    def advance(self) -> None:
        """Let the parser go on."""
        if self.finished:
            return
        try:
            next(self._parser)
        except StopIteration:
            self.finished = True

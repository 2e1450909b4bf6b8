"""The client's side of the transmission phase: finds replies in what a server sends, and puts data where it belongs.

A reply is matched with its request by the cookie. Data goes straight into the request's buffer; before a read counts
as done, every byte of it has come exactly once. A server that sends what was not asked for is given up.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Final, NamedTuple

from hostel.errors import LocalProtocolError, RemoteProtocolError
from hostel.units import KiB
from hostel.wire.nbd import protocol
from hostel.wire.nbd.protocol import CHUNK_DONE, CHUNK_IS_ERROR, Chunk, Command, from_wire_error
from hostel.wire.stream import Machine

_CAPACITY: Final = 16 * KiB  # bytes received at once where no data is due: small replies come whole
_MAX_ERROR: Final = 8 * KiB  # bytes of an error's payload that are looked at
_MAX_CHUNKS: Final = 1_000_000  # of one reply
_MAX_RANGES: Final = 10_000  # pieces of a read that do not follow each other

# Lengths in bytes, and flags, by the id of the context.
Extents = dict[int, list[tuple[int, int]]]


class Reply(NamedTuple):
    """A request's end.

    Attributes:
        error: an errno; 0 after success.
        message: what the server says about the error.
        extents: what BLOCK_STATUS was asked for; never more bytes than that.
    """

    cookie: int
    error: int
    message: str
    extents: Extents


class _Pending:
    """A request that waits for its reply."""

    __slots__ = ("chunks", "command", "covered", "error", "extents", "length", "message", "offset", "target")

    def __init__(self, command: Command, offset: int, length: int, target: memoryview | None) -> None:
        self.command = command
        self.offset = offset
        self.length = length
        self.target = target
        self.covered: list[tuple[int, int]] = []
        self.chunks = 0
        self.error = 0
        self.message = ""
        self.extents: Extents = {}

    def cover(self, offset: int, length: int) -> memoryview:
        """The part of the target that is about to be filled.

        Raises:
            RemoteProtocolError: it is not what was asked for, or came before.
        """
        start, end = offset - self.offset, offset - self.offset + length
        if self.target is None or not length or start < 0 or end > self.length:
            raise RemoteProtocolError("Protocol error: server sent chunk exceeding requested region")
        if self.covered and self.covered[-1][1] == start:
            self.covered[-1] = (self.covered[-1][0], end)
        elif len(self.covered) < _MAX_RANGES:
            self.covered.append((start, end))
        else:
            raise RemoteProtocolError(f"Protocol error: data in more than {_MAX_RANGES} pieces out of order")
        return self.target[start:end]

    def missing(self) -> bool:
        """Whether a read's data has gaps or overlaps."""
        reached = 0
        for start, end in sorted(self.covered):
            if start != reached:
                return True
            reached = end
        return reached != self.length


class ReplyReader(Machine[Reply]):
    """Replies of one connection.

    Args:
        structured: structured replies were negotiated.
        extended: extended headers were negotiated.
        contexts: ids of the meta contexts that were negotiated.
    """

    def __init__(self, *, structured: bool = False, extended: bool = False, contexts: tuple[int, ...] = ()) -> None:
        super().__init__(_CAPACITY, capacity=_CAPACITY)
        self._structured = structured or extended
        self._extended = extended
        self._contexts = frozenset(contexts)
        self._status_chunk = Chunk.BLOCK_STATUS_EXT if extended else Chunk.BLOCK_STATUS
        self._pending: dict[int, _Pending] = {}

    def __len__(self) -> int:
        """Requests that wait for a reply."""
        return len(self._pending)

    def expect(self, cookie: int, command: Command, offset: int, length: int, target: memoryview | None = None) -> None:
        """Say what is about to be asked; a read's data goes into ``target``, which has ``length`` bytes.

        Raises:
            LocalProtocolError: a request of this cookie waits already.
        """
        if cookie in self._pending:
            raise LocalProtocolError(f"cookie {cookie} is in use")
        self._pending[cookie] = _Pending(command, offset, length, target)

    def room(self) -> memoryview:
        """Where to put what arrives next: a read's own buffer, when its data is due."""
        return self.stream.room()

    def received(self, count: int) -> list[Reply]:
        """Parse ``count`` bytes that were put into :meth:`room`.

        Raises:
            RemoteProtocolError: the server broke the protocol; nothing on this connection can be trusted any more.
        """
        self.stream.received(count)
        self.advance()
        return self.take_events()

    def _parse(self) -> Generator[None, None, None]:
        while True:
            while not len(self.stream):
                if self.stream.at_end:
                    return
                yield
            (magic,) = protocol.U32.unpack((yield from self.stream.exact(4)))
            if magic == protocol.SIMPLE_REPLY_MAGIC and not self._extended:
                yield from self._simple()
            elif magic == protocol.STRUCTURED_REPLY_MAGIC and self._structured and not self._extended:
                header = yield from self.stream.exact(protocol.STRUCTURED_REPLY_REST.size)
                yield from self._chunk(*protocol.STRUCTURED_REPLY_REST.unpack(header))
            elif magic == protocol.EXTENDED_REPLY_MAGIC and self._extended:
                header = yield from self.stream.exact(protocol.EXTENDED_REPLY_REST.size)
                flags, kind, cookie, _, length = protocol.EXTENDED_REPLY_REST.unpack(header)
                yield from self._chunk(flags, kind, cookie, length)
            else:
                raise RemoteProtocolError(f"invalid magic (got 0x{magic:x})")

    def _simple(self) -> Generator[None, None, None]:
        rest = yield from self.stream.exact(protocol.SIMPLE_REPLY_REST.size)
        error, cookie = protocol.SIMPLE_REPLY_REST.unpack(rest)
        pending = self._find(cookie)
        if self._structured and pending.command is Command.READ:
            raise RemoteProtocolError("Protocol error: simple reply when structured reply chunk was expected")
        if error:
            pending.error = from_wire_error(error)
        elif pending.target is not None:
            yield from self.stream.into(pending.target)
            pending.cover(pending.offset, pending.length)
        self._finish(cookie, pending)

    def _chunk(self, flags: int, kind: int, cookie: int, length: int) -> Generator[None, None, None]:
        pending = self._find(cookie)
        pending.chunks += 1
        if pending.chunks > _MAX_CHUNKS:
            raise RemoteProtocolError(f"Protocol error: more than {_MAX_CHUNKS} chunks in one reply")
        if kind & CHUNK_IS_ERROR:
            yield from self._error(pending, length)
        elif kind == Chunk.NONE:
            if not flags & CHUNK_DONE:
                raise RemoteProtocolError(
                    "Protocol error: NBD_REPLY_TYPE_NONE chunk without NBD_REPLY_FLAG_DONE flag set"
                )
            if length:
                raise RemoteProtocolError("Protocol error: NBD_REPLY_TYPE_NONE chunk with nonzero length")
        elif kind == Chunk.OFFSET_DATA and pending.target is not None:
            yield from self._data(pending, length)
        elif kind == Chunk.OFFSET_HOLE and pending.target is not None:
            yield from self._hole(pending, length)
        elif kind == self._status_chunk and pending.command is Command.BLOCK_STATUS:
            yield from self._status(pending, length)
        else:
            raise RemoteProtocolError(f"Unexpected reply type: {kind} for CMD_{pending.command.name} of {length} bytes")
        if flags & CHUNK_DONE:
            self._finish(cookie, pending)

    def _find(self, cookie: int) -> _Pending:
        pending = self._pending.get(cookie)
        if pending is None:
            raise RemoteProtocolError(f"Protocol error: a reply to no request (cookie 0x{cookie:x})")
        return pending

    def _error(self, pending: _Pending, length: int) -> Generator[None, None, None]:
        if length < protocol.ERROR.size:
            raise RemoteProtocolError("Protocol error: invalid payload for structured error")
        error, size = protocol.ERROR.unpack((yield from self.stream.exact(protocol.ERROR.size)))
        rest = length - protocol.ERROR.size
        if size > rest or rest > _MAX_ERROR:
            raise RemoteProtocolError("Protocol error: server sent structured error chunk with incorrect message size")
        if not error:
            raise RemoteProtocolError("Protocol error: server sent structured error chunk with error = 0")
        text = yield from self.stream.exact(size)
        yield from self.stream.skip(rest - size)
        if not pending.error:
            pending.error = from_wire_error(error)
            pending.message = text.decode("utf-8", "replace")

    def _data(self, pending: _Pending, length: int) -> Generator[None, None, None]:
        if length <= protocol.U64.size:
            raise RemoteProtocolError("Protocol error: invalid payload for NBD_REPLY_TYPE_OFFSET_DATA")
        (offset,) = protocol.U64.unpack((yield from self.stream.exact(protocol.U64.size)))
        yield from self.stream.into(pending.cover(offset, length - protocol.U64.size))

    def _hole(self, pending: _Pending, length: int) -> Generator[None, None, None]:
        if length != protocol.HOLE.size:
            raise RemoteProtocolError("Protocol error: invalid payload for NBD_REPLY_TYPE_OFFSET_HOLE")
        offset, size = protocol.HOLE.unpack((yield from self.stream.exact(length)))
        hole = pending.cover(offset, size)
        hole[:] = bytes(size)

    def _status(self, pending: _Pending, length: int) -> Generator[None, None, None]:
        entry = protocol.EXTENDED_STATUS if self._extended else protocol.STATUS
        head = 8 if self._extended else 4
        count, left = divmod(length - head, entry.size)
        if count < 1 or left:
            raise RemoteProtocolError("Protocol error: invalid payload for NBD_REPLY_TYPE_BLOCK_STATUS")
        (context,) = protocol.U32.unpack_from((yield from self.stream.exact(head)))
        if context not in self._contexts:
            raise RemoteProtocolError(
                f"Protocol error: unexpected context id {context} for NBD_REPLY_TYPE_BLOCK_STATUS"
            )
        if context in pending.extents:
            raise RemoteProtocolError("Several BLOCK_STATUS chunks in reply")
        extents: list[tuple[int, int]] = []
        room = pending.length
        kept = min(count, protocol.MAX_STATUS)
        for _ in range(kept):
            size, flags = entry.unpack((yield from self.stream.exact(entry.size)))
            if not size:
                raise RemoteProtocolError("Protocol error: server sent status chunk with zero length")
            if room:
                extents.append((min(size, room), flags))
                room -= min(size, room)
        yield from self.stream.skip((count - kept) * entry.size)
        pending.extents[context] = extents

    def _finish(self, cookie: int, pending: _Pending) -> None:
        """Report a request's end, once all that success promises is there."""
        del self._pending[cookie]
        if not pending.error:
            if pending.command is Command.READ and pending.missing():
                raise RemoteProtocolError("Protocol error: server did not send all of the data that was read")
            if pending.command is Command.BLOCK_STATUS and pending.extents.keys() != self._contexts:
                raise RemoteProtocolError("Server did not reply with any status extents")
        self.events.append(Reply(cookie, pending.error, pending.message, pending.extents))

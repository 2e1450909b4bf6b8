"""The server's side of the transmission phase: requests in, replies out.

The hot path of a server runs through here, so this is no generator over single fields: requests are taken from one
reused buffer as many at a time as it holds, and their payloads are views into it. It is still a machine without a
socket, and any portions of the stream give the same requests.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from hostel.errors import RemoteProtocolError
from hostel.units import KiB
from hostel.wire.nbd import protocol
from hostel.wire.nbd.protocol import CHUNK_DONE, Chunk, Command, CommandFlag
from hostel.wire.stream import END_OF_FILE

# type, flags, cookie, offset, length in bytes, payload
Request = tuple[int, int, int, int, int, memoryview]

_CAPACITY: Final = 512 * KiB  # bytes of requests taken from the socket at once
_LARGE: Final = 64 * KiB  # bytes of a request that is received alone
_NOTHING: Final = memoryview(b"")
_OFFSET_DATA: Final = int(Chunk.OFFSET_DATA)
_MAX_MESSAGE: Final = 4096  # bytes of an error's text


class RequestReader:
    """Finds requests in what a client sends.

    Memory is bounded: the buffer grows only as one write's payload needs it, and ``maximum`` bounds that.

    Args:
        extended: requests have extended headers.
        maximum: bytes of one payload; a longer one ends the connection.
        data: what the client sent already.
    """

    def __init__(self, *, extended: bool = False, maximum: int = protocol.MAX_PAYLOAD, data: bytes = b"") -> None:
        self._header = protocol.EXTENDED_REQUEST if extended else protocol.REQUEST
        self._magic = protocol.EXTENDED_REQUEST_MAGIC if extended else protocol.REQUEST_MAGIC
        self._extended = extended
        self._maximum = maximum
        self._buffer = bytearray(max(_CAPACITY, len(data)))
        self._view = memoryview(self._buffer)
        self._view[: len(data)] = data
        self._start = 0
        self._end = len(data)
        self._needed = 0

    def room(self) -> memoryview:
        """Where to put what arrives next; payloads of requests taken before are overwritten."""
        start, end = self._start, self._end
        if start == end:
            self._start = self._end = 0
            return self._view
        if start + self._needed > len(self._buffer) or end == len(self._buffer):
            end = self._compact()
        if self._needed > _LARGE:
            # No more than this request: its successor then begins at the buffer's start, and needs no moving.
            return self._view[end : self._start + self._needed]
        return self._view[end:]

    def _compact(self) -> int:
        length = self._end - self._start
        if self._needed > len(self._buffer):
            old = self._view
            self._buffer = bytearray(self._needed)
            self._view = memoryview(self._buffer)
            self._view[:length] = old[self._start : self._end]
        else:
            self._view[:length] = self._view[self._start : self._end]
        self._start, self._end = 0, length
        return length

    def received(self, count: int) -> None:
        """Say that ``count`` bytes were put into :meth:`room`."""
        self._end += count

    def receive(self, data: bytes | bytearray | memoryview) -> list[Request]:
        """Take ``data`` and give copies of the requests that it completes.

        Raises:
            RemoteProtocolError: the client broke the protocol.
        """
        view = memoryview(data)
        found: list[Request] = []
        while view:
            room = self.room()[: len(view)]
            room[:] = view[: len(room)]
            self.received(len(room))
            view = view[len(room) :]
            found += [(*request[:5], memoryview(bytes(request[5]))) for request in self.requests()]
        return found

    def receive_eof(self) -> None:
        """The client will send no more.

        Raises:
            RemoteProtocolError: it was in the middle of a request.
        """
        if self._end != self._start:
            raise RemoteProtocolError(END_OF_FILE)

    def lone(self, count: int) -> Request | None:
        """The request that ``count`` bytes, just put into the :meth:`room` of a reader that held nothing, are.

        Who answers it does not say that it was :meth:`received`. None where it is not just one, whole, and well formed.
        """
        size = self._header.size
        if count < size or self._end:
            return None
        magic, flags, kind, cookie, offset, length = self._header.unpack_from(self._view)
        if magic != self._magic:
            return None
        if kind != 1 and not (self._extended and flags & 32):
            return (kind, flags, cookie, offset, length, _NOTHING) if count == size else None
        if count != size + length:
            return None
        return kind, flags, cookie, offset, length, self._view[size:count]

    def requests(self) -> Iterator[Request]:
        """Take the requests that are complete; payloads are valid until the next :meth:`room`.

        Raises:
            RemoteProtocolError: the magic is wrong, or a payload too long.
        """
        unpack, size, expected = self._header.unpack_from, self._header.size, self._magic
        view, end = self._view, self._end
        self._needed = size
        while end - self._start >= size:
            magic, flags, kind, cookie, offset, length = unpack(view, self._start)
            if magic != expected:
                raise RemoteProtocolError(f"invalid magic (got 0x{magic:x})")
            start = self._start + size
            if kind == 1 or (self._extended and flags & 32):  # WRITE, or PAYLOAD_LEN: a payload follows
                if length > self._maximum:
                    raise RemoteProtocolError(f"len ({length}) is larger than max len ({self._maximum})")
                if end - start < length:
                    self._needed = size + length
                    return
                self._start = start + length
                yield kind, flags, cookie, offset, length, view[start : start + length]
            else:
                self._start = start
                yield kind, flags, cookie, offset, length, _NOTHING


class ReplyFormat:
    """How this connection's replies look.

    Attributes:
        structured: replies are structured.
        read_header: bytes before the data of a reply to READ.
    """

    def __init__(self, *, structured: bool = False, extended: bool = False) -> None:
        self.structured = structured or extended
        self._extended = extended
        header = protocol.EXTENDED_DATA if extended else protocol.STRUCTURED_DATA
        self.read_header = header.size if self.structured else protocol.SIMPLE_REPLY.size

    def done(self, cookie: int, offset: int) -> bytes:
        """The reply to a request that has succeeded and gives nothing back."""
        if self._extended:
            return self.chunk(Chunk.NONE, cookie, offset, b"")
        return protocol.SIMPLE_REPLY.pack(protocol.SIMPLE_REPLY_MAGIC, 0, cookie)

    def put_done(self, buffer: memoryview, place: int, cookie: int, offset: int) -> int:
        """Put such a reply at a place of a buffer; its length in bytes."""
        if self._extended:
            protocol.EXTENDED_REPLY.pack_into(
                buffer, place, protocol.EXTENDED_REPLY_MAGIC, CHUNK_DONE, 0, cookie, offset, 0
            )
            return protocol.EXTENDED_REPLY.size
        protocol.SIMPLE_REPLY.pack_into(buffer, place, protocol.SIMPLE_REPLY_MAGIC, 0, cookie)
        return protocol.SIMPLE_REPLY.size

    def error(self, cookie: int, offset: int, code: int, message: str, *, at: int | None = None) -> bytes:
        """The reply to a request that has failed with NBD's error ``code``; ``at`` is where, where that is known."""
        if not self.structured:
            return protocol.SIMPLE_REPLY.pack(protocol.SIMPLE_REPLY_MAGIC, code, cookie)
        text = message.encode("utf-8", "surrogateescape")[:_MAX_MESSAGE]
        payload = protocol.ERROR.pack(code, len(text)) + text
        if at is None:
            return self.chunk(Chunk.ERROR, cookie, offset, payload)
        return self.chunk(Chunk.ERROR_OFFSET, cookie, offset, payload + protocol.U64.pack(at))

    def put_data(
        self, buffer: memoryview, place: int, cookie: int, offset: int, at: int, length: int, last: bool = True
    ) -> None:
        """Put what comes before ``length`` bytes that were read at ``at``, for a request at ``offset``.

        Args:
            buffer: where :attr:`read_header` bytes are put.
            place: where in it.
            cookie: the request's.
            offset: the request's.
            at: where the data comes from.
            length: bytes of data; all that was asked for, unless replies are structured.
            last: nothing of the reply follows the data.
        """
        if not self.structured:
            protocol.SIMPLE_REPLY.pack_into(buffer, place, protocol.SIMPLE_REPLY_MAGIC, 0, cookie)
        elif self._extended:
            protocol.EXTENDED_DATA.pack_into(
                buffer, place, protocol.EXTENDED_REPLY_MAGIC, last, _OFFSET_DATA, cookie, offset, length + 8, at
            )
        else:
            protocol.STRUCTURED_DATA.pack_into(
                buffer, place, protocol.STRUCTURED_REPLY_MAGIC, last, _OFFSET_DATA, cookie, length + 8, at
            )

    def hole(self, cookie: int, offset: int, at: int, length: int, *, last: bool) -> bytes:
        """A part of a read that is zeroes."""
        return self.chunk(Chunk.OFFSET_HOLE, cookie, offset, protocol.HOLE.pack(at, length), last=last)

    def status(
        self, cookie: int, offset: int, context: int, extents: Sequence[tuple[int, int]], *, last: bool
    ) -> bytes:
        """What one meta context says: lengths in bytes, and flags."""
        if self._extended:
            packed = b"".join([protocol.EXTENDED_STATUS.pack(*extent) for extent in extents])
            payload = protocol.STATUS.pack(context, len(extents)) + packed
            return self.chunk(Chunk.BLOCK_STATUS_EXT, cookie, offset, payload, last=last)
        packed = b"".join([protocol.STATUS.pack(*extent) for extent in extents])
        return self.chunk(Chunk.BLOCK_STATUS, cookie, offset, protocol.U32.pack(context) + packed, last=last)

    def chunk(self, kind: Chunk, cookie: int, offset: int, payload: bytes, *, last: bool = True) -> bytes:
        """A whole chunk of a structured reply."""
        return self._chunk_header(kind, cookie, offset, len(payload), last=last) + payload

    def _chunk_header(self, kind: Chunk, cookie: int, offset: int, length: int, *, last: bool) -> bytes:
        flags = CHUNK_DONE if last else 0
        if self._extended:
            return protocol.EXTENDED_REPLY.pack(protocol.EXTENDED_REPLY_MAGIC, flags, kind, cookie, offset, length)
        return protocol.STRUCTURED_REPLY.pack(protocol.STRUCTURED_REPLY_MAGIC, flags, kind, cookie, length)


def format_request(
    command: Command,
    cookie: int,
    offset: int,
    length: int,
    flags: CommandFlag = CommandFlag.NONE,
    *,
    extended: bool = False,
) -> bytes:
    """A request's header; a write's payload follows it."""
    if not extended:
        return protocol.REQUEST.pack(protocol.REQUEST_MAGIC, flags, command, cookie, offset, length)
    if command is Command.WRITE:
        flags |= CommandFlag.PAYLOAD_LEN
    return protocol.EXTENDED_REQUEST.pack(protocol.EXTENDED_REQUEST_MAGIC, flags, command, cookie, offset, length)

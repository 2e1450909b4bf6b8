"""A client's connection as a machine: any number of requests under way, and each one's answer."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import NamedTuple

from hostel.errors import RemoteProtocolError
from hostel.wire.sftp.protocol import (
    FSYNC,
    LONG,
    MAX_PACKET,
    NUMBER,
    VERSION,
    AttributeFlag,
    Kind,
    OpenFlag,
    attributes,
    string,
)
from hostel.wire.stream import Machine


class Version(NamedTuple):
    """The server is there, and what it knows beyond the protocol."""

    number: int
    extensions: Mapping[bytes, bytes]


class Status(NamedTuple):
    """How a request went; see :class:`hostel.wire.sftp.protocol.Code`."""

    id: int
    code: int
    text: str


class Handle(NamedTuple):
    """A file was opened."""

    id: int
    handle: bytes


class Data(NamedTuple):
    """So many bytes were read into the target; fewer than asked for are no error."""

    id: int
    length: int


class Attributes(NamedTuple):
    """A file's size in bytes; None where the server does not say."""

    id: int
    size: int | None


Event = Version | Status | Handle | Data | Attributes


class SftpClient(Machine[Event]):
    """Requests, and their answers in any order. :class:`Version` comes first, and before it nothing may be asked."""

    def __init__(self) -> None:
        super().__init__(MAX_PACKET, capacity=64 * 1024)
        self._next_id = 0
        self._pending: dict[int, memoryview | None] = {}  # the target of those that read
        self._send(Kind.INIT, NUMBER.pack(VERSION))

    def open(self, path: bytes, flags: OpenFlag, permissions: int | None = None) -> int:
        """Ask for a handle; ``permissions`` are those of a new file."""
        return self._ask(Kind.OPEN, string(path) + NUMBER.pack(flags) + attributes(permissions=permissions))

    def close(self, handle: bytes) -> int:
        """Give a handle back."""
        return self._ask(Kind.CLOSE, string(handle))

    def read(self, handle: bytes, offset: int, target: memoryview) -> int:
        """Fill ``target``, or its beginning, from ``offset``."""
        body = string(handle) + LONG.pack(offset) + NUMBER.pack(len(target))
        return self._ask(Kind.READ, body, target)

    def write(self, handle: bytes, offset: int, data: memoryview) -> int:
        """Write all of ``data``."""
        return self._ask(Kind.WRITE, string(handle) + LONG.pack(offset) + string(bytes(data)))

    def stat(self, handle: bytes) -> int:
        """Ask for the attributes."""
        return self._ask(Kind.FSTAT, string(handle))

    def set_size(self, handle: bytes, size: int) -> int:
        """Set a file's size in bytes."""
        return self._ask(Kind.FSETSTAT, string(handle) + attributes(size=size))

    def sync(self, handle: bytes) -> int:
        """Have the host store what was written, if it knows :data:`FSYNC`."""
        return self._ask(Kind.EXTENDED, string(FSYNC) + string(handle))

    def _ask(self, kind: Kind, body: bytes, target: memoryview | None = None) -> int:
        self._next_id = (self._next_id + 1) % 2**32
        self._pending[self._next_id] = target
        self._send(kind, NUMBER.pack(self._next_id) + body)
        return self._next_id

    def _send(self, kind: Kind, body: bytes) -> None:
        self.out.append(NUMBER.pack(1 + len(body)) + bytes([kind]) + body)

    def _parse(self) -> Generator[None, None, None]:
        kind, left = yield from self._packet(5)
        if kind != Kind.VERSION:
            raise RemoteProtocolError(f"the server begins with a packet of type {kind}")
        self.events.append(_read_version((yield from self.stream.exact(left, "a version"))))
        while True:
            kind, left = yield from self._packet(5)
            id = NUMBER.unpack((yield from self.stream.exact(NUMBER.size, "an answer")))[0]
            if id not in self._pending:
                raise RemoteProtocolError(f"the server answers request {id}, which was not asked")
            target = self._pending.pop(id)
            left -= NUMBER.size
            if kind == Kind.DATA:
                yield from self._read_data(id, target, left)
            else:
                fields = _Fields((yield from self.stream.exact(left, "an answer")))
                self.events.append(_read_answer(kind, id, fields))

    def _packet(self, least: int) -> Generator[None, None, tuple[int, int]]:
        """The next packet's type, and how many bytes follow."""
        length = NUMBER.unpack((yield from self.stream.exact(NUMBER.size, "a packet")))[0]
        if not least <= length <= MAX_PACKET:
            raise RemoteProtocolError(f"the server sends a packet of {length} bytes")
        kind = (yield from self.stream.exact(1, "a packet"))[0]
        return kind, length - 1

    def _read_data(self, id: int, target: memoryview | None, left: int) -> Generator[None, None, None]:
        if left < NUMBER.size:
            raise RemoteProtocolError("the server's packet ends too soon")
        length = NUMBER.unpack((yield from self.stream.exact(NUMBER.size, "data")))[0]
        if target is None or not 0 < length <= len(target) or length > left - NUMBER.size:
            room = 0 if target is None else len(target)
            raise RemoteProtocolError(f"the server sends {length} bytes, and was asked for {room}")
        yield from self.stream.into(target[:length], "data")
        yield from self.stream.skip(left - NUMBER.size - length, "data")
        self.events.append(Data(id, length))


class _Fields:
    """The fields of one packet, one after the other."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def take(self, length: int) -> bytes:
        end = self._at + length
        if end > len(self._data):
            raise RemoteProtocolError("the server's packet ends too soon")
        found, self._at = self._data[self._at : end], end
        return found

    def number(self) -> int:
        return int.from_bytes(self.take(NUMBER.size))

    def string(self) -> bytes:
        return self.take(self.number())


def _read_version(data: bytes) -> Version:
    fields = _Fields(data)
    number = fields.number()
    if number != VERSION:
        raise RemoteProtocolError(f"the server speaks version {number} of the protocol, and 3 is needed")
    extensions = {}
    while fields:
        name = fields.string()
        extensions[name] = fields.string()
    return Version(number, extensions)


def _read_answer(kind: int, id: int, fields: _Fields) -> Event:
    if kind == Kind.STATUS:
        code = fields.number()
        # Servers of before version 3 say no more.
        return Status(id, code, fields.string().decode(errors="replace") if fields else "")
    if kind == Kind.HANDLE:
        return Handle(id, fields.string())
    if kind == Kind.ATTRS:
        told = fields.number() & AttributeFlag.SIZE
        return Attributes(id, int.from_bytes(fields.take(LONG.size)) if told else None)
    raise RemoteProtocolError(f"the server answers with a packet of type {kind}")

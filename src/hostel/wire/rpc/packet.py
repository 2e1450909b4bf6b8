"""Messages as they lie on the wire: a length, a header of six words, and a body (``src/rpc/virnetprotocol.x``)."""

from __future__ import annotations

import enum
import struct
from typing import Final, NamedTuple

from hostel.errors import RemoteProtocolError
from hostel.units import MiB

HEADER: Final = struct.Struct(">IIIiIII")
MESSAGE_MAX: Final = 32 * MiB + 4  # bytes, with the length word
STREAM_MAX: Final = 262120  # bytes of a stream's data in one message; what every libvirt takes
FDS_MAX: Final = 32
VERSION: Final = 1

_COUNT: Final = struct.Struct(">I")
_HOLE: Final = struct.Struct(">qI")


class Type(enum.IntEnum):
    """``virNetMessageType``."""

    CALL = 0
    REPLY = 1
    MESSAGE = 2
    STREAM = 3
    CALL_WITH_FDS = 4
    REPLY_WITH_FDS = 5
    STREAM_HOLE = 6


_WITH_FDS: Final = frozenset({Type.CALL_WITH_FDS, Type.REPLY_WITH_FDS})


class Status(enum.IntEnum):
    """``virNetMessageStatus``."""

    OK = 0
    ERROR = 1
    CONTINUE = 2


class Packet(NamedTuple):
    """A message; ``type`` and ``status`` are as they came, and may be no :class:`Type` and :class:`Status`.

    Attributes:
        body: without the number of descriptors; a view of a stream's data, which is the receiver's.
        fds: descriptors that came with it, which are the receiver's to close.
    """

    program: int
    version: int
    procedure: int
    type: int
    serial: int
    status: int
    body: bytes | memoryview
    fds: tuple[int, ...] = ()


def frame(program: int, procedure: int, type: int, serial: int, status: int, body: bytes = b"", fds: int = 0) -> bytes:
    """A message of version 1; ``fds`` is the number of descriptors that follow it."""
    if type in (Type.CALL_WITH_FDS, Type.REPLY_WITH_FDS):
        body = _COUNT.pack(fds) + body
    return HEADER.pack(HEADER.size + len(body), program, VERSION, procedure, type, serial, status) + body


def stream_header(program: int, procedure: int, serial: int, length: int) -> bytes:
    """What precedes ``length`` bytes of a stream's data."""
    return HEADER.pack(HEADER.size + length, program, VERSION, procedure, Type.STREAM, serial, Status.CONTINUE)


def hole(program: int, procedure: int, serial: int, length: int) -> bytes:
    """The message of a hole of ``length`` bytes."""
    return frame(program, procedure, Type.STREAM_HOLE, serial, Status.CONTINUE, _HOLE.pack(length, 0))


def parse_hole(body: bytes | memoryview) -> int:
    """The length of a hole.

    Raises:
        RemoteProtocolError: the message is none, or the length is negative.
    """
    if len(body) != _HOLE.size:
        raise RemoteProtocolError("Unable to decode message payload: a hole has a length and flags")
    length, flags = _HOLE.unpack(body)
    if length < 0 or flags:
        raise RemoteProtocolError(f"Unable to decode message payload: a hole of {length} bytes with flags {flags:#x}")
    return int(length)


class Splitter:
    """Cuts what arrives into packets. Holds at most one packet that is not whole, and its descriptors.

    Args:
        limit: bytes of a message, its length word included. May be changed between two messages.

    Attributes:
        limit: see above.
        fds: descriptors that have arrived and belong to no packet yet.
    """

    def __init__(self, limit: int = MESSAGE_MAX) -> None:
        self.limit = limit
        self.fds: list[int] = []
        self._head = b""  # of a message whose header is not whole
        self._message: bytearray | None = None  # a message that is not whole
        self._filled = 0
        self._waiting: Packet | None = None  # a whole one whose descriptors are missing
        self._missing = 0

    def room(self) -> memoryview | None:
        """Where the rest of a long message can be received without a copy; tell :meth:`received` how much there was."""
        return None if self._message is None else memoryview(self._message)[self._filled :]

    def received(self, count: int) -> list[Packet]:
        """Take bytes that were put into :meth:`room`."""
        assert self._message is not None
        self._filled += count
        if self._filled < len(self._message):
            return []
        message, self._message = self._message, None
        _, program, version, procedure, type, serial, status = HEADER.unpack_from(message)
        body = memoryview(message)[HEADER.size :]
        if type == Type.STREAM:
            # What a stream carries is the most by far, and need not be copied.
            return [Packet(program, version, procedure, type, serial, status, body)]
        packets: list[Packet] = []
        self._deliver(Packet(program, version, procedure, type, serial, status, bytes(body)), packets)
        return packets

    def feed(self, data: bytes) -> list[Packet]:
        """Take bytes in any portions.

        Raises:
            RemoteProtocolError: a length that no message has, or descriptors that nobody announced.
        """
        packets: list[Packet] = []
        try:
            self._cut(data, packets)
        except RemoteProtocolError:
            self.fds += [fd for packet in packets for fd in packet.fds]  # for whoever ends the connection to close
            raise
        return packets

    def _cut(self, data: bytes, packets: list[Packet]) -> None:
        if self._message is not None:
            room = memoryview(self._message)[self._filled :]
            count = min(len(room), len(data))
            room[:count] = data[:count]
            packets += self.received(count)
            data = data[count:]
        if self._head:
            data, self._head = self._head + data, b""
        at, end = 0, len(data)
        while at < end:
            if self._missing:
                at = self._skip(at, end, packets)
                continue
            if end - at < HEADER.size:
                if end - at >= _COUNT.size:
                    self._check(_COUNT.unpack_from(data, at)[0])
                self._head = data[at:]
                break
            length, program, version, procedure, type, serial, status = HEADER.unpack_from(data, at)
            if not HEADER.size <= length <= self.limit:
                self._check(length)
            if end - at < length:
                self._message = bytearray(length)
                self._message[: end - at] = memoryview(data)[at:]
                self._filled = end - at
                break
            body = data[at + HEADER.size : at + length]
            self._deliver(Packet(program, version, procedure, type, serial, status, body), packets)
            at += length
        if len(self.fds) > FDS_MAX or (self.fds and self._waiting is None and self._message is None):
            raise RemoteProtocolError("File descriptors came without a message that announces them")

    def _check(self, length: int) -> None:
        if length < HEADER.size:
            raise RemoteProtocolError(f"packet {length} bytes received from peer too small, want {HEADER.size}")
        if length > self.limit:
            raise RemoteProtocolError(f"packet {length} bytes received from peer too large, want {self.limit}")

    def _deliver(self, packet: Packet, packets: list[Packet]) -> None:
        if packet.type not in _WITH_FDS:
            packets.append(packet)
            return
        body = bytes(packet.body)
        if len(body) < 4:
            raise RemoteProtocolError("Unable to decode number of FDs")
        (count,) = _COUNT.unpack_from(body)
        if count > FDS_MAX:
            raise RemoteProtocolError(f"Received {count} FDs from peer, but only {FDS_MAX} are allowed")
        packet = packet._replace(body=body[4:])
        if count:
            self._waiting, self._missing = packet, count
        else:
            packets.append(packet)

    def _skip(self, at: int, end: int, packets: list[Packet]) -> int:
        """Pass the byte that comes with each descriptor."""
        count = min(end - at, self._missing)
        self._missing -= count
        if not self._missing and self._waiting is not None:
            packet, self._waiting = self._waiting, None
            fds, self.fds = tuple(self.fds), []
            packets.append(packet._replace(fds=fds))
        return at + count

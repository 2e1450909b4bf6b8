"""The two sides of an RPC connection, without a socket: bytes in, events out, and bytes to send.

The server's side answers by itself what needs nobody: keepalive, and calls that are none. What comes of a call is the
caller's to say, by :meth:`ServerConnection.reply` or :meth:`ServerConnection.error`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from hostel.errors import ErrorCode, ErrorDomain, ErrorLevel, LocalProtocolError, RemoteProtocolError, VirtError
from hostel.errors.details import details
from hostel.wire.rpc import keepalive
from hostel.wire.rpc.packet import (
    MESSAGE_MAX,
    VERSION,
    Packet,
    Splitter,
    Status,
    Type,
    frame,
    hole,
    parse_hole,
    stream_header,
)
from hostel.wire.rpc.procedure import Procedure, Program
from hostel.wire.rpc.programs import ERROR


class Call(NamedTuple):
    """The client calls a procedure.

    Attributes:
        fds: descriptors that the receiver closes.
        size: bytes of the arguments on the wire.
    """

    program: Program
    procedure: Procedure
    serial: int
    arguments: tuple[Any, ...]
    fds: tuple[int, ...] = ()
    size: int = 0


class Handed(NamedTuple):
    """The members of an answer, and descriptors that go with it and are whose the answer is, to be closed."""

    result: Sequence[Any]
    fds: tuple[int, ...]


class Reply(NamedTuple):
    """A call was answered: with values, or with an error."""

    serial: int
    result: tuple[Any, ...]
    error: VirtError | None = None
    fds: tuple[int, ...] = ()


class Message(NamedTuple):
    """The daemon tells something that was registered for."""

    procedure: Procedure
    values: tuple[Any, ...]


class StreamData(NamedTuple):
    """Bytes of the stream of the call with this serial; none at its end, in a download."""

    serial: int
    data: bytes | memoryview


class StreamHole(NamedTuple):
    """Zeroes of a stream, which were never written."""

    serial: int
    length: int


class StreamEnd(NamedTuple):
    """The peer ends a stream: in order, or for a reason."""

    serial: int
    error: VirtError | None = None


class Alive(NamedTuple):
    """The peer answers a ping."""


ServerEvent = Call | StreamData | StreamHole | StreamEnd | Alive
ClientEvent = Reply | Message | StreamData | StreamHole | StreamEnd | Alive

_CALLS: Final = (Type.CALL, Type.CALL_WITH_FDS)
_REPLIES: Final = (Type.REPLY, Type.REPLY_WITH_FDS)


class ServerConnection:
    """The daemon's side.

    Args:
        programs: those that are answered, by their numbers.
        limit: bytes of a message.

    Attributes:
        splitter: cuts what arrives; it may be given a place to receive into.
        out: what to send, because nobody else has to be asked.
    """

    def __init__(self, programs: Mapping[int, Program], limit: int = MESSAGE_MAX) -> None:
        self.splitter = Splitter(limit)
        self.out: list[bytes] = []
        self._programs = programs

    def receive(self, packets: Sequence[Packet]) -> list[ServerEvent]:
        """What packets mean.

        Raises:
            RemoteProtocolError: no client sends this; close the connection.
        """
        events: list[ServerEvent] = []
        for number, packet in enumerate(packets):
            try:
                self._take(packet, events)
            except RemoteProtocolError:
                # Nobody hears of these any more: whoever ends the connection closes what came with them.
                self.splitter.fds += [fd for event in events if isinstance(event, Call) for fd in event.fds]
                self.splitter.fds += [fd for unread in packets[number:] for fd in unread.fds]
                raise
        return events

    def _take(self, packet: Packet, events: list[ServerEvent]) -> None:
        if packet.type in _CALLS:
            call = self._call(packet)
            if call is not None:
                events.append(call)
        elif packet.type in (Type.STREAM, Type.STREAM_HOLE):
            events.append(_stream_event(packet))
        elif packet.program == keepalive.PROGRAM and packet.type == Type.MESSAGE:
            if packet.procedure == keepalive.PING:
                self.out.append(keepalive.pong)
            else:
                events.append(Alive())
        else:
            raise RemoteProtocolError(f"Unexpected message type {packet.type}")

    def _call(self, packet: Packet) -> Call | None:
        program = self._programs.get(packet.program)
        if program is None or packet.version != VERSION:
            what = f"Cannot find program {packet.program} version {packet.version}"
            self._refuse(packet, ErrorCode.RPC, what)
            return None
        procedure = program.by_number.get(packet.procedure)
        if procedure is None or procedure.event:
            self._refuse(packet, ErrorCode.RPC, f"unknown procedure: {packet.procedure}")
            return None
        if packet.status != Status.OK:
            self._refuse(packet, ErrorCode.RPC, f"Unexpected message status {packet.status}")
            return None
        try:
            arguments = procedure.arguments.unpack(bytes(packet.body))
        except RemoteProtocolError as error:
            self._refuse(packet, ErrorCode.RPC, str(error))
            return None
        return Call(program, procedure, packet.serial, arguments, packet.fds, len(packet.body))

    def _refuse(self, packet: Packet, code: ErrorCode, message: str) -> None:
        import os

        for fd in packet.fds:
            os.close(fd)
        body = pack_error(VirtError(code, message, domain=ErrorDomain.RPC))
        self.out.append(frame(packet.program, packet.procedure, Type.REPLY, packet.serial, Status.ERROR, body))

    @staticmethod
    def reply(call: Call, result: Sequence[Any], fds: int = 0) -> bytes:
        """The answer of a call; ``fds`` descriptors follow it.

        Raises:
            LocalProtocolError: the result is not what the procedure answers, or too long for a message.
        """
        procedure = call.procedure
        body = procedure.result.pack(result) if procedure.result.fields else b""
        if len(body) > MESSAGE_MAX - 32:
            raise LocalProtocolError(f"Unable to encode message payload: {len(body)} bytes are too many")
        kind = Type.REPLY_WITH_FDS if fds else Type.REPLY
        return frame(call.program.number, procedure.number, kind, call.serial, Status.OK, body, fds)

    @staticmethod
    def error(call: Call, error: VirtError) -> bytes:
        """The answer of a call that failed."""
        return frame(
            call.program.number, call.procedure.number, Type.REPLY, call.serial, Status.ERROR, pack_error(error)
        )

    @staticmethod
    def message(program: Program, procedure: Procedure, values: Sequence[Any]) -> bytes:
        """An event."""
        body = procedure.arguments.pack(values)
        return frame(program.number, procedure.number, Type.MESSAGE, 0, Status.OK, body)


class ClientConnection:
    """The client's side: numbers its calls, and matches what comes back.

    Attributes:
        splitter: cuts what arrives.
        out: what to send, because nobody else has to be asked.
    """

    def __init__(self, programs: Mapping[int, Program]) -> None:
        self.splitter = Splitter()
        self.out: list[bytes] = []
        self._programs = programs
        self._serial = 0
        self._waiting: dict[int, Procedure] = {}

    def call(
        self, program: Program, procedure: Procedure, arguments: Sequence[Any], fds: int = 0
    ) -> tuple[Call, bytes]:
        """A call, and the bytes that make it; ``fds`` descriptors follow it.

        Raises:
            LocalProtocolError: the arguments do not fit.
        """
        body = procedure.arguments.pack(arguments)
        self._serial = self._serial % 0x7FFFFFFF + 1
        call = Call(program, procedure, self._serial, tuple(arguments))
        self._waiting[call.serial] = procedure
        kind = Type.CALL_WITH_FDS if fds else Type.CALL
        return call, frame(program.number, procedure.number, kind, call.serial, Status.OK, body, fds)

    def receive(self, packets: Sequence[Packet]) -> list[ClientEvent]:
        """What packets mean.

        Raises:
            RemoteProtocolError: no daemon sends this; close the connection.
        """
        events: list[ClientEvent] = []
        for packet in packets:
            if packet.type in _REPLIES:
                events.append(self._reply(packet))
            elif packet.type in (Type.STREAM, Type.STREAM_HOLE):
                events.append(_stream_event(packet))
            elif packet.type != Type.MESSAGE:
                raise RemoteProtocolError(f"Unexpected message type {packet.type}")
            elif packet.program == keepalive.PROGRAM:
                if packet.procedure == keepalive.PING:
                    self.out.append(keepalive.pong)
                else:
                    events.append(Alive())
            else:
                message = self._message(packet)
                if message is not None:
                    events.append(message)
        return events

    def _reply(self, packet: Packet) -> Reply:
        procedure = self._waiting.pop(packet.serial, None)
        if procedure is None:
            raise RemoteProtocolError(f"A reply came to call {packet.serial}, which nobody waits for")
        if procedure.number != packet.procedure:
            raise RemoteProtocolError(f"Call {packet.serial} was answered as procedure {packet.procedure}")
        if packet.status == Status.ERROR:
            return Reply(packet.serial, (), unpack_error(bytes(packet.body)), packet.fds)
        if packet.status != Status.OK:
            raise RemoteProtocolError(f"Unexpected message status {packet.status}")
        return Reply(packet.serial, procedure.result.unpack(bytes(packet.body)), None, packet.fds)

    def _message(self, packet: Packet) -> Message | None:
        """An event; one that is not known yet is passed over, since it is newer than we are."""
        program = self._programs.get(packet.program)
        procedure = program.by_number.get(packet.procedure) if program is not None else None
        if procedure is None or not procedure.event:
            return None
        return Message(procedure, procedure.arguments.unpack(bytes(packet.body)))


class StreamFrames(NamedTuple):
    """The messages of one stream, by what the call was that opened it."""

    program: int
    procedure: int
    serial: int

    @classmethod
    def of(cls, call: Call) -> StreamFrames:
        """Those of the stream that a call opened."""
        return cls(call.program.number, call.procedure.number, call.serial)

    def data_header(self, length: int) -> bytes:
        """What precedes ``length`` bytes of data; none of them says that a download has ended."""
        return stream_header(self.program, self.procedure, self.serial, length)

    def hole(self, length: int) -> bytes:
        """A hole."""
        return hole(self.program, self.procedure, self.serial, length)

    def finish(self) -> bytes:
        """The end, in order: asked by the client, and said back by the daemon."""
        return frame(self.program, self.procedure, Type.STREAM, self.serial, Status.OK)

    def abort(self, error: VirtError | None = None) -> bytes:
        """The end for a reason; a client gives none."""
        body = pack_error(error) if error is not None else b""
        return frame(self.program, self.procedure, Type.STREAM, self.serial, Status.ERROR, body)


def _stream_event(packet: Packet) -> StreamData | StreamHole | StreamEnd:
    if packet.type == Type.STREAM_HOLE:
        return StreamHole(packet.serial, parse_hole(packet.body))
    if packet.status == Status.CONTINUE:
        return StreamData(packet.serial, packet.body)
    if packet.status == Status.OK:
        return StreamEnd(packet.serial)
    if packet.status != Status.ERROR:
        raise RemoteProtocolError(f"Unexpected message status {packet.status}")
    if packet.body:
        return StreamEnd(packet.serial, unpack_error(bytes(packet.body)))
    reason = VirtError(ErrorCode.RPC, "stream aborted at client request", domain=ErrorDomain.STREAMS)
    return StreamEnd(packet.serial, reason)


def pack_error(error: VirtError) -> bytes:
    """An error as libvirt's struct."""
    str1, str2, str3, int1, int2 = details(error)
    return ERROR.pack((error.code, error.domain, error.message, error.level, None, str1, str2, str3, int1, int2, None))


def unpack_error(body: bytes) -> VirtError:
    """Libvirt's struct as an error; numbers that are newer than we are become an internal error.

    Raises:
        RemoteProtocolError: the body is none.
    """
    code, domain, message, level, _, *said, _ = ERROR.unpack(body)
    try:
        known = ErrorCode(code)
    except ValueError:
        known = ErrorCode.INTERNAL_ERROR
    try:
        part = ErrorDomain(domain)
    except ValueError:
        part = ErrorDomain.NONE
    strength = ErrorLevel.WARNING if level == ErrorLevel.WARNING else ErrorLevel.ERROR
    return VirtError(known, message or "unknown error", domain=part, level=strength, details=tuple(said))

"""A client's connection as a machine: one request, then its reply."""

from __future__ import annotations

from collections.abc import Generator
from typing import NamedTuple

from hostel.errors import LocalProtocolError, RemoteProtocolError
from hostel.wire.sheepdog.protocol import Flag, ObjectRequest, Op, ReplyHeader, VdiRequest
from hostel.wire.stream import Machine

Request = ObjectRequest | VdiRequest


class Reply(NamedTuple):
    """What came back.

    Attributes:
        result: see :class:`hostel.wire.sheepdog.protocol.Result`; a later version's may be none of them.
        rest: the header's last 28 bytes.
        length: bytes of data that came with it.
    """

    result: int
    rest: bytes
    length: int


class SheepdogClient(Machine[Reply]):
    """Requests that follow each other."""

    def __init__(self) -> None:
        super().__init__(ReplyHeader.SIZE)
        self._next_id = 0
        self._pending: Request | None = None
        self._target: memoryview | None = None

    def ask(
        self, request: Request, payload: bytes | bytearray | memoryview = b"", target: memoryview | None = None
    ) -> None:
        """Send a request, once the last one was answered.

        Args:
            request: its ``id`` and ``data_length`` are filled in.
            payload: what is sent with it.
            target: where what comes with the reply goes; without one nothing may come.

        Raises:
            LocalProtocolError: an answer is still to come.
        """
        if self._pending is not None:
            raise LocalProtocolError(f"{Op(self._pending.op).name} is not answered yet")
        self._next_id = (self._next_id + 1) % 2**32
        request.id = self._next_id
        request.data_length = len(payload) if target is None else len(target)
        if payload:
            request.flags |= Flag.WRITE
        self._pending, self._target = request, target
        self.out.append(request.pack())
        if payload:
            self.out.append(bytes(payload))

    def _parse(self) -> Generator[None, None, None]:
        while True:
            header = ReplyHeader.unpack((yield from self.stream.exact(ReplyHeader.SIZE, "a reply")))
            request, target = self._pending, self._target
            if request is None:
                raise RemoteProtocolError("the server answers what was not asked")
            if header.id != request.id:
                raise RemoteProtocolError(f"the server answers request {header.id} instead of {request.id}")
            room = 0 if target is None else len(target)
            if header.data_length > room:
                raise RemoteProtocolError(f"the server sends {header.data_length} bytes, and was asked for {room}")
            if target is not None and header.data_length:
                yield from self.stream.into(target[: header.data_length], "a reply's data")
            self._pending = self._target = None
            self.events.append(Reply(header.result, header.rest, header.data_length))

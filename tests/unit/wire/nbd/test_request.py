"""The server's side of the transmission phase: requests in, replies out."""

from __future__ import annotations

import struct

import pytest

from hostel.errors import RemoteProtocolError
from hostel.wire.nbd import protocol
from hostel.wire.nbd.protocol import Chunk, Command, CommandFlag
from hostel.wire.nbd.request import ReplyFormat, Request, RequestReader, format_request
from support.nbd import MIB, request

STREAM = (
    request(Command.READ, 4096, 512, cookie=1)
    + request(Command.WRITE, 0, 5, payload=b"hello", cookie=2)
    + request(Command.FLUSH, cookie=3)
    + request(Command.WRITE, 1 << 40, 100_000, payload=bytes(range(250)) * 400, flags=1, cookie=2**64 - 1)
    + request(77, 1, 2, flags=0xFFFF, cookie=4)
)
REQUESTS = [
    (0, 0, 1, 4096, 512, b""),
    (1, 0, 2, 0, 5, b"hello"),
    (3, 0, 3, 0, 0, b""),
    (1, 1, 2**64 - 1, 1 << 40, 100_000, bytes(range(250)) * 400),
    (77, 0xFFFF, 4, 1, 2, b""),
]


def plain(requests: list[Request]) -> list[tuple[object, ...]]:
    return [(*found[:5], bytes(found[5])) for found in requests]


@pytest.mark.parametrize("size", [1, 13, 28, 29, 1000, 70_000, 1 << 20])
def test_any_portions_give_the_same_requests(size: int) -> None:
    reader = RequestReader()
    found = []
    for start in range(0, len(STREAM), size):
        found += plain(reader.receive(STREAM[start : start + size]))
    assert found == REQUESTS
    reader.receive_eof()


def test_a_request_that_comes_by_itself_is_known_as_one() -> None:
    reader = RequestReader()
    pieces = [request(*found[:1], *found[3:5], flags=found[1], payload=found[5], cookie=found[2]) for found in REQUESTS]
    for data, expected in zip(pieces, REQUESTS, strict=True):
        room = reader.room()
        room[: len(data)] = data
        assert (found := reader.lone(len(data))) is not None
        assert plain([found]) == [expected]
        room[len(data) : 2 * len(data)] = data
        for count in (0, 27, len(data) - 1, len(data) + 1, 2 * len(data)):
            assert reader.lone(count) is None
        room[:1] = b"?"
        assert reader.lone(len(data)) is None


def test_none_is_alone_that_follows_a_part_of_another() -> None:
    reader = RequestReader()
    reader.room()[:30] = STREAM[:30]
    reader.received(30)
    assert len(list(reader.requests())) == 1
    assert reader.lone(28) is None


def test_what_came_with_the_handshake_is_the_beginning() -> None:
    reader = RequestReader(data=STREAM[:100])
    found = plain(list(reader.requests()))
    assert found + plain(reader.receive(STREAM[100:])) == REQUESTS


def test_extended_requests_have_64_bit_lengths_and_say_when_a_payload_follows() -> None:
    stream = format_request(Command.BLOCK_STATUS, 1, 0, 1 << 40, extended=True)
    stream += format_request(Command.WRITE, 2, 512, 3, extended=True) + b"abc"
    stream += struct.pack(">IHHQQQ", protocol.EXTENDED_REQUEST_MAGIC, CommandFlag.PAYLOAD_LEN, 7, 3, 0, 4) + b"wxyz"
    assert plain(RequestReader(extended=True).receive(stream)) == [
        (7, 0, 1, 0, 1 << 40, b""),
        (1, 32, 2, 512, 3, b"abc"),
        (7, 32, 3, 0, 4, b"wxyz"),
    ]


def test_wrong_magic_ends_the_connection_after_what_came_before() -> None:
    reader = RequestReader()
    data = request(Command.FLUSH) + bytes(28)
    reader.room()[: len(data)] = data
    reader.received(len(data))
    requests = reader.requests()
    assert next(requests)[0] == Command.FLUSH
    with pytest.raises(RemoteProtocolError, match="invalid magic"):
        next(requests)


def test_a_payload_that_is_too_long_is_refused_before_memory_is_taken() -> None:
    reader = RequestReader()
    with pytest.raises(RemoteProtocolError, match="is larger than max len"):
        reader.receive(request(Command.WRITE, 0, 32 * MIB + 1))
    assert len(reader.room()) < MIB
    extended = RequestReader(extended=True)
    with pytest.raises(RemoteProtocolError, match="is larger than max len"):
        extended.receive(format_request(Command.WRITE, 1, 0, 1 << 62, extended=True))


def test_a_large_payload_takes_its_own_length_and_no_more() -> None:
    reader = RequestReader()
    reader.receive(request(Command.WRITE, 0, 32 * MIB))
    assert len(reader.room()) == 32 * MIB


def test_end_in_the_middle_of_a_request() -> None:
    reader = RequestReader()
    reader.receive(STREAM[:40])
    with pytest.raises(RemoteProtocolError, match="Unexpected end-of-file"):
        reader.receive_eof()


# ---- replies


def test_simple_replies() -> None:
    simple = ReplyFormat()
    assert simple.done(7, 512) == struct.pack(">IIQ", protocol.SIMPLE_REPLY_MAGIC, 0, 7)
    assert simple.error(7, 512, 28, "no room") == struct.pack(">IIQ", protocol.SIMPLE_REPLY_MAGIC, 28, 7)
    buffer = memoryview(bytearray(20))
    simple.put_data(buffer, 4, 7, 512, 512, 4096)
    assert simple.read_header == 16
    assert bytes(buffer) == bytes(4) + struct.pack(">IIQ", protocol.SIMPLE_REPLY_MAGIC, 0, 7)
    assert simple.put_done(buffer, 0, 8, 0) == 16


def test_structured_replies() -> None:
    structured = ReplyFormat(structured=True)
    magic = protocol.STRUCTURED_REPLY_MAGIC
    assert structured.done(7, 512) == struct.pack(">IIQ", protocol.SIMPLE_REPLY_MAGIC, 0, 7)
    assert structured.error(7, 512, 5, "bad") == struct.pack(">IHHQIIH", magic, 1, Chunk.ERROR, 7, 9, 5, 3) + b"bad"
    assert structured.error(7, 512, 5, "", at=600) == struct.pack(
        ">IHHQIIHQ", magic, 1, Chunk.ERROR_OFFSET, 7, 14, 5, 0, 600
    )
    assert structured.hole(7, 512, 600, 100, last=False) == struct.pack(">IHHQIQI", magic, 0, 2, 7, 12, 600, 100)
    assert structured.status(7, 512, 3, [(10, 1), (20, 0)], last=True) == struct.pack(
        ">IHHQIIIIII", magic, 1, Chunk.BLOCK_STATUS, 7, 20, 3, 10, 1, 20, 0
    )
    buffer = memoryview(bytearray(structured.read_header))
    structured.put_data(buffer, 0, 7, 512, 600, 4096, False)
    assert bytes(buffer) == struct.pack(">IHHQIQ", magic, 0, 1, 7, 4104, 600)


def test_extended_replies() -> None:
    extended = ReplyFormat(extended=True)
    magic = protocol.EXTENDED_REPLY_MAGIC
    assert extended.done(7, 512) == struct.pack(">IHHQQQ", magic, 1, 0, 7, 512, 0)
    buffer = memoryview(bytearray(40))
    assert extended.put_done(buffer, 0, 7, 512) == 32
    assert bytes(buffer[:32]) == extended.done(7, 512)
    extended.put_data(buffer, 0, 7, 512, 600, 4096)
    assert bytes(buffer) == struct.pack(">IHHQQQQ", magic, 1, 1, 7, 512, 4104, 600)
    assert extended.status(7, 0, 3, [(1 << 40, 3)], last=True) == struct.pack(
        ">IHHQQQIIQQ", magic, 1, Chunk.BLOCK_STATUS_EXT, 7, 0, 24, 3, 1, 1 << 40, 3
    )


def test_a_long_message_is_cut() -> None:
    reply = ReplyFormat(structured=True).error(7, 0, 5, "x" * 100_000)
    assert len(reply) == 20 + 6 + 4096

"""The client's side of the transmission phase: what a server may send, and what it may not."""

from __future__ import annotations

import errno
import struct

import pytest

from hostel.errors import LocalProtocolError, RemoteProtocolError
from hostel.wire.nbd import protocol, reply
from hostel.wire.nbd.protocol import Chunk, Command
from hostel.wire.nbd.reply import Reply, ReplyReader
from hostel.wire.nbd.request import ReplyFormat

SIMPLE = ReplyFormat()
STRUCTURED = ReplyFormat(structured=True)


def chunk(kind: int, payload: bytes = b"", *, last: bool = True, cookie: int = 1) -> bytes:
    head = struct.pack(">IHHQI", protocol.STRUCTURED_REPLY_MAGIC, last, kind, cookie, len(payload))
    return head + payload


def data(offset: int, content: bytes, *, last: bool = True) -> bytes:
    return chunk(Chunk.OFFSET_DATA, struct.pack(">Q", offset) + content, last=last)


def reading(length: int = 100, offset: int = 1000, *, structured: bool = True) -> tuple[ReplyReader, bytearray]:
    reader = ReplyReader(structured=structured)
    target = bytearray(b"?" * length)
    reader.expect(1, Command.READ, offset, length, memoryview(target))
    return reader, target


def asking(*contexts: int, length: int = 100) -> ReplyReader:
    reader = ReplyReader(structured=True, contexts=contexts)
    reader.expect(1, Command.BLOCK_STATUS, 0, length)
    return reader


def test_simple_replies_come_in_any_order() -> None:
    reader = ReplyReader()
    target = bytearray(3)
    reader.expect(1, Command.FLUSH, 0, 0)
    reader.expect(2, Command.READ, 0, 3, memoryview(target))
    header = memoryview(bytearray(16))
    SIMPLE.put_data(header, 0, 2, 0, 0, 3)
    assert reader.receive(bytes(header) + b"abc" + SIMPLE.done(1, 0)) == [Reply(2, 0, "", {}), Reply(1, 0, "", {})]
    assert target == b"abc"
    assert len(reader) == 0


@pytest.mark.parametrize("size", [1, 5, 16, 33, 100_000])
def test_a_read_in_chunks_of_any_order_and_portions(size: int) -> None:
    reader, target = reading(70_000)
    stream = data(31_000, b"b" * 40_000, last=False)
    stream += chunk(Chunk.OFFSET_HOLE, struct.pack(">QI", 1000, 10_000), last=False)
    stream += data(11_000, b"a" * 20_000, last=False) + chunk(Chunk.NONE)
    replies = []
    for start in range(0, len(stream), size):
        replies += reader.receive(stream[start : start + size])
    assert replies == [Reply(1, 0, "", {})]
    assert target == bytes(10_000) + b"a" * 20_000 + b"b" * 40_000


def test_data_goes_straight_into_the_buffer_of_the_read() -> None:
    reader, target = reading(70_000)
    reader.receive(data(1000, b"x" * 70_000)[:28])
    assert len(reader.room()) == 70_000
    reader.room()[:] = b"y" * 70_000
    assert reader.received(70_000) == [Reply(1, 0, "", {})]
    assert target == b"y" * 70_000


def test_errors_have_the_first_reason() -> None:
    reader, _ = reading()
    stream = chunk(Chunk.ERROR, struct.pack(">IH", 28, 4) + b"full", last=False)
    stream += chunk(Chunk.ERROR_OFFSET, struct.pack(">IHQ", 5, 0, 1000), last=False) + chunk(Chunk.NONE)
    assert reader.receive(stream) == [Reply(1, errno.ENOSPC, "full", {})]


def test_unknown_errors_are_einval_and_unknown_kinds_of_error_are_errors() -> None:
    reader, _ = reading(structured=False)
    assert reader.receive(SIMPLE.error(1, 0, 4711, "")) == [Reply(1, errno.EINVAL, "", {})]
    reader, _ = reading()
    assert reader.receive(chunk(0xFFFF, struct.pack(">IH", 5, 0) + b"more")) == [Reply(1, errno.EIO, "", {})]


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        (bytes(16), "invalid magic"),
        (SIMPLE.done(1, 0), "simple reply when structured reply chunk was expected"),
        (chunk(Chunk.NONE, cookie=2), "a reply to no request"),
        (chunk(Chunk.NONE, last=False), "without NBD_REPLY_FLAG_DONE"),
        (chunk(Chunk.NONE, b"x"), "nonzero length"),
        (chunk(Chunk.NONE), "did not send all of the data"),
        (data(1000, b"x" * 99), "did not send all of the data"),
        (data(1000, b"x" * 50, last=False) + data(1049, b"x" * 51), "did not send all of the data"),
        (data(1000, b"x" * 100, last=False) + data(1000, b"x" * 100), "did not send all of the data"),
        (data(999, b"x" * 2), "exceeding requested region"),
        (data(1099, b"x" * 2), "exceeding requested region"),
        (data(2**64 - 1, b"x"), "exceeding requested region"),
        (data(1000, b""), "invalid payload for NBD_REPLY_TYPE_OFFSET_DATA"),
        (chunk(Chunk.OFFSET_HOLE, struct.pack(">QI", 1000, 0)), "exceeding requested region"),
        (chunk(Chunk.OFFSET_HOLE, struct.pack(">QI", 1000, 2**32 - 1)), "exceeding requested region"),
        (chunk(Chunk.OFFSET_HOLE, b"x"), "invalid payload for NBD_REPLY_TYPE_OFFSET_HOLE"),
        (chunk(Chunk.BLOCK_STATUS, bytes(12)), "Unexpected reply type: 5 for CMD_READ"),
        (chunk(77), "Unexpected reply type: 77"),
        (chunk(Chunk.ERROR, b"x"), "invalid payload for structured error"),
        (chunk(Chunk.ERROR, struct.pack(">IH", 0, 0)), "with error = 0"),
        (chunk(Chunk.ERROR, struct.pack(">IH", 5, 9)), "incorrect message size"),
        (chunk(Chunk.ERROR, struct.pack(">IH", 5, 0) + bytes(9000)), "incorrect message size"),
    ],
)
def test_a_server_that_breaks_the_protocol_is_not_believed(stream: bytes, message: str) -> None:
    reader, _ = reading()
    with pytest.raises(RemoteProtocolError, match=message):
        reader.receive(stream)


def test_block_status_gives_the_extents_of_each_context() -> None:
    reader = asking(3, 4)
    stream = STRUCTURED.status(1, 0, 4, [(60, 1), (40, 0)], last=False) + STRUCTURED.status(
        1, 0, 3, [(100, 2)], last=True
    )
    assert reader.receive(stream) == [Reply(1, 0, "", {4: [(60, 1), (40, 0)], 3: [(100, 2)]})]


def test_block_status_beyond_what_was_asked_for_is_cut() -> None:
    (found,) = asking(3).receive(STRUCTURED.status(1, 0, 3, [(60, 1), (2**32 - 1, 0), (5, 1)], last=True))
    assert found.extents == {3: [(60, 1), (40, 0)]}


def test_extended_block_status_has_64_bits() -> None:
    extended = ReplyFormat(extended=True)
    reader = ReplyReader(extended=True, contexts=(3,))
    reader.expect(1, Command.BLOCK_STATUS, 0, 1 << 50)
    stream = extended.status(1, 0, 3, [(1 << 49, 1 << 40), (1 << 60, 0)], last=True)
    assert reader.receive(stream) == [Reply(1, 0, "", {3: [(1 << 49, 1 << 40), (1 << 49, 0)]})]


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        (STRUCTURED.status(1, 0, 9, [(10, 1)], last=True), "unexpected context id 9"),
        (STRUCTURED.status(1, 0, 3, [(0, 1)], last=True), "zero length"),
        (STRUCTURED.status(1, 0, 3, [], last=True), "invalid payload for NBD_REPLY_TYPE_BLOCK_STATUS"),
        (chunk(Chunk.BLOCK_STATUS, bytes(13)), "invalid payload for NBD_REPLY_TYPE_BLOCK_STATUS"),
        (STRUCTURED.status(1, 0, 3, [(10, 1)], last=False) * 2, "Several BLOCK_STATUS chunks"),
        (chunk(Chunk.NONE), "did not reply with any status extents"),
        (SIMPLE.done(1, 0), "did not reply with any status extents"),
        (data(0, b"x"), "Unexpected reply type: 1 for CMD_BLOCK_STATUS"),
    ],
)
def test_block_status_that_makes_no_sense_is_not_believed(stream: bytes, message: str) -> None:
    with pytest.raises(RemoteProtocolError, match=message):
        asking(3).receive(stream)


def test_extents_that_nobody_can_use_are_not_kept() -> None:
    reader = asking(3, length=2**32 - 1)
    (found,) = reader.receive(STRUCTURED.status(1, 0, 3, [(1, index & 1) for index in range(200_000)], last=True))
    assert len(found.extents[3]) == protocol.MAX_STATUS


def test_data_in_endless_pieces_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reply, "_MAX_RANGES", 10)
    reader, _ = reading()
    with pytest.raises(RemoteProtocolError, match="in more than 10 pieces"):
        reader.receive(b"".join(data(1000 + 2 * index, b"x", last=False) for index in range(50)))


def test_chunks_without_end_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reply, "_MAX_CHUNKS", 10)
    reader, _ = reading()
    with pytest.raises(RemoteProtocolError, match="more than 10 chunks"):
        reader.receive(chunk(Chunk.ERROR, struct.pack(">IH", 5, 0), last=False) * 11)


def test_extended_and_structured_replies_are_not_mixed() -> None:
    reader = ReplyReader(extended=True)
    reader.expect(1, Command.FLUSH, 0, 0)
    with pytest.raises(RemoteProtocolError, match="invalid magic"):
        reader.receive(SIMPLE.done(1, 0))
    with pytest.raises(RemoteProtocolError, match="invalid magic"):
        reading()[0].receive(ReplyFormat(extended=True).done(1, 0))


def test_end_between_replies_is_no_error_and_in_one_it_is() -> None:
    reader, _ = reading()
    reader.receive_eof()
    reader, _ = reading()
    reader.receive(data(1000, b"x" * 100)[:50])
    with pytest.raises(RemoteProtocolError, match="Unexpected end-of-file"):
        reader.receive_eof()


def test_a_cookie_in_use_is_our_mistake() -> None:
    reader, _ = reading()
    with pytest.raises(LocalProtocolError, match="in use"):
        reader.expect(1, Command.FLUSH, 0, 0)

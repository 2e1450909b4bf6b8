"""Sheepdog's client as a machine: requests go out, replies come in, in any portions."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from hostel.errors import LocalProtocolError, RemoteProtocolError
from hostel.wire.sheepdog import protocol
from hostel.wire.sheepdog.client import Reply, SheepdogClient
from hostel.wire.sheepdog.protocol import Flag, Inode, ObjectRequest, Op, ReplyHeader, VdiRequest

DATA = bytes(range(256)) * 20


def request(**changes: Any) -> ObjectRequest:
    fields = dict.fromkeys(ObjectRequest.FIELDS, 0) | {"version": 1, "op": Op.READ} | changes
    return ObjectRequest(**fields)


def reply(number: int, data: bytes = b"", *, result: int = 0, length: int | None = None) -> bytes:
    count = len(data) if length is None else length
    return struct.pack("<BBHIIII28s", 1, 2, 0, 0, number, count, result, b"rest".ljust(28, b"\0")) + data


def test_headers_have_the_layout_of_the_description() -> None:
    assert (ObjectRequest.SIZE, VdiRequest.SIZE, ReplyHeader.SIZE) == (48, 48, 48)
    assert {name: ObjectRequest.OFFSET[name] for name in ("oid", "cow_oid", "copies", "offset")} == {
        "oid": 16,
        "cow_oid": 24,
        "copies": 32,
        "offset": 40,
    }
    assert {name: VdiRequest.OFFSET[name] for name in ("size", "base_id", "object_bits", "snapshot_id")} == {
        "size": 16,
        "base_id": 24,
        "object_bits": 31,
        "snapshot_id": 32,
    }
    assert (Inode.OFFSET["size"], Inode.OFFSET["object_bits"], Inode.OFFSET["vdi_id"]) == (536, 555, 560)
    assert (protocol.inode_oid(0xABCDEF), protocol.data_oid(0xABCDEF, 5)) == (0x80ABCDEF00000000, 0x00ABCDEF00000005)


def test_numbers_of_a_disk_begin_where_a_server_gave_them() -> None:
    assert [protocol.first_vdi_id(name) for name in ("s", "live", "c1")] == [0x020B22, 0x66058F, 0x4A6859]


def test_a_request_says_how_much_is_sent_or_wanted() -> None:
    client = SheepdogClient()
    client.ask(request(op=Op.WRITE, flags=Flag.CACHE), b"data")
    header, payload = client.outgoing()
    assert struct.unpack_from("<BBHIII", header) == (1, 3, Flag.CACHE | Flag.WRITE, 0, 1, 4)
    assert payload == b"data"
    client.receive(reply(1))
    client.ask(request(), target=memoryview(bytearray(9)))
    (header,) = client.outgoing()
    assert struct.unpack_from("<BBHIII", header) == (1, 2, 0, 0, 2, 9)


@pytest.mark.parametrize("size", [1, 7, 47, 48, 49, 1000, 10000])
def test_a_reply_comes_in_any_portions(size: int) -> None:
    client = SheepdogClient()
    target = bytearray(len(DATA))
    client.ask(request(), target=memoryview(target))
    stream = reply(1, DATA)
    found: list[Reply] = []
    for start in range(0, len(stream), size):
        found += client.receive(stream[start : start + size])
    assert found == [Reply(0, b"rest".ljust(28, b"\0"), len(DATA))]
    assert target == DATA


def test_an_error_comes_without_data_and_the_next_request_follows() -> None:
    client = SheepdogClient()
    client.ask(request(), target=memoryview(bytearray(100)))
    assert [each.result for each in client.receive(reply(1, result=3))] == [3]
    client.ask(request(), target=memoryview(bytearray(3)))
    assert [each.length for each in client.receive(reply(2, b"abc"))] == [3]


def test_one_request_at_a_time() -> None:
    client = SheepdogClient()
    client.ask(request())
    with pytest.raises(LocalProtocolError, match="READ is not answered yet"):
        client.ask(request())


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        (reply(2), "answers request 2 instead of 1"),
        (reply(1, length=11), "sends 11 bytes, and was asked for 10"),
        (reply(1, length=2**32 - 1), "sends 4294967295 bytes, and was asked for 10"),
        (reply(1) + reply(1), "answers what was not asked"),
    ],
)
def test_what_was_not_asked_for_is_refused_before_it_is_kept(stream: bytes, message: str) -> None:
    client = SheepdogClient()
    client.ask(request(), target=memoryview(bytearray(10)))
    with pytest.raises(RemoteProtocolError, match=message):
        client.receive(stream)


@pytest.mark.parametrize(("received", "what"), [(20, "a reply"), (50, "a reply's data")])
def test_an_end_in_the_middle_is_an_error(received: int, what: str) -> None:
    client = SheepdogClient()
    client.ask(request(), target=memoryview(bytearray(10)))
    client.receive(reply(1, bytes(10))[:received])
    with pytest.raises(RemoteProtocolError, match=f"Failed to read {what}: Unexpected end-of-file"):
        client.receive_eof()


def test_results_have_texts_and_errors_also_where_they_are_not_known() -> None:
    assert [protocol.result_text(code) for code in (0, 7, 0xDEAD)] == [
        "Success",
        "VDI is already locked",
        "Invalid error code",
    ]
    assert all(protocol.result_text(code) != "Invalid error code" for code in protocol.Result)
    assert (protocol.result_errno(8), protocol.result_errno(0xDEAD)) == (2, 5)

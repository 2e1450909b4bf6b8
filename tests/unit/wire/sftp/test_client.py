"""The client's machine of SFTP against bytes written here, good and bad ones."""

from __future__ import annotations

import random
import struct

import pytest

from hostel.errors import RemoteProtocolError
from hostel.wire.sftp.client import Attributes, Data, Handle, SftpClient, Status, Version
from hostel.wire.sftp.protocol import OpenFlag

VERSION = b"\0\0\0\5\2\0\0\0\3"


def packet(kind: int, *fields: bytes | int) -> bytes:
    """A packet: numbers of 32 bits, and strings."""
    body = b"".join(
        struct.pack(">I", field) if isinstance(field, int) else struct.pack(">I", len(field)) + field
        for field in fields
    )
    return struct.pack(">IB", 1 + len(body), kind) + body


def greeted() -> SftpClient:
    client = SftpClient()
    assert client.receive(VERSION) == [Version(3, {})]
    client.outgoing()
    return client


def test_requests_are_what_the_specification_says() -> None:
    client = SftpClient()
    assert client.outgoing() == [b"\0\0\0\5\1\0\0\0\3"]
    client.receive(VERSION)
    client.open(b"/a", OpenFlag.READ | OpenFlag.WRITE | OpenFlag.CREAT, 0o644)
    client.read(b"h", 1 << 40, memoryview(bytearray(7)))
    client.write(b"h", 5, memoryview(b"data"))
    client.set_size(b"h", 1 << 33)
    client.sync(b"h")
    client.close(b"h")
    assert client.outgoing() == [
        packet(3, 1, b"/a", 0b1011, 4, 0o644),
        packet(5, 2, b"h", 1 << 8, 0, 7),
        packet(6, 3, b"h", 0, 5, b"data"),
        packet(10, 4, b"h", 1, 2, 0),
        packet(200, 5, b"fsync@openssh.com", b"h"),
        packet(4, 6, b"h"),
    ]


@pytest.mark.parametrize("seed", range(20))
def test_answers_come_in_any_order_and_in_any_portions(seed: int) -> None:
    rng = random.Random(seed)
    client, buffer = greeted(), bytearray(100)
    view = memoryview(buffer)
    first, second = client.read(b"h", 0, view[:60]), client.read(b"h", 60, view[60:])
    opened, asked = client.open(b"/a", OpenFlag.READ), client.stat(b"h")
    answers = [
        (packet(103, first, b"a" * 60), Data(first, 60)),
        (packet(103, second, b"b" * 30) + b"", Data(second, 30)),
        (packet(102, opened, b"handle"), Handle(opened, b"handle")),
        (packet(105, asked, 1 | 4, 2, 7, 0o644), Attributes(asked, (2 << 32) + 7)),
    ]
    rng.shuffle(answers)
    data = b"".join(answer for answer, _ in answers)
    found = []
    while data:
        count = rng.randrange(1, 40)
        found += client.receive(data[:count])
        data = data[count:]
    assert found == [event for _, event in answers]
    assert bytes(buffer) == b"a" * 60 + b"b" * 30 + bytes(10)


def test_what_a_server_can_do_more_is_told() -> None:
    client = SftpClient()
    data = struct.pack(">IBI", 5 + 4 + 17 + 4 + 1, 2, 3) + packet(0, b"fsync@openssh.com", b"1")[5:]
    assert client.receive(data) == [Version(3, {b"fsync@openssh.com": b"1"})]


def test_a_status_may_have_no_text() -> None:
    client = greeted()
    asked = client.close(b"h")
    assert client.receive(packet(101, asked, 4)) == [Status(asked, 4, "")]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (packet(101, 9, 0), "request 9, which was not asked"),
        (packet(103, 1, b"x" * 11), "11 bytes, and was asked for 10"),
        (packet(103, 1, b""), "0 bytes, and was asked for 10"),
        (packet(103, 2, b"x"), "1 bytes, and was asked for 0"),
        (packet(103, 1), "ends too soon"),
        (packet(103, 1, 5), "5 bytes"),
        (packet(102, 1, 5), "ends too soon"),
        (packet(102, 1, 0xFFFFFFFF), "ends too soon"),
        (packet(105, 2, 1, 1), "ends too soon"),
        (packet(104, 2, 1), "packet of type 104"),
        (b"\xff\xff\xff\xff", "packet of 4294967295 bytes"),
        (b"\0\0\0\4", "packet of 4 bytes"),
        (packet(101, 1, 0) + packet(101, 1, 0), "request 1, which was not asked"),
    ],
)
def test_a_server_is_not_believed(data: bytes, message: str) -> None:
    client = greeted()
    client.read(b"h", 0, memoryview(bytearray(10)))
    client.stat(b"h")
    with pytest.raises(RemoteProtocolError, match=message):
        client.receive(data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\0\0\0\5\2\0\0\0\2", "version 2"),
        (packet(101, 1, 0), "begins with a packet of type 101"),
        (packet(2, 3, b"a"), "ends too soon"),
    ],
)
def test_a_beginning_is_not_believed(data: bytes, message: str) -> None:
    with pytest.raises(RemoteProtocolError, match=message):
        SftpClient().receive(data)

"""vhost-user's messages: what is malformed is refused before it is believed."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest

from hostel.errors import RemoteProtocolError
from hostel.wire.vhost_user import message
from hostel.wire.vhost_user.message import Message, Request


def test_a_header_says_what_follows() -> None:
    assert message.read_header(struct.pack("<III", 1, 1, 8)) == (1, False, 8)
    assert message.read_header(struct.pack("<III", 5, 9, 0)) == (5, True, 0)


@pytest.mark.parametrize(("flags", "size"), [(0, 0), (2, 0), (5, 0), (1, 4097), (1, 2**32 - 1)])
def test_a_header_of_another_version_or_too_long_is_refused(flags: int, size: int) -> None:
    with pytest.raises(RemoteProtocolError):
        message.read_header(struct.pack("<III", 1, flags, size))


def test_an_answer_has_the_version_and_the_reply_bit() -> None:
    assert message.reply(1, b"12345678") == struct.pack("<III", 1, 5, 8) + b"12345678"


def test_a_memory_table_is_read() -> None:
    payload = struct.pack("<IIQQQQQQQQ", 2, 0, *range(1, 9))
    first, second = Message(Request.SET_MEM_TABLE, False, payload).regions()
    assert (first.guest, first.size, first.user, first.offset) == (1, 2, 3, 4)
    assert second.guest == 5


@pytest.mark.parametrize("count", [0, 2, 9, 2**32 - 1])
def test_a_memory_table_of_another_length_is_refused(count: int) -> None:
    payload = struct.pack("<IIQQQQ", count, 0, 1, 2, 3, 4)
    with pytest.raises(RemoteProtocolError):
        Message(Request.SET_MEM_TABLE, False, payload).regions()


@pytest.mark.parametrize("read", [Message.u64, Message.state, Message.address, Message.config, Message.region])
def test_a_payload_of_a_wrong_length_is_refused(read: Callable[[Message], object]) -> None:
    for payload in (b"", b"123", bytes(200)):
        with pytest.raises(RemoteProtocolError):
            read(Message(Request.SET_VRING_NUM, False, payload))


def test_a_part_of_the_configuration_must_have_the_length_it_says() -> None:
    good = struct.pack("<III", 32, 1, 0) + b"\1"
    head, data = Message(Request.SET_CONFIG, False, good).config()
    assert (head.offset, head.size, data) == (32, 1, b"\1")
    with pytest.raises(RemoteProtocolError):
        Message(Request.SET_CONFIG, False, good + b"\0").config()
    with pytest.raises(RemoteProtocolError):
        Message(Request.GET_CONFIG, False, struct.pack("<III", 0, 257, 0) + bytes(257)).config()

"""Cutting the wire into packets."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostel.errors import RemoteProtocolError
from hostel.wire.rpc.keepalive import KeepAlive
from hostel.wire.rpc.packet import HEADER, MESSAGE_MAX, Packet, Splitter, Status, Type, frame, hole, parse_hole

CALL = frame(7, 3, Type.CALL, 5, Status.OK, b"body")


def in_portions(splitter: Splitter, data: bytes, sizes: list[int]) -> list[Packet]:
    packets = []
    at = 0
    for size in [*sizes, len(data)]:
        packets += splitter.feed(data[at : at + size])
        at += size
    return packets


@given(
    bodies=st.lists(st.binary(max_size=50), max_size=5),
    sizes=st.lists(st.integers(1, 60), max_size=20),
)
def test_packets_are_the_same_in_any_portions(bodies: list[bytes], sizes: list[int]) -> None:
    data = b"".join(frame(1, 2, Type.CALL, serial, 0, body) for serial, body in enumerate(bodies))
    packets = in_portions(Splitter(), data, sizes)
    assert packets == [Packet(1, 1, 2, 0, serial, 0, body) for serial, body in enumerate(bodies)]


def test_rest_of_a_long_message_is_received_in_place() -> None:
    splitter = Splitter()
    data = frame(1, 2, Type.STREAM, 3, Status.CONTINUE, b"x" * 1000)
    assert splitter.room() is None
    assert splitter.feed(data[:100]) == []
    room = splitter.room()
    assert room is not None
    assert len(room) == len(data) - 100
    room[:] = data[100:]
    assert splitter.received(len(room)) == [Packet(1, 1, 2, 3, 3, 2, b"x" * 1000)]
    assert splitter.room() is None


@pytest.mark.parametrize("length", [0, 4, HEADER.size - 1, MESSAGE_MAX + 1, 2**32 - 1])
@pytest.mark.parametrize("more", [0, 24, 100])
def test_length_that_no_message_has_is_refused_before_anything_is_held(length: int, more: int) -> None:
    with pytest.raises(RemoteProtocolError, match="bytes received from peer too"):
        Splitter().feed(struct.pack(">I", length) + bytes(more))


def test_limit_may_be_smaller() -> None:
    splitter = Splitter(limit=100)
    assert len(splitter.feed(frame(1, 1, 0, 1, 0, bytes(72)))) == 1
    with pytest.raises(RemoteProtocolError, match="101 bytes received from peer too large, want 100"):
        splitter.feed(frame(1, 1, 0, 1, 0, bytes(73)))


def test_descriptors_belong_to_the_message_that_announces_them() -> None:
    splitter = Splitter()
    call = frame(1, 2, Type.CALL_WITH_FDS, 3, 0, b"abcd", fds=2)
    assert splitter.feed(call) == []
    splitter.fds.append(10)
    assert splitter.feed(b"\0") == []
    splitter.fds.append(11)
    assert splitter.feed(b"\0" + CALL) == [
        Packet(1, 1, 2, 4, 3, 0, b"abcd", (10, 11)),
        Packet(7, 1, 3, 0, 5, 0, b"body"),
    ]


def test_descriptors_that_nobody_announced_are_refused() -> None:
    splitter = Splitter()
    splitter.fds.append(10)
    with pytest.raises(RemoteProtocolError, match="without a message"):
        splitter.feed(CALL)


@pytest.mark.parametrize(("body", "what"), [(b"", "number of FDs"), (struct.pack(">I", 33), "33 FDs")])
def test_wrong_number_of_descriptors_is_refused(body: bytes, what: str) -> None:
    data = HEADER.pack(HEADER.size + len(body), 1, 1, 1, Type.CALL_WITH_FDS, 1, 0) + body
    with pytest.raises(RemoteProtocolError, match=what):
        Splitter().feed(data)


def test_hole_tells_its_length() -> None:
    (packet,) = Splitter().feed(hole(1, 2, 3, 2**40))
    assert (packet.type, packet.status) == (Type.STREAM_HOLE, Status.CONTINUE)
    assert parse_hole(packet.body) == 2**40


@pytest.mark.parametrize("body", [b"", bytes(11), bytes(13), struct.pack(">qI", -1, 0), struct.pack(">qI", 1, 1)])
def test_hole_that_is_none_is_refused(body: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="a hole"):
        parse_hole(body)


def test_silent_peer_is_asked_and_then_dead() -> None:
    alive = KeepAlive(5, 2, now=100)
    assert alive.deadline == 105
    assert not alive.due(104.9)
    assert alive.due(105)
    assert not alive.due(105)
    assert alive.due(110)
    with pytest.raises(TimeoutError, match="no response to 2 keepalive messages in 15 seconds"):
        alive.due(115)


def test_peer_that_says_anything_is_alive() -> None:
    alive = KeepAlive(5, 1, now=0)
    assert alive.due(5)
    alive.heard(9)
    assert alive.deadline == 14
    assert alive.due(14)

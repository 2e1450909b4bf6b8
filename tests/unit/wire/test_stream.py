"""The buffer under the protocol machines: bytes in any portions, parsers that read top to bottom."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from hostel.errors import LocalProtocolError, RemoteProtocolError
from hostel.wire.stream import Machine, Stream


class Lines(Machine[bytes]):
    """Strings with their length before them; a zero ends the protocol."""

    def _parse(self) -> Generator[None, None, None]:
        while length := (yield from self.stream.exact(1, "length"))[0]:
            if length == 255:
                yield from self.stream.skip(300, "what is skipped")
                continue
            if length > 100:
                target = bytearray(length)
                yield from self.stream.into(memoryview(target), "long string")
                self.events.append(bytes(target))
            else:
                self.events.append((yield from self.stream.exact(length, "string")))
        self.out.append(b"bye")


def portions(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


LONG = bytes(range(200))
MESSAGE = b"\3abc" + bytes([200]) + LONG + b"\xff" + bytes(300) + b"\1x\0" + b"beyond"


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100, 4096])
def test_any_portions_give_the_same_events(size: int) -> None:
    machine = Lines(128)
    events = [event for part in portions(MESSAGE, size) for event in machine.receive(part)]
    assert events == [b"abc", LONG, b"x"]
    assert machine.finished
    assert machine.outgoing() == [b"bye"]
    assert machine.outgoing() == []
    assert machine.rest() == b"beyond"
    assert machine.rest() == b""


def test_end_in_the_middle_says_what_was_missing() -> None:
    machine = Lines(128)
    machine.receive(b"\3ab")
    with pytest.raises(RemoteProtocolError, match="Failed to read string: Unexpected end-of-file"):
        machine.receive_eof()


def test_end_after_the_protocol_is_no_error() -> None:
    machine = Lines(128)
    machine.receive(b"\0")
    machine.receive_eof()


def test_more_than_the_limit_at_once_is_our_mistake() -> None:
    machine = Stream(4096)
    with pytest.raises(LocalProtocolError, match="4097 bytes at once"):
        next(machine.exact(4097))


def test_room_is_bounded_whatever_arrives() -> None:
    machine = Lines(128)
    for _ in range(100):
        machine.receive(b"\xff" + bytes(300))
        assert len(machine.stream.room()) <= 4096
    assert len(machine.stream) == 0


def test_what_is_due_goes_straight_into_its_target() -> None:
    stream = Stream(64, capacity=64)
    target = bytearray(1000)
    parser = stream.into(memoryview(target))
    stream.put(memoryview(b"head"))
    next(parser)
    assert len(stream.room()) == 996
    assert stream.put(memoryview(bytes([1]) * 1000)) == 996
    with pytest.raises(StopIteration):
        next(parser)
    assert target == b"head" + bytes([1]) * 996
    assert len(stream.room()) == 64

"""Messages of netlink."""

from __future__ import annotations

import pytest

from hostel.codec import netlink
from hostel.codec.netlink import Message


def test_attributes_are_read_as_they_were_written_and_nested_ones_too() -> None:
    inner = netlink.attribute(1, b"abc"), netlink.attribute(2, b"")
    data = netlink.attribute(7, b"12345") + netlink.nest(22, *inner)
    assert len(data) % 4 == 0
    (first, nested) = netlink.attributes(data)
    assert first == (7, b"12345")
    assert nested[0] == 22
    assert list(netlink.attributes(nested[1])) == [(1, b"abc"), (2, b"")]


def test_a_message_is_read_to_its_own_length() -> None:
    data = netlink.pack(Message(19, 5, b"body"), flags=netlink.REQUEST, sender=77)
    assert data[:4] == (20).to_bytes(4, "little") or data[:4] == (20).to_bytes(4, "big")
    assert netlink.unpack(data + b"more") == Message(19, 5, b"body")


@pytest.mark.parametrize("cut", [0, 15, 19])
def test_a_message_that_is_cut_is_none(cut: int) -> None:
    with pytest.raises(ValueError, match="malformed"):
        netlink.unpack(netlink.pack(Message(19, 5, b"body"), flags=0, sender=0)[:cut])


@pytest.mark.parametrize("length", [0, 3, 9])
def test_an_attribute_whose_length_is_wrong_is_refused(length: int) -> None:
    data = bytearray(netlink.attribute(1, b"abcd"))
    data[:2] = length.to_bytes(2, "little") if netlink.attribute(1, b"")[0] == 4 else length.to_bytes(2, "big")
    with pytest.raises(ValueError, match="malformed"):
        list(netlink.attributes(bytes(data)))

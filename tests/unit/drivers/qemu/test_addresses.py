"""What the agent in a guest says of its addresses."""

from __future__ import annotations

from typing import Any

import pytest

from hostel.drivers.base.address import GuestAddress, InterfaceAddresses
from hostel.drivers.base.network import AddressType
from hostel.drivers.qemu.addresses import from_agent
from hostel.errors import ErrorCode, VirtError

V4 = {"ip-address-type": "ipv4", "ip-address": "192.0.2.5", "prefix": 24}
V6 = {"ip-address-type": "ipv6", "ip-address": "2001:db8::5", "prefix": 64}


def test_names_of_one_interface_are_put_together() -> None:
    answer = [
        {"name": "lo"},
        {"name": "eth0", "hardware-address": "52:54:00:00:00:01", "ip-addresses": [V4]},
        {"name": "eth0:1", "hardware-address": "52:54:00:00:00:01", "ip-addresses": [V6]},
    ]
    assert from_agent(answer) == [
        InterfaceAddresses("lo", None, []),
        InterfaceAddresses(
            "eth0",
            "52:54:00:00:00:01",
            [GuestAddress(AddressType.IPV4, "192.0.2.5", 24), GuestAddress(AddressType.IPV6, "2001:db8::5", 64)],
        ),
    ]


@pytest.mark.parametrize(
    ("answer", "words"),
    [({}, "an array of interfaces"), ([{}], "'name' field"), ([{"name": 5}], "'name' field"), ([[]], "'name' field"),
     ([{"name": "e", "ip-addresses": 1}], "Malformed ip-addresses array"),
     ([{"name": "e", "ip-addresses": [1]}], "Malformed ip-addresses array"),
     ([{"name": "e", "ip-addresses": [{}]}], "'ip-address-type' field for interface 'e'"),
     ([{"name": "e", "ip-addresses": [{**V4, "ip-address": 1}]}], "'ip-address' field for interface 'e'"),
     ([{"name": "e", "ip-addresses": [{**V4, "ip-address-type": "x"}]}], "unknown ip address type 'x'"),
     ([{"name": "e", "ip-addresses": [{**V4, "prefix": "1"}]}], "malformed 'prefix' field"),
     ([{"name": "e", "ip-addresses": [{**V4, "prefix": -1}]}], "malformed 'prefix' field")],
)  # fmt: skip
def test_a_guest_that_says_something_else_is_not_believed(answer: Any, words: str) -> None:
    with pytest.raises(VirtError, match=words) as caught:
        from_agent(answer)
    assert caught.value.code == ErrorCode.INTERNAL_ERROR

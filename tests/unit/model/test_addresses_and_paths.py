"""Addresses, paths and numbers as documents have them."""

from __future__ import annotations

import ipaddress
import socket

import pytest

from hostel.errors import ModelError
from hostel.model.address import (
    check_range,
    format_address,
    is_multicast,
    is_network,
    prefix_of,
    read_address,
    read_mac,
    share_prefix,
)
from hostel.model.nwfilter.filter import read_filter
from hostel.model.path import clean_path
from hostel.model.storage import PoolType
from hostel.model.storage_capabilities import storage_capabilities


@pytest.mark.parametrize(
    "text", ["", "1", "1.2.3", "1.2.3.4/8", "1.2.3.256", "01.2.3.4", "fe80::1%eth0", "\u0660.0.0.1", "name"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ModelError, match="Cannot parse socket address") as raised:
        read_address(text, "/here")
    assert raised.value.path == "/here"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("52:54:0:0:0:1", "52:54:00:00:00:01"), ("FF:FF:FF:FF:FF:FF", "ff:ff:ff:ff:ff:ff"), ("52:54:00:00:01", None),
     ("52-54-00-00-00-01", None), ("52:54:00:00:00:01:02", None), ("g2:54:00:00:00:01", None), ("", None),
     ("52:54:00:00:00:01\n", None), ("\u06652:54:00:00:00:01", None)],
)  # fmt: skip
def test_hardware_addresses(text: str, expected: str | None) -> None:
    assert read_mac(text) == expected


@pytest.mark.parametrize(
    ("address", "written"),
    [("::ffff:a01:203", "::ffff:10.1.2.3"), ("::1:2", "::0.1.0.2"), ("::1", "::1"), ("::", "::"), ("::ffff", "::ffff"),
     ("64:ff9b::102:304", "64:ff9b::102:304"), ("::fffe:1:2", "::fffe:1:2"), ("1.2.3.4", "1.2.3.4"),
     ("2001:0DB8:0:0:1:0:0:1", "2001:db8::1:0:0:1"), ("1:0:3:4:5:6:7:8", "1:0:3:4:5:6:7:8")],
)  # fmt: skip
def test_addresses_are_written_as_the_c_library_does(address: str, written: str) -> None:
    parsed = ipaddress.ip_address(address)
    family = socket.AF_INET6 if parsed.version == 6 else socket.AF_INET
    assert format_address(parsed) == written == socket.inet_ntop(family, parsed.packed)


def test_a_groups_address_is_told() -> None:
    assert is_multicast("01:00:5e:00:00:01") and not is_multicast("52:54:00:00:00:01")


@pytest.mark.parametrize(
    ("address", "netmask", "prefix", "expected"),
    [("10.0.0.1", None, None, 8), ("172.16.0.1", None, None, 16), ("192.168.0.1", None, None, 24),
     ("224.0.0.1", None, None, None), ("0.0.0.0", None, None, 0), ("2001:db8::1", None, None, 64),
     ("10.0.0.1", "255.255.0.0", None, 16), ("10.0.0.1", "255.0.255.0", None, None), ("10.0.0.1", None, 12, 12)],
)  # fmt: skip
def test_prefixes(address: str, netmask: str | None, prefix: int | None, expected: int | None) -> None:
    assert prefix_of(ipaddress.ip_address(address), netmask, prefix) == expected


NETWORK = ("192.168.1.1", 24)


@pytest.mark.parametrize(
    ("start", "end", "network", "reason"),
    [("192.168.1.2", "fe80::1", None, "mismatch of address family"),
     ("fe80::1", "fe80::2", NETWORK, "for network 192.168.1.1"),
     ("192.168.1.2", "192.168.1.3", ("192.168.1.1", None), "bad prefix None"),
     ("192.168.1.2", "192.168.2.3", NETWORK, "not entirely within"),
     ("192.168.1.0", "192.168.1.3", NETWORK, "is the network address"),
     ("192.168.1.2", "192.168.1.255", NETWORK, "is the broadcast address"),
     ("10.0.0.1", "10.1.0.0", None, "too large"),
     ("192.168.1.3", "192.168.1.2", None, "reversed"),
     ("fe80::2", "fe80::1", None, "start larger than end")],
)  # fmt: skip
def test_a_range_goes_up_inside_its_network(
    start: str, end: str, network: tuple[str, int | None] | None, reason: str
) -> None:
    where = None if network is None else (ipaddress.ip_address(network[0]), network[1])
    with pytest.raises(ModelError, match=reason):
        check_range(ipaddress.ip_address(start), ipaddress.ip_address(end), where, "/here")


def test_a_range_in_its_network_is_right() -> None:
    address = ipaddress.ip_address
    check_range(address("192.168.1.2"), address("192.168.1.9"), (address("192.168.1.1"), 24), "/here")
    check_range(address("fe80::"), address("fe80::9"), (address("fe80::1"), 64), "/here")


def test_networks_and_what_is_in_them() -> None:
    address = ipaddress.ip_address
    assert is_network(address("10.0.0.0"), 8) and not is_network(address("10.0.0.1"), 31)
    assert share_prefix(address("10.1.2.3"), address("10.9.9.9"), 8)
    assert not share_prefix(address("10.1.2.3"), address("11.1.2.3"), 8)
    assert not share_prefix(address("::"), address("0.0.0.0"), 0)


@pytest.mark.parametrize(
    ("path", "expected"),
    [("/a//b///c/", "/a/b/c"), ("//a//b", "//a/b"), ("///a", "/a"), ("/", "/"), ("//", "//"), ("", ""), ("a/", "a"),
     ("http://h//a/", "http://h//a/"), ("/a://b//", "/a:/b"), ("/a/../b", "/a/../b")],
)  # fmt: skip
def test_paths_lose_what_they_say_twice(path: str, expected: str) -> None:
    assert clean_path(path) == expected


def test_a_priority_of_zero_is_not_the_chains_own() -> None:
    text = read_filter("<filter name='f' chain='mac' priority='0'/>").format()
    assert "priority='0'" in text
    assert read_filter(text).format() == text
    assert "priority='-800'" in read_filter("<filter name='f' chain='mac'/>").format()
    assert "priority" not in read_filter("<filter name='f' priority='5'/>").format()


@pytest.mark.parametrize("priority", ["9" * 5000, "0" * 5000, "1001", "-1001", "a", "", "1.0", "\u00b2"])
def test_a_priority_is_a_number_between_limits(priority: str) -> None:
    with pytest.raises(ModelError) as raised:
        read_filter(f"<filter name='f' chain='mac' priority='{priority}'/>")
    assert raised.value.path == "/filter/@priority"


def test_undeclared_attributes_of_matches_that_are_joined_are_written_once() -> None:
    matches = "<tcp new='1'/><tcp new='2'>text</tcp><tcp>more<x/></tcp><tcp><x/></tcp>"
    text = read_filter(f"<filter name='f'><rule action='drop' direction='in'>{matches}</rule></filter>").format()
    assert read_filter(text).format() == text
    assert text.count("new=") == 1 and "new='2'" in text
    assert text.count("<x/>") == 2 and "more" in text and "text" not in text


def test_pools_that_a_driver_has_are_supported() -> None:
    capabilities = storage_capabilities([PoolType.DIR, PoolType.RBD])
    supported = [pool.type for pool in capabilities.pools if pool.supported]
    assert supported == [PoolType.DIR, PoolType.RBD]
    assert len(capabilities.pools) == len(PoolType)

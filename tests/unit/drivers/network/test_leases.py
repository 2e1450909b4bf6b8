"""The leases in dnsmasq's file."""

from __future__ import annotations

from hostel.drivers.base.network import AddressType, DhcpLease
from hostel.drivers.network.leases import read_leases

FILE = """2000 52:54:00:00:00:01 192.168.1.5 one 01:52:54:00:00:00:01
0 52:54:00:00:00:02 192.168.1.6 * *
999 52:54:00:00:00:03 192.168.1.7 gone *
2000 06-52:54:00:00:00:04 192.168.1.8 four *
duid 00:01:00:01:2a:2a:2a:2a:52:54:00:00:00:ff
2000 1 2001:db8::5 six 00:01:00:01:2b:2b:2b:2b:52:54:00:00:00:01
2000 T2 2001:db8::6 * 00:04:aa:bb
2000 3 2001:db8::7 * 00:03:00:01:52:54:00:00:00:09
half a li
"""


def leases() -> list[DhcpLease]:
    return read_leases(FILE, "br", {4: 24, 6: 64}, now=1000)


def test_a_lease_has_all_that_is_known_of_it() -> None:
    assert leases()[0] == DhcpLease(
        "br", 2000, AddressType.IPV4, "52:54:00:00:00:01", None, "192.168.1.5", 24, "one", "01:52:54:00:00:00:01"
    )


def test_what_is_over_is_left_out_and_what_never_ends_is_not() -> None:
    assert [lease.address for lease in leases() if lease.type is AddressType.IPV4] == [
        "192.168.1.5", "192.168.1.6", "192.168.1.8",
    ]  # fmt: skip
    assert leases()[2].mac == "52:54:00:00:00:04"  # of a link that is no Ethernet


def test_ipv6_has_the_hardware_address_where_the_identity_has_it() -> None:
    found = [(lease.mac, lease.iaid, lease.prefix) for lease in leases() if lease.type is AddressType.IPV6]
    assert found == [("52:54:00:00:00:01", "1", 64), (None, "2", 64), ("52:54:00:00:00:09", "3", 64)]


def test_nothing_given_out_is_no_lease() -> None:
    assert read_leases("", "br", {}) == []

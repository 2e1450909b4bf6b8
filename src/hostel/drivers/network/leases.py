"""The leases that dnsmasq has given out, from the file that it keeps (``lease.c`` of dnsmasq).

A line has an expiry, a hardware address, an address, a name and a client's identity. After a line with the server's
own identity come those of DHCPv6, which have the guest's number for the interface in the place of the hardware
address; that is found in the client's identity where it was made from it.
"""

from __future__ import annotations

import ipaddress
import time
from typing import Final

from hostel.drivers.base.network import AddressType, DhcpLease

_UNKNOWN: Final = "*"
_ETHERNET: Final = "00:01"
_MAC_LENGTH: Final = 17


def read_leases(text: str, interface: str, prefixes: dict[int, int], *, now: float | None = None) -> list[DhcpLease]:
    """The leases that are not over, in the file's order.

    Args:
        text: the file.
        interface: the network's bridge.
        prefixes: the length of the network's prefix, for each version of the protocol.
        now: seconds since 1970.
    """
    now = time.time() if now is None else now
    is_ipv6 = False
    found = []
    for line in text.splitlines():
        words = line.split()
        if words[:1] == ["duid"]:
            is_ipv6 = True
            continue
        lease = _lease(words, interface, prefixes, is_ipv6=is_ipv6)
        if lease is not None and not 0 < lease.expiry < now:
            found.append(lease)
    return found


def _lease(words: list[str], interface: str, prefixes: dict[int, int], *, is_ipv6: bool) -> DhcpLease | None:
    """A line's lease; None for a line that is none, such as one that is being written."""
    if len(words) < 5 or not words[0].isdecimal():
        return None
    expiry, hardware, address, name, identity = words[:5]
    try:
        version = ipaddress.ip_address(address).version
    except ValueError:
        return None
    client = None if identity == _UNKNOWN else identity
    return DhcpLease(
        interface=interface,
        expiry=int(expiry),
        type=AddressType.IPV6 if version == 6 else AddressType.IPV4,
        mac=_mac_of(client or "") if is_ipv6 else hardware.rpartition("-")[2],
        iaid=hardware.lstrip("T") if is_ipv6 else None,
        address=address,
        prefix=prefixes.get(version, 0),
        hostname=None if name == _UNKNOWN else name,
        client_id=client,
    )


def _mac_of(identity: str) -> str | None:
    """The hardware address in a DHCP unique identifier of the two kinds that have one (RFC 8415, section 11)."""
    kind, hardware, rest = identity[:5], identity[6:11], identity[12:]
    if hardware != _ETHERNET:
        return None
    mac = {"00:01": rest[12:], "00:03": rest}.get(kind, "")  # the first has a time before it
    return mac if len(mac) == _MAC_LENGTH else None

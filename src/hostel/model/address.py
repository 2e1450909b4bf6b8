"""Internet addresses and hardware addresses as documents have them (``virSocketAddrParse``, ``virMacAddrParse``)."""

from __future__ import annotations

import ipaddress
import re
from typing import Final

from hostel.errors import ErrorCode, ModelError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_MAC: Final = re.compile("[0-9a-fA-F]{1,2}(:[0-9a-fA-F]{1,2}){5}", re.ASCII)
_NATURAL: Final = ((0x80, 0, 8), (0xC0, 0x80, 16), (0xE0, 0xC0, 24))  # mask and value of the first octet, prefix
_MOST_HOSTS: Final = 65535


def read_address(text: str, path: str) -> Address:
    """Read an IPv4 or IPv6 address.

    Raises:
        ModelError: it is none.
    """
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        reason = f"Cannot parse socket address '{text}': write an IPv4 or IPv6 address"
        raise ModelError(path, reason) from None
    if isinstance(address, ipaddress.IPv6Address) and address.scope_id is not None:
        raise ModelError(path, f"Cannot parse socket address '{text}': it names an interface")
    return address


def format_address(address: Address) -> str:
    """An address as the C library writes it: what holds an IPv4 address ends like one."""
    high, low = int(address) >> 32, int(address) & 0xFFFFFFFF
    if address.version == 6 and (high == 0xFFFF or (high == 0 and low > 0xFFFF)):
        return f"::{'ffff:' if high else ''}{ipaddress.IPv4Address(low)}"
    return str(address)


def read_mac(text: str) -> str | None:
    """A hardware address in lower case, every part with two digits; None where it is none."""
    if not _MAC.fullmatch(text):
        return None
    return ":".join(f"{int(part, 16):02x}" for part in text.split(":"))


def is_multicast(mac: str) -> bool:
    """Whether a hardware address is a group's."""
    return bool(int(mac.partition(":")[0], 16) & 1)


def prefix_of(address: Address, netmask: str | None, prefix: int | None) -> int | None:
    """The length of a network's prefix: as it is said, or by the address's class; None where it has none."""
    if prefix:
        return prefix
    if netmask is not None:
        try:
            return ipaddress.IPv4Network(f"0.0.0.0/{netmask}").prefixlen
        except ValueError:
            return None
    if int(address) == 0:
        return 0
    if address.version == 6:
        return 64
    first = address.packed[0]
    return next((length for mask, value, length in _NATURAL if first & mask == value), None)


def check_range(start: Address, end: Address, network: tuple[Address, int | None] | None, path: str) -> None:
    """A range goes up, is not too large and, where the network is known, inside of it.

    Raises:
        ModelError: it is not; the words are libvirt's.
    """
    name = f"range {start} - {end}"

    def wrong(reason: str) -> ModelError:
        return ModelError(path, reason, code=ErrorCode.INTERNAL_ERROR)

    if start.version != end.version:
        raise wrong(f"mismatch of address family in {name}")
    if network is not None:
        address, prefix = network
        if address.version != start.version:
            raise wrong(f"mismatch of address family in {name} for network {address}")
        if prefix is None or prefix > address.max_prefixlen:
            raise wrong(f"bad prefix {prefix} for network {address} when  checking {name}")
        inside = ipaddress.ip_network((address, prefix), strict=False)
        if start not in inside or end not in inside:
            raise wrong(f"{name} is not entirely within network {address}/{prefix}")
        if isinstance(inside, ipaddress.IPv4Network):
            if start == inside.network_address:
                raise wrong(f"start of {name} in network {address}/{prefix} is the network address")
            if end == inside.broadcast_address:
                raise wrong(f"end of {name} in network {address}/{prefix} is the broadcast address")
    if int(start) >> 16 != int(end) >> 16:
        raise wrong(f"{name} is too large (> {_MOST_HOSTS})")
    if int(start) > int(end):
        raise wrong(f"{name} is reversed " if start.version == 4 else f"{name} start larger than end")


def is_network(address: Address, prefix: int) -> bool:
    """Whether all of the address is in its prefix."""
    return int(address) & ((1 << (address.max_prefixlen - prefix)) - 1) == 0


def share_prefix(one: Address, other: Address, prefix: int) -> bool:
    """Whether two addresses of one family are in one network."""
    rest = one.max_prefixlen - prefix
    return one.version == other.version and int(one) >> rest == int(other) >> rest

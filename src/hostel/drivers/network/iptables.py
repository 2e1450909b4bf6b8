"""The rules of a network as iptables takes them, in the chains that libvirt has for its own (``viriptables.c``).

Every rule is put before those that are there, so that the last of these commands says what is looked at first.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Final

from hostel.drivers.network.document import PORTS
from hostel.errors import ErrorCode, ModelError
from hostel.model.address import Address, prefix_of, read_address
from hostel.model.network import Forward, ForwardMode, Nat, Network, NetworkIp

_PROGRAMS: Final = {4: "iptables", 6: "ip6tables"}
_RELATED: Final = ("--match", "conntrack", "--ctstate", "ESTABLISHED,RELATED")
_LOCAL_MULTICAST: Final = {4: "224.0.0.0/24", 6: "ff02::/16"}
_BROADCAST: Final = "255.255.255.255/32"


def commands(network: Network) -> list[list[str]]:
    """The commands that open the firewall for a completed network.

    Raises:
        ModelError: an address has no prefix, or the ports are no range.
    """
    return [*_general(network), *_specific(network), *_checksums(network)]


def _command(version: int, table: str, chain: str, *arguments: str) -> list[str]:
    return [_PROGRAMS[version], "-w", "--table", table, "--insert", f"LIBVIRT_{chain}", *arguments]


def _general(network: Network) -> Iterator[list[str]]:
    bridge = _bridge(network)
    yield from _service(4, bridge, 67, 68)
    yield from _service(4, bridge, 53, 53)
    served = next((ip for ip in _of(network, 4) if _has_dhcp(ip) or ip.tftp_root is not None), None)
    if served is not None and served.tftp_root is not None:
        yield from _service(4, bridge, 69, 69, protocols=("udp",))
    yield from _walls(4, bridge)
    has_ipv6 = bool(_of(network, 6))
    if has_ipv6 or network.ipv6:
        yield from _walls(6, bridge)
    if has_ipv6:
        yield from _service(6, bridge, 53, 53)
        yield from _service(6, bridge, 547, 546, protocols=("udp",))


def _service(
    version: int, bridge: str, to: int, back: int, protocols: tuple[str, ...] = ("tcp", "udp")
) -> Iterator[list[str]]:
    """Let guests reach a service of the host's, and its answers reach them."""
    for chain, side, port in (("INP", "--in-interface", to), ("OUT", "--out-interface", back)):
        for protocol in protocols:
            match = (side, bridge, "--protocol", protocol, "--destination-port", str(port))
            yield _command(version, "filter", chain, *match, "--jump", "ACCEPT")


def _walls(version: int, bridge: str) -> Iterator[list[str]]:
    """Nothing is forwarded to or from the bridge, but between its guests."""
    yield _command(version, "filter", "FWO", "--in-interface", bridge, "--jump", "REJECT")
    yield _command(version, "filter", "FWI", "--out-interface", bridge, "--jump", "REJECT")
    across = ("--in-interface", bridge, "--out-interface", bridge)
    yield _command(version, "filter", "FWX", *across, "--jump", "ACCEPT")


def _specific(network: Network) -> Iterator[list[str]]:
    forward = network.forward
    if forward is None or forward.mode not in (ForwardMode.NAT, ForwardMode.ROUTE):
        return
    for ip in network.ips:
        version = _address(ip).version
        translates = forward.mode is ForwardMode.NAT and (version == 4 or bool((forward.nat or Nat()).ipv6))
        yield from _forwarding(network, forward, ip, related=translates)
        if translates:
            yield from _masquerading(forward, ip)


def _forwarding(network: Network, forward: Forward, ip: NetworkIp, *, related: bool) -> Iterator[list[str]]:
    """Let packets out; and let in those that are ``related``, or all."""
    version, inside, bridge, outside = _address(ip).version, _inside(ip), _bridge(network), forward.dev
    out = ("--out-interface", outside) if outside is not None else ()
    back = ("--in-interface", outside) if outside is not None else ()
    arguments = ("--source", inside, "--in-interface", bridge, *out, "--jump", "ACCEPT")
    yield _command(version, "filter", "FWO", *arguments)
    state = _RELATED if related else ()
    arguments = ("--destination", inside, *back, "--out-interface", bridge, *state, "--jump", "ACCEPT")
    yield _command(version, "filter", "FWI", *arguments)


def _masquerading(forward: Forward, ip: NetworkIp) -> Iterator[list[str]]:
    version, inside, nat = _address(ip).version, _inside(ip), forward.nat or Nat()
    out = ("--out-interface", forward.dev) if forward.dev is not None else ()
    first, last = PORTS if nat.port is None else (nat.port.start, nat.port.end or 0)
    if not first < last:
        reason = f"Invalid port range '{first}-{last}'."
        raise ModelError("/network/forward/nat/port", reason, code=ErrorCode.INTERNAL_ERROR)
    for protocol in (None, "udp", "tcp"):
        kind = ("-p", protocol) if protocol is not None else ()
        match = ("--source", inside, *kind, "!", "--destination", inside, *out)
        ports = f"{first}-{last}" if protocol is not None else ""
        if nat.address is not None and read_address(nat.address.start, "/network/forward/nat").version == version:
            target = f"{nat.address.start}-{nat.address.end}" + (f":{ports}" if ports else "")
            jump = ("--jump", "SNAT", "--to-source", target)
        else:
            jump = ("--jump", "MASQUERADE", *(("--to-ports", ports) if ports else ()))
        yield _command(version, "nat", "PRT", *match, *jump)
    # These are never forwarded, and strict guests take no answer whose port has changed.
    for destination in ((_BROADCAST,) if version == 4 else ()) + (_LOCAL_MULTICAST[version],):
        match = (*out, "--source", inside, "--destination", destination)
        yield _command(version, "nat", "PRT", *match, "--jump", "RETURN")


def _checksums(network: Network) -> Iterator[list[str]]:
    """Old DHCP clients look at a checksum that nobody has filled in on the way from the host."""
    if any(_has_dhcp(ip) for ip in _of(network, 4)):
        match = ("--out-interface", _bridge(network), "--protocol", "udp", "--destination-port", "68")
        yield _command(4, "mangle", "PRT", *match, "--jump", "CHECKSUM", "--checksum-fill")


def _bridge(network: Network) -> str:
    return (network.bridge.name if network.bridge is not None else None) or ""


def _of(network: Network, version: int) -> list[NetworkIp]:
    return [ip for ip in network.ips if _address(ip).version == version]


def _address(ip: NetworkIp) -> Address:
    return read_address(ip.address or "", "/network/ip/@address")


def _has_dhcp(ip: NetworkIp) -> bool:
    return ip.dhcp is not None and bool(ip.dhcp.ranges or ip.dhcp.hosts)


def _inside(ip: NetworkIp) -> str:
    address = _address(ip)
    prefix = prefix_of(address, ip.netmask, ip.prefix)
    if prefix is None:
        reason = f"the address {address} has no prefix"
        raise ModelError("/network/ip", reason, code=ErrorCode.INTERNAL_ERROR)
    return str(ipaddress.ip_network((address, prefix), strict=False))

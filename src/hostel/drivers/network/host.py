"""What a network is on the host: a bridge with its addresses and routes, and the kernel's settings."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from hostel.drivers.fault import fault, system_fault
from hostel.drivers.link import device
from hostel.errors import ErrorCode, ErrorDomain
from hostel.model.address import prefix_of, read_address
from hostel.model.network import Network, NetworkIp
from hostel.model.port import Route

_ROUTES: Final = Path("/proc/thread-self/net/route")
_SYSCTL: Final = Path("/proc/sys/net")
_HUNDREDTHS: Final = 100  # of a second: what iproute2 counts a bridge's delay in


def check_free(network: Network) -> None:
    """Refuse addresses that the host reaches in another way (``networkCheckRouteCollision``).

    Raises:
        VirtError: ``INTERNAL_ERROR``; the words are libvirt's.
    """
    wanted = {_ipv4_network(ip) for ip in network.ips}
    routed = {_destination(route): route for route in network.routes}
    for interface, there in _host_routes():
        if there in wanted:
            raise fault(
                ErrorCode.INTERNAL_ERROR, f"Network is already in use by interface {interface}", ErrorDomain.NETWORK
            )
        if there in routed:
            reason = f"Route address '{there.network_address}' conflicts with IP address for '{interface}'"
            raise fault(ErrorCode.INTERNAL_ERROR, reason, ErrorDomain.NETWORK)


def _host_routes() -> Iterator[tuple[str, ipaddress.IPv4Network]]:
    try:
        lines = _ROUTES.read_text().splitlines()[1:]
    except OSError:
        return
    for line in lines:
        words = line.split()
        destination, mask = (int(words[place], 16).to_bytes(4, "little") for place in (1, 7))
        length = int.from_bytes(mask, "big").bit_count()
        yield words[0], ipaddress.IPv4Network((destination, length), strict=False)


def _ipv4_network(ip: NetworkIp) -> ipaddress.IPv4Network | None:
    found = ipaddress.ip_interface(_written(ip)).network
    return found if isinstance(found, ipaddress.IPv4Network) else None


def _written(ip: NetworkIp) -> str:
    """An address with the length of its prefix."""
    address = read_address(ip.address or "", "/network/ip/@address")
    prefix = prefix_of(address, ip.netmask, ip.prefix)
    if prefix is None:
        reason = f"the address {address} has no prefix"
        raise fault(ErrorCode.INTERNAL_ERROR, reason, ErrorDomain.NETWORK)
    return f"{address}/{prefix}"


def _destination(route: Route) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    address = read_address(route.address or "", "/network/route/@address")
    prefix = prefix_of(address, route.netmask, route.prefix)
    return ipaddress.ip_network(f"{address}/{prefix if prefix is not None else address.max_prefixlen}", strict=False)


def make_bridge(network: Network) -> None:
    """Make a completed network's bridge, with its addresses, up and not yet reachable through routes.

    Raises:
        VirtError: the host refused.
    """
    bridge = network.bridge
    assert bridge is not None
    assert bridge.name is not None
    name = bridge.name
    mac = ("address", network.mac) if network.mac is not None else ()
    device.ip("link", "add", "name", name, *mac, "type", "bridge")
    if network.mtu:
        device.ip("link", "set", "dev", name, "mtu", str(network.mtu))
    # The kernel refuses a short delay once the spanning tree protocol is on.
    device.ip("link", "set", "dev", name, "type", "bridge", "forward_delay", str((bridge.delay or 0) * _HUNDREDTHS))
    filtering = ("vlan_filtering", "1") if bridge.mac_table_manager == "libvirt" else ()
    state = "0" if bridge.stp is False else "1"
    device.ip("link", "set", "dev", name, "type", "bridge", "stp_state", state, *filtering)
    has_ipv6 = any(read_address(ip.address or "", "/network/ip").version == 6 for ip in network.ips)
    _set_ipv6(name, is_used=has_ipv6)
    for ip in network.ips:
        broadcast = ("broadcast", "+") if _ipv4_network(ip) is not None else ()
        device.ip("address", "add", _written(ip), *broadcast, "dev", name)
    device.ip("link", "set", "dev", name, "up")


def _set_ipv6(name: str, *, is_used: bool) -> None:
    """Keep guests from making the host's addresses, and the host from having one where the network has none."""
    folder = _SYSCTL / "ipv6/conf" / name
    if not folder.exists():
        if is_used:
            reason = f"the host has no IPv6, and the network of bridge '{name}' has an IPv6 address"
            raise fault(ErrorCode.CONFIG_UNSUPPORTED, reason, ErrorDomain.NETWORK)
        return
    _write(folder / "disable_ipv6", "0" if is_used else "1")
    _write(folder / "accept_ra", "0")
    _write(folder / "autoconf", "0")


def add_routes(network: Network) -> None:
    """Set the routes that lead through guests.

    Raises:
        VirtError: the host refused.
    """
    name = (network.bridge.name if network.bridge is not None else None) or ""
    for route in network.routes:
        if route.gateway is not None:
            destination = _destination(route)
            metric = ("metric", str(route.metric)) if route.metric else ()
            way = ("via", route.gateway, "dev", name, "proto", "static", *metric)
            device.ip(f"-{destination.version}", "route", "add", str(destination), *way)


def let_through(network: Network) -> None:
    """Have the host pass packets on, for the families that a network has addresses of.

    Raises:
        VirtError: the host refused, or would lose routes of its own.
    """
    versions = {read_address(ip.address or "", "/network/ip").version for ip in network.ips}
    if 4 in versions:
        _write(_SYSCTL / "ipv4/ip_forward", "1")
    switch = _SYSCTL / "ipv6/conf/all/forwarding"
    if 6 in versions and _read(switch) != "1":
        _check_advertised_routes()
        _write(switch, "1")


def _check_advertised_routes() -> None:
    """A host that forwards no longer listens to routers, unless it is told to (``virNetDevIPCheckIPv6Forwarding``)."""
    through = {str(route.get("dev")) for route in device.ip_json("-6", "route", "show", "proto", "ra")}
    deaf = sorted(name for name in through if _read(_SYSCTL / "ipv6/conf" / name / "accept_ra") != "2")
    if deaf:
        reason = (
            "Check the host setup: enabling IPv6 forwarding with RA routes without accept_ra set to 2 is likely to "
            f"cause routes loss. Interfaces to look at: {', '.join(deaf)}"
        )
        raise fault(ErrorCode.INTERNAL_ERROR, reason, ErrorDomain.NETWORK)


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _write(path: Path, value: str) -> None:
    """Set a value of the kernel's, where it is another: in a container it may be right, and not be ours to set."""
    if _read(path) == value:
        return
    try:
        path.write_text(value)
    except OSError as error:
        raise system_fault(error, f"cannot write to '{path}'", ErrorDomain.NETWORK) from error

"""A virtual network's document: read, held against the rules, and completed as libvirt writes it."""

from __future__ import annotations

import uuid as uuids

from hostel.model.address import format_address, read_address, read_mac
from hostel.model.network import (
    Bridge,
    DhcpHost,
    DhcpRange,
    DnsHost,
    Forward,
    ForwardInterface,
    ForwardMode,
    Lease,
    Network,
    NetworkIp,
    PortGroup,
)
from hostel.model.network_rules import MANAGED, validate
from hostel.model.port_rules import complete_route, complete_vlan, completed_bandwidth, completed_virtual_port


def read_network(xml: str) -> Network:
    """Read a new network's document, and complete it.

    Raises:
        ModelError: it is none, or breaks a rule; the path says where.
    """
    network = Network.parse(xml, "network_definition")
    validate(network)
    complete(network)
    return network


def complete(network: Network) -> None:
    """Say what was left out, in the spelling that libvirt has for it."""
    network.uuid = network.uuid or str(uuids.uuid4())
    network.connections = None  # how many guests were attached where the document comes from
    network.ipv6 = network.ipv6 or None
    network.mtu = network.mtu or None
    if network.forward is not None:
        _complete_forward(network.forward)
    mode = network.forward.mode if network.forward is not None else None
    if mode is None or mode in MANAGED:
        bridge = network.bridge = network.bridge or Bridge()
        bridge.stp = bridge.stp is not False
        bridge.delay = bridge.delay or 0
    elif network.bridge is not None:
        network.bridge.delay = None
    network.mac = None if network.mac is None else read_mac(network.mac)
    complete_vlan(network.vlan)
    network.bandwidth = completed_bandwidth(network.bandwidth)
    network.virtualport = completed_virtual_port(network.virtualport)
    for group in network.portgroups:
        complete_port_group(group)
    for host in network.dns.hosts if network.dns is not None else ():
        complete_dns_host(host)
    for forwarder in network.dns.forwarders if network.dns is not None else ():
        if forwarder.addr is not None:
            forwarder.addr = format_address(read_address(forwarder.addr, "/network/dns/forwarder/@addr"))
    for ip in network.ips:
        _complete_ip(ip)
    for route in network.routes:
        complete_route(route, "/network/route")


def complete_inactive(network: Network) -> None:
    """Leave out what only a network that is in use has."""
    network.connections = None
    forward = network.forward
    if forward is None:
        return
    for interface in forward.interfaces:
        interface.connections = None
    for address in forward.addresses:
        address.connections = None
    if forward.pfs:
        forward.interfaces, forward.addresses = [], []  # the functions of the device, found when it was started


def _complete_forward(forward: Forward) -> None:
    if forward.dev is not None and not forward.interfaces:
        forward.interfaces = [ForwardInterface(dev=forward.dev)]
    if forward.interfaces:
        forward.dev = None if forward.pfs else forward.interfaces[0].dev
        forward.addresses, forward.pfs = [], []
    elif forward.addresses:
        forward.pfs = []
    if forward.mode is ForwardMode.HOSTDEV:
        forward.managed = bool(forward.managed)
    else:
        forward.managed = None
    nat = forward.nat
    if nat is not None and nat.port is not None and not nat.port.start and not nat.port.end:
        nat.port = None
    if nat is not None and nat.address is not None and nat.address.end is not None:
        nat.address.start = format_address(read_address(nat.address.start, "/network/forward/nat/address/@start"))
        nat.address.end = format_address(read_address(nat.address.end, "/network/forward/nat/address/@end"))


def _complete_ip(ip: NetworkIp) -> None:
    for name in ("address", "netmask"):
        value = getattr(ip, name)
        if value is not None:
            setattr(ip, name, format_address(read_address(value, f"/network/ip/@{name}")))
    ip.prefix = ip.prefix or None
    if ip.dhcp is None:
        return
    for range in ip.dhcp.ranges:
        complete_dhcp_range(range)
    for host in ip.dhcp.hosts:
        complete_dhcp_host(host)
    if ip.family == "ipv6":
        ip.dhcp.bootp = None
    elif ip.dhcp.bootp is not None and ip.dhcp.bootp.server is not None:
        ip.dhcp.bootp.server = format_address(read_address(ip.dhcp.bootp.server, "/network/ip/dhcp/bootp/@server"))


def complete_dhcp_range(range: DhcpRange) -> None:
    """Write a range's addresses in their shortest form, and the unit of its lease."""
    range.start = format_address(read_address(range.start, "/network/ip/dhcp/range/@start"))
    range.end = format_address(read_address(range.end, "/network/ip/dhcp/range/@end"))
    _complete_lease(range.lease)


def complete_dhcp_host(host: DhcpHost) -> None:
    """Write a host's address in its shortest form, and the unit of its lease."""
    if host.ip is not None:
        host.ip = format_address(read_address(host.ip, "/network/ip/dhcp/host/@ip"))
    _complete_lease(host.lease)


def _complete_lease(lease: Lease | None) -> None:
    if lease is not None:
        lease.unit = (lease.unit or "minutes") if lease.expiry else None


def complete_dns_host(host: DnsHost) -> None:
    """Write a DNS host's address in its shortest form."""
    if host.ip is not None:
        host.ip = format_address(read_address(host.ip, "/network/dns/host/@ip"))


def complete_port_group(group: PortGroup) -> None:
    """Complete the parts of a port group."""
    group.is_default = group.is_default or None
    complete_vlan(group.vlan)
    group.virtualport = completed_virtual_port(group.virtualport)
    group.bandwidth = completed_bandwidth(group.bandwidth)

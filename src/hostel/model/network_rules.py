"""The rules of a virtual network's document (``virNetworkDefParseXML``); each part can be held against its own.

A part is also what an update of a network brings, and then there need not be all of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from hostel.errors import ErrorCode, ModelError
from hostel.model.address import Address, check_range, is_multicast, prefix_of, read_address, read_mac, share_prefix
from hostel.model.network import (
    DhcpHost,
    DhcpRange,
    Dns,
    DnsHost,
    DnsService,
    DnsText,
    Forward,
    ForwardMode,
    Lease,
    Network,
    NetworkIp,
    PortGroup,
)
from hostel.model.port_rules import check_bandwidth, check_route, check_virtual_port, check_vlan

# Modes in which libvirt makes and feeds the bridge itself, besides no forwarding at all.
MANAGED: Final = (ForwardMode.NAT, ForwardMode.ROUTE, ForwardMode.OPEN)
_SERVICE: Final = re.compile(r"[a-zA-Z0-9_\-+/*]*")
_PROTOCOL: Final = re.compile(r"[a-zA-Z0-9\-+/]*")
_LONGEST_SERVICE: Final = 512 - 30  # DNS_RECORD_LENGTH_SRV
_IDENTITY: Final = re.compile("[0-9a-fA-F:]+")
_SHORTEST_LEASE: Final = {"seconds": 120, "minutes": 2, None: 2}


def validate(network: Network) -> None:
    """Hold a document, as it was read, against the rules.

    Raises:
        ModelError: a rule is broken; the words are libvirt's.
    """
    if not network.name:
        raise ModelError("/network/name", "missing name information", code=ErrorCode.NO_NAME)
    for character in "/\n":
        if character in network.name:
            reason = f"invalid char in name: {character}"
            raise ModelError("/network/name", reason, code=ErrorCode.XML_DETAIL)
    name = network.name
    check_bandwidth(network.bandwidth, "/network/bandwidth")
    check_vlan(network.vlan, "/network/vlan")
    _check_mac(network)
    if network.dns is not None:
        _check_dns(network.dns, "/network/dns", name)
    check_virtual_port(network.virtualport, "/network/virtualport", needs_type=True)
    for number, group in enumerate(network.portgroups, 1):
        check_port_group(group, f"/network/portgroup[{number}]")
    for number, ip in enumerate(network.ips, 1):
        _check_ip(ip, f"/network/ip[{number}]", name)
    _check_routes(network)
    if network.forward is not None:
        _check_forward(network.forward, "/network/forward", name)
    _check_mode(network)


def _check_mac(network: Network) -> None:
    if network.mac is None:
        return
    mac, path = read_mac(network.mac), "/network/mac/@address"
    if mac is None:
        raise ModelError(path, f"Invalid bridge mac address '{network.mac}' in network '{network.name}'")
    if is_multicast(mac):
        raise ModelError(path, f"Invalid multicast bridge mac address '{network.mac}' in network '{network.name}'")


def _check_dns(dns: Dns, path: str, network: str) -> None:
    for number, forwarder in enumerate(dns.forwarders, 1):
        here = f"{path}/forwarder[{number}]"
        if forwarder.addr is not None:
            read_address(forwarder.addr, f"{here}/@addr")
        elif forwarder.domain is None:
            raise ModelError(here, "Invalid forwarder element, must contain at least one of addr or domain")
    for number, host in enumerate(dns.hosts, 1):
        check_dns_host(host, f"{path}/host[{number}]", network)
    for number, service in enumerate(dns.services, 1):
        check_dns_service(service, f"{path}/srv[{number}]", network)
    for number, text in enumerate(dns.texts, 1):
        check_dns_text(text, f"{path}/txt[{number}]", network)
    if dns.enable is False and (dns.forwarders or dns.hosts or dns.services or dns.texts):
        raise ModelError(path, f"Extra data in disabled network '{network}'")


def check_dns_host(host: DnsHost, path: str, network: str, *, partial: bool = False) -> None:
    """A DNS host has an address and names; of a ``partial`` one, one of them.

    Raises:
        ModelError: a rule is broken; the words are libvirt's.
    """
    record = f"in network '{network}' DNS HOST record"

    def wrong(reason: str) -> ModelError:
        return ModelError(path, f"{reason} {record}", code=ErrorCode.XML_DETAIL)

    if host.ip is None and not partial:
        raise wrong("Missing IP address")
    if host.ip is not None:
        try:
            read_address(host.ip, path)
        except ModelError:
            raise wrong("Invalid IP address") from None
    if not all(host.hostnames) or (not host.hostnames and not partial):
        raise wrong("Missing hostname")
    if host.ip is None and not host.hostnames:
        raise wrong("Missing ip and hostname")


def check_dns_service(service: DnsService, path: str, network: str, *, partial: bool = False) -> None:
    """An SRV record has a service and a protocol, and only with a target a port, a priority and a weight.

    Raises:
        ModelError: a rule is broken; the words are libvirt's.
    """

    def wrong(name: str, reason: str) -> ModelError:
        return ModelError(f"{path}/@{name}", reason, code=ErrorCode.XML_DETAIL)

    for name in ("service", "protocol"):
        if getattr(service, name) is None and not partial:
            known = f" '{service.service}'" if name == "protocol" else ""
            raise wrong(name, f"missing required {name} attribute in DNS SRV record{known} of network '{network}'")
    if len((service.service or "").encode()) > _LONGEST_SERVICE:
        reason = f"service attribute '{service.service}' in network '{network}' is too long"
        raise wrong("service", f"{reason}, limit is {_LONGEST_SERVICE} bytes")
    for name, allowed in (("service", _SERVICE), ("protocol", _PROTOCOL)):
        value = getattr(service, name)
        if value is not None and not allowed.fullmatch(value):
            reason = f"invalid character in {name} attribute '{value}' in DNS SRV record"
            raise wrong(name, f"{reason} of network '{network}'")
    if service.target is None:
        for name in ("port", "priority", "weight"):
            if getattr(service, name) is not None:
                reason = f"DNS SRV {name} attribute not permitted without target for service '{service.service}'"
                raise wrong(name, f"{reason} in network '{network}'")


def check_dns_text(text: DnsText, path: str, network: str, *, partial: bool = False) -> None:
    """A TXT record has a value, and no blank or comma in its name.

    Raises:
        ModelError: a rule is broken; the words are libvirt's.
    """
    if text.name is None:
        reason = f"missing required name attribute in DNS TXT record of network {network}"
        raise ModelError(f"{path}/@name", reason, code=ErrorCode.XML_DETAIL)
    if " " in text.name or "," in text.name:
        reason = f"prohibited character in DNS TXT record name '{text.name}' of network {network}"
        raise ModelError(f"{path}/@name", reason, code=ErrorCode.XML_DETAIL)
    if text.value is None and not partial:
        reason = f"missing required value attribute in DNS TXT record named '{text.name}' of network {network}"
        raise ModelError(f"{path}/@value", reason, code=ErrorCode.XML_DETAIL)


def _check_ip(ip: NetworkIp, path: str, network: str) -> None:
    if ip.address is None:
        raise ModelError(f"{path}/@address", f"Missing required address attribute in network '{network}'")
    address = _read_address(ip.address, f"{path}/@address", "address", network)

    def wrong(name: str, reason: str) -> ModelError:
        return ModelError(f"{path}/@{name}", reason, code=ErrorCode.CONFIG_UNSUPPORTED)

    if ip.family == "ipv6" and address.version != 6:
        reason = f"Family 'ipv6' specified for non-IPv6 address '{address}' in network '{network}'"
        raise wrong("family", reason)
    if ip.family != "ipv6" and address.version != 4:
        family = "no" if ip.family is None else "ipv4"
        raise wrong("family", f"{family} family specified for non-IPv4 address '{address}' in network '{network}'")
    if ip.netmask is not None:
        if address.version == 6:
            raise wrong("netmask", f"netmask not allowed for IPv6 address '{address}' in network '{network}'")
        if _read_address(ip.netmask, f"{path}/@netmask", "netmask", network).version != 4:
            reason = f"Invalid netmask '{ip.netmask}' for address '{address}' in network '{network}'"
            raise wrong("netmask", f"{reason} (both must be IPv4)")
        if ip.prefix:
            raise wrong("prefix", f"Network '{network}' IP address cannot have both a prefix and a netmask")
    if (ip.prefix or 0) > address.max_prefixlen:
        raise wrong("prefix", f"Invalid IPv{address.version} prefix '{ip.prefix}' in network '{network}'")
    if ip.tftp_root is not None and address.version == 6:
        raise wrong("tftp", f"Unsupported <tftp> element in an IPv6 element in network '{network}'")
    if ip.dhcp is None:
        return
    for number, range in enumerate(ip.dhcp.ranges, 1):
        check_dhcp_range(range, ip, f"{path}/dhcp/range[{number}]")
    for number, host in enumerate(ip.dhcp.hosts, 1):
        check_dhcp_host(host, ip, f"{path}/dhcp/host[{number}]", network)
    if ip.dhcp.bootp is not None and ip.dhcp.bootp.server is not None and address.version == 4:
        read_address(ip.dhcp.bootp.server, f"{path}/dhcp/bootp/@server")


def _read_address(text: str, path: str, what: str, network: str) -> Address:
    try:
        return read_address(text, path)
    except ModelError:
        raise ModelError(path, f"Invalid {what} '{text}' in network '{network}'") from None


def check_dhcp_range(range: DhcpRange, ip: NetworkIp, path: str) -> None:
    """A range is in its network.

    Raises:
        ModelError: a rule is broken; the words are libvirt's.
    """
    start, end = read_address(range.start, f"{path}/@start"), read_address(range.end, f"{path}/@end")
    address = read_address(ip.address or "", path)
    check_range(start, end, (address, prefix_of(address, ip.netmask, ip.prefix)), path)
    _check_lease(range.lease, f"{path}/lease")


def check_dhcp_host(host: DhcpHost, ip: NetworkIp, path: str, network: str, *, partial: bool = False) -> None:
    """A host has an address, and something to tell it by; a ``partial`` one has any of them.

    Raises:
        ModelError: a rule is broken; the words are libvirt's.
    """
    version = read_address(ip.address or "", path).version
    if host.mac is not None:
        _check_host_mac(host.mac, path, network, version)
    if host.id is not None and (stray := _IDENTITY.sub("", host.id)):
        reason = f"Invalid character '{stray[0]}' in id '{host.id}' of network '{network}'"
        raise ModelError(f"{path}/@id", reason)
    if host.name is not None and not (host.name[:1].isascii() and host.name[:1].isalnum()):
        raise ModelError(f"{path}/@name", f"Cannot use host name '{host.name}' in network '{network}'")
    definition = f"static host definition for network '{network}'"
    if host.ip is not None:
        try:
            read_address(host.ip, path)
        except ModelError:
            raise ModelError(f"{path}/@ip", f"Invalid IP address in {definition}") from None
    if partial:
        if host.mac is None and host.name is None and host.ip is None:
            reason = "At least one of name, mac, or ip attribute must be specified for static host definition"
            raise ModelError(path, f"{reason} in network '{network}' ")
        return
    if host.name is None and (host.id if version == 6 else host.mac) is None:
        other = "id or name" if version == 6 else "mac or name"
        reason = f"Static host definition in IPv{version} network '{network}' must have {other} attribute"
        raise ModelError(path, reason)
    if host.ip is None:
        raise ModelError(f"{path}/@ip", f"Missing IP address in {definition}")
    _check_lease(host.lease, f"{path}/lease")


def _check_host_mac(written: str, path: str, network: str, version: int) -> None:
    here = f"{path}/@mac"
    if version == 6:
        reason = f"Invalid to specify MAC address '{written}' in network '{network}' IPv6 static host definition"
        raise ModelError(here, reason)
    mac = read_mac(written)
    if mac is None:
        raise ModelError(here, f"Cannot parse MAC address '{written}' in network '{network}'")
    if is_multicast(mac):
        raise ModelError(here, f"expected unicast mac address, found multicast '{written}' in network '{network}'")


def _check_lease(lease: Lease | None, path: str) -> None:
    if lease is not None and 0 < lease.expiry < _SHORTEST_LEASE.get(lease.unit, 0):
        reason = "The minimum lease time should be greater than 2 minutes"
        raise ModelError(path, reason, code=ErrorCode.CONFIG_UNSUPPORTED)


def check_port_group(group: PortGroup, path: str) -> None:
    """The parts of a port group keep their rules.

    Raises:
        ModelError: one does not; the words are libvirt's.
    """
    check_virtual_port(group.virtualport, f"{path}/virtualport")
    check_bandwidth(group.bandwidth, f"{path}/bandwidth")
    check_vlan(group.vlan, f"{path}/vlan")


def _check_routes(network: Network) -> None:
    for number, route in enumerate(network.routes, 1):
        path = f"/network/route[{number}]"
        check_route(route, path, network.name or "")
        gateway = read_address(route.gateway or "", path)
        for ip in network.ips:
            address = read_address(ip.address or "", path)
            prefix = prefix_of(address, ip.netmask, ip.prefix)
            if prefix is not None and share_prefix(address, gateway, prefix):
                break
        else:
            reason = f"unreachable static route gateway '{gateway}' specified for network '{network.name}'"
            raise ModelError(f"{path}/@gateway", reason, code=ErrorCode.CONFIG_UNSUPPORTED)


def _check_forward(forward: Forward, path: str, network: str) -> None:
    if any(item.name in ("nat", "pf") for item in forward.unknown):
        raise ModelError(f"{path}/nat", f"Only one <nat> element is allowed in <forward> of network {network}")
    if forward.nat is not None:
        _check_nat(forward, f"{path}/nat", network)
    if forward.dev is not None and (forward.addresses or forward.pfs):
        reason = "the <forward> 'dev' attribute cannot be used when <address> or <pf> sub-elements are present"
        raise ModelError(f"{path}/@dev", f"{reason} in network {network}")
    if forward.dev is not None and forward.interfaces and forward.interfaces[0].dev != forward.dev:
        reason = f"<forward dev='{forward.dev}'> must match first <interface dev='{forward.interfaces[0].dev}'/>"
        raise ModelError(f"{path}/@dev", f"{reason} in network {network}")
    devices = [interface.dev for interface in forward.interfaces]
    for number, device in enumerate(devices, 1):
        if device in devices[: number - 1]:
            reason = f"interface '{device}' can only be listed once in network {network}"
            raise ModelError(f"{path}/interface[{number}]", reason)
    if devices or forward.dev is not None:
        return
    places = [(each.domain, each.bus, each.slot, each.function) for each in forward.addresses]
    for number, place in enumerate(places, 1):
        if place in places[: number - 1]:
            name = "{:04x}:{:02x}:{:02x}.{:x}".format(*place)
            reason = f"PCI device '{name}' can only be listed once in network {network}"
            raise ModelError(f"{path}/address[{number}]", reason)
    if not places and len(forward.pfs) > 1:
        raise ModelError(f"{path}/pf[2]", f"Only one <pf> element is allowed in <forward> of network {network}")


def _check_nat(forward: Forward, path: str, network: str) -> None:
    nat = forward.nat
    assert nat is not None
    if forward.mode is not ForwardMode.NAT:
        reason = "The <nat> element can only be used when <forward> 'mode' is 'nat'"
        raise ModelError(path, f"{reason} in network {network}")
    for name in ("address", "port"):
        if any(item.name == name for item in nat.unknown):
            reason = f"Only one <{name}> element is allowed in <nat> in <forward> in network {network}"
            raise ModelError(f"{path}/{name}[2]", reason)
    if nat.address is not None:
        here = f"{path}/address"
        if nat.address.end is None:
            reason = "missing 'end' attribute in <address> element in <nat> in <forward>"
            raise ModelError(f"{here}/@end", f"{reason} in network {network}")
        ends = []
        for name in ("start", "end"):
            written = getattr(nat.address, name)
            reason = f"Bad ipv4 {name} address '{written}' in <nat> in <forward> in network '{network}'"
            try:
                address = read_address(written, f"{here}/@{name}")
            except ModelError:
                raise ModelError(f"{here}/@{name}", reason) from None
            if address.version != 4:
                raise ModelError(f"{here}/@{name}", reason)
            ends.append(address)
        check_range(ends[0], ends[1], None, here)
    if nat.port is not None and (nat.port.end is None or nat.port.end < nat.port.start):
        reason = f"Missing or invalid 'end' attribute in <port> in <nat> in <forward> in network {network}"
        raise ModelError(f"{path}/port/@end", reason, code=ErrorCode.XML_DETAIL)


def _check_mode(network: Network) -> None:
    mode = network.forward.mode if network.forward is not None else None
    rule: Callable[[Network, ForwardMode], None]
    if mode is None:
        return
    rule = _check_managed if mode in MANAGED else _check_unmanaged
    rule(network, mode)


def _check_managed(network: Network, mode: ForwardMode) -> None:
    forward = network.forward
    assert forward is not None
    if not network.ips:
        reason = f"{mode.value} forwarding requested, but no IP address provided for network '{network.name}'"
        raise ModelError("/network/ip", reason)
    if len(forward.interfaces) > 1:
        reason = f"multiple forwarding interfaces specified for network '{network.name}', only one is supported"
        raise ModelError("/network/forward/interface[2]", reason)
    if mode is ForwardMode.OPEN and (forward.dev is not None or forward.interfaces):
        reason = f"forward dev not allowed for network '{network.name}' with forward mode='open'"
        raise ModelError("/network/forward/@dev", reason)


def _check_unmanaged(network: Network, mode: ForwardMode) -> None:
    forward, bridge = network.forward, network.bridge
    assert forward is not None
    where = f"(network '{network.name}')"
    if bridge is not None:
        names = (("name", "name", ""), ("zone", "zone", ""), ("mac_table_manager", "macTableManager", " setting"))
        for field, name, what in names if mode is not ForwardMode.BRIDGE else ():
            if getattr(bridge, field) is not None:
                reason = f"bridge {name}{what} not allowed in {mode.value} mode {where}"
                raise ModelError(f"/network/bridge/@{name}", reason)
        if bridge.delay or bridge.stp is not None or bridge.zone is not None:
            reason = "bridge delay/stp/zone options only allowed in route, nat, and isolated mode"
            raise ModelError("/network/bridge", f"{reason}, not in {mode.value} {where}")
        if bridge.name is not None and (forward.dev or forward.interfaces or forward.addresses or forward.pfs):
            reason = f"A network with forward mode='{mode.value}' can specify a bridge name or a forward dev"
            raise ModelError("/network/bridge/@name", f"{reason}, but not both {where}")
    if network.mtu:
        reason = f"mtu size only allowed in open, route, nat, and isolated mode, not in {mode.value} {where}"
        raise ModelError("/network/mtu/@size", reason)

"""Changes one section of a network's document (``virNetworkDefUpdateSection``)."""

from __future__ import annotations

import enum
import re
from collections.abc import Callable
from typing import Final, TypeVar

from hostel.codec.xml import Element
from hostel.errors import ErrorCode, ModelError
from hostel.model.address import read_address, read_mac
from hostel.model.network import (
    Dhcp,
    DhcpHost,
    DhcpRange,
    Dns,
    DnsHost,
    DnsService,
    DnsText,
    ForwardInterface,
    Network,
    NetworkIp,
    PortGroup,
)
from hostel.model.network_defaults import (
    complete_dhcp_host,
    complete_dhcp_range,
    complete_dns_host,
    complete_port_group,
)
from hostel.model.network_rules import (
    check_dhcp_host,
    check_dhcp_range,
    check_dns_host,
    check_dns_service,
    check_dns_text,
    check_port_group,
)

E = TypeVar("E", bound=Element)
_OTHER_ROOT: Final = re.compile("expecting root element of '(.*)', not '(.*)'")


class Command(enum.Enum):
    """``virNetworkUpdateCommand``."""

    MODIFY = 1
    DELETE = 2
    ADD_LAST = 3
    ADD_FIRST = 4

    @property
    def adds(self) -> bool:
        """Whether it brings something new."""
        return self in (Command.ADD_FIRST, Command.ADD_LAST)


class Section(enum.Enum):
    """``virNetworkUpdateSection``."""

    BRIDGE = 1
    DOMAIN = 2
    IP = 3
    IP_DHCP_HOST = 4
    IP_DHCP_RANGE = 5
    FORWARD = 6
    FORWARD_INTERFACE = 7
    FORWARD_PF = 8
    PORTGROUP = 9
    DNS_HOST = 10
    DNS_TXT = 11
    DNS_SRV = 12


def update(network: Network, command: Command, section: Section, parent: int, xml: str) -> None:
    """Change a completed network; ``parent`` counts the ``<ip>`` elements, -1 for the one that has DHCP.

    Raises:
        ModelError: the section cannot be changed, there is none or already one of these, or it breaks a rule.
    """
    change = _CHANGES.get(section)
    if change is None:
        name = section.name.lower().replace("_", " ")
        reason = f"can't update '{name}' section of network '{network.name}'"
        raise ModelError("/network", reason, code=ErrorCode.OPERATION_UNSUPPORTED)
    change(network, command, parent, xml)


def _read(cls: type[E], xml: str, network: Network) -> E:
    try:
        return cls.parse(xml, "network_update_xml")
    except ModelError as error:
        other = _OTHER_ROOT.match(error.reason)
        if other is not None:
            reason = f"unexpected element <{other[2]}>, expecting <{other[1]}>, while updating network '{network.name}'"
            raise ModelError(error.path, reason) from None
        raise


def _fixed(what: str) -> ModelError:
    reason = f"{what} cannot be modified, only added or deleted"
    return ModelError("/network", reason, code=ErrorCode.OPERATION_UNSUPPORTED)


def _wrong(path: str, reason: str) -> ModelError:
    return ModelError(path, reason, code=ErrorCode.OPERATION_INVALID)


def _add(items: list[E], item: E, command: Command) -> None:
    items.insert(0 if command is Command.ADD_FIRST else len(items), item)


def _ip(network: Network, parent: int) -> NetworkIp:
    reason = f"couldn't update dhcp host entry - no <ip> element found in network '{network.name}'"
    if parent >= 0:
        if parent < len(network.ips):
            return network.ips[parent]
        reason = (
            f"couldn't update dhcp host entry - no <ip> element found at index {parent} in network '{network.name}'"
        )
        raise _wrong("/network/ip", reason)
    by_family = sorted(network.ips, key=lambda ip: ip.family == "ipv6")
    found = next((ip for ip in network.ips if _has_dhcp(ip)), next(iter(by_family), None))
    if found is None:
        raise _wrong("/network/ip", reason)
    return found


def _has_dhcp(ip: NetworkIp) -> bool:
    return ip.dhcp is not None and bool(ip.dhcp.ranges or ip.dhcp.hosts)


def _check_only_dhcp(network: Network, ip: NetworkIp) -> None:
    for other in network.ips:
        if other is not ip and (other.family == "ipv6") == (ip.family == "ipv6") and _has_dhcp(other):
            family = "IPv6" if ip.family == "ipv6" else "IPv4"
            raise _wrong("/network/ip/dhcp", f"dhcp is supported only for a single {family} address on each network")


def _check_family(ip: NetworkIp, address: str, what: str) -> None:
    if read_address(address, "/network/ip/dhcp").version != read_address(ip.address or "", "/network/ip").version:
        reason = f"the address family of a {what} must match the address family of the dhcp element's parent"
        raise _wrong("/network/ip/dhcp", reason)


def _change_dhcp_host(network: Network, command: Command, parent: int, xml: str) -> None:
    host = _read(DhcpHost, xml, network)
    ip = _ip(network, parent)
    path = "/network/ip/dhcp/host"
    check_dhcp_host(host, ip, path, network.name or "", partial=command is Command.DELETE)
    complete_dhcp_host(host)
    ip.dhcp = ip.dhcp or Dhcp()
    hosts = ip.dhcp.hosts
    written = f"mac='{host.mac or 'unknown'}' name='{host.name}' ip='{host.ip or 'unknown'}'"
    if command is Command.DELETE:
        found = [known for known in hosts if _is_meant(host, known)]
        if not found:
            raise _wrong(path, f"couldn't locate a matching dhcp host entry in network '{network.name}'")
        _remove(hosts, found[0])
        return
    _check_family(ip, host.ip or "", "host entry IP")
    same = [known for known in hosts if _is_same(host, known)]
    if command is Command.MODIFY:
        if not same:
            reason = f"couldn't locate an existing dhcp host entry with \"{written}\" in network '{network.name}'"
            raise _wrong(path, reason)
        hosts[_index(hosts, same[0])] = host
        return
    _check_only_dhcp(network, ip)
    if same:
        reason = f"there is an existing dhcp host entry in network '{network.name}' that matches \"<host {written}/>\""
        raise _wrong(path, reason)
    _add(hosts, host, command)


def _mac(host: DhcpHost) -> str | None:
    return None if host.mac is None else read_mac(host.mac)


def _is_same(host: DhcpHost, known: DhcpHost) -> bool:
    """Whether two hosts have anything in common by which they are told apart."""
    pairs = ((_mac(host), _mac(known)), (host.name, known.name), (host.ip, known.ip))
    return any(one is not None and one == other for one, other in pairs)


def _is_meant(host: DhcpHost, known: DhcpHost) -> bool:
    """Whether all that is said of a host is true of another."""
    if host.mac is not None and known.mac is not None and _mac(host) != _mac(known):
        return False
    return host.name in (None, known.name) and host.ip in (None, known.ip)


def _change_dhcp_range(network: Network, command: Command, parent: int, xml: str) -> None:
    range = _read(DhcpRange, xml, network)
    ip = _ip(network, parent)
    if command is Command.MODIFY:
        raise _fixed("dhcp ranges")
    path = "/network/ip/dhcp/range"
    check_dhcp_range(range, ip, path)
    complete_dhcp_range(range)
    ip.dhcp = ip.dhcp or Dhcp()
    ranges = ip.dhcp.ranges
    same = [known for known in ranges if (known.start, known.end) == (range.start, range.end)]
    if command is Command.DELETE:
        if not same:
            raise _wrong(path, f"couldn't locate a matching dhcp range entry in network '{network.name}'")
        _remove(ranges, same[0])
        return
    _check_only_dhcp(network, ip)
    if same:
        reason = f"there is an existing dhcp range entry in network '{network.name}' that matches"
        raise _wrong(path, f"{reason} \"<range start='{range.start}' end='{range.end}'/>\"")
    _add(ranges, range, command)


def _change_forward_interface(network: Network, command: Command, parent: int, xml: str) -> None:
    interface = _read(ForwardInterface, xml, network)
    if command is Command.MODIFY:
        raise _fixed("forward interface entries")
    path = "/network/forward/interface"
    if network.forward is None:
        raise _wrong(path, f"network '{network.name}' does not forward: there is no place for an interface")
    interfaces = network.forward.interfaces
    same = [known for known in interfaces if known.dev == interface.dev]
    if command is Command.DELETE:
        if not same:
            reason = f"couldn't find an interface entry in network '{network.name}' matching"
            raise _wrong(path, f"{reason} <interface dev='{interface.dev}'>")
        if same[0].connections:
            reason = f"unable to delete interface '{interface.dev}' in network '{network.name}'."
            raise _wrong(path, f"{reason} It is currently being used  by {same[0].connections} domains.")
        _remove(interfaces, same[0])
    elif same:
        reason = f"there is an existing interface entry in network '{network.name}' that matches"
        raise _wrong(path, f"{reason} \"<interface dev='{interface.dev}'>\"")
    else:
        interface.connections = None
        _add(interfaces, interface, command)
    network.forward.dev = interfaces[0].dev if interfaces else None


def _change_port_group(network: Network, command: Command, parent: int, xml: str) -> None:
    group = _read(PortGroup, xml, network)
    path = "/network/portgroup"
    check_port_group(group, path)
    complete_port_group(group)
    groups = network.portgroups
    same = [known for known in groups if known.name == group.name]
    if not same and not command.adds:
        reason = f"couldn't find a portgroup entry in network '{network.name}' matching"
        raise _wrong(path, f"{reason} <portgroup name='{group.name}'>")
    if same and command.adds:
        reason = f"there is an existing portgroup entry in network '{network.name}' that matches"
        raise _wrong(path, f"{reason} \"<portgroup name='{group.name}'>\"")
    if command is Command.DELETE:
        _remove(groups, same[0])
        return
    if group.is_default and any(known.is_default and known.name != group.name for known in groups):
        reason = f"a different portgroup entry in network '{network.name}' is already set as the default."
        raise _wrong(path, f"{reason} Only one default is allowed.")
    if command is Command.MODIFY:
        groups[_index(groups, same[0])] = group
    else:
        _add(groups, group, command)


def _change_dns_host(network: Network, command: Command, parent: int, xml: str) -> None:
    if command is Command.MODIFY:
        raise _fixed("DNS HOST records")
    host = _read(DnsHost, xml, network)
    check_dns_host(host, "/network/dns/host", network.name or "", partial=not command.adds)
    complete_dns_host(host)

    def matches(known: DnsHost) -> bool:
        # Names may have several addresses: only the address makes a new record one that is there.
        shared = not command.adds and bool(set(host.hostnames) & set(known.hostnames))
        return (host.ip is not None and host.ip == known.ip) or shared

    _change_record(network, command, _dns(network).hosts, host, matches, "DNS HOST record", "with a matching field")


def _change_dns_service(network: Network, command: Command, parent: int, xml: str) -> None:
    if command is Command.MODIFY:
        raise _fixed("DNS SRV records")
    service = _read(DnsService, xml, network)
    check_dns_service(service, "/network/dns/srv", network.name or "", partial=not command.adds)

    def matches(known: DnsService) -> bool:
        names = ("domain", "service", "protocol", "target")
        return all(getattr(service, name) in (None, getattr(known, name)) for name in names)

    said = "matching all specified fields"
    _change_record(network, command, _dns(network).services, service, matches, "DNS SRV record", said)


def _change_dns_text(network: Network, command: Command, parent: int, xml: str) -> None:
    if command is Command.MODIFY:
        raise _fixed("DNS TXT records")
    text = _read(DnsText, xml, network)
    check_dns_text(text, "/network/dns/txt", network.name or "", partial=not command.adds)
    said = f"with name '{text.name}'"
    _change_record(
        network, command, _dns(network).texts, text, lambda known: known.name == text.name, "DNS TXT record", said
    )


def _change_record(
    network: Network, command: Command, records: list[E], record: E, matches: Callable[[E], bool], what: str, said: str
) -> None:
    found = [item for item in records if matches(item)]
    path = f"/network/dns/{record.TAG}"
    if command.adds:
        if found:
            known = "a" if isinstance(record, DnsText) else "at least one"
            raise _wrong(path, f"there is already {known} {what} {said} in network {network.name}")
        _add(records, record, command)
        return
    if not found:
        raise _wrong(path, f"couldn't locate a matching {what} in network {network.name}")
    if len(found) > 1:
        raise _wrong(path, f"multiple matching {what}s were found in network {network.name}")
    _remove(records, found[0])


def _dns(network: Network) -> Dns:
    network.dns = network.dns or Dns()
    return network.dns


def _index(items: list[E], item: E) -> int:
    return next(index for index, each in enumerate(items) if each is item)


def _remove(items: list[E], item: E) -> None:
    del items[_index(items, item)]


_CHANGES: dict[Section, Callable[[Network, Command, int, str], None]] = {
    Section.IP_DHCP_HOST: _change_dhcp_host,
    Section.IP_DHCP_RANGE: _change_dhcp_range,
    Section.FORWARD_INTERFACE: _change_forward_interface,
    Section.PORTGROUP: _change_port_group,
    Section.DNS_HOST: _change_dns_host,
    Section.DNS_TXT: _change_dns_text,
    Section.DNS_SRV: _change_dns_service,
}

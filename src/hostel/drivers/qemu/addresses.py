"""What addresses the interfaces of a running guest have, by who knows of them (``virDomainInterfaceAddresses``)."""

from __future__ import annotations

import ipaddress
from typing import Any

from hostel.drivers.base import DomainRef, NetworkDriver
from hostel.drivers.base.address import AddressSource, GuestAddress, InterfaceAddresses
from hostel.drivers.base.network import AddressType, DhcpLease
from hostel.drivers.fault import fault
from hostel.drivers.link import device
from hostel.drivers.qemu.agent import TalkingCalls
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.model.domain.devices.interface import Interface, InterfaceType


class AddressCalls(TalkingCalls):
    """See :class:`hostel.drivers.base.address.AddressDriver`."""

    def domain_interface_addresses(self, domain: DomainRef, source: int) -> list[InterfaceAddresses]:
        """The interfaces of a running domain with their addresses."""
        if source == AddressSource.AGENT:
            with self._agent(domain) as (agent, _):
                return from_agent(agent.execute("guest-network-get-interfaces"))
        with self._running(domain) as machine:
            interfaces = machine.domain.copy().devices.interfaces
        match source:
            case AddressSource.LEASE:
                return self._from_leases(interfaces)
            case AddressSource.ARP:
                return _from_neighbours(interfaces)
        raise fault(ErrorCode.ARGUMENT_UNSUPPORTED, f"Unknown IP address data source {source}", ErrorDomain.QEMU)

    def _from_leases(self, interfaces: list[Interface]) -> list[InterfaceAddresses]:
        found = []
        for interface in interfaces:
            addresses = [GuestAddress(it.type, it.address, it.prefix) for it in leases(self._network, interface)]
            if addresses:
                found.append(InterfaceAddresses(_name(interface), _mac(interface), addresses))
        return found


def leases(networks: NetworkDriver | None, interface: Interface) -> list[DhcpLease]:
    """What the network of an interface has leased to it; nothing where it is on none that leases.

    Raises:
        VirtError: there is no such network.
    """
    driver: Any = networks
    if interface.type != InterfaceType.NETWORK or not hasattr(driver, "network_get_dhcp_leases"):
        return []
    name = interface.source.network if interface.source is not None else None
    found: list[DhcpLease] = driver.network_get_dhcp_leases(driver.network_lookup_by_name(name or ""), _mac(interface))
    return found


def _from_neighbours(interfaces: list[Interface]) -> list[InterfaceAddresses]:
    """Whom the host has talked to; each address is told by itself, as libvirt does."""
    known = device.ip_json("neighbour", "show")
    return [
        InterfaceAddresses(_name(interface), _mac(interface), [_address(str(entry["dst"]), 0)])
        for interface in interfaces
        for entry in known
        if entry.get("lladdr") == _mac(interface)
    ]


def from_agent(answer: Any) -> list[InterfaceAddresses]:
    """What the agent says; the guest is not trusted to say it well.

    Raises:
        VirtError: ``INTERNAL_ERROR``, in libvirt's words.
    """
    if not isinstance(answer, list):
        raise _malformed("qemu agent didn't return an array of interfaces")
    found: dict[str, InterfaceAddresses] = {}
    for item in answer:
        if not isinstance(item, dict) or not isinstance(item.get("name"), str):
            raise _malformed("qemu agent didn't provide 'name' field")
        name = item["name"].partition(":")[0]  # a second name of an interface follows its first
        mac = item.get("hardware-address")
        one = found.setdefault(name, InterfaceAddresses(name, mac if isinstance(mac, str) else None, []))
        addresses = item.get("ip-addresses", [])
        if not isinstance(addresses, list):
            raise _malformed("Malformed ip-addresses array")
        one.addresses.extend(_said(address, name) for address in addresses)
    return list(found.values())


def _said(item: Any, name: str) -> GuestAddress:
    if not isinstance(item, dict):
        raise _malformed("Malformed ip-addresses array")
    for field in ("ip-address-type", "ip-address"):
        if not isinstance(item.get(field), str):
            raise _malformed(f"qemu agent didn't provide '{field}' field for interface '{name}'")
    kinds = {"ipv4": AddressType.IPV4, "ipv6": AddressType.IPV6}
    kind, prefix = kinds.get(item["ip-address-type"]), item.get("prefix")
    if kind is None:
        raise _malformed(f"unknown ip address type '{item['ip-address-type']}'")
    if not isinstance(prefix, int) or not 0 <= prefix <= 128:
        raise _malformed("malformed 'prefix' field")
    return GuestAddress(kind, item["ip-address"], prefix)


def _malformed(reason: str) -> VirtError:
    return fault(ErrorCode.INTERNAL_ERROR, reason, ErrorDomain.QEMU)


def _address(text: str, prefix: int) -> GuestAddress:
    version = ipaddress.ip_address(text).version
    return GuestAddress(AddressType.IPV6 if version == 6 else AddressType.IPV4, text, prefix)


def _name(interface: Interface) -> str:
    return (interface.target.dev if interface.target is not None else None) or ""


def _mac(interface: Interface) -> str:
    return interface.mac.address if interface.mac is not None else ""

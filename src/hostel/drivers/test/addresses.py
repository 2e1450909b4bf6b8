"""What addresses the interfaces of the test driver's domains have, and what its host says of itself: inventions."""

from __future__ import annotations

import ipaddress
from typing import Final

from hostel.drivers.base import DomainRef
from hostel.drivers.base.address import AddressSource, GuestAddress, InterfaceAddresses
from hostel.drivers.base.network import AddressType
from hostel.drivers.fault import fault
from hostel.drivers.test.host import Host
from hostel.drivers.test.lifecycle import running
from hostel.errors import ErrorCode, ErrorDomain
from hostel.model.domain.devices.interface import Interface, InterfaceType
from hostel.model.network_defaults import read_network

_PER_DOMAIN: Final = 20  # addresses that a domain may take before it meets the next one's
_SYSINFO: Final = """\
<sysinfo type='smbios'>
  <bios>
    <entry name='vendor'>LENOVO</entry>
    <entry name='version'>G4ETA1WW (2.61 )</entry>
    <entry name='date'>05/07/2014</entry>
    <entry name='release'>2.61</entry>
  </bios>
</sysinfo>
"""


class AddressCalls:
    """Implements :class:`hostel.drivers.base.address.AddressDriver`."""

    _host: Host

    def domain_interface_addresses(self, domain: DomainRef, source: int) -> list[InterfaceAddresses]:
        """One address for each interface of a running domain, whoever is asked.

        Raises:
            VirtError: there is no such source, the domain does not run, or a network is gone.
        """
        if source not in list(AddressSource):
            raise fault(ErrorCode.ARGUMENT_UNSUPPORTED, f"Unknown IP address data source {source}", ErrorDomain.TEST)
        with self._host.lock:
            found = running(self._host, domain)
            offset = _PER_DOMAIN * (found.id - 1) + 1
            interfaces = found.current.domain.devices.interfaces
            return [self._addresses(interface, index, offset) for index, interface in enumerate(interfaces)]

    def connect_get_sysinfo(self) -> str:
        """The same firmware on every host."""
        return _SYSINFO

    def _addresses(self, interface: Interface, index: int, offset: int) -> InterfaceAddresses:
        if interface.type == InterfaceType.NETWORK:
            name = interface.source.network if interface.source is not None else None
            addresses = self._from_network(name or "", offset + index)
        else:
            addresses = [GuestAddress(AddressType.IPV4, f"192.168.0.{index + 1}", 24)]
        device = interface.target.dev if interface.target is not None else None
        return InterfaceAddresses(device or "", interface.mac.address if interface.mac is not None else None, addresses)

    def _from_network(self, name: str, offset: int) -> list[GuestAddress]:
        """An address of a network's first range; none where it has no addresses, on which libvirt's driver crashes."""
        network = self._host.networks.get(name)
        if network is None:
            reason = f"no network with matching name '{name}'"
            raise fault(ErrorCode.NO_NETWORK, reason, ErrorDomain.NETWORK)
        first = next(iter(read_network(network.current.xml).ips), None)
        if first is None or first.address is None:
            return []
        ranges = first.dhcp.ranges if first.dhcp is not None else []
        start = ipaddress.ip_address(ranges[0].start if ranges else first.address)
        size = first.prefix if first.prefix is not None else first.netmask
        subnet = ipaddress.ip_network(f"{first.address}/{size or start.max_prefixlen}", strict=False)
        kind = AddressType.IPV4 if start.version == 4 else AddressType.IPV6
        most = 2**start.max_prefixlen
        return [GuestAddress(kind, str(type(start)((int(start) + offset) % most)), subnet.prefixlen)]

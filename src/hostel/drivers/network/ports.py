"""Ports: which guests' interfaces are plugged into a network, and into what of the host's (``networkAllocatePort``).

``<state>/network/ports/<network>/<uuid>.xml`` is a port; all of them go when the network is stopped.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from uuid import uuid4

from hostel.drivers.base.network import DhcpLease, NetworkPortRef, NetworkRef, PortCreateFlag
from hostel.drivers.document import canonical_uuid, reading
from hostel.drivers.fault import fault
from hostel.drivers.network.functions import interfaces_of
from hostel.drivers.network.local import LocalNetworkDriver, network_fault
from hostel.drivers.network.networks import Network
from hostel.drivers.nodedev.pci import address_of
from hostel.drivers.passthrough.pci import PciFunctions
from hostel.errors import ErrorCode, ErrorDomain
from hostel.model.address import read_mac
from hostel.model.domain.placing.bus import spoken
from hostel.model.network import ForwardMode, PortGroup
from hostel.model.network import Network as NetworkDocument
from hostel.model.network_defaults import read_network
from hostel.model.network_port import NetworkPort, Plug, ReceiveFilters, read_network_port
from hostel.model.pci_address import PciFunction
from hostel.model.port import Bandwidth, Inbound, Isolation, Outbound, VirtualPortParameters
from hostel.model.port_rules import check_complete, merged_virtual_port

_DIRECT: Final = (ForwardMode.BRIDGE, ForwardMode.PRIVATE, ForwardMode.VEPA, ForwardMode.PASSTHROUGH)
_EDGE: Final = ("802.1Qbg", "802.1Qbh")  # virtual ports of external switches
_FIRST_CLASS: Final = 3  # of those with a floor
_LINKS: Final = Path("/sys/class/net")
_INBOUND: Final = ("average", "peak", "floor", "burst")
_OUTBOUND: Final = ("average", "peak", "burst")


class PortedNetworkDriver(LocalNetworkDriver):
    """Implements :class:`hostel.drivers.base.network.NetworkPortDriver`."""

    def network_list_all_ports(self, network: NetworkRef) -> list[NetworkPortRef]:
        """What guests are plugged into."""
        self._active(network)
        return [NetworkPortRef(network, uuid) for uuid in self._networks.ports(network.name).names()]

    def network_port_lookup_by_uuid(self, network: NetworkRef, uuid: str) -> NetworkPortRef:
        """Find by UUID."""
        found = NetworkPortRef(network, canonical_uuid(uuid) or uuid)
        self._port(found)
        return found

    def network_port_create_xml(
        self, network: NetworkRef, xml: str, flags: PortCreateFlag = PortCreateFlag.NONE
    ) -> NetworkPortRef:
        """Make a port; where the guest is plugged in already, as its document says."""
        with reading(ErrorDomain.NETWORK):
            port = read_network_port(xml)
        assert port.uuid is not None
        reclaims = bool(flags & PortCreateFlag.RECLAIM)
        with self._networks.locked():
            found = self._active(network)
            if reclaims and port.plug is None:
                raise network_fault(ErrorCode.INVALID_ARG, "Port reclaim requested but plug type is none")
            if not reclaims and port.plug is not None:
                raise network_fault(ErrorCode.INVALID_ARG, "Port reclaim not requested but plug type is not none")
            known = self._networks.ports(network.name)
            if known.has(port.uuid):
                raise network_fault(ErrorCode.OPERATION_FAILED, f"network port {port.uuid} already exists")
            document = read_network(found.current.xml)
            others = self._ports(network.name)
            if not reclaims:
                _complete(port, document, _group(document, port.group))
                port.plug = _plug(port, document, others)
                _complete_virtual_port(port)
            self._reserve(document, port, others)
            known.write(port.uuid, port.format())
        return NetworkPortRef(network, port.uuid)

    def network_port_get_xml_desc(self, port: NetworkPortRef) -> str:
        """A port's document."""
        return self._port(port).format()

    def network_port_delete(self, port: NetworkPortRef) -> None:
        """Remove a port."""
        with self._networks.locked():
            found = self._port(port)
            self._networks.ports(port.network.name).remove(port.uuid)
            self._release(read_network(self._by_ref(port.network).current.xml), found, self._ports(port.network.name))

    def network_port_get_parameters(self, port: NetworkPortRef) -> dict[str, int]:
        """A port's rates."""
        bandwidth = self._port(port).bandwidth or Bandwidth()
        found: dict[str, int] = {}
        for way, rate, names in (("in", bandwidth.inbound, _INBOUND), ("out", bandwidth.outbound, _OUTBOUND)):
            if rate is not None:
                found |= {f"{way}bound.{name}": getattr(rate, name) or 0 for name in names}
        return found

    def network_port_set_parameters(self, port: NetworkPortRef, params: Mapping[str, int]) -> None:
        """Set a port's rates, and what is reserved for it."""
        inbound = Inbound(**{name: params.get(f"inbound.{name}") or None for name in _INBOUND})
        outbound = Outbound(**{name: params.get(f"outbound.{name}") or None for name in _OUTBOUND})
        with self._networks.locked():
            found = self._port(port)
            document = read_network(self._by_ref(port.network).current.xml)
            changed = found.copy()
            changed.bandwidth = Bandwidth(
                inbound=inbound if inbound.average or inbound.floor else None,
                outbound=outbound if outbound.average else None,
            )
            others = [other for other in self._ports(port.network.name) if other.uuid != port.uuid]
            check_floor(document, changed, others)
            self._release(document, found, others)
            self._reserve(document, changed, others)
            self._networks.ports(port.network.name).write(port.uuid, changed.format())

    def network_get_dhcp_leases(self, network: NetworkRef, mac: str | None = None) -> list[DhcpLease]:
        """None: whoever made the bridge gives addresses out."""
        self._by_ref(network)
        checked_mac(mac)
        return []

    def _active(self, network: NetworkRef) -> Network:
        found = self._by_ref(network)
        if not self._is_active(found):
            reason = f"network '{found.current.name}' is not active; start it with net-start"
            raise network_fault(ErrorCode.OPERATION_INVALID, reason)
        return found

    def _port(self, ref: NetworkPortRef) -> NetworkPort:
        self._by_ref(ref.network)
        text = self._networks.ports(ref.network.name).read(ref.uuid)
        if text is None:
            reason = f"Network port with UUID {ref.uuid} does not exist"
            raise network_fault(ErrorCode.NO_NETWORK_PORT, reason)
        with reading(ErrorDomain.NETWORK):
            return read_network_port(text)

    def _ports(self, name: str) -> list[NetworkPort]:
        store = self._networks.ports(name)
        with reading(ErrorDomain.NETWORK):
            return [read_network_port(text) for uuid in store.names() if (text := store.read(uuid)) is not None]

    def _reserve(self, network: NetworkDocument, port: NetworkPort, others: list[NetworkPort]) -> None:
        """Reserve the rate that a port is promised; the caller holds the lock.

        Raises:
            VirtError: there is not so much.
        """
        check_floor(network, port, others)

    def _release(self, network: NetworkDocument, port: NetworkPort, others: list[NetworkPort]) -> None:
        """Give it back; the caller holds the lock."""


def checked_mac(mac: str | None) -> str | None:
    """A hardware address as it is compared.

    Raises:
        VirtError: ``INVALID_MAC``.
    """
    found = read_mac(mac) if mac is not None else None
    if mac is not None and found is None:
        raise network_fault(ErrorCode.INVALID_MAC, mac)
    return found


def floor_of(port: NetworkPort) -> int:
    """What a port is promised, in kilobytes a second."""
    inbound = port.bandwidth.inbound if port.bandwidth is not None else None
    return (inbound.floor if inbound is not None else None) or 0


def free_class(others: list[NetworkPort]) -> int:
    """A number for the class of a port with a floor."""
    taken = {other.bandwidth.class_id for other in others if other.bandwidth is not None}
    return next(number for number in range(_FIRST_CLASS, _FIRST_CLASS + len(taken) + 1) if number not in taken)


def check_floor(network: NetworkDocument, port: NetworkPort, others: list[NetworkPort]) -> None:
    """Refuse to promise what a network does not have (``networkCheckBandwidth``).

    Raises:
        VirtError: in libvirt's words.
    """
    if not floor_of(port):
        return
    mode = network.forward.mode if network.forward is not None else None
    if mode not in (None, ForwardMode.NAT, ForwardMode.ROUTE, ForwardMode.OPEN):
        raise network_fault(
            ErrorCode.OPERATION_UNSUPPORTED,
            f"Invalid use of 'floor' on interface with MAC address {port.mac} - 'floor' is only supported for "
            "interface type 'network' with forward type 'nat', 'route', 'open' or none",
        )
    inbound = network.bandwidth.inbound if network.bandwidth is not None else None
    if inbound is None:
        raise network_fault(
            ErrorCode.OPERATION_UNSUPPORTED,
            f"Invalid use of 'floor' on interface with MAC address {port.mac} - network '{network.name}' "
            "has no inbound QoS set",
        )
    total = sum(map(floor_of, others)) + floor_of(port)
    limit, most = ("peak", inbound.peak) if inbound.peak else ("average", inbound.average or 0)
    if total > most:
        bridge = network.bridge.name if network.bridge is not None else None
        raise network_fault(
            ErrorCode.OPERATION_INVALID,
            f"Cannot plug '{port.mac}' interface into '{bridge}' because new combined inbound floor={total} would "
            f"overcommit {limit}={most} on network '{network.name}'",
        )


def _group(network: NetworkDocument, name: str | None) -> PortGroup:
    """The group that is named, or else the one for all who name none."""
    for group in network.portgroups:
        if group.name == name or (name is None and group.is_default):
            return group
    return PortGroup(name="")


def _complete(port: NetworkPort, network: NetworkDocument, group: PortGroup) -> None:
    """What a port does not say itself its group says, or the network."""
    port.bandwidth = port.bandwidth or group.bandwidth
    port.vlan = port.vlan or group.vlan or network.vlan
    with reading(ErrorDomain.NETWORK):
        merged = merged_virtual_port(port.virtualport, network.virtualport, group.virtualport)
        port.virtualport = merged or port.virtualport
    trusts = port.receive_filters is not None and port.receive_filters.trust_guest
    if not trusts and (known := group.trust_guest_rx_filters or network.trust_guest_rx_filters) is not None:
        port.receive_filters = ReceiveFilters(trust_guest=known)
    if port.isolation is None and network.isolation is not None:
        port.isolation = Isolation(isolated=network.isolation.isolated)


def _plug(port: NetworkPort, network: NetworkDocument, others: list[NetworkPort]) -> Plug:
    """What of the host's a guest is plugged into."""
    mode = network.forward.mode if network.forward is not None else None
    bridge = network.bridge
    if mode is ForwardMode.HOSTDEV:
        _check_kind(port, network, ("802.1Qbh",), "an SR-IOV Virtual Function via PCI passthrough")
        return _card(network, others)
    if mode not in _DIRECT:
        _check_kind(port, network, (), "IP forwarding")
    elif mode is ForwardMode.BRIDGE and bridge is not None and bridge.name is not None:
        _check_kind(port, network, ("openvswitch",), "a bridge device")
    else:
        _check_kind(port, network, _EDGE, "a macvtap device")
        return _direct(port, network, others, mode)
    assert bridge is not None
    kind = "bridge" if mode is ForwardMode.BRIDGE else "network"
    return Plug(type=kind, bridge=bridge.name, mac_table_manager=bridge.mac_table_manager)


def _check_kind(port: NetworkPort, network: NetworkDocument, kinds: tuple[str, ...], what: str) -> None:
    """Refuse a virtual port that what a network is made of cannot have."""
    if port.virtualport is not None and port.virtualport.type not in kinds:
        kind = port.virtualport.type or "none"
        raise _unsupported(f"<virtualport type='{kind}'> not supported for network '{network.name}' which uses {what}")


def _direct(port: NetworkPort, network: NetworkDocument, others: list[NetworkPort], mode: ForwardMode) -> Plug:
    """An interface of the host that is used least, or by nobody where it cannot be shared."""
    assert network.forward is not None
    devices = interfaces_of(network.forward)
    if not devices:
        reason = f"network '{network.name}' uses a direct mode, but has no forward dev and no interface pool"
        raise network_fault(ErrorCode.INTERNAL_ERROR, reason)
    used = [other.plug.dev for other in others if other.plug is not None]
    least = min(devices, key=used.count)
    is_edge = port.virtualport is not None and port.virtualport.type == "802.1Qbh"
    is_alone = mode is ForwardMode.PASSTHROUGH or (mode is ForwardMode.PRIVATE and is_edge)
    if is_alone and least in used:
        reason = f"network '{network.name}' requires exclusive access to interfaces, but none are available"
        raise network_fault(ErrorCode.INTERNAL_ERROR, reason)
    return Plug(type="direct", dev=least, mode=str(mode))


def _complete_virtual_port(port: NetworkPort) -> None:
    """Give a virtual port the identifiers that the switch needs, where nobody has said them."""
    made = port.virtualport
    if made is None:
        return
    given = made.parameters = made.parameters or VirtualPortParameters()
    if made.type == "openvswitch":
        given.interfaceid = given.interfaceid or str(uuid4())
    if made.type == "802.1Qbg":
        given.instanceid = given.instanceid or str(uuid4())
    with reading(ErrorDomain.NETWORK):
        check_complete(made, "/networkport/virtualport")


def _card(network: NetworkDocument, others: list[NetworkPort]) -> Plug:
    """The first card of a network's that no guest has."""
    assert network.forward is not None
    used = {spoken(other.plug.address) for other in others if other.plug is not None and other.plug.address is not None}
    for place in pool(network):
        if spoken(place) not in used:
            forward = network.forward
            return Plug(type="hostdev-pci", managed=forward.managed, driver=forward.driver, address=place)
    reason = f"network '{network.name}' requires exclusive access to interfaces, but none are available"
    raise network_fault(ErrorCode.INTERNAL_ERROR, reason)


def pool(network: NetworkDocument) -> list[PciFunction]:
    """The cards of a network of the host's: those it names, or the virtual functions of the one that it names.

    Raises:
        VirtError: ``INTERNAL_ERROR``: there are none.
    """
    assert network.forward is not None
    named = [
        PciFunction(domain=place.domain, bus=place.bus, slot=place.slot, function=place.function)
        for place in network.forward.addresses
    ]
    if named or not network.forward.pfs:
        return named
    link = network.forward.pfs[0]
    folder = _LINKS / link / "device"
    if "/" in link or not folder.exists():
        raise network_fault(ErrorCode.INTERNAL_ERROR, f"No usable Vf's present on SRIOV PF {link}")
    names = PciFunctions(domain=ErrorDomain.NETWORK).virtual(Path(os.path.realpath(folder)).name)
    found = [place for name in names if (place := address_of(Path(name))) is not None]
    if not found:
        reason = f"No usable Vf's present on SRIOV PF {link}; write their number to {folder}/sriov_numvfs"
        raise network_fault(ErrorCode.INTERNAL_ERROR, reason)
    return found


def _unsupported(reason: str) -> Exception:
    return fault(ErrorCode.CONFIG_UNSUPPORTED, reason, ErrorDomain.NETWORK)

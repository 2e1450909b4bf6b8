"""Rules for interfaces (``virDomainNetDefValidate``, ``qemuValidateDomainDeviceDefNetwork``)."""

from __future__ import annotations

import re
from typing import Final

from hostel.errors import ErrorCode, ModelError
from hostel.model.domain.devices.address import PciAddress, UnassignedAddress
from hostel.model.domain.devices.interface import Interface, InterfaceDriver, InterfaceSource, InterfaceType
from hostel.model.domain.rules.rule import MachineRule, Rule, needs, without_virtio_options
from hostel.model.port_rules import check_bandwidth, check_complete, check_virtual_port, check_vlan

MAC: Final = re.compile("[0-9a-fA-F]{1,2}(:[0-9a-fA-F]{1,2}){5}")
_NEEDED: Final = {
    InterfaceType.NETWORK: "network",
    InterfaceType.BRIDGE: "bridge",
    InterfaceType.DIRECT: "dev",
    InterfaceType.INTERNAL: "name",
    InterfaceType.VDPA: "dev",
    InterfaceType.MCAST: "address",
    InterfaceType.CLIENT: "address",
}
_IFNAME: Final = re.compile(r"[^/:\s]{1,15}")


def source_of(interface: Interface) -> InterfaceSource:
    """Where an interface's other end is; nothing is said of it where the document does not."""
    return interface.source or InterfaceSource()


def _driver(interface: Interface) -> InterfaceDriver:
    return interface.driver or InterfaceDriver()


def _is_virtio(interface: Interface) -> bool:
    return interface.model in _VIRTIO_CARDS


def _is_pci_host(interface: Interface) -> bool:
    """Whether it is a PCI function of the host, as all are that are not said to be USB devices."""
    address = source_of(interface).host_address
    return interface.type == InterfaceType.HOSTDEV and (address is None or address.type != "usb")


def _named(interface: Interface) -> str:
    return f"interface {interface.mac.address if interface.mac is not None else ''} -"


def _lacks_source(interface: Interface) -> bool:
    needed = _NEEDED.get(interface.type)
    return needed is not None and getattr(source_of(interface), needed) is None


def _bridge(interface: Interface) -> str | None:
    return source_of(interface).bridge if interface.type == InterfaceType.BRIDGE else None


_VIRTIO_CARDS: Final = ("virtio", "virtio-transitional", "virtio-non-transitional")
INTERFACE_RULES: Final[tuple[Rule[Interface], ...]] = (
    Rule(
        lambda item: item.mac is not None and not MAC.fullmatch(item.mac.address),
        lambda item: f"unable to parse mac address '{item.mac.address if item.mac else ''}'",
        ErrorCode.XML_ERROR,
        "/mac/@address",
    ),
    Rule(
        lambda item: item.mac is not None and int(item.mac.address.partition(":")[0], 16) & 1,
        lambda item: f"expected unicast mac address, found multicast '{item.mac.address if item.mac else ''}'",
        ErrorCode.XML_ERROR,
        "/mac/@address",
    ),
    Rule(
        _lacks_source,
        lambda item: f"Missing required attribute '{_NEEDED[item.type]}' in element 'source'",
        ErrorCode.XML_ERROR,
        "/source",
    ),
    Rule(
        lambda item: _bridge(item) is not None and not _IFNAME.fullmatch(_bridge(item) or ""),
        lambda item: f"'{_bridge(item)}' is no name of a bridge: 1 to 15 characters, no '/', ':' or blanks",
        ErrorCode.XML_ERROR,
        "/source/@bridge",
    ),
    Rule(
        lambda item: item.target is not None and item.target.dev and not _IFNAME.fullmatch(item.target.dev),
        lambda item: f"'{item.target.dev if item.target else ''}' is no name of an interface",
        ErrorCode.XML_ERROR,
        "/target/@dev",
    ),
    Rule(
        lambda item: item.teaming is not None and item.teaming.type == "transient" and item.teaming.persistent is None,
        lambda _: "teaming persistent attribute must be set if teaming type is 'transient'",
        ErrorCode.XML_ERROR,
        "/teaming",
    ),
    Rule(
        lambda item: item.backend is not None and item.backend.type == "passt" and item.type != InterfaceType.USER,
        lambda _: "The 'passt' backend can only be used with interface type='user'",
        below="/backend/@type",
    ),
    Rule(
        lambda item: any(
            not ports.start and (ports.end or ports.to or ports.exclude is not None)
            for forward in item.port_forwards
            for ports in forward.ranges
        ),
        lambda _: "The 'range' of a 'portForward' requires 'start' attribute if 'end', 'to', or 'exclude' is specified",
        below="/portForward/range",
    ),
    Rule(
        lambda item: (
            item.source is not None and (item.source.ips or item.source.routes) and item.type != InterfaceType.ETHERNET
        ),
        lambda item: (
            "Invalid attempt to set network interface host-side IP route and/or address info on interface of type "
            f"'{item.type}'. This is only supported on interfaces of type 'ethernet'"
        ),
        below="/source",
    ),
    Rule(
        lambda item: item.target is not None and item.target.managed is False and item.type != InterfaceType.ETHERNET,
        lambda item: f"unmanaged target dev is not supported on interfaces of type '{item.type}'",
        below="/target/@managed",
    ),
    Rule(
        lambda item: item.teaming is not None and item.teaming.type == "persistent" and item.teaming.persistent,
        lambda _: "teaming persistent attribute not allowed if teaming type is 'persistent'",
        below="/teaming/@persistent",
    ),
    *without_virtio_options(_driver, _is_virtio),
    Rule(
        lambda item: item.type == InterfaceType.VHOSTUSER and item.model not in _VIRTIO_CARDS,
        lambda _: (
            "Wrong or no <model> 'type' attribute specified with <interface type='vhostuser'/>. vhostuser requires "
            "the virtio-net* frontend"
        ),
        ErrorCode.INTERNAL_ERROR,
        "/model/@type",
    ),
    Rule(
        lambda item: _is_pci_host(item) and not isinstance(item.address, PciAddress | UnassignedAddress | None),
        lambda _: "PCI host devices must use 'pci' or 'unassigned' address type",
        ErrorCode.INTERNAL_ERROR,
        "/address/@type",
    ),
)


_WITH_VIRTUAL_PORT: Final = (
    InterfaceType.NETWORK, InterfaceType.BRIDGE, InterfaceType.DIRECT, InterfaceType.HOSTDEV,
)  # fmt: skip


def check_shared_parts(interface: Interface, path: str) -> None:
    """What networks have too: VLANs, rates, and a virtual port where the type can have one.

    Raises:
        ModelError: a rule is broken; the words are libvirt's.
    """
    check_vlan(interface.vlan, f"{path}/vlan")
    check_bandwidth(interface.bandwidth, f"{path}/bandwidth", has_floor=interface.type == InterfaceType.NETWORK)
    port = interface.virtualport
    if port is None:
        return
    if interface.type not in _WITH_VIRTUAL_PORT:
        reason = f"<virtualport> element unsupported for <interface type='{interface.type}'>"
        raise ModelError(f"{path}/virtualport", reason, code=ErrorCode.CONFIG_UNSUPPORTED)
    is_whole = interface.type != InterfaceType.NETWORK  # which may say the rest
    check_virtual_port(port, f"{path}/virtualport", needs_type=is_whole)
    if is_whole:
        check_complete(port, f"{path}/virtualport")


def _can_have_vlans(interface: Interface) -> bool:
    """Whether a card of the host or a switch separates VLANs for the guest; a bridge of Linux's does not here."""
    switched = interface.virtualport is not None and interface.virtualport.type == "openvswitch"
    direct = interface.type == InterfaceType.DIRECT and source_of(interface).mode == "passthrough"
    return interface.type == InterfaceType.HOSTDEV or direct or (interface.type == InterfaceType.BRIDGE and switched)


def _is_isolated(interface: Interface) -> bool:
    return interface.isolation is not None and bool(interface.isolation.isolated)


_ISOLATION: Final = "<port isolated='yes'/> is not supported for network interfaces with"
ISOLATION_RULES: Final[tuple[Rule[Interface], ...]] = (
    Rule(
        lambda item: _is_isolated(item) and item.type not in (InterfaceType.NETWORK, InterfaceType.BRIDGE),
        lambda item: f"{_named(item)} {_ISOLATION} type='{item.type}'",
        below="/port/@isolated",
    ),
    Rule(
        lambda item: _is_isolated(item) and item.virtualport is not None and item.virtualport.type is not None,
        lambda item: (
            f"{_named(item)} {_ISOLATION} virtualport type='{item.virtualport.type if item.virtualport else ''}'"
        ),
        below="/port/@isolated",
    ),
)
# Held against what an interface turned out to be, when a machine starts (virDomainActualNetDefValidate).
ACTUAL_INTERFACE_RULES: Final[tuple[Rule[Interface], ...]] = (
    Rule(
        lambda item: item.vlan is not None and item.vlan.tags and not _can_have_vlans(item),
        lambda item: f"{_named(item)} vlan tag not supported for this connection type",
        below="/vlan",
    ),
    *ISOLATION_RULES,
)

_TAPS: Final = (InterfaceType.NETWORK, InterfaceType.BRIDGE, InterfaceType.ETHERNET)
_MANY_QUEUES: Final = (*_TAPS, InterfaceType.DIRECT, InterfaceType.VHOSTUSER, InterfaceType.VDPA)
_WITH_MTU: Final = (*_TAPS, InterfaceType.DIRECT, InterfaceType.VHOSTUSER)


def _is_odd_size(interface: Interface, name: str) -> bool:
    size: int | None = getattr(_driver(interface), name)
    return interface.model in _VIRTIO_CARDS and bool(size) and (size or 0).bit_count() != 1


QEMU_INTERFACE_RULES: Final[tuple[MachineRule[Interface], ...]] = (
    MachineRule(
        lambda item, _: _is_odd_size(item, "rx_queue_size"),
        "rx_queue_size has to be a power of two",
        "/driver/@rx_queue_size",
    ),
    MachineRule(
        lambda item, _: _is_odd_size(item, "tx_queue_size"),
        "tx_queue_size has to be a power of two",
        "/driver/@tx_queue_size",
    ),
    needs(
        "virtio-net.rss",
        lambda item: _driver(item).rss,
        "virtio rss is not supported with this QEMU binary",
        "/driver/@rss",
    ),
    needs(
        "netdev.vhost-vdpa",
        lambda item: item.type == InterfaceType.VDPA,
        "vDPA devices are not supported with this QEMU binary",
        "/@type",
    ),
    MachineRule(
        lambda item, _: item.type == InterfaceType.VDPA and item.model != "virtio",
        lambda item, _: f"invalid model for interface of type '{item.type}': '{item.model}'",
        "/model/@type",
    ),
    MachineRule(
        lambda item, _: item.type != InterfaceType.USER and (item.ips or item.routes),
        "Invalid attempt to set network interface guest-side IP route and/or address info, not supported by QEMU",
        "/ip",
    ),
    MachineRule(
        lambda item, _: item.type == InterfaceType.USER and item.routes,
        "Invalid attempt to set network interface guest-side IP route, not supported by QEMU",
        "/route",
    ),
    MachineRule(
        lambda item, _: item.mtu and item.type not in _WITH_MTU and not _is_passt(item),
        lambda item, _: f"setting MTU on interface type {item.type} is not supported yet",
        "/mtu",
    ),
    MachineRule(
        lambda item, _: (
            item.teaming is not None and item.teaming.type == "persistent" and item.model not in _VIRTIO_CARDS
        ),
        lambda item, _: f"virtio-net teaming persistent interface must be <model type='virtio'/>, not '{item.model}'",
        "/teaming",
    ),
    MachineRule(
        lambda item, _: (
            item.teaming is not None
            and item.teaming.type == "transient"
            and item.type not in (InterfaceType.HOSTDEV, InterfaceType.NETWORK)
        ),
        lambda item, _: f"virtio-net teaming transient interface must be type='hostdev', not '{item.type}'",
        "/teaming",
    ),
    MachineRule(
        lambda item, _: item.coalesce is not None and item.type not in (InterfaceType.NETWORK, InterfaceType.BRIDGE),
        lambda item, _: f"coalesce settings on interface type {item.type} are not supported",
        "/coalesce",
    ),
)


def _is_passt(interface: Interface) -> bool:
    return interface.type == InterfaceType.USER and interface.backend is not None and interface.backend.type == "passt"


# Looked at when a machine starts: only then is it known what an interface of a network is.
START_INTERFACE_RULES: Final[tuple[MachineRule[Interface], ...]] = (
    MachineRule(
        lambda item, _: item.backend is not None and item.backend.tap and item.type not in _TAPS,
        lambda item, _: (
            f"{_named(item)} custom tap device path is not supported for network interfaces of type {item.type}"
        ),
        "/backend/@tap",
    ),
    MachineRule(
        lambda item, _: _driver(item).queues and item.type not in _MANY_QUEUES,
        lambda item, _: f"{_named(item)} multiqueue is not supported for network interfaces of type {item.type}",
        "/driver/@queues",
    ),
    MachineRule(
        lambda item, _: item.bandwidth is not None and item.type == InterfaceType.HOSTDEV,
        lambda item, _: f"{_named(item)} bandwidth settings are not supported for hostdev interfaces",
        "/bandwidth",
    ),
)

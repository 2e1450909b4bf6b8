"""The document of an interface of the host: an Ethernet, a bridge, a bond or a VLAN (``virInterfaceDefFormat``)."""

from __future__ import annotations

from typing import Final

from hostel.codec.xml import ON_OFF, YES_NO, Element, attr, child, children, choice, flag, integer, setting
from hostel.errors import ModelError
from hostel.model.node_device_capability import Link

_LARGEST_MTU: Final = 100000
_TYPES: Final = ("ethernet", "bridge", "bond", "vlan")


class InterfaceDhcp(Element, tag="dhcp"):
    """Whether addresses come by DHCP, and names of servers with them."""

    peerdns: bool | None = attr(YES_NO, default=None)


class InterfaceIp(Element, tag="ip"):
    """An address."""

    address: str | None = attr(default=None)
    prefix: int | None = attr(integer(-(2**31), 2**31 - 1, base=0), default=None)


class Protocol(Element, tag="protocol", keep_open=True):
    """How addresses of a family are got."""

    family: str = attr(choice("ipv4", "ipv6", words="unsupported protocol family '{}'"))
    autoconf: bool = flag(default=False)
    dhcp: InterfaceDhcp | None = child(InterfaceDhcp, default=None)
    ips: list[InterfaceIp] = children(InterfaceIp, factory=list)
    gateway: str | None = setting(tag="route", name="gateway", default=None)


class LinkMonitor(Element, tag="miimon"):
    """A bond looks at its links; times in milliseconds."""

    freq: int = attr(integer())
    downdelay: int | None = attr(integer(), default=None)
    updelay: int | None = attr(integer(), default=None)
    carrier: str | None = attr(choice("ioctl", "netif", words="unknown mii bonding carrier {}"), default=None)


class ArpMonitor(Element, tag="arpmon"):
    """A bond asks for an address; times in milliseconds."""

    interval: int = attr(integer())
    target: str = attr()
    validate: str | None = attr(
        choice("active", "backup", "all", words="unknown arp bonding validate {}"), default=None
    )


class LowerVlan(Element, tag="interface"):
    """The interface that a VLAN is on."""

    name: str = attr()


class InterfaceVlan(Element, tag="vlan"):
    """A VLAN."""

    tag: str = attr()
    interface: LowerVlan = child(LowerVlan)


class BondedInterface(Element, tag="interface", keep_open=True):
    """An interface in a bond."""

    type: str = attr(choice("ethernet"))
    name: str = attr()
    link: Link | None = child(Link, default=None)
    mac: str | None = setting(name="address", default=None)


class InterfaceBond(Element, tag="bond", keep_open=True):
    """A bond."""

    mode: str | None = attr(
        choice(
            "balance-rr", "active-backup", "balance-xor", "broadcast", "802.3ad", "balance-tlb", "balance-alb",
            words="unknown bonding mode {}",
        ),
        default=None,
    )  # fmt: skip
    link_monitor: LinkMonitor | None = child(LinkMonitor, default=None)
    arp_monitor: ArpMonitor | None = child(ArpMonitor, default=None)
    interfaces: list[BondedInterface] = children(BondedInterface, factory=list)


class BridgedInterface(Element, tag="interface", keep_open=True):
    """An interface in a bridge."""

    type: str = attr(choice("ethernet", "bond", "vlan"))
    name: str = attr()
    link: Link | None = child(Link, default=None)
    mac: str | None = setting(name="address", default=None)
    bond: InterfaceBond | None = child(InterfaceBond, default=None)
    vlan: InterfaceVlan | None = child(InterfaceVlan, default=None)


class InterfaceBridge(Element, tag="bridge", keep_open=True):
    """A bridge; ``delay`` in seconds."""

    stp: bool | None = attr(ON_OFF.saying("bridge interface stp should be on or off got {}"), default=None)
    delay: str | None = attr(default=None)
    interfaces: list[BridgedInterface] = children(BridgedInterface, factory=list)


class HostInterface(Element, tag="interface", keep_open=True):
    """An interface of the host."""

    type: str = attr(choice(*_TYPES))
    name: str = attr()
    start: str | None = setting(
        choice("onboot", "hotplug", "none", words="unknown interface startmode {}"), name="mode", default=None
    )
    mtu: int | None = setting(integer(), name="size", default=None)
    protocols: list[Protocol] = children(Protocol, factory=list)
    link: Link | None = child(Link, default=None)
    mac: str | None = setting(name="address", default=None)
    bridge: InterfaceBridge | None = child(InterfaceBridge, default=None)
    bond: InterfaceBond | None = child(InterfaceBond, default=None)
    vlan: InterfaceVlan | None = child(InterfaceVlan, default=None)


def read_interface(xml: str) -> HostInterface:
    """Read an interface's document, and complete it.

    Raises:
        ModelError: it is none, or breaks a rule; the path says where.
    """
    interface = HostInterface.parse(xml, "interface_definition")
    validate(interface)
    complete(interface)
    return interface


def validate(interface: HostInterface) -> None:
    """Hold an interface against the rules.

    Raises:
        ModelError: a rule is broken; the words are libvirt's.
    """
    if (interface.mtu or 0) > _LARGEST_MTU:
        reason = f"value of the 'size' attribute of 'mtu' element must be at most {_LARGEST_MTU}"
        raise ModelError("/interface/mtu/@size", reason)
    _check_kind(interface, "/interface")
    for number, bridged in enumerate(interface.bridge.interfaces if interface.bridge is not None else (), 1):
        _check_kind(bridged, f"/interface/bridge/interface[{number}]")


def _check_kind(interface: HostInterface | BridgedInterface, path: str) -> None:
    kind = interface.type
    if kind != "ethernet" and getattr(interface, kind) is None:
        raise ModelError(f"{path}/{kind}", f"{kind} interface misses the {kind} element")


def complete(interface: HostInterface) -> None:
    """Leave out what an interface of the type does not have."""
    interface.mtu = interface.mtu or None
    for protocol in interface.protocols:
        protocol.autoconf = protocol.autoconf and protocol.family == "ipv6"
        protocol.ips = [ip for ip in protocol.ips if ip.address is not None]
        for ip in protocol.ips:
            ip.prefix = ip.prefix or None
    interface.link = None if interface.type == "bridge" else interface.link
    interface.bridge = interface.bridge if interface.type == "bridge" else None
    _complete_kind(interface)
    for bridged in interface.bridge.interfaces if interface.bridge is not None else ():
        _complete_kind(bridged)


def _complete_kind(interface: HostInterface | BridgedInterface) -> None:
    interface.mac = interface.mac if interface.type == "ethernet" else None
    interface.bond = interface.bond if interface.type == "bond" else None
    interface.vlan = interface.vlan if interface.type == "vlan" else None
    bond = interface.bond
    if bond is None:
        return
    if bond.link_monitor is not None:
        bond.arp_monitor = None
        bond.link_monitor.downdelay = bond.link_monitor.downdelay or None
        bond.link_monitor.updelay = bond.link_monitor.updelay or None

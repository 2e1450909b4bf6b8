"""The document of a virtual network (``virNetworkDefFormatBuf``)."""

from __future__ import annotations

import enum

from hostel.codec.xml import (
    ON_OFF,
    STRING,
    UUID,
    YES_NO,
    Element,
    attr,
    child,
    children,
    choice,
    enumeration,
    hexadecimal,
    integer,
    setting,
    settings,
    text,
    texts,
    verbatim,
)
from hostel.errors import ErrorCode
from hostel.model.port import Bandwidth, Isolation, Route, VirtualPort, Vlan

_U64 = 2**64 - 1
DNSMASQ = ("dnsmasq", "http://libvirt.org/schemas/network/dnsmasq/1.0")


class ForwardMode(enum.StrEnum):
    """``virNetworkForwardType``: how guests reach what is outside; no ``<forward>`` for not at all."""

    NAT = "nat"
    ROUTE = "route"
    OPEN = "open"
    BRIDGE = "bridge"
    PRIVATE = "private"
    VEPA = "vepa"
    PASSTHROUGH = "passthrough"
    HOSTDEV = "hostdev"


class NatAddress(Element, tag="address"):
    """The addresses that guests get outside."""

    start: str = attr()
    end: str | None = attr(default=None)


class NatPort(Element, tag="port"):
    """The ports that guests get outside."""

    start: int = attr(integer(0, 65535))
    end: int | None = attr(integer(0, 65535), default=None)


class Nat(Element, tag="nat", drop_empty=True):
    """Address translation."""

    ipv6: bool | None = attr(YES_NO, default=None)
    address: NatAddress | None = child(NatAddress, default=None)
    port: NatPort | None = child(NatPort, default=None)


class ForwardInterface(Element, tag="interface"):
    """An interface of the host's; ``connections`` only while it is in use."""

    dev: str = attr()
    connections: int | None = attr(integer(), default=None)


class ForwardAddress(Element, tag="address"):
    """A PCI function that a guest may get."""

    type: str = attr(choice("pci"), default="pci")
    domain: int = attr(hexadecimal(4, maximum=0xFFFFFFFF), default=0)
    bus: int = attr(hexadecimal(2), default=0)
    slot: int = attr(hexadecimal(2, maximum=0x1F), default=0)
    function: int = attr(hexadecimal(1, maximum=7), default=0)
    connections: int | None = attr(integer(), default=None)


class Forward(Element, tag="forward"):
    """How guests reach what is outside."""

    dev: str | None = attr(default=None)
    mode: ForwardMode = attr(
        enumeration(ForwardMode, code=ErrorCode.CONFIG_UNSUPPORTED, words="unknown forwarding type '{}'"),
        default=ForwardMode.NAT,
    )
    managed: bool | None = attr(YES_NO, default=None)
    driver: str | None = setting(choice("kvm", "vfio"), name="name", default=None)
    nat: Nat | None = child(Nat, default=None)
    pfs: list[str] = settings(STRING, tag="pf", name="dev", factory=list)
    interfaces: list[ForwardInterface] = children(ForwardInterface, factory=list)
    addresses: list[ForwardAddress] = children(ForwardAddress, factory=list)


class Bridge(Element, tag="bridge", drop_empty=True):
    """The host's bridge."""

    name: str | None = attr(default=None)
    zone: str | None = attr(default=None)
    stp: bool | None = attr(ON_OFF, default=None)
    delay: int | None = attr(integer(), default=None)
    mac_table_manager: str | None = attr(choice("kernel", "libvirt"), name="macTableManager", default=None)


class NetworkDomain(Element, tag="domain"):
    """The DNS domain of the network's guests."""

    name: str = attr()
    local_only: bool | None = attr(YES_NO, name="localOnly", default=None)
    register: bool | None = attr(YES_NO, default=None)


class DnsForwarder(Element, tag="forwarder"):
    """A server that is asked, for one domain or for all."""

    domain: str | None = attr(default=None)
    addr: str | None = attr(default=None)


class DnsText(Element, tag="txt"):
    """A TXT record."""

    name: str | None = attr(default=None)
    value: str | None = attr(default=None)


class DnsService(Element, tag="srv"):
    """An SRV record."""

    service: str | None = attr(default=None)
    protocol: str | None = attr(default=None)
    domain: str | None = attr(default=None)
    target: str | None = attr(default=None)
    port: int | None = attr(integer(1, 65535), default=None)
    priority: int | None = attr(integer(0, 65535), default=None)
    weight: int | None = attr(integer(0, 65535), default=None)


class DnsHost(Element, tag="host"):
    """Names of an address."""

    ip: str | None = attr(default=None)
    hostnames: list[str] = texts(STRING, tag="hostname", factory=list)


class Dns(Element, tag="dns", drop_empty=True):
    """The network's DNS server."""

    enable: bool | None = attr(YES_NO, default=None)
    forward_plain_names: bool | None = attr(YES_NO, name="forwardPlainNames", default=None)
    forwarders: list[DnsForwarder] = children(DnsForwarder, factory=list)
    texts: list[DnsText] = children(DnsText, factory=list)
    services: list[DnsService] = children(DnsService, factory=list)
    hosts: list[DnsHost] = children(DnsHost, factory=list)


class Lease(Element, tag="lease"):
    """How long a lease lasts; 0 for ever."""

    expiry: int = attr(integer(maximum=_U64))
    unit: str | None = attr(choice("seconds", "minutes", "hours"), default=None)


class DhcpRange(Element, tag="range"):
    """Addresses that are given out."""

    start: str = attr()
    end: str = attr()
    lease: Lease | None = child(Lease, default=None)


class DhcpHost(Element, tag="host"):
    """The address of one guest."""

    mac: str | None = attr(default=None)
    id: str | None = attr(default=None)
    name: str | None = attr(default=None)
    ip: str | None = attr(default=None)
    lease: Lease | None = child(Lease, default=None)


class Bootp(Element, tag="bootp"):
    """What a guest without a disk boots."""

    file: str = attr()
    server: str | None = attr(default=None)


class Dhcp(Element, tag="dhcp", drop_empty=True):
    """The network's DHCP server."""

    ranges: list[DhcpRange] = children(DhcpRange, factory=list)
    hosts: list[DhcpHost] = children(DhcpHost, factory=list)
    bootp: Bootp | None = child(Bootp, default=None)


class NetworkIp(Element, tag="ip", keep_open=True):
    """The host's address in the network."""

    family: str | None = attr(choice("ipv4", "ipv6"), default=None)
    address: str | None = attr(default=None)
    netmask: str | None = attr(default=None)
    prefix: int | None = attr(integer(0, 128), default=None)
    local_ptr: bool | None = attr(YES_NO, name="localPtr", default=None)
    tftp_root: str | None = setting(tag="tftp", name="root", default=None)
    dhcp: Dhcp | None = child(Dhcp, default=None)


class PortGroup(Element, tag="portgroup", keep_open=True):
    """What guests that name the group get."""

    name: str = attr()
    is_default: bool | None = attr(YES_NO, name="default", default=None)
    trust_guest_rx_filters: bool | None = attr(YES_NO, name="trustGuestRxFilters", default=None)
    vlan: Vlan | None = child(Vlan, default=None)
    virtualport: VirtualPort | None = child(VirtualPort, default=None)
    bandwidth: Bandwidth | None = child(Bandwidth, default=None)


class DnsmasqOption(Element, tag="option", namespace=DNSMASQ):
    """A line for dnsmasq."""

    value: str = attr()


class DnsmasqOptions(Element, tag="options", namespace=DNSMASQ):
    """Lines for dnsmasq."""

    options: list[DnsmasqOption] = children(DnsmasqOption, factory=list)


class Network(Element, tag="network"):
    """A network; ``connections`` only while it is in use."""

    connections: int | None = attr(integer(), default=None)
    ipv6: bool | None = attr(YES_NO, default=None)
    trust_guest_rx_filters: bool | None = attr(YES_NO, name="trustGuestRxFilters", default=None)
    name: str | None = text(default=None)
    uuid: str | None = text(UUID, default=None)
    metadata: str | None = verbatim(default=None)
    forward: Forward | None = child(Forward, default=None)
    bridge: Bridge | None = child(Bridge, default=None)
    mtu: int | None = setting(integer(), name="size", default=None)
    mac: str | None = setting(name="address", default=None)
    domain: NetworkDomain | None = child(NetworkDomain, default=None)
    dns: Dns | None = child(Dns, default=None)
    vlan: Vlan | None = child(Vlan, default=None)
    bandwidth: Bandwidth | None = child(Bandwidth, default=None)
    isolation: Isolation | None = child(Isolation, default=None)
    ips: list[NetworkIp] = children(NetworkIp, factory=list)
    routes: list[Route] = children(Route, factory=list)
    virtualport: VirtualPort | None = child(VirtualPort, default=None)
    portgroups: list[PortGroup] = children(PortGroup, factory=list)
    dnsmasq: DnsmasqOptions | None = child(DnsmasqOptions, default=None)

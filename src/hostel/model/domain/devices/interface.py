"""``<interface>`` (``virDomainNetDefFormat``)."""

from __future__ import annotations

import enum

from hostel.codec.xml import (
    ON_OFF,
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
    text,
)
from hostel.errors import ErrorCode
from hostel.model.domain.devices.device import RomDevice, VirtioOptions
from hostel.model.domain.devices.source import Reconnect
from hostel.model.port import Bandwidth, Isolation, Route, VirtualPort, Vlan

_U64 = 2**64 - 1


class InterfaceType(enum.StrEnum):
    """``virDomainNetType``."""

    USER = "user"
    ETHERNET = "ethernet"
    VHOSTUSER = "vhostuser"
    SERVER = "server"
    CLIENT = "client"
    MCAST = "mcast"
    NETWORK = "network"
    BRIDGE = "bridge"
    INTERNAL = "internal"
    DIRECT = "direct"
    HOSTDEV = "hostdev"
    UDP = "udp"
    VDPA = "vdpa"
    NULL = "null"
    VDS = "vds"


class Mac(Element, tag="mac"):
    """The hardware address."""

    address: str = attr()
    type: str | None = attr(choice("generated", "static"), default=None)
    check: bool | None = attr(YES_NO, default=None)


class HostdevAddress(Element, tag="address"):
    """The host's PCI or USB device that is the interface."""

    type: str | None = attr(choice("pci", "usb"), default=None)
    domain: int | None = attr(hexadecimal(4, maximum=0xFFFFFFFF), default=None)
    bus: int | None = attr(hexadecimal(2), default=None)
    slot: int | None = attr(hexadecimal(2, maximum=0x1F), default=None)
    function: int | None = attr(hexadecimal(1, maximum=7), default=None)
    device: int | None = attr(hexadecimal(1, maximum=0xFFFFFFFF), default=None)


class LocalAddress(Element, tag="local"):
    """Where a UDP tunnel listens."""

    address: str | None = attr(default=None)
    port: int | None = attr(integer(0, 65535), default=None)


class InterfaceIp(Element, tag="ip"):
    """An address."""

    address: str = attr()
    family: str | None = attr(choice("ipv4", "ipv6"), default=None)
    prefix: int | None = attr(integer(0, 128), default=None)
    peer: str | None = attr(default=None)


class InterfaceSource(Element, tag="source", drop_empty=True):
    """What on the host the interface is connected to; which attributes count depends on its ``type``."""

    network: str | None = attr(default=None)
    portgroup: str | None = attr(default=None)
    switchid: str | None = attr(UUID, default=None)
    portid: str | None = attr(default=None)
    type: str | None = attr(choice("unix"), default=None)
    path: str | None = attr(default=None)
    bridge: str | None = attr(default=None)
    mac_table_manager: str | None = attr(choice("kernel", "libvirt"), name="macTableManager", default=None)
    missing: bool | None = attr(YES_NO, default=None)
    address: str | None = attr(default=None)
    port: int | None = attr(integer(0, 65535), default=None)
    name: str | None = attr(default=None)
    dev: str | None = attr(default=None)
    mode: str | None = attr(choice("vepa", "private", "bridge", "passthrough", "server", "client"), default=None)
    portgroupid: str | None = attr(default=None)
    connectionid: str | None = attr(default=None)
    local: LocalAddress | None = child(LocalAddress, default=None)
    vendor: int | None = setting(hexadecimal(4), name="id", default=None)
    product: int | None = setting(hexadecimal(4), name="id", default=None)
    host_address: HostdevAddress | None = child(HostdevAddress, default=None)
    reconnect: Reconnect | None = child(Reconnect, default=None)
    ips: list[InterfaceIp] = children(InterfaceIp, factory=list)
    routes: list[Route] = children(Route, factory=list)


class PortRange(Element, tag="range"):
    """Ports of the host, and where they lead."""

    start: int | None = attr(integer(1, 65535), default=None)
    end: int | None = attr(integer(1, 65535), default=None)
    to: int | None = attr(integer(1, 65535), default=None)
    exclude: bool | None = attr(YES_NO, default=None)


class PortForward(Element, tag="portForward"):
    """Ports that passt forwards."""

    proto: str = attr(choice("tcp", "udp"))
    address: str | None = attr(default=None)
    dev: str | None = attr(default=None)
    ranges: list[PortRange] = children(PortRange, factory=list)


class InterfaceTarget(Element, tag="target", drop_empty=True):
    """The interface on the host."""

    dev: str | None = attr(default=None)
    managed: bool | None = attr(YES_NO, default=None)


class InterfaceGuest(Element, tag="guest", drop_empty=True):
    """The interface's name in a container."""

    dev: str | None = attr(default=None)
    actual: str | None = attr(default=None)


class HostOffloads(Element, tag="host", drop_empty=True):
    """What the host does of the guest's work."""

    csum: bool | None = attr(ON_OFF, default=None)
    gso: bool | None = attr(ON_OFF, default=None)
    tso4: bool | None = attr(ON_OFF, default=None)
    tso6: bool | None = attr(ON_OFF, default=None)
    ecn: bool | None = attr(ON_OFF, default=None)
    ufo: bool | None = attr(ON_OFF, default=None)
    mrg_rxbuf: bool | None = attr(ON_OFF, default=None)


class GuestOffloads(Element, tag="guest", drop_empty=True):
    """What the guest may leave undone."""

    csum: bool | None = attr(ON_OFF, default=None)
    tso4: bool | None = attr(ON_OFF, default=None)
    tso6: bool | None = attr(ON_OFF, default=None)
    ecn: bool | None = attr(ON_OFF, default=None)
    ufo: bool | None = attr(ON_OFF, default=None)


class InterfaceDriver(VirtioOptions, tag="driver", drop_empty=True):
    """A virtio card's back end; for a host device, what drives it on the host."""

    name: str | None = attr(choice("default", "qemu", "vhost", "kvm", "vfio", "xen"), default=None)
    txmode: str | None = attr(choice("default", "iothread", "timer"), default=None)
    ioeventfd: bool | None = attr(ON_OFF, default=None)
    event_idx: bool | None = attr(ON_OFF, default=None)
    queues: int | None = attr(integer(), default=None)
    rx_queue_size: int | None = attr(integer(), default=None)
    tx_queue_size: int | None = attr(integer(), default=None)
    rss: bool | None = attr(ON_OFF, default=None)
    rss_hash_report: bool | None = attr(ON_OFF, default=None)
    host: HostOffloads | None = child(HostOffloads, default=None)
    guest: GuestOffloads | None = child(GuestOffloads, default=None)


class InterfaceBackend(Element, tag="backend", drop_empty=True):
    """Who carries the packets on the host."""

    type: str | None = attr(choice("default", "passt"), default=None)
    tap: str | None = attr(default=None)
    vhost: str | None = attr(default=None)
    log_file: str | None = attr(name="logFile", default=None)


class FilterParameter(Element, tag="parameter"):
    """A value for a filter's variable."""

    name: str = attr()
    value: str = attr()


class FilterReference(Element, tag="filterref"):
    """A network filter by its name."""

    filter: str = attr()
    parameters: list[FilterParameter] = children(FilterParameter, factory=list)


class InterfaceTune(Element, tag="tune", drop_empty=True):
    """The size of the send buffer, in bytes."""

    sndbuf: int | None = text(integer(maximum=_U64), default=None)


class Teaming(Element, tag="teaming"):
    """An interface that stands in for another."""

    type: str = attr(choice("persistent", "transient"))
    persistent: str | None = attr(default=None)


class CoalesceRx(Element, tag="rx", drop_empty=True):
    """How many received frames make one interrupt."""

    frames: int | None = setting(integer(), name="max", default=None)


class Coalesce(Element, tag="coalesce", drop_empty=True):
    """Interrupt coalescing of the host's interface."""

    rx: CoalesceRx | None = child(CoalesceRx, default=None)


class ActualInterface(Element, tag="actual"):
    """What an interface of a network turned out to be, of a domain that runs (``virDomainActualNetDefFormat``)."""

    type: InterfaceType = attr(enumeration(InterfaceType))
    managed: bool | None = attr(YES_NO, default=None)
    trust_guest_rx_filters: bool | None = attr(YES_NO, name="trustGuestRxFilters", default=None)
    source: InterfaceSource | None = child(InterfaceSource, default=None)
    class_id: int | None = setting(integer(), tag="class", name="id", default=None)
    vlan: Vlan | None = child(Vlan, default=None)
    virtualport: VirtualPort | None = child(VirtualPort, default=None)
    bandwidth: Bandwidth | None = child(Bandwidth, default=None)
    isolation: Isolation | None = child(Isolation, default=None)


class Interface(RomDevice, tag="interface"):
    """A network card and what it is connected to."""

    type: InterfaceType = attr(enumeration(InterfaceType), default=InterfaceType.USER)
    managed: bool | None = attr(YES_NO, default=None)
    trust_guest_rx_filters: bool | None = attr(YES_NO, name="trustGuestRxFilters", default=None)
    mac: Mac | None = child(Mac, default=None)
    source: InterfaceSource | None = child(InterfaceSource, default=None)
    vlan: Vlan | None = child(Vlan, default=None)
    virtualport: VirtualPort | None = child(VirtualPort, default=None)
    bandwidth: Bandwidth | None = child(Bandwidth, default=None)
    isolation: Isolation | None = child(Isolation, default=None)
    actual: ActualInterface | None = child(ActualInterface, default=None)
    ips: list[InterfaceIp] = children(InterfaceIp, factory=list)
    routes: list[Route] = children(Route, factory=list)
    port_forwards: list[PortForward] = children(PortForward, factory=list)
    script: str | None = setting(name="path", default=None)
    downscript: str | None = setting(name="path", default=None)
    backend_domain: str | None = setting(tag="backenddomain", name="name", default=None)
    target: InterfaceTarget | None = child(InterfaceTarget, default=None)
    guest: InterfaceGuest | None = child(InterfaceGuest, default=None)
    model: str | None = setting(name="type", default=None, implied=None)
    driver: InterfaceDriver | None = child(InterfaceDriver, default=None)
    backend: InterfaceBackend | None = child(InterfaceBackend, default=None)
    filterref: FilterReference | None = child(FilterReference, default=None)
    tune: InterfaceTune | None = child(InterfaceTune, default=None)
    teaming: Teaming | None = child(Teaming, default=None)
    link_state: str | None = setting(
        choice("default", "up", "down", code=ErrorCode.CONFIG_UNSUPPORTED, words="unknown interface link state '{}'"),
        tag="link",
        name="state",
        default=None,
        implied=None,
    )
    mtu: int | None = setting(integer(), name="size", default=None, implied=None)
    coalesce: Coalesce | None = child(Coalesce, default=None)


class HostdevInterface(Interface, when={"type": "hostdev"}):
    """A network card of the host itself; its driver is written before its source."""

    type: InterfaceType = attr(enumeration(InterfaceType), default=InterfaceType.HOSTDEV)
    managed: bool | None = attr(YES_NO, default=None)
    trust_guest_rx_filters: bool | None = attr(YES_NO, name="trustGuestRxFilters", default=None)
    mac: Mac | None = child(Mac, default=None)
    driver: InterfaceDriver | None = child(InterfaceDriver, default=None)

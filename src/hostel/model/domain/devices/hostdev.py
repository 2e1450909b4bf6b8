"""``<hostdev>``: devices of the host given to the guest (``virDomainHostdevDefFormat``)."""

from __future__ import annotations

from hostel.codec.xml import (
    ON_OFF,
    UUID,
    YES_NO,
    Element,
    attr,
    child,
    children,
    choice,
    flag,
    hexadecimal,
    integer,
    setting,
    text,
    verbatim,
)
from hostel.model.authentication import Authentication
from hostel.model.domain.devices.device import RomDevice
from hostel.model.domain.devices.interface import InterfaceIp, Teaming
from hostel.model.domain.devices.source import Host, Initiator
from hostel.model.port import Route

_U64 = 2**64 - 1


class PciHostAddress(Element, tag="address"):
    """A PCI device of the host."""

    type: str | None = attr(choice("pci"), default=None)
    domain: int = attr(hexadecimal(4, maximum=0xFFFFFFFF), default=0)
    bus: int = attr(hexadecimal(2), default=0)
    slot: int = attr(hexadecimal(2, maximum=0x1F), default=0)
    function: int = attr(hexadecimal(1, maximum=7), default=0)


class UsbHostAddress(Element, tag="address"):
    """A USB device of the host by where it is plugged in."""

    type: str | None = attr(choice("usb"), default=None)
    bus: int = attr(integer(base=0))
    device: int = attr(integer(base=0))


class ScsiHostAddress(Element, tag="address"):
    """A SCSI device on a host adapter."""

    type: str | None = attr(choice("scsi"), default=None)
    bus: int = attr(integer(base=0))
    target: int = attr(integer(base=0))
    unit: int = attr(integer(maximum=_U64, base=0))


class MdevAddress(Element, tag="address"):
    """A mediated device."""

    uuid: str = attr(UUID)


class PciHostSource(Element, tag="source"):
    """A PCI device."""

    write_filtering: bool | None = attr(YES_NO, name="writeFiltering", default=None)
    address: PciHostAddress = child(PciHostAddress)
    original_states: str | None = verbatim(tag="origstates", default=None)


class UsbHostSource(Element, tag="source"):
    """A USB device, by who made it or by where it is."""

    startup_policy: str | None = attr(
        choice("default", "mandatory", "requisite", "optional"), name="startupPolicy", default=None
    )
    auto_address: bool | None = attr(YES_NO, name="autoAddress", default=None)
    missing: bool | None = attr(YES_NO, default=None)
    guest_reset: str | None = attr(choice("off", "uninitialized", "on"), name="guestReset", default=None)
    vendor: int | None = setting(hexadecimal(4), name="id", default=None)
    product: int | None = setting(hexadecimal(4), name="id", default=None)
    address: UsbHostAddress | None = child(UsbHostAddress, default=None)


class ScsiSource(Element, tag="source"):
    """A SCSI device of an adapter, or an iSCSI one."""

    protocol: str | None = attr(choice("adapter", "iscsi"), default=None)
    name: str | None = attr(default=None)
    host: Host | None = child(Host, default=None)
    auth: Authentication | None = child(Authentication, default=None)
    initiator: Initiator | None = child(Initiator, default=None)
    adapter: str | None = setting(name="name", default=None)
    address: ScsiHostAddress | None = child(ScsiHostAddress, default=None)


class ScsiHostSource(Element, tag="source"):
    """A whole vhost adapter."""

    protocol: str = attr(choice("vhost"))
    wwpn: str | None = attr(default=None)


class MdevSource(Element, tag="source"):
    """A mediated device."""

    address: MdevAddress = child(MdevAddress)


class CapabilitySource(Element, tag="source"):
    """A device of the host in a container."""

    block: str | None = text(default=None)
    char: str | None = text(default=None)
    interface: str | None = text(default=None)


class HostdevEnd(RomDevice):
    """What follows a host device's source."""

    teaming: Teaming | None = child(Teaming, default=None)
    readonly: bool = flag(default=False)
    shareable: bool = flag(default=False)


class Hostdev(HostdevEnd, tag="hostdev", leads=True):
    """A device of the host; a subclass for each type."""

    mode: str = attr(choice("subsystem", "capabilities"), default="subsystem")
    type: str = attr()
    managed: bool | None = attr(YES_NO, default=None)
    sgio: str | None = attr(choice("filtered", "unfiltered"), default=None)
    rawio: bool | None = attr(YES_NO, default=None)
    model: str | None = attr(default=None)
    display: bool | None = attr(ON_OFF, default=None)
    ramfb: bool | None = attr(ON_OFF, default=None)
    driver: str | None = setting(choice("default", "kvm", "vfio", "xen"), name="name", default=None, implied=None)


class PciHostdev(Hostdev, when={"type": "pci"}):
    """A PCI device."""

    source: PciHostSource = child(PciHostSource)


class UsbHostdev(Hostdev, when={"type": "usb"}):
    """A USB device."""

    source: UsbHostSource = child(UsbHostSource)


class ScsiHostdev(Hostdev, when={"type": "scsi"}):
    """A SCSI device."""

    source: ScsiSource = child(ScsiSource)


class ScsiHostHostdev(Hostdev, when={"type": "scsi_host"}):
    """A vhost SCSI adapter."""

    source: ScsiHostSource = child(ScsiHostSource)


class MdevHostdev(Hostdev, when={"type": "mdev"}):
    """A mediated device."""

    source: MdevSource = child(MdevSource)


class StorageHostdev(Hostdev, when={"type": "storage"}):
    """A block device in a container."""

    source: CapabilitySource = child(CapabilitySource)


class MiscHostdev(Hostdev, when={"type": "misc"}):
    """A character device in a container."""

    source: CapabilitySource = child(CapabilitySource)


class NetHostdev(Hostdev, when={"type": "net"}):
    """A network interface in a container, with its addresses."""

    source: CapabilitySource = child(CapabilitySource)
    ips: list[InterfaceIp] = children(InterfaceIp, factory=list)
    routes: list[Route] = children(Route, factory=list)

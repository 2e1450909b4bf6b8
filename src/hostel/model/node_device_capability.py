"""What a device of the host can be: the capabilities in its document (``node_device_conf.c``)."""

from __future__ import annotations

from typing import Final

from hostel.codec.xml import (
    STRING,
    UUID,
    Element,
    attr,
    child,
    children,
    choice,
    content,
    hexadecimal,
    integer,
    setting,
    settings,
    text,
    texts,
)
from hostel.model.pci_address import PciFunction

_U32: Final = 2**32 - 1
_U64: Final = 2**64 - 1
_HEX: Final = hexadecimal(1, maximum=_U32)
_FEATURES: Final = choice(
    "rx", "tx", "sg", "tso", "gso", "gro", "lro", "rxvlan", "txvlan", "ntuple", "rxhash", "rdma", "txudptnl",
    "switchdev",
)  # fmt: skip
FEATURE_ORDER: Final = _FEATURES.values


class MediatedType(Element, tag="type"):
    """A kind of mediated devices that can be made."""

    id: str = attr()
    name: str | None = text(default=None)
    device_api: str = text(tag="deviceAPI")
    available_instances: int = text(integer(), tag="availableInstances")


class MediatedTypes(Element, tag="capability", when={"type": "mdev_types"}):
    """The mediated devices that can be made on a device."""

    types: list[MediatedType] = children(MediatedType, factory=list)


class SystemHardware(Element, tag="hardware", keep_open=True):
    """Who made the machine."""

    vendor: str | None = text(default=None)
    version: str | None = text(default=None)
    serial: str | None = text(default=None)
    uuid: str = text(UUID)


class SystemFirmware(Element, tag="firmware", keep_open=True):
    """Who made its firmware."""

    vendor: str | None = text(default=None)
    version: str | None = text(default=None)
    release_date: str | None = text(default=None)


class SystemCapability(Element, tag="capability", when={"type": "system"}):
    """The machine itself."""

    product: str | None = text(default=None)
    hardware: SystemHardware = child(SystemHardware)
    firmware: SystemFirmware = child(SystemFirmware, factory=SystemFirmware)


class Product(Element, tag="product"):
    """A product by its number and, where it is known, its name."""

    id: int = attr(hexadecimal(4, base=16, maximum=_U32))
    name: str | None = content(default=None)


class Vendor(Element, tag="vendor"):
    """A vendor by its number and, where it is known, its name."""

    id: int = attr(hexadecimal(4, base=16, maximum=_U32))
    name: str | None = content(default=None)


class PhysicalFunction(Element, tag="capability", when={"type": "phys_function"}):
    """The function that a virtual function is of."""

    address: PciFunction = child(PciFunction)


class VirtualFunctions(Element, tag="capability", when={"type": "virt_functions"}):
    """The virtual functions that there are, and how many there may be."""

    max_count: int | None = attr(integer(), name="maxCount", default=None)
    addresses: list[PciFunction] = children(PciFunction, factory=list)


class VendorField(Element, tag="vendor_field"):
    """Something that the vendor says."""

    index: str = attr()
    value: str = content()


class SystemField(Element, tag="system_field"):
    """Something that the system's maker says."""

    index: str = attr()
    value: str = content()


class VitalFields(Element, tag="fields", keep_open=True):
    """Vital product data, fixed or not."""

    access: str = attr(choice("readonly", "readwrite"))
    change_level: str | None = text(default=None)
    manufacture_id: str | None = text(default=None)
    part_number: str | None = text(default=None)
    serial_number: str | None = text(default=None)
    asset_tag: str | None = text(default=None)
    vendor_fields: list[VendorField] = children(VendorField, factory=list)
    system_fields: list[SystemField] = children(SystemField, factory=list)


class VitalProductData(Element, tag="capability", when={"type": "vpd"}):
    """Vital product data."""

    name: str = text()
    fields: list[VitalFields] = children(VitalFields, factory=list)


class HeaderType(Element, tag="capability"):
    """What the configuration space begins with."""

    type: str = attr()


class IommuGroup(Element, tag="iommuGroup"):
    """The functions that only go to a guest together."""

    number: int = attr(integer())
    addresses: list[PciFunction] = children(PciFunction, factory=list)


class PciExpressLink(Element, tag="link"):
    """What a link can do, or does."""

    validity: str = attr(choice("cap", "sta"))
    port: int | None = attr(integer(), default=None)
    speed: str | None = attr(choice("2.5", "5", "8", "16", "32", "64"), default=None)
    width: int = attr(integer(base=0))


class PciExpress(Element, tag="pci-express"):
    """Links of PCI Express."""

    links: list[PciExpressLink] = children(PciExpressLink, factory=list)


class PciCapability(Element, tag="capability", when={"type": "pci"}):
    """A PCI function."""

    device_class: int | None = text(hexadecimal(6, base=16), tag="class", default=None)
    domain: int = text(integer())
    bus: int = text(integer())
    slot: int = text(integer())
    function: int = text(integer())
    product: Product = child(Product)
    vendor: Vendor = child(Vendor)
    capabilities: list[Element] = children(
        PhysicalFunction, VirtualFunctions, MediatedTypes, VitalProductData, HeaderType, factory=list
    )
    iommu_group: IommuGroup | None = child(IommuGroup, default=None)
    numa_node: int | None = setting(integer(), tag="numa", name="node", default=None)
    pci_express: PciExpress | None = child(PciExpress, default=None)


class UsbDeviceCapability(Element, tag="capability", when={"type": "usb_device"}):
    """A USB device."""

    bus: int = text(integer())
    device: int = text(integer())
    product: Product = child(Product)
    vendor: Vendor = child(Vendor)


class UsbInterfaceCapability(Element, tag="capability", when={"type": "usb"}):
    """An interface of a USB device."""

    number: int = text(integer())
    interface_class: int = text(integer(), tag="class")
    subclass: int = text(integer())
    protocol: int = text(integer())
    description: str | None = text(default=None)


class Link(Element, tag="link", drop_empty=True):
    """The state of an interface; ``speed`` in megabits a second."""

    speed: int | None = attr(integer(), default=None)
    state: str | None = attr(
        choice("unknown", "notpresent", "down", "lowerlayerdown", "testing", "dormant", "up"), default=None
    )


class WirelessKind(Element, tag="capability"):
    """Whether it is Ethernet or a wireless network."""

    type: str = attr(choice("80203", "80211"))


class NetCapability(Element, tag="capability", when={"type": "net"}):
    """A network interface."""

    interface: str = text()
    address: str | None = text(default=None)
    link: Link | None = child(Link, default=None)
    features: list[str] = settings(_FEATURES, tag="feature", name="name", factory=list)
    kind: WirelessKind | None = child(WirelessKind, default=None)


class FibreChannelHost(Element, tag="capability", when={"type": "fc_host"}):
    """A Fibre Channel adapter."""

    wwnn: str | None = text(default=None)
    wwpn: str | None = text(default=None)
    fabric_wwn: str | None = text(default=None)


class VirtualPorts(Element, tag="capability", when={"type": "vport_ops"}):
    """How many virtual adapters there are and may be."""

    max_vports: int = text(integer(), default=0)
    vports: int = text(integer(), default=0)


class ScsiHostCapability(Element, tag="capability", when={"type": "scsi_host"}):
    """A SCSI adapter."""

    host: int | None = text(integer(), default=None)
    unique_id: int | None = text(integer(), default=None)
    capabilities: list[Element] = children(FibreChannelHost, VirtualPorts, factory=list)


class RemotePort(Element, tag="capability", when={"type": "fc_remote_port"}):
    """A port on a Fibre Channel network."""

    rport: str = text()
    wwpn: str = text()


class ScsiTargetCapability(Element, tag="capability", when={"type": "scsi_target"}):
    """A SCSI target."""

    target: str = text()
    capability: RemotePort | None = child(RemotePort, default=None)


class ScsiCapability(Element, tag="capability", when={"type": "scsi"}):
    """A SCSI logical unit."""

    host: int = text(integer())
    bus: int = text(integer())
    target: int = text(integer())
    lun: int = text(integer())
    type: str | None = text(default=None)


class Removable(Element, tag="capability", when={"type": "removable"}):
    """A drive whose media are changed; sizes in bytes."""

    media_available: int | None = text(integer(0, 1), default=None)
    media_size: int = text(integer(maximum=_U64))
    media_label: str | None = text(default=None)
    logical_block_size: int | None = text(integer(maximum=_U64), default=None)
    num_blocks: int | None = text(integer(maximum=_U64), default=None)


class Hotpluggable(Element, tag="capability", when={"type": "hotpluggable"}):
    """A drive that is plugged and pulled."""


class StorageCapability(Element, tag="capability", when={"type": "storage"}):
    """A drive; sizes in bytes."""

    block: str = text()
    bus: str | None = text(default=None)
    drive_type: str | None = text(default=None)
    model: str | None = text(default=None)
    vendor: str | None = text(default=None)
    serial: str | None = text(default=None)
    size: int | None = text(integer(maximum=_U64), default=None)
    logical_block_size: int | None = text(integer(maximum=_U64), default=None)
    num_blocks: int | None = text(integer(maximum=_U64), default=None)
    capabilities: list[Element] = children(Removable, Hotpluggable, factory=list)


class ScsiGenericCapability(Element, tag="capability", when={"type": "scsi_generic"}):
    """The character device of a SCSI unit."""

    char: str = text()


class DrmCapability(Element, tag="capability", when={"type": "drm"}):
    """A node of a graphics card."""

    type: str = text(choice("primary", "control", "render"))


class MediatedIdentity(Element, tag="type"):
    """The kind of a mediated device."""

    id: str = attr()


class MediatedAttribute(Element, tag="attr"):
    """A setting of a mediated device."""

    name: str = attr()
    value: str = attr()


class MediatedCapability(Element, tag="capability", when={"type": "mdev"}):
    """A mediated device."""

    type: MediatedIdentity = child(MediatedIdentity)
    uuid: str | None = text(UUID, default=None)
    parent_address: str | None = text(tag="parent_addr", default=None)
    iommu_group: int | None = setting(integer(), tag="iommuGroup", name="number", default=None)
    attributes: list[MediatedAttribute] = children(MediatedAttribute, factory=list)


class ChannelCapability(Element, tag="capability", when={"type": "ccw"}):
    """A channel device of an IBM Z."""

    cssid: int = text(_HEX)
    ssid: int = text(_HEX)
    devno: int = text(hexadecimal(4, base=16, maximum=_U32))


class ChannelDeviceAddress(Element, tag="channel_dev_addr"):
    """The device behind a subchannel."""

    cssid: int = text(_HEX)
    ssid: int = text(_HEX)
    devno: int = text(hexadecimal(4, base=16, maximum=_U32))


class SubchannelCapability(Element, tag="capability", when={"type": "css"}):
    """A subchannel of an IBM Z."""

    cssid: int = text(_HEX)
    ssid: int = text(_HEX)
    devno: int = text(hexadecimal(4, base=16, maximum=_U32))
    channel_device: ChannelDeviceAddress | None = child(ChannelDeviceAddress, default=None)
    mediated: MediatedTypes | None = child(MediatedTypes, default=None)


class VdpaCapability(Element, tag="capability", when={"type": "vdpa"}):
    """A vDPA device."""

    chardev: str = text()


class CryptoCardCapability(Element, tag="capability", when={"type": "ap_card"}):
    """A cryptographic card of an IBM Z."""

    adapter: int = text(hexadecimal(2, maximum=_U32), tag="ap-adapter")


class CryptoQueueCapability(Element, tag="capability", when={"type": "ap_queue"}):
    """A queue of a cryptographic card."""

    adapter: int = text(hexadecimal(2, maximum=_U32), tag="ap-adapter")
    domain: int = text(hexadecimal(4, maximum=0xFF), tag="ap-domain")


class CryptoMatrixCapability(Element, tag="capability", when={"type": "ap_matrix"}, keep_open=True):
    """The matrix of cryptographic cards and domains."""

    mediated: MediatedTypes | None = child(MediatedTypes, default=None)


class DeviceNode(Element, tag="devnode"):
    """The device's file, or a link to it."""

    type: str = attr(choice("dev", "link"))
    path: str = content()


class DeviceParent(Element, tag="parent"):
    """The device above, by its name or by its world-wide names."""

    wwnn: str | None = attr(default=None)
    wwpn: str | None = attr(default=None)
    fabric_wwn: str | None = attr(default=None)
    name: str | None = content(default=None)


class DeviceDriver(Element, tag="driver"):
    """The host's driver."""

    names: list[str] = texts(STRING, tag="name", factory=list)


CAPABILITIES: Final[tuple[type[Element], ...]] = (
    SystemCapability, PciCapability, UsbDeviceCapability, UsbInterfaceCapability, NetCapability, ScsiHostCapability,
    ScsiTargetCapability, ScsiCapability, StorageCapability, ScsiGenericCapability, DrmCapability, MediatedTypes,
    MediatedCapability, ChannelCapability, SubchannelCapability, VdpaCapability, CryptoCardCapability,
    CryptoQueueCapability, CryptoMatrixCapability,
)  # fmt: skip

"""Devices on other buses: USB, SCSI, graphics cards, mediated and vDPA devices; and the machine itself."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from hostel.drivers.nodedev.sysfs import SysDevice, Sysfs
from hostel.model.node_device_capability import (
    DrmCapability,
    FibreChannelHost,
    MediatedCapability,
    MediatedIdentity,
    Product,
    RemotePort,
    ScsiCapability,
    ScsiGenericCapability,
    ScsiHostCapability,
    ScsiTargetCapability,
    SystemCapability,
    SystemFirmware,
    SystemHardware,
    UsbDeviceCapability,
    UsbInterfaceCapability,
    VdpaCapability,
    Vendor,
    VirtualPorts,
)

_DMI: Final = "sys/devices/virtual/dmi/id"
_NO_UUID: Final = "00000000-0000-0000-0000-000000000000"
_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
# SCSI's kinds of devices (SPC-3, 6.4.2).
_SCSI_TYPES: Final = {
    0: "disk", 1: "tape", 3: "processor", 4: "worm", 5: "cdrom", 6: "scanner", 7: "mod", 8: "changer", 12: "raid",
    13: "enclosure",
}  # fmt: skip
_DRM_KINDS: Final = ("primary", "control", "render")


def system(tree: Sysfs) -> SystemCapability:
    """What the firmware says of the machine."""
    dmi = SysDevice(tree, tree.root / _DMI, "dmi")
    uuid = dmi.attribute("product_uuid") or _NO_UUID
    return SystemCapability(
        product=dmi.attribute("product_name"),
        hardware=SystemHardware(
            vendor=dmi.attribute("sys_vendor"),
            version=dmi.attribute("product_version"),
            serial=dmi.attribute("product_serial"),
            uuid=uuid.lower() if _UUID.fullmatch(uuid) else _NO_UUID,
        ),
        firmware=SystemFirmware(
            vendor=dmi.attribute("bios_vendor"),
            version=dmi.attribute("bios_version"),
            release_date=dmi.attribute("bios_date"),
        ),
    )


def usb_device(device: SysDevice) -> UsbDeviceCapability | None:
    """A USB device."""
    bus, number = device.number("busnum"), device.number("devnum")
    vendor, product = device.number("idVendor", 16), device.number("idProduct", 16)
    if bus is None or number is None or vendor is None or product is None:
        return None
    return UsbDeviceCapability(
        bus=bus,
        device=number,
        product=Product(id=product, name=device.udev.get("ID_MODEL_FROM_DATABASE") or device.attribute("product")),
        vendor=Vendor(id=vendor, name=device.udev.get("ID_VENDOR_FROM_DATABASE") or device.attribute("manufacturer")),
    )


def usb_interface(device: SysDevice) -> UsbInterfaceCapability | None:
    """An interface of a USB device."""
    names = ("bInterfaceNumber", "bInterfaceClass", "bInterfaceSubClass", "bInterfaceProtocol")
    found = [value for name in names if (value := device.number(name, 16)) is not None]
    if len(found) < len(names):
        return None
    number, kind, subclass, protocol = found
    return UsbInterfaceCapability(number=number, interface_class=kind, subclass=subclass, protocol=protocol)


def scsi_host(device: SysDevice) -> ScsiHostCapability | None:
    """A SCSI adapter."""
    number = device.name.removeprefix("host")
    if not number.isdecimal():
        return None
    found = ScsiHostCapability(
        host=int(number),
        unique_id=SysDevice(device.tree, device.path / "scsi_host" / device.name, "").number("unique_id"),
    )
    fibre = SysDevice(device.tree, device.path / "fc_host" / device.name, "fc_host")
    if fibre.path.is_dir():
        names = [_wwn(fibre.attribute(name)) for name in ("node_name", "port_name", "fabric_name")]
        if names[0] and names[1]:
            found.capabilities.append(FibreChannelHost(wwnn=names[0], wwpn=names[1], fabric_wwn=names[2]))
        for place in (fibre, SysDevice(device.tree, device.path / "scsi_host" / device.name, "scsi_host")):
            if (place.path / "vport_create").exists():
                most, used = place.number("max_npiv_vports"), place.number("npiv_vports_inuse")
                found.capabilities.append(VirtualPorts(max_vports=most or 0, vports=used or 0))
                break
    return found


def _wwn(text: str | None) -> str | None:
    return None if text is None else text.removeprefix("0x")


def scsi_target(device: SysDevice) -> ScsiTargetCapability:
    """A SCSI target."""
    found = ScsiTargetCapability(target=device.name)
    port = device.path.parent.name
    if port.startswith("rport-"):
        node = SysDevice(device.tree, device.tree.root / "sys/class/fc_remote_ports" / port, "fc_remote_ports")
        name = node.attribute("port_name")
        if name is not None:
            found.capability = RemotePort(rport=port, wwpn=name)
    return found


def scsi(device: SysDevice) -> ScsiCapability | None:
    """A SCSI unit."""
    parts = device.name.split(":")
    if len(parts) != 4 or not all(part.isdecimal() for part in parts):
        return None
    host, bus, target, lun = map(int, parts)
    kind = device.number("type")
    return ScsiCapability(
        host=host, bus=bus, target=target, lun=lun, type=_SCSI_TYPES.get(-1 if kind is None else kind)
    )


def scsi_generic(device: SysDevice) -> ScsiGenericCapability | None:
    """The character device of a SCSI unit."""
    return None if device.node is None else ScsiGenericCapability(char=device.node)


def drm(device: SysDevice) -> DrmCapability | None:
    """A node of a graphics card; the minor number says which kind it is."""
    minor = device.fact("MINOR")
    kind = -1 if minor is None or not minor.isdecimal() else int(minor) >> 6
    return DrmCapability(type=_DRM_KINDS[kind]) if 0 <= kind < len(_DRM_KINDS) else None


def mediated(device: SysDevice) -> MediatedCapability | None:
    """A mediated device."""
    kind, group = device.link("mdev_type"), device.link("iommu_group")
    if kind is None:
        return None
    return MediatedCapability(
        type=MediatedIdentity(id=kind.name),
        uuid=device.name,
        parent_address=device.path.parent.name,
        iommu_group=int(group.name) if group is not None and group.name.isdecimal() else 0,
    )


def vdpa(device: SysDevice) -> VdpaCapability | None:
    """A vDPA device that a guest can be given."""
    found = next(iter(sorted(device.path.glob("vhost-vdpa-*"))), None)
    return None if found is None else VdpaCapability(chardev=str(Path("/dev") / found.name))

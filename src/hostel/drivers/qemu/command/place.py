"""Where a device is plugged in, in QEMU's words: the ``bus`` and ``addr`` of its address."""

from __future__ import annotations

from typing import Any

from hostel.drivers.qemu.document import unsupported
from hostel.model.domain.devices.address import PciAddress, UsbAddress
from hostel.model.domain.devices.controller import ControllerType
from hostel.model.domain.devices.device import Device, VirtioOptions
from hostel.model.domain.domain import Domain
from hostel.model.domain.implicit import find_controller


def _bus_name(domain: Domain, kind: ControllerType, index: int, device: Device) -> str:
    controller = find_controller(domain, kind, index)
    if controller is None or controller.alias is None:
        raise unsupported(f"<{device.TAG}>: its address names {kind} controller {index}, and there is none")
    return controller.alias


def place(domain: Domain, device: Device) -> dict[str, Any]:
    """The properties that say where a device on PCI or USB is; none when it has no such address."""
    address = device.address
    if isinstance(address, UsbAddress):
        bus = _bus_name(domain, ControllerType.USB, address.bus, device)
        return {"bus": f"{bus}.0", "port": address.port}
    if not isinstance(address, PciAddress):
        return {}
    bus = _bus_name(domain, ControllerType.PCI, address.bus, device)
    where = f"0x{address.slot:x}" + (f".0x{address.function:x}" if address.function else "")
    multifunction = {"multifunction": True} if address.multifunction else {}
    return {"bus": bus, **multifunction, "addr": where, "acpi-index": device.acpi_index}


def virtio(driver: VirtioOptions | None) -> dict[str, Any]:
    """The properties that every virtio device on PCI has."""
    if driver is None:
        return {}
    properties = {"iommu_platform": driver.iommu, "ats": driver.ats, "packed": driver.packed}
    return {**properties, "page-per-vq": driver.page_per_vq}

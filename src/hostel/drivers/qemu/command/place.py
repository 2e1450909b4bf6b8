"""Where a device is plugged in, in QEMU's words: the ``bus`` and ``addr`` of its address."""

from __future__ import annotations

from typing import Any, Final

from hostel.drivers.qemu.command.context import option
from hostel.drivers.qemu.document import unsupported
from hostel.model.domain.devices.address import (
    CcwAddress,
    DriveAddress,
    IsaAddress,
    PciAddress,
    SpaprVioAddress,
    UsbAddress,
    VirtioMmioAddress,
)
from hostel.model.domain.devices.controller import ControllerType
from hostel.model.domain.devices.device import Device, RomDevice, VirtioOptions
from hostel.model.domain.domain import Domain
from hostel.model.domain.implicit import find_controller
from hostel.model.domain.platform import Board, board_of

# Controllers whose disks are told apart by one number.
_NARROW: Final = ("lsilogic", "ncr53c90", "dc390", "am53c974")
_ROOTS: Final = {"pci-root": "pci.0", "pcie-root": "pcie.0"}


def _bus_name(domain: Domain, kind: ControllerType, index: int, device: Device) -> str:
    controller = find_controller(domain, kind, index)
    if controller is None or controller.alias is None:
        raise unsupported(f"<{device.TAG}>: its address names {kind} controller {index}, and there is none")
    if controller.model == "pci-root" and board_of(domain) == Board.PSERIES:
        own = controller.target is not None and bool(controller.target.index)
        return f"{controller.alias}.0" if own else controller.alias
    if controller.model in _ROOTS and controller.alias.startswith("ua-"):
        return _ROOTS[controller.model]  # it is the machine's own, and keeps the machine's name for it
    return controller.alias


def place(domain: Domain, device: Device) -> dict[str, Any]:
    """The properties that say where a device is on its bus; none when it has no such address."""
    address = device.address
    if isinstance(address, UsbAddress):
        bus = _bus_name(domain, ControllerType.USB, address.bus, device)
        return {"bus": f"{bus}.0", "port": address.port}
    if isinstance(address, PciAddress):
        bus = _bus_name(domain, ControllerType.PCI, address.bus, device)
        where = f"0x{address.slot:x}" + (f".0x{address.function:x}" if address.function else "")
        multifunction = {} if address.multifunction is None else {"multifunction": address.multifunction}
        return {"bus": bus, **multifunction, "addr": where, "acpi-index": device.acpi_index}
    if isinstance(address, CcwAddress):
        return {"devno": f"{address.cssid or 0:x}.{address.ssid or 0:x}.{address.devno or 0:04x}"}
    if isinstance(address, SpaprVioAddress):
        return {"reg": address.reg}
    if isinstance(address, IsaAddress):
        return {"iobase": address.iobase, "irq": address.irq}
    return {}


def scsi_place(domain: Domain, device: Device, address: DriveAddress) -> dict[str, Any]:
    """Where a device is on a SCSI controller.

    Raises:
        VirtError: ``CONFIG_UNSUPPORTED``: there is no such controller, or no such place on it.
    """
    controller = find_controller(domain, ControllerType.SCSI, address.controller)
    if controller is None or controller.alias is None:
        raise unsupported(f"<{device.TAG}>: there is no scsi controller {address.controller}")
    if controller.model in _NARROW:
        if address.target:
            raise unsupported(f"<{device.TAG}>: target must be 0 for controller model '{controller.model}'")
        return {"bus": f"{controller.alias}.{address.bus}", "scsi-id": address.unit}
    where = {"channel": address.bus, "scsi-id": address.target, "lun": address.unit}
    return {"bus": f"{controller.alias}.0", **where}


def virtio(driver: VirtioOptions | None) -> dict[str, Any]:
    """The properties that every virtio device on PCI has."""
    if driver is None:
        return {}
    properties = {"iommu_platform": driver.iommu, "ats": driver.ats, "packed": driver.packed}
    return {**properties, "page-per-vq": driver.page_per_vq}


def virtio_name(base: str, device: Device, model: str | None) -> str:
    """QEMU's name of a virtio device: by its bus, and by the generations of virtio that it speaks."""
    address = device.address
    if isinstance(address, CcwAddress):
        return f"{base}-ccw"
    if isinstance(address, VirtioMmioAddress):
        return f"{base}-device"
    ending = (model or "").removeprefix("virtio")
    return f"{base}-pci{ending if ending in ('-transitional', '-non-transitional') else ''}"


def rom(device: RomDevice) -> dict[str, Any]:
    """The properties of a device's option ROM."""
    if device.rom is None:
        return {}
    if device.rom.enabled is False:
        return {"romfile": ""}
    return {"rombar": None if device.rom.bar is None else int(device.rom.bar), "romfile": device.rom.file}


def zpci(device: Device) -> list[str]:
    """The device that gives a PCI device its numbers on s390x."""
    address = device.address
    if not isinstance(address, PciAddress) or address.zpci is None:
        return []
    numbers = {"uid": address.zpci.uid or 0, "fid": address.zpci.fid or 0}
    own = {"target": device.alias, "id": f"zpci{address.zpci.uid or 0}"}
    return option("-device", {"driver": "zpci", **numbers, **own})

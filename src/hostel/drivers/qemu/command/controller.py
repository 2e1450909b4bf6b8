"""Controllers: buses first, so that what is plugged into them finds them (``qemuBuildControllersCommandLine``)."""

from __future__ import annotations

from typing import Any, Final

from hostel.drivers.qemu.command.context import alias_of, option
from hostel.drivers.qemu.command.place import place, virtio
from hostel.drivers.qemu.document import unsupported
from hostel.model.domain.devices.address import DriveAddress
from hostel.model.domain.devices.controller import Controller, ControllerTarget, ControllerType
from hostel.model.domain.devices.disk import DiskBus
from hostel.model.domain.domain import Domain
from hostel.model.domain.implicit import find_controller
from hostel.model.domain.platform import Board, board_of

_ORDER: Final = (
    ControllerType.PCI,
    ControllerType.USB,
    ControllerType.SCSI,
    ControllerType.IDE,
    ControllerType.SATA,
    ControllerType.VIRTIO_SERIAL,
    ControllerType.CCID,
    ControllerType.FDC,
)
_USB: Final = {
    "piix3-uhci": "piix3-usb-uhci", "piix4-uhci": "piix4-usb-uhci", "ehci": "usb-ehci", "ich9-ehci1": "ich9-usb-ehci1",
    "ich9-uhci1": "ich9-usb-uhci1", "ich9-uhci2": "ich9-usb-uhci2", "ich9-uhci3": "ich9-usb-uhci3",
    "vt82c686b-uhci": "vt82c686b-usb-uhci", "pci-ohci": "pci-ohci", "nec-xhci": "nec-usb-xhci",
    "qemu-xhci": "qemu-xhci",
}  # fmt: skip
_SCSI: Final = {
    "lsilogic": "lsi", "virtio-scsi": "virtio-scsi-pci", "virtio-transitional": "virtio-scsi-pci-transitional",
    "virtio-non-transitional": "virtio-scsi-pci-non-transitional", "lsisas1068": "mptsas1068", "lsisas1078": "megasas",
    "vmpvscsi": "pvscsi", "dc390": "dc-390", "am53c974": "am53c974",
}  # fmt: skip
_SERIAL: Final = {
    None: "virtio-serial-pci",
    "virtio": "virtio-serial-pci",
    "virtio-transitional": "virtio-serial-pci-transitional",
    "virtio-non-transitional": "virtio-serial-pci-non-transitional",
}
_PCI: Final = {
    "pci-bridge": "pci-bridge",
    "dmi-to-pci-bridge": "i82801b11-bridge",
    "pcie-to-pci-bridge": "pcie-pci-bridge",
    "pcie-root-port": "pcie-root-port",
    "pcie-switch-upstream-port": "x3130-upstream",
    "pcie-switch-downstream-port": "xio3130-downstream",
    "pci-expander-bus": "pxb",
    "pcie-expander-bus": "pxb-pcie",
}
_ROOTS: Final = ("pci-root", "pcie-root")


def arguments(domain: Domain, bootindex: dict[int, int]) -> list[str]:
    """Every controller that is not built into the machine."""
    argv: list[str] = []
    for controller in domain.devices.controllers:
        if controller.type not in _ORDER:
            raise unsupported(f"controller type='{controller.type}' is not supported by this driver; remove it")
    for controller in sorted(domain.devices.controllers, key=lambda item: _ORDER.index(item.type)):
        argv += one(domain, controller, bootindex)
    return argv


def one(domain: Domain, controller: Controller, bootindex: dict[int, int]) -> list[str]:
    """One controller; nothing where the machine has it built in."""
    board = board_of(domain)
    match controller.type:
        case ControllerType.PCI:
            return [] if controller.model in _ROOTS else _device(domain, controller, _pci(controller))
        case ControllerType.USB:
            return [] if controller.model == "none" else _device(domain, controller, _usb(domain, controller))
        case ControllerType.SCSI:
            return _device(domain, controller, _scsi(controller))
        case ControllerType.VIRTIO_SERIAL:
            limits = {"max_ports": controller.ports, "vectors": controller.vectors}
            options = virtio(controller.driver)
            return _device(domain, controller, {"driver": _SERIAL[controller.model], **options, **limits})
        case ControllerType.SATA:
            is_built_in = board == Board.Q35 and controller.index == 0
            return [] if is_built_in else _device(domain, controller, {"driver": "ahci"})
        case ControllerType.IDE:
            if board == Board.Q35:
                raise unsupported("IDE controllers are unsupported for this QEMU binary or machine type")
            if controller.index:
                raise unsupported("Only a single IDE controller is supported for this machine type")
            return []
        case ControllerType.CCID:
            return _device(domain, controller, {"driver": "usb-ccid"})
        case _:
            return _floppy(domain, controller, bootindex)


def _device(domain: Domain, controller: Controller, properties: dict[str, Any]) -> list[str]:
    is_companion = controller.master_startport is not None
    name = None if is_companion else alias_of(controller)
    return option("-device", {**properties, "id": name, **place(domain, controller)})


def _pci(controller: Controller) -> dict[str, Any]:
    target = controller.target or ControllerTarget()
    driver = controller.model_name or _PCI.get(controller.model or "")
    if driver is None:
        raise unsupported(f"PCI controller model '{controller.model}'")
    chassis = target.chassis_nr if controller.model == "pci-bridge" else target.chassis
    properties = {"driver": driver, "chassis_nr" if controller.model == "pci-bridge" else "chassis": chassis}
    return {**properties, "port": target.port, "bus_nr": target.bus_nr, "hotplug": target.hotplug}


def _usb(domain: Domain, controller: Controller) -> dict[str, Any]:
    properties: dict[str, Any] = {"driver": _USB.get(controller.model or "")}
    if properties["driver"] is None:
        raise unsupported(f"USB controller model '{controller.model}' is not QEMU's; write qemu-xhci or piix3-uhci")
    if controller.master_startport is not None:
        master = find_controller(domain, ControllerType.USB, controller.index or 0)
        if master is None or master.master_startport is not None:
            raise unsupported(f"USB controller model '{controller.model}' comes after its master, model 'ich9-ehci1'")
        return {**properties, "masterbus": f"{alias_of(master)}.0", "firstport": controller.master_startport}
    if controller.ports is not None and controller.model in ("nec-xhci", "qemu-xhci"):
        properties |= {"p2": controller.ports, "p3": controller.ports}
    return properties


def _scsi(controller: Controller) -> dict[str, Any]:
    driver = _SCSI.get(controller.model or "")
    if driver is None:
        raise unsupported(f"SCSI controller model '{controller.model}' is not QEMU's; write virtio-scsi or lsilogic")
    options = controller.driver
    if options is None:
        return {"driver": driver}
    iothread = None if options.iothread is None else f"iothread{options.iothread}"
    limits = {"num_queues": options.queues, "cmd_per_lun": options.cmd_per_lun, "max_sectors": options.max_sectors}
    return {"driver": driver, "iothread": iothread, **limits, "ioeventfd": options.ioeventfd, **virtio(options)}


def _floppy(domain: Domain, controller: Controller, bootindex: dict[int, int]) -> list[str]:
    """The floppy controller takes the places of its drives in the boot order; on the Q35 it has to be added."""
    orders = {
        f"bootindex{'AB'[disk.address.unit % 2]}": bootindex[id(disk)]
        for disk in domain.devices.disks
        if disk.target.bus == DiskBus.FDC and id(disk) in bootindex and isinstance(disk.address, DriveAddress)
    }
    if controller.index:
        raise unsupported("Only a single floppy controller is supported for this machine type")
    if board_of(domain) == Board.Q35:
        return option("-device", {"driver": "isa-fdc", "id": alias_of(controller), **orders})
    return [word for name, order in orders.items() for word in ("-global", f"isa-fdc.{name}={order}")]

"""Controllers: buses first, so that what is plugged into them finds them (``qemuBuildControllersCommandLine``)."""

from __future__ import annotations

from typing import Any, Final

from hostel.drivers.qemu.command.context import Context, alias_of, option
from hostel.drivers.qemu.command.place import place, virtio, virtio_name, zpci
from hostel.drivers.qemu.document import unsupported
from hostel.model.domain.devices.address import DriveAddress
from hostel.model.domain.devices.controller import Controller, ControllerTarget, ControllerType
from hostel.model.domain.devices.disk import DiskBus
from hostel.model.domain.domain import Domain
from hostel.model.domain.implicit import find_controller
from hostel.model.domain.platform import S390, Board, arch_of, board_of, has_built_in_ide, has_built_in_scsi

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
    "lsilogic": "lsi", "lsisas1068": "mptsas1068", "lsisas1078": "megasas", "vmpvscsi": "pvscsi", "dc390": "dc-390",
    "am53c974": "am53c974", "ibmvscsi": "spapr-vscsi",
}  # fmt: skip
_VIRTIO: Final = ("virtio-scsi", "virtio-transitional", "virtio-non-transitional")
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
# What each model of PCI controller is told, by QEMU's names.
_TOLD: Final = {
    "pci-bridge": ("chassis_nr",),
    "pci-expander-bus": ("bus_nr", "numa_node"),
    "pcie-expander-bus": ("bus_nr", "numa_node"),
    "pcie-root-port": ("port", "chassis", "hotplug"),
    "pcie-switch-downstream-port": ("port", "chassis", "hotplug"),
    "pci-root": ("index", "numa_node"),
}
_HOSTS: Final = {"pci-root": "i440FX-pcihost", "pcie-root": "q35-pcihost"}
# Boards that get no USB controller that nobody asked for.
_WITHOUT_USB: Final = (Board.Q35, Board.ARM_VIRT, Board.RISCV_VIRT)


def arguments(domain: Domain, bootindex: dict[int, int], context: Context | None = None) -> list[str]:
    """Every controller that is not built into the machine."""
    argv = _holes(domain)
    for controller in domain.devices.controllers:
        if controller.type not in _ORDER:
            raise unsupported(f"controller type='{controller.type}' is not supported by this driver; remove it")
    for controller in sorted(domain.devices.controllers, key=lambda item: _ORDER.index(item.type)):
        argv += one(domain, controller, bootindex, context)
    return argv + _floppy_orders(domain, bootindex) + _simple_usb(domain)


def one(domain: Domain, controller: Controller, bootindex: dict[int, int], context: Context | None = None) -> list[str]:
    """One controller; nothing where the machine has it built in."""
    board = board_of(domain)
    match controller.type:
        case ControllerType.PCI:
            return _pci_arguments(domain, controller)
        case ControllerType.USB:
            is_left_out = controller.model == "none" or (controller.model is None and board not in _WITHOUT_USB)
            return [] if is_left_out else _device(domain, controller, _usb(domain, controller))
        case ControllerType.SCSI:
            is_built_in = controller.model == "ncr53c90" and not controller.index and has_built_in_scsi(domain)
            return [] if is_built_in else _device(domain, controller, _scsi(controller))
        case ControllerType.VIRTIO_SERIAL:
            limits = {"max_ports": controller.ports, "vectors": controller.vectors}
            name = virtio_name("virtio-serial", controller, controller.model)
            return _device(domain, controller, {"driver": name, **virtio(controller.driver), **limits})
        case ControllerType.SATA:
            is_built_in = board == Board.Q35 and controller.index == 0
            return [] if is_built_in else _device(domain, controller, {"driver": "ahci"})
        case ControllerType.IDE:
            if not has_built_in_ide(domain):
                raise unsupported("IDE controllers are unsupported for this QEMU binary or machine type")
            if controller.index:
                raise unsupported("Only a single IDE controller is supported for this machine type")
            return []
        case ControllerType.CCID:
            return _device(domain, controller, {"driver": "usb-ccid"})
        case _:
            if controller.index:
                raise unsupported("Only a single floppy controller is supported for this machine type")
            return []


def _holes(domain: Domain) -> list[str]:
    """The sizes of 64-bit windows of PCI."""
    argv: list[str] = []
    for controller in domain.devices.controllers:
        host = _HOSTS.get(controller.model or "")
        if controller.type == ControllerType.PCI and controller.pci_hole is not None and host is not None:
            argv += ["-global", f"{host}.pci-hole64-size={controller.pci_hole.to_kib()}K"]
    return argv


def _simple_usb(domain: Domain) -> list[str]:
    """The board's own USB controller, for a document that has controllers of no model only."""
    models = [item.model for item in domain.devices.controllers if item.type == ControllerType.USB]
    is_simple = all(model is None for model in models)
    return ["-usb"] if is_simple and board_of(domain) not in _WITHOUT_USB and arch_of(domain) not in S390 else []


def _pci_arguments(domain: Domain, controller: Controller) -> list[str]:
    target = controller.target or ControllerTarget()
    is_series = board_of(domain) == Board.PSERIES
    if controller.model == "pci-root" and not is_series and not controller.index and target.hotplug is not None:
        return ["-global", f"PIIX4_PM.acpi-root-pci-hotplug={'on' if target.hotplug else 'off'}"]
    if controller.model == "pcie-root" or (controller.model == "pci-root" and not (is_series and target.index)):
        return []
    return _device(domain, controller, _pci(controller))


def _device(domain: Domain, controller: Controller, properties: dict[str, Any]) -> list[str]:
    is_companion = controller.master_startport is not None
    name = None if is_companion else alias_of(controller)
    return [*zpci(controller), *option("-device", {**properties, "id": name, **place(domain, controller)})]


def _pci(controller: Controller) -> dict[str, Any]:
    target = controller.target or ControllerTarget()
    driver = controller.model_name or _PCI.get(controller.model or "")
    if driver is None:
        raise unsupported(f"PCI controller model '{controller.model}'")
    known = {
        "chassis_nr": target.chassis_nr, "chassis": target.chassis, "port": target.port, "bus_nr": target.bus_nr,
        "hotplug": target.hotplug, "index": target.index, "numa_node": target.node,
    }  # fmt: skip
    return {"driver": driver, **{name: known[name] for name in _TOLD.get(controller.model or "", ())}}


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
    if controller.model in _VIRTIO:
        driver = virtio_name("virtio-scsi", controller, controller.model)
    if driver is None:
        raise unsupported(f"SCSI controller model '{controller.model}' is not QEMU's; write virtio-scsi or lsilogic")
    options = controller.driver
    if options is None or controller.model not in _VIRTIO:
        return {"driver": driver}
    iothread = None if options.iothread is None else f"iothread{options.iothread}"
    limits = {"num_queues": options.queues, "cmd_per_lun": options.cmd_per_lun, "max_sectors": options.max_sectors}
    return {"driver": driver, "iothread": iothread, **limits, "ioeventfd": options.ioeventfd, **virtio(options)}


def _floppy_orders(domain: Domain, bootindex: dict[int, int]) -> list[str]:
    """The floppy controller takes the places of its drives in the boot order; on the Q35 it has to be added."""
    floppies = [disk for disk in domain.devices.disks if disk.target.bus == DiskBus.FDC]
    orders = {
        f"bootindex{'AB'[disk.address.unit % 2]}": bootindex[id(disk)]
        for disk in floppies
        if id(disk) in bootindex and isinstance(disk.address, DriveAddress)
    }
    controller = find_controller(domain, ControllerType.FDC, 0)
    if controller is not None and board_of(domain) == Board.Q35:
        return option("-device", {"driver": "isa-fdc", **orders})
    return [word for name, order in orders.items() for word in ("-global", f"isa-fdc.{name}={order}")]

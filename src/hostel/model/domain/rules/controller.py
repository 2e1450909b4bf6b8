"""Rules for controllers (``virDomainControllerDefValidate``, ``qemuValidateDomainDeviceDefController``)."""

from __future__ import annotations

from typing import Final

from hostel.errors import ErrorCode, ModelError
from hostel.model.domain.devices.address import CcwAddress, PciAddress
from hostel.model.domain.devices.controller import (
    MODELS,
    Controller,
    ControllerDriver,
    ControllerTarget,
    ControllerType,
)
from hostel.model.domain.devices.disk import Disk
from hostel.model.domain.platform import Board, has_built_in_ide, has_built_in_scsi
from hostel.model.domain.rules.memory import cells_of
from hostel.model.domain.rules.rule import Machine, MachineRule, Rule, needs

_VIRTIO_SCSI: Final = ("virtio-scsi", "virtio-transitional", "virtio-non-transitional")
_ROOTS: Final = ("pci-root", "pcie-root")
# Which device of QEMU's a controller is, where it is not called as the flag is.
_PCI_DEVICES: Final = {"i82801b11-bridge": "dmi-to-pci-bridge", "x3130-upstream": "x3130-upstream"}
_USB_DEVICES: Final = {
    "piix3-uhci": "piix3-usb-uhci", "piix4-uhci": "piix4-usb-uhci", "ehci": "usb-ehci", "ich9-ehci1": "ich9-usb-ehci1",
    "ich9-uhci1": "ich9-usb-ehci1", "ich9-uhci2": "ich9-usb-ehci1", "ich9-uhci3": "ich9-usb-ehci1",
    "vt82c686b-uhci": "vt82c686b-usb-uhci", "pci-ohci": "pci-ohci", "nec-xhci": "nec-usb-xhci",
    "qemu-xhci": "qemu-xhci",
}  # fmt: skip
_SCSI_DEVICES: Final = {
    "lsilogic": ("lsi", "the LSI 53C895A SCSI controller"),
    "virtio-scsi": ("virtio-scsi-pci", "virtio scsi controller"),
    "virtio-transitional": ("virtio-scsi-pci", "virtio scsi controller"),
    "virtio-non-transitional": ("virtio-scsi-pci", "virtio scsi controller"),
    "lsisas1068": ("mptsas1068", "the LSI SAS1068 (MPT Fusion) controller"),
    "lsisas1078": ("megasas", "the LSI SAS1078 (MegaRAID) controller"),
    "vmpvscsi": ("pvscsi", "the pvscsi (VMware paravirtual SCSI) controller"),
    "ncr53c90": ("scsi-ncr53c90", "the NCR53C90 (ESP) controller"),
    "dc390": ("dc390", "the DC390 (ESP) controller"),
    "am53c974": ("am53c974", "the AM53C974 (ESP) controller"),
}
_OPTIONS: Final = {
    # Which options a PCI controller of a model may have.
    "chassis_nr": ("chassisNr", ("pci-bridge",)),
    "chassis": ("chassis", ("pcie-root-port", "pcie-switch-downstream-port")),
    "port": ("port", ("pcie-root-port", "pcie-switch-downstream-port")),
    "bus_nr": ("busNr", ("pci-expander-bus", "pcie-expander-bus")),
    "index": ("targetIndex", ("pci-root",)),
    "node": ("numaNode", ("pci-root", "pci-expander-bus", "pcie-expander-bus")),
    "hotplug": ("hotplug", ("pci-root", "pcie-root-port", "pcie-switch-downstream-port")),
}


def _is_model_wrong(controller: Controller) -> bool:
    known = MODELS.get(controller.type)
    return controller.model is not None and known is not None and controller.model not in known


def _target(controller: Controller) -> ControllerTarget:
    return controller.target or ControllerTarget()


def _driver(controller: Controller) -> ControllerDriver:
    return controller.driver or ControllerDriver()


CONTROLLER_RULES: Final[tuple[Rule[Controller], ...]] = (
    Rule(
        _is_model_wrong,
        lambda item: f"Unknown model type '{item.model}'",
        below="/@model",
    ),
    Rule(
        lambda item: item.type == ControllerType.PCI and item.model is None,
        lambda _: "PCI controller model was not set correctly; write <controller type='pci' model='…'/>",
        ErrorCode.INTERNAL_ERROR,
        "/@model",
    ),
    Rule(
        lambda item: item.type == ControllerType.PCI and (item.index or 0) > 255,
        lambda item: f"PCI controller index {item.index} too high, maximum is 255",
        below="/@index",
    ),
    Rule(
        lambda item: item.model in ("nec-xhci", "qemu-xhci") and (item.ports or 0) > 15,
        lambda item: f"'{item.model}' controller only supports up to '15' ports",
        below="/@ports",
    ),
    Rule(
        lambda item: item.model in _ROOTS and item.address is not None,
        lambda _: "pci-root and pcie-root controllers should not have an address",
        below="/address",
    ),
    Rule(
        lambda item: _target(item).index is not None and bool(item.index) != bool(_target(item).index),
        lambda _: "Only the PCI controller with index 0 can have target index 0, and vice versa",
        below="/target/@index",
    ),
    Rule(
        lambda item: item.type == ControllerType.PCI and _target(item).node is not None and item.index == 0,
        lambda _: "The PCI controller with index=0 can't be associated with a NUMA node",
        below="/target/node",
    ),
    Rule(
        lambda item: _driver(item).iothread is not None and item.model not in _VIRTIO_SCSI,
        lambda _: "'iothread' attribute only supported for virtio scsi controllers",
        ErrorCode.XML_ERROR,
        "/driver/@iothread",
    ),
)


def _spoken(controller: Controller) -> str:
    return (
        f"PCI controller with index '{controller.index}', model '{controller.model}' and modelName "
        f"'{controller.model_name or 'none'}'"
    )


def _is_host_bridge(controller: Controller) -> bool:
    return controller.model_name == "spapr-pci-host-bridge"


def _option(field: str) -> MachineRule[Controller]:
    """An option that only controllers of some models have."""
    name, models = _OPTIONS[field]
    return MachineRule(
        lambda item, _: (
            item.type == ControllerType.PCI
            and getattr(_target(item), field) is not None
            and (
                item.model not in models
                or (item.model == "pci-root" and field in ("index", "node") and not _is_host_bridge(item))
            )
        ),
        lambda item, _: f"Option '{name}' is not valid for {_spoken(item)}",
        "/target",
    )


QEMU_CONTROLLER_RULES: Final[tuple[MachineRule[Controller], ...]] = (
    MachineRule(
        lambda item, machine: item.model == "pci-expander-bus" and machine.board != Board.I440FX,
        "pci-expander-bus controllers are only supported on 440fx-based machinetypes",
        "/@model",
    ),
    MachineRule(
        lambda item, machine: item.model == "pcie-expander-bus" and machine.board not in (Board.Q35, Board.ARM_VIRT),
        "pcie-expander-bus controllers are not supported with this machine type",
        "/@model",
    ),
    MachineRule(
        lambda item, machine: (_target(item).node or -1) >= len(cells_of(machine.domain)),
        lambda item, machine: (
            f"{item.model} with index {item.index} is configured for a NUMA node ({_target(item).node}) not present "
            f"in the domain's <cpu><numa> array ({len(cells_of(machine.domain))})"
        ),
        "/target/node",
        ErrorCode.XML_ERROR,
    ),
    MachineRule(
        lambda item, _: item.model in ("qusb1", "qusb2"),
        lambda _, machine: f"USB controller model type 'qusb1' or 'qusb2' is not supported in {machine.domain.type}",
        "/@model",
    ),
    *(
        MachineRule(
            lambda item, _, name=name: getattr(_driver(item), name) is not None and item.model not in _VIRTIO_SCSI,  # type: ignore[misc]
            f"'{name}' is only supported by virtio-scsi controller",
            f"/driver/@{name}",
        )
        for name in ("queues", "cmd_per_lun", "max_sectors", "ioeventfd")
    ),
    MachineRule(
        lambda item, _: (
            _driver(item).iothread is not None and not isinstance(item.address, PciAddress | CcwAddress | None)
        ),
        "virtio-scsi IOThreads only available for virtio pci and virtio ccw controllers",
        "/driver/@iothread",
    ),
    MachineRule(
        lambda item, _: item.type == ControllerType.SCSI and item.model in ("auto", "buslogic"),
        lambda item, _: f"Unsupported controller model: {item.model}",
        "/@model",
    ),
    MachineRule(
        lambda item, machine: (
            item.type == ControllerType.SCSI
            and item.model in _SCSI_DEVICES
            and not machine.has(_SCSI_DEVICES[item.model][0])
            and item.model not in ("ncr53c90", "dc390", "am53c974")
        ),
        lambda item, _: f"This QEMU doesn't support {_SCSI_DEVICES[item.model or ''][1]}",
        "/@model",
    ),
    MachineRule(
        lambda item, _: item.model == "ncr53c90" and item.index,
        "ncr53c90 can only be used as first SCSI controller",
        "/@model",
    ),
    MachineRule(
        lambda item, machine: item.model == "ncr53c90" and not has_built_in_scsi(machine.domain),
        "ncr53c90 SCSI controller is not a built-in for this machine",
        "/@model",
    ),
    MachineRule(
        lambda item, machine: (
            item.type == ControllerType.SATA
            and not (item.index == 0 and machine.board == Board.Q35)
            and not machine.has("ich9-ahci")
        ),
        "SATA is not supported with this QEMU binary",
    ),
    MachineRule(
        lambda item, machine: item.type == ControllerType.IDE and item.index and has_built_in_ide(machine.domain),
        "Only a single IDE controller is supported for this machine type",
        "/@index",
    ),
    MachineRule(
        lambda item, machine: item.type == ControllerType.IDE and not has_built_in_ide(machine.domain),
        "IDE controllers are unsupported for this QEMU binary or machine type",
    ),
    *(_option(field) for field in _OPTIONS),
    MachineRule(
        lambda item, machine: (
            item.type == ControllerType.PCI
            and item.pci_hole is not None
            and machine.board != {"pci-root": Board.I440FX, "pcie-root": Board.Q35}.get(item.model or "")
        ),
        lambda _, machine: f"Setting the 64-bit PCI hole size is not supported for machine '{machine.name}'",
        "/pcihole64",
    ),
    needs(
        "piix4.acpi-root-pci-hotplug",
        lambda item: item.model == "pci-root" and _target(item).hotplug is not None,
        "setting the 'hotplug' property on a 'pci-root' device is not supported by this QEMU binary",
        "/target/@hotplug",
    ),
    needs(
        "pcie-root-port.hotplug",
        lambda item: (
            item.model in ("pcie-root-port", "pcie-switch-downstream-port") and _target(item).hotplug is not None
        ),
        lambda item, _: (
            f"setting the 'hotplug' property on a '{item.model_name}' device is not supported by this QEMU binary"
        ),
        "/target/@hotplug",
    ),
    MachineRule(
        lambda item, machine: (
            item.type == ControllerType.PCI
            and item.model_name is not None
            and not machine.has(_PCI_DEVICES.get(item.model_name, item.model_name))
        ),
        lambda item, _: f"The '{item.model_name}' device is not supported by this QEMU binary",
        "/model/@name",
    ),
)

# What is found out when a machine starts: a document may wait for a QEMU that can do it.
START_CONTROLLER_RULES: Final[tuple[MachineRule[Controller], ...]] = (
    MachineRule(
        lambda item, machine: item.type == ControllerType.USB and item.model is None and machine.board == Board.Q35,
        "no model provided for USB controller",
        "/@model",
    ),
    MachineRule(
        lambda item, machine: (
            item.type == ControllerType.USB and item.model in _USB_DEVICES and not machine.has(_USB_DEVICES[item.model])
        ),
        lambda item, _: f"USB controller model '{item.model}' not supported in this QEMU binary",
        "/@model",
    ),
)


def check_threads(machine: Machine) -> None:
    """I/O threads that disks and controllers are said to use are there.

    Raises:
        ModelError: one is not.
    """
    domain = machine.domain
    threads = {item.id for item in domain.iothread_ids.iothreads} if domain.iothread_ids is not None else set()
    threads |= set(range(1, (domain.iothreads or 0) + 1)) if not threads else set()
    users: list[Disk | Controller] = [*domain.devices.disks, *domain.devices.controllers]
    for user in users:
        thread = user.driver.iothread if user.driver is not None else None
        if thread is not None and thread not in threads:
            name = "controller" if isinstance(user, Controller) else "Disk"
            reason = f"{name} iothread '{thread}' not defined in iothreadid"
            path = f"{domain.devices.path(user)}/driver/@iothread"
            raise ModelError(path, reason, code=ErrorCode.CONFIG_UNSUPPORTED)

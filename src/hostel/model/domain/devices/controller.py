"""``<controller>`` (``virDomainControllerDefFormat``)."""

from __future__ import annotations

import enum

from hostel.codec.xml import ON_OFF, Element, attr, child, choice, enumeration, hexadecimal, integer, setting, text
from hostel.errors import ErrorCode
from hostel.model.domain.devices.device import Device, VirtioOptions
from hostel.model.scaled import Scaled


class ControllerType(enum.StrEnum):
    """``virDomainControllerType``."""

    IDE = "ide"
    FDC = "fdc"
    SCSI = "scsi"
    SATA = "sata"
    VIRTIO_SERIAL = "virtio-serial"
    CCID = "ccid"
    USB = "usb"
    PCI = "pci"
    XENBUS = "xenbus"
    ISA = "isa"


PCI_MODELS = (
    "pci-root", "pcie-root", "pci-bridge", "dmi-to-pci-bridge", "pcie-to-pci-bridge", "pcie-root-port",
    "pcie-switch-upstream-port", "pcie-switch-downstream-port", "pci-expander-bus", "pcie-expander-bus",
)  # fmt: skip
SCSI_MODELS = (
    "auto", "buslogic", "lsilogic", "lsisas1068", "vmpvscsi", "ibmvscsi", "virtio-scsi", "lsisas1078",
    "virtio-transitional", "virtio-non-transitional", "ncr53c90", "dc390", "am53c974",
)  # fmt: skip
USB_MODELS = (
    "piix3-uhci", "piix4-uhci", "ehci", "ich9-ehci1", "ich9-uhci1", "ich9-uhci2", "ich9-uhci3", "vt82c686b-uhci",
    "pci-ohci", "nec-xhci", "qusb1", "qusb2", "qemu-xhci", "none",
)  # fmt: skip
MODELS: dict[ControllerType, tuple[str, ...]] = {
    ControllerType.PCI: PCI_MODELS,
    ControllerType.SCSI: SCSI_MODELS,
    ControllerType.USB: USB_MODELS,
    ControllerType.IDE: ("piix3", "piix4", "ich6"),
    ControllerType.VIRTIO_SERIAL: ("virtio", "virtio-transitional", "virtio-non-transitional"),
}


class ControllerDriver(VirtioOptions, tag="driver", drop_empty=True):
    """Queues and limits of a SCSI controller, and virtio's options."""

    queues: int | None = attr(integer(), default=None)
    cmd_per_lun: int | None = attr(integer(), default=None)
    max_sectors: int | None = attr(integer(), default=None)
    ioeventfd: bool | None = attr(ON_OFF, default=None)
    iothread: int | None = attr(integer(), default=None)


class ControllerTarget(Element, tag="target", drop_empty=True):
    """What a PCI controller is to QEMU."""

    chassis_nr: int | None = attr(integer(1, 255, base=0), name="chassisNr", default=None)
    chassis: int | None = attr(integer(0, 255, base=0), default=None)
    port: int | None = attr(hexadecimal(1, maximum=255), default=None)
    bus_nr: int | None = attr(integer(1, 254, base=0), name="busNr", default=None)
    index: int | None = attr(integer(0, 30, base=0, code=ErrorCode.CONFIG_UNSUPPORTED), default=None)
    hotplug: bool | None = attr(ON_OFF, default=None)
    node: int | None = text(integer(), default=None)


class PciHole64(Scaled, tag="pcihole64"):
    """The 64-bit window of a PCI root."""


class Controller(Device, tag="controller", last=("pci_hole",)):
    """A bus of the guest, or what disks and others hang on."""

    type: ControllerType = attr(enumeration(ControllerType), default=ControllerType.IDE)
    index: int | None = attr(integer(), default=None)
    model: str | None = attr(default=None)
    ports: int | None = attr(integer(), default=None)
    vectors: int | None = attr(integer(), default=None)
    max_grant_frames: int | None = attr(integer(), name="maxGrantFrames", default=None)
    max_event_channels: int | None = attr(integer(), name="maxEventChannels", default=None)
    model_name: str | None = setting(
        choice(
            "none", "pci-bridge", "i82801b11-bridge", "ioh3420", "x3130-upstream", "xio3130-downstream", "pxb",
            "pxb-pcie", "pcie-root-port", "spapr-pci-host-bridge", "pcie-pci-bridge",
        ),
        tag="model",
        name="name",
        default=None,
    )  # fmt: skip
    target: ControllerTarget | None = child(ControllerTarget, default=None)
    driver: ControllerDriver | None = child(ControllerDriver, default=None)
    alias: str | None = setting(name="name", default=None, implied=None)
    master_startport: int | None = setting(integer(), tag="master", name="startport", default=None)
    pci_hole: PciHole64 | None = child(PciHole64, default=None)

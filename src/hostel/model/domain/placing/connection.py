"""Which kind of slot each device needs (libvirt's ``qemuDomainDeviceCalculatePCIConnectFlags``)."""

from __future__ import annotations

from typing import Final

from hostel.model.domain.devices.address import PciAddress
from hostel.model.domain.devices.character import Serial
from hostel.model.domain.devices.controller import Controller, ControllerType
from hostel.model.domain.devices.device import Device
from hostel.model.domain.devices.disk import Disk, DiskBus
from hostel.model.domain.devices.filesystem import Filesystem
from hostel.model.domain.devices.hostdev import MdevHostdev, PciHostdev, ScsiHostHostdev
from hostel.model.domain.devices.input import Input
from hostel.model.domain.devices.interface import Interface, InterfaceType
from hostel.model.domain.devices.paravirtual import MemoryBalloon, Rng, SharedMemory, Vsock
from hostel.model.domain.devices.platform import Iommu, MemoryDevice, Watchdog
from hostel.model.domain.devices.sound import Sound
from hostel.model.domain.devices.video import Video
from hostel.model.domain.placing.bus import CONTROLLER_NEEDS, PCI, PCIE, Connect
from hostel.model.domain.platform import Board

_TRANSITIONAL: Final = "virtio-transitional"
_EXPRESS_USB: Final = ("nec-xhci", "qemu-xhci")
_NOT_PCI_SOUND: Final = ("sb16", "pcspk", "usb", "ich7")


def is_wanted(device: Device) -> bool:
    """Whether a device that is on PCI has no address yet."""
    address = device.address
    return address is None or (isinstance(address, PciAddress) and not address.is_chosen)


def connection(device: Device, board: Board) -> Connect:
    """What a device needs from its bus; nothing when it is not on PCI."""
    express = PCIE if board == Board.Q35 else PCI
    if isinstance(device, Controller):
        return _controller_connection(device, express)
    if isinstance(device, Disk):
        return _virtio(device.model, express) if device.target.bus == DiskBus.VIRTIO else Connect.NOTHING
    if isinstance(device, Interface):
        return _interface_connection(device, express)
    if isinstance(device, Filesystem):
        driver = device.driver.type if device.driver is not None else None
        return Connect.NOTHING if driver in ("loop", "nbd", "ploop") else _virtio(device.model, express)
    if isinstance(device, Sound):
        return Connect.NOTHING if device.model in _NOT_PCI_SOUND else PCI
    if isinstance(device, PciHostdev | MdevHostdev | ScsiHostHostdev):
        return _virtio(device.model, express)
    if isinstance(device, MemoryBalloon | Rng | Vsock):
        is_virtio = device.model is None or device.model.startswith("virtio")
        return _virtio(device.model, express) if is_virtio else Connect.NOTHING
    return _rest(device, express)


def _rest(device: Device, express: Connect) -> Connect:
    if isinstance(device, Video):
        return _video_connection(device, express)
    if isinstance(device, Watchdog):
        return PCI if device.model == "i6300esb" else Connect.NOTHING
    if isinstance(device, Input):
        return _virtio(device.model, express) if device.bus == "virtio" else Connect.NOTHING
    if isinstance(device, Serial):
        kind = device.target.type if device.target is not None else None
        return PCI if kind == "pci-serial" else Connect.NOTHING
    if isinstance(device, Iommu):
        return express | Connect.INTEGRATED if device.model == "virtio" else Connect.NOTHING
    if isinstance(device, MemoryDevice):
        return express if device.model in ("virtio-pmem", "virtio-mem") else Connect.NOTHING
    return PCI if isinstance(device, SharedMemory) else Connect.NOTHING


def _virtio(model: str | None, express: Connect) -> Connect:
    return PCI if model == _TRANSITIONAL else express


def _video_connection(video: Video, express: Connect) -> Connect:
    model = video.model.type if video.model is not None else "default"
    if model in ("virtio", "bochs"):
        return express
    return PCI if model in ("vga", "cirrus", "vmvga", "xen", "vbox", "qxl", "parallels") else Connect.NOTHING


def _interface_connection(interface: Interface, express: Connect) -> Connect:
    if interface.type == InterfaceType.HOSTDEV:
        return express
    if interface.model == "usb-net":
        return Connect.NOTHING
    if interface.model in (None, "virtio", "virtio-non-transitional", "e1000e"):
        return express
    return PCI


def _controller_connection(controller: Controller, express: Connect) -> Connect:
    match controller.type:
        case ControllerType.PCI:
            return CONTROLLER_NEEDS.get(controller.model or "", Connect.NOTHING)
        case ControllerType.USB:
            if controller.model == "none":
                return Connect.NOTHING
            return express if controller.model in _EXPRESS_USB else PCI
        case ControllerType.SCSI:
            if controller.model in (None, "ncr53c90"):
                return Connect.NOTHING
            return express if controller.model in ("virtio-scsi", "virtio-non-transitional") else PCI
        case ControllerType.VIRTIO_SERIAL:
            return _virtio(controller.model, express)
        case ControllerType.SATA | ControllerType.IDE:
            return PCI
        case _:
            return Connect.NOTHING

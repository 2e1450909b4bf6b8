"""Which kind of slot each device needs (libvirt's ``qemuDomainDeviceCalculatePCIConnectFlags``)."""

from __future__ import annotations

from typing import Final

from hostel.errors import ErrorCode, ModelError
from hostel.model.domain.completing.interface import CARDS
from hostel.model.domain.devices.address import PciAddress
from hostel.model.domain.devices.character import Serial
from hostel.model.domain.devices.controller import Controller, ControllerType
from hostel.model.domain.devices.device import Device
from hostel.model.domain.devices.disk import Disk, DiskBus
from hostel.model.domain.devices.filesystem import Filesystem
from hostel.model.domain.devices.hostdev import MdevHostdev, PciHostAddress, PciHostdev, ScsiHostHostdev
from hostel.model.domain.devices.input import Input
from hostel.model.domain.devices.interface import HostdevAddress, Interface, InterfaceType
from hostel.model.domain.devices.paravirtual import MemoryBalloon, Rng, SharedMemory, Vsock
from hostel.model.domain.devices.platform import Iommu, MemoryDevice, Watchdog
from hostel.model.domain.devices.sound import Sound
from hostel.model.domain.devices.video import Video
from hostel.model.domain.domain import Domain
from hostel.model.domain.placing.bus import CONTROLLER_NEEDS, PCI, PCIE, Connect, spoken
from hostel.model.domain.platform import Platform, board_of, has_pcie_root

_TRANSITIONAL: Final = "virtio-transitional"
_EXPRESS_USB: Final = ("nec-xhci", "qemu-xhci")
_NOT_PCI_SOUND: Final = ("sb16", "pcspk", "usb", "ich7")
_NO_PLACE: Final = "ich7"  # a card of PCI that no QEMU has: it fits no slot


def is_wanted(device: Device) -> bool:
    """Whether a device that is on PCI has no address yet."""
    address = device.address
    return address is None or (isinstance(address, PciAddress) and not address.is_chosen)


def check_fits(domain: Domain, device: Device) -> None:
    """Refuse a device of PCI that fits no slot.

    Raises:
        ModelError: ``INTERNAL_ERROR``.
    """
    if isinstance(device, Sound) and device.model == _NO_PLACE and is_wanted(device):
        reason = "Cannot automatically add a new PCI bus for a device with connect flags 00"
        raise ModelError(domain.devices.path(device), reason, code=ErrorCode.INTERNAL_ERROR)


class Slots:
    """What kinds of slots the devices of a machine need.

    Attributes:
        board: the machine's board.
        express: what a device of PCI Express needs, where the machine has that.
        virtio: what a virtio device needs: old ones are for conventional PCI only.
    """

    def __init__(self, domain: Domain, platform: Platform) -> None:
        self.board = board_of(domain)
        self.express = PCIE if has_pcie_root(domain) else PCI
        self.virtio = self.express if platform.has("virtio-pci-non-transitional") else PCI
        self._host_devices = platform.host_devices

    def connection(self, device: Device) -> Connect:
        """What a device needs from its bus; nothing when it is not on PCI."""
        if isinstance(device, Controller):
            return self._controller(device)
        if isinstance(device, Disk):
            return self._virtio(device.model) if device.target.bus == DiskBus.VIRTIO else Connect.NOTHING
        if isinstance(device, Interface):
            return self._interface(device)
        if isinstance(device, Filesystem):
            driver = device.driver.type if device.driver is not None else None
            return Connect.NOTHING if driver in ("loop", "nbd", "ploop") else self._virtio(device.model)
        if isinstance(device, Sound):
            return Connect.NOTHING if device.model in _NOT_PCI_SOUND else PCI
        if isinstance(device, PciHostdev | MdevHostdev | ScsiHostHostdev):
            return self._hostdev(device)
        if isinstance(device, MemoryBalloon | Rng | Vsock):
            is_virtio = device.model is None or device.model.startswith("virtio")
            return self._virtio(device.model) if is_virtio else Connect.NOTHING
        return self._rest(device)

    def _rest(self, device: Device) -> Connect:
        if isinstance(device, Video):
            return self._video(device)
        if isinstance(device, Watchdog):
            return PCI if device.model == "i6300esb" else Connect.NOTHING
        if isinstance(device, Input):
            return self._virtio(device.model) if device.bus == "virtio" else Connect.NOTHING
        if isinstance(device, Serial):
            kind = device.target.type if device.target is not None else None
            return PCI if kind == "pci-serial" else Connect.NOTHING
        if isinstance(device, Iommu):
            return self.virtio | Connect.INTEGRATED if device.model == "virtio" else Connect.NOTHING
        if isinstance(device, MemoryDevice):
            return self.virtio if device.model in ("virtio-pmem", "virtio-mem") else Connect.NOTHING
        return PCI if isinstance(device, SharedMemory) else Connect.NOTHING

    def _virtio(self, model: str | None) -> Connect:
        return PCI if model == _TRANSITIONAL else self.virtio

    def _hostdev(self, device: PciHostdev | MdevHostdev | ScsiHostHostdev) -> Connect:
        if isinstance(device, MdevHostdev):
            return self.express if device.model == "vfio-pci" else Connect.NOTHING
        if self.express == PCI or not is_wanted(device):
            return self.express
        if isinstance(device, ScsiHostHostdev):
            return self._virtio(device.model)
        return self._passed(device.source.address)

    def _passed(self, address: PciHostAddress | HostdevAddress) -> Connect:
        """What a device of the host needs; one that is not there is taken for PCI Express, as most are."""
        known = self._host_devices.get(spoken(address))
        return PCI if known is not None and not known.is_express else self.express

    def _video(self, video: Video) -> Connect:
        model = video.model.type if video.model is not None else "default"
        if model == "virtio":
            return self.virtio
        if model == "bochs":
            return self.express
        return PCI if model in ("vga", "cirrus", "vmvga", "xen", "vbox", "qxl", "parallels") else Connect.NOTHING

    def _interface(self, interface: Interface) -> Connect:
        if interface.type == InterfaceType.HOSTDEV:
            source = interface.source.host_address if interface.source is not None else None
            if self.express == PCI or not is_wanted(interface) or source is None:
                return self.express
            return self._passed(source)
        if interface.model == "usb-net":
            return Connect.NOTHING
        if interface.model in ("virtio", "virtio-non-transitional"):
            return self.virtio
        return PCI if interface.model in CARDS and interface.model != "e1000e" else self.express

    def _controller(self, controller: Controller) -> Connect:
        match controller.type:
            case ControllerType.PCI:
                return CONTROLLER_NEEDS.get(controller.model or "", Connect.NOTHING)
            case ControllerType.USB:
                if controller.model == "none":
                    return Connect.NOTHING
                return self.express if controller.model in _EXPRESS_USB else PCI
            case ControllerType.SCSI:
                if controller.model in (None, "ncr53c90"):
                    return Connect.NOTHING
                return self.virtio if controller.model in ("virtio-scsi", "virtio-non-transitional") else PCI
            case ControllerType.VIRTIO_SERIAL:
                return self._virtio(controller.model)
            case ControllerType.SATA | ControllerType.IDE:
                return PCI
            case _:
                return Connect.NOTHING

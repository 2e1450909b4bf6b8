"""Domain documents as bhyve's driver completes them: controllers, places on the PCI bus (``bhyve_device.c``)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from hostel.errors import ErrorCode, ModelError
from hostel.model.domain.devices.address import DriveAddress, PciAddress
from hostel.model.domain.devices.character import CharacterSource, CharacterType, Console, Serial
from hostel.model.domain.devices.controller import Controller, ControllerType
from hostel.model.domain.devices.device import Device
from hostel.model.domain.devices.disk import DiskBus
from hostel.model.domain.domain import Domain, DomainType
from hostel.model.domain.inactive import forget_run
from hostel.model.domain.platform import Platform
from hostel.model.native.completing import complete_written

PLATFORM: Final = Platform(arch="x86_64")
FIRMWARE: Final = "/usr/local/share/uefi-firmware/BHYVE_UEFI.fd"
PORTS: Final = 32  # of an AHCI controller, since FreeBSD 12
_LPC: Final = 1  # the slot that is kept for the LPC bridge
_SLOTS: Final = range(1, 32)


def parse_document(xml: str, platform: Platform = PLATFORM, *, ports: int = PORTS) -> Domain:
    """Read a document and complete it.

    Args:
        xml: the document.
        platform: where identifiers and hardware addresses come from.
        ports: how many disks an AHCI controller has; 1 with an older bhyve.

    Raises:
        ModelError: it is none of bhyve's, or does not go together.
    """
    domain = Domain.parse(xml)
    if domain.type != DomainType.BHYVE:
        raise ModelError("/domain/@type", f"Expecting virt type to be 'bhyve' but found '{domain.type}'")
    forget_run(domain)
    devices = domain.devices
    for disk in devices.disks:
        position = disk.target.position
        if disk.address is None and disk.target.bus is DiskBus.SATA:
            if position is None:
                path = f"{devices.path(disk)}/target/@dev"
                raise ModelError(path, f"Unknown disk name '{disk.target.dev}' and no address specified")
            disk.address = DriveAddress(controller=position // ports, unit=position % ports)
    _ensure(domain, ControllerType.PCI, "pci-root")
    if _needs_lpc(domain):
        _ensure(domain, ControllerType.ISA, None)
    for video in devices.videos:
        if video.model is not None and video.model.type == "default":
            video.model.type = "gop"
    domain.uuid = domain.uuid or platform.new_uuid()
    ends: list[Serial | Console] = [*devices.serials, *devices.consoles]
    for end in ends:
        if end.type == CharacterType.NMDM and (end.source is None or end.source.master is None):
            name = f"/dev/nmdm{domain.uuid}"
            end.sources = [CharacterSource(master=f"{name}A", slave=f"{name}B")]
    complete_written(domain, platform)
    for video in devices.videos:
        if video.model is not None and video.model.type == "default":
            video.model.type = "gop"
    _assign(domain)
    return domain


def _ensure(domain: Domain, kind: ControllerType, model: str | None) -> None:
    controllers = domain.devices.controllers
    if not any(item.type == kind and item.index in (0, None) for item in controllers):
        controllers.append(Controller(type=kind, index=0, model=model))


def _needs_lpc(domain: Domain) -> bool:
    """Whether something is behind the LPC bridge: firmware, a serial port, a screen's registers."""
    os, devices = domain.os, domain.devices
    has_firmware = os is not None and ((domain.bootloader is None and os.loader is not None) or os.firmware == "efi")
    has_screen = bool(devices.graphics and devices.videos)
    return has_firmware or bool(devices.serials or devices.consoles) or has_screen


def _wanted(device: Device) -> bool:
    return device.address is None or (isinstance(device.address, PciAddress) and not device.address.is_chosen)


def _placed(domain: Domain) -> Iterator[Device]:
    """What is on the bus, in the order in which places are given out."""
    devices = domain.devices
    for controller in devices.controllers:
        is_xhci = controller.type == ControllerType.USB and controller.model == "nec-xhci"
        if controller.type in (ControllerType.SATA, ControllerType.ISA) or is_xhci:
            yield controller
    yield from devices.interfaces
    yield from (disk for disk in devices.disks if disk.target.bus is DiskBus.VIRTIO)
    yield from devices.videos
    yield from devices.sounds
    yield from devices.filesystems


def _assign(domain: Domain) -> None:
    devices = domain.devices
    taken: dict[tuple[int, int, int, int], Device] = {}
    for device in devices.all():
        address = device.address
        if isinstance(address, PciAddress) and address.slot:
            if address.place in taken:
                reason = f"Attempted double use of PCI slot {address.slot} function {address.function}"
                raise ModelError(f"{devices.path(device)}/address", reason, code=ErrorCode.XML_ERROR)
            taken[address.place] = device
    used = {place[2] for place in taken}
    if _LPC not in used:
        used.add(_LPC)
        bridge = next((item for item in devices.controllers if item.type == ControllerType.ISA), None)
        if bridge is not None and _wanted(bridge):
            bridge.address = PciAddress(slot=_LPC)
    for device in _placed(domain):
        if not _wanted(device):
            continue
        slot = next((slot for slot in _SLOTS if slot not in used), None)
        if slot is None:
            reason = "No more available PCI slots"
            raise ModelError(devices.path(device), reason, code=ErrorCode.INTERNAL_ERROR)
        used.add(slot)
        device.address = PciAddress(slot=slot)


def slot_of(device: Device) -> tuple[int, int]:
    """Slot and function of a device that has its place."""
    address = device.address
    assert isinstance(address, PciAddress)
    return address.slot, address.function

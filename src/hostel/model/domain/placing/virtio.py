"""Places of devices on other buses than PCI: channels of s390x, registers of POWER's virtual I/O, memory on ARM."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from hostel.errors import ErrorCode, ModelError
from hostel.model.domain.devices.address import (
    Address,
    CcwAddress,
    PciAddress,
    SpaprVioAddress,
    VirtioMmioAddress,
)
from hostel.model.domain.devices.controller import ControllerType
from hostel.model.domain.devices.device import Device
from hostel.model.domain.devices.disk import DiskBus
from hostel.model.domain.devices.hostdev import MdevHostdev, ScsiHostHostdev
from hostel.model.domain.domain import Domain
from hostel.model.domain.platform import ARM, RISCV, Board, Platform, arch_of, board_of, has_pcie_root

VIRTIO_CARDS: Final = ("virtio", "virtio-transitional", "virtio-non-transitional")
_CHANNELS: Final = 0xFE  # the channel subsystem that virtio has for itself
_MOST: Final = 0xFFFF
_STEP: Final = 0x1000  # between two registers of POWER's virtual I/O
_CARD, _SCSI, _TERMINAL, _NVRAM, _TPM = 0x1000, 0x2000, 0x30000000, 0x3000, 0x4000


def in_libvirt_order(domain: Domain) -> Iterator[Device]:
    """Devices in the order in which libvirt goes through them (``virDomainDeviceInfoIterate``)."""
    devices = domain.devices
    yield from devices.disks
    yield from devices.interfaces
    yield from devices.sounds
    yield from devices.hostdevs
    yield from devices.videos
    yield from devices.controllers
    yield from devices.smartcards
    yield from devices.serials
    yield from devices.parallels
    yield from devices.channels
    for position, console in enumerate(devices.consoles):
        is_port = console.target is None or console.target.type in (None, "none", "serial")
        if position or not (is_port and devices.serials):
            yield console
    yield from devices.inputs
    yield from devices.filesystems
    yield from devices.watchdogs[:1]
    if devices.memballoon is not None:
        yield devices.memballoon
    yield from devices.rngs
    if devices.nvram is not None:
        yield devices.nvram
    yield from devices.hubs
    yield from devices.shmems
    yield from devices.tpms
    yield from devices.panics
    yield from devices.memories
    yield from devices.redirdevs
    yield from (item for item in (devices.iommu, devices.vsock) if item is not None)


def _virtio_devices(domain: Domain) -> Iterator[Device]:
    """Devices that are virtio whatever the bus, or that QEMU has in no other form."""
    devices = domain.devices
    yield from (item for item in devices.disks if item.target.bus == DiskBus.VIRTIO)
    yield from (item for item in devices.interfaces if item.model in VIRTIO_CARDS)
    yield from (item for item in devices.videos if item.model is not None and item.model.type == "virtio")
    yield from (item for item in devices.inputs if item.bus == "virtio")
    kinds = (ControllerType.VIRTIO_SERIAL, ControllerType.SCSI)
    yield from (item for item in devices.controllers if item.type in kinds)
    yield from (item for item in devices.hostdevs if isinstance(item, ScsiHostHostdev))
    if devices.memballoon is not None and devices.memballoon.model != "none":
        yield devices.memballoon
    yield from devices.rngs
    yield from (item for item in devices.memories if item.model in ("virtio-pmem", "virtio-mem"))


def _prime(devices: Iterator[Device], kind: type[Address]) -> None:
    for device in devices:
        if device.address is None:
            device.address = kind()


def assign_channels(domain: Domain, platform: Platform) -> None:
    """Give devices of an s390x machine their channels.

    Raises:
        ModelError: a channel is taken, or there are no more.
    """
    if board_of(domain) != Board.S390_CCW:
        return
    if platform.has("vfio-ccw"):
        mediated = (item for item in domain.devices.hostdevs if isinstance(item, MdevHostdev))
        _prime((item for item in mediated if item.model == "vfio-ccw"), CcwAddress)
    _prime(_virtio_devices(domain), CcwAddress)
    _prime(iter(domain.devices.filesystems), CcwAddress)
    if domain.devices.vsock is not None:
        _prime(iter([domain.devices.vsock]), CcwAddress)
    waiting: list[tuple[Device, CcwAddress]] = []
    used: set[tuple[int | None, int | None, int | None]] = set()
    for device in in_libvirt_order(domain):
        address = device.address
        if not isinstance(address, CcwAddress):
            continue
        if address.devno is None:
            waiting.append((device, address))
            continue
        place = (address.cssid, address.ssid, address.devno)
        if place in used:
            name = f"{address.cssid or 0:x}.{address.ssid or 0:x}.{address.devno:04x}"
            path = f"{domain.devices.path(device)}/address/@devno"
            raise ModelError(path, f"The CCW devno '{name}' is in use already")
        used.add(place)
    number = 0
    for device, address in waiting:
        while (_CHANNELS, 0, number) in used:
            number += 1
        if number > _MOST:
            reason = "There are no more free CCW devnos."
            raise ModelError(domain.devices.path(device), reason, code=ErrorCode.INTERNAL_ERROR)
        address.cssid, address.ssid, address.devno = _CHANNELS, 0, number
        used.add((_CHANNELS, 0, number))


def assign_registers(domain: Domain) -> None:
    """Give devices on POWER's virtual I/O their registers.

    Raises:
        ModelError: a register is taken.
    """
    devices = domain.devices
    is_pseries = board_of(domain) == Board.PSERIES
    for card in devices.interfaces:
        _assign_register(domain, card, _CARD, is_there=card.model == "spapr-vlan")
    for controller in devices.controllers:
        is_vio = controller.type == ControllerType.SCSI and controller.model == "ibmvscsi"
        _assign_register(domain, controller, _SCSI, is_there=is_vio)
    for serial in devices.serials:
        kind = serial.target.type if serial.target is not None else None
        _assign_register(domain, serial, _TERMINAL, is_there=kind == "spapr-vio-serial")
    if devices.nvram is not None:
        _assign_register(domain, devices.nvram, _NVRAM, is_there=is_pseries)
    for tpm in devices.tpms:
        _assign_register(domain, tpm, _TPM, is_there=is_pseries and tpm.model != "spapr-tpm-proxy")


def _assign_register(domain: Domain, device: Device, first: int, *, is_there: bool) -> None:
    if is_there and not isinstance(device.address, SpaprVioAddress):
        device.address = SpaprVioAddress()
    address = device.address
    if not isinstance(address, SpaprVioAddress):
        return
    used = {
        other.address.reg
        for other in in_libvirt_order(domain)
        if other is not device and isinstance(other.address, SpaprVioAddress)
    }
    if address.reg is None:
        address.reg = next(reg for reg in range(first, first + _STEP * (len(used) + 1), _STEP) if reg not in used)
    elif address.reg in used:
        path = f"{domain.devices.path(device)}/address/@reg"
        raise ModelError(path, f"spapr-vio address {address.reg:#x} already in use")


def choose_virtio_transport(domain: Domain, platform: Platform) -> None:
    """Say whether virtio devices of an ARM or RISC-V machine are on PCI or in memory."""
    arch, board = arch_of(domain), board_of(domain)
    machine = (domain.os.type.machine if domain.os is not None else None) or ""
    if arch not in (*ARM, *RISCV):
        return
    if not (machine.startswith("vexpress-") or board in (Board.ARM_VIRT, Board.RISCV_VIRT)):
        return
    has_ports = platform.has("pcie-root-port") or platform.has("ioh3420")
    in_memory = any(isinstance(item.address, VirtioMmioAddress) for item in in_libvirt_order(domain))
    if has_pcie_root(domain) and has_ports and not in_memory:
        _prime(_virtio_devices(domain), PciAddress)
    elif platform.has("virtio-mmio"):
        _prime(_virtio_devices(domain), VirtioMmioAddress)

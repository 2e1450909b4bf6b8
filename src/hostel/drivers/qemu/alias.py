"""What the devices of a running domain are called (libvirt's ``qemu_alias.c``); QEMU's ids are these."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from hostel.model.domain.devices.address import DimmAddress, DriveAddress
from hostel.model.domain.devices.controller import Controller, ControllerType
from hostel.model.domain.devices.device import Device
from hostel.model.domain.devices.disk import Disk, DiskBus
from hostel.model.domain.devices.interface import InterfaceType
from hostel.model.domain.domain import Domain
from hostel.model.domain.implicit import find_controller, mirror_consoles
from hostel.model.domain.platform import Board, board_of, has_built_in_scsi

_MEMORY: Final = {
    "dimm": "dimm", "nvdimm": "nvdimm", "virtio-pmem": "virtiopmem", "virtio-mem": "virtiomem", "sgx-epc": "epc",
}  # fmt: skip
_INDEXED: Final = {DiskBus.VIRTIO: "virtio-disk", DiskBus.USB: "usb-disk"}


def assign_aliases(domain: Domain) -> None:
    """Name every device of a live document that its user has not named."""
    devices = domain.devices
    for controller in devices.controllers:
        controller.alias = controller.alias or _controller_alias(domain, controller)
    for disk in devices.disks:
        disk.alias = disk.alias or _disk_alias(domain, disk)
    for memory in devices.memories:
        if isinstance(memory.address, DimmAddress):
            memory.alias = memory.alias or f"{memory.model}{memory.address.slot}"
    groups: tuple[tuple[str, Sequence[Device]], ...] = (
        ("serial", devices.serials),
        ("parallel", devices.parallels),
        ("console", devices.consoles),
        ("channel", devices.channels),
        ("input", devices.inputs),
        ("video", devices.videos),
        ("sound", devices.sounds),
        ("hub", devices.hubs),
        ("watchdog", devices.watchdogs),
        ("rng", devices.rngs),
        ("panic", devices.panics),
        ("tpm", devices.tpms),
        ("fs", devices.filesystems),
        ("smartcard", devices.smartcards),
        ("redir", devices.redirdevs),
        ("shmem", devices.shmems),
        *((name, [item for item in devices.memories if item.model == kind]) for kind, name in _MEMORY.items()),
    )
    for prefix, group in groups:
        for index, device in enumerate(group):
            device.alias = device.alias or f"{prefix}{_free_number(prefix, group, index)}"
    passed = [item for item in devices.interfaces if item.type == InterfaceType.HOSTDEV]
    cards = [item for item in devices.interfaces if item.type != InterfaceType.HOSTDEV]
    for prefix, group in (("net", cards), ("hostdev", [*passed, *devices.hostdevs])):
        for device in group:
            device.alias = device.alias or f"{prefix}{_next_number(prefix, group)}"
    if devices.memballoon is not None and devices.memballoon.model != "none":
        devices.memballoon.alias = devices.memballoon.alias or "balloon0"
    if devices.iommu is not None:
        devices.iommu.alias = devices.iommu.alias or "iommu0"
    if devices.vsock is not None:
        devices.vsock.alias = devices.vsock.alias or "vsock0"
    mirror_consoles(domain)


def _numbers(prefix: str, group: Sequence[Device]) -> list[int]:
    """The numbers that devices of a group have in their names."""
    numbers = [item.alias.removeprefix(prefix) for item in group if item.alias and item.alias.startswith(prefix)]
    return [int(number) for number in numbers if number.isascii() and number.isdecimal()]


def _next_number(prefix: str, group: Sequence[Device]) -> int:
    """The number after all that are there; what its user has named has none."""
    return max(_numbers(prefix, group), default=-1) + 1


def _free_number(prefix: str, group: Sequence[Device], index: int) -> int:
    """The device's place, or where another has that name (it was plugged in later) the next number of all."""
    used = _numbers(prefix, group)
    return index if index not in used else max(used) + 1


def _controller_alias(domain: Domain, controller: Controller) -> str:
    index, board = controller.index or 0, board_of(domain)
    if controller.type == ControllerType.PCI:
        return "pcie.0" if controller.model == "pcie-root" else f"pci.{index}"
    is_built_in_ide = controller.type == ControllerType.IDE and board == Board.I440FX
    is_built_in_sata = controller.type == ControllerType.SATA and board == Board.Q35
    if index == 0 and (is_built_in_ide or is_built_in_sata):
        return "ide"
    if index == 0 and controller.type == ControllerType.USB:
        return "usb"
    if index == 0 and controller.model == "ncr53c90" and has_built_in_scsi(domain):
        return "scsi"
    return f"{controller.type}{index}"


def _disk_alias(domain: Domain, disk: Disk) -> str:
    bus, address = disk.target.bus, disk.address
    if bus in _INDEXED or not isinstance(address, DriveAddress):
        return f"{_INDEXED.get(bus or DiskBus.NONE, 'disk')}{disk.target.position or 0}"
    place = f"{address.controller}-{address.bus}"
    controller = find_controller(domain, ControllerType.SCSI, address.controller)
    if bus == DiskBus.SCSI and controller is not None and controller.model != "lsilogic":
        place += f"-{address.target}"
    return f"{bus}{place}-{address.unit}"

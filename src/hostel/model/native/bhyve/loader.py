"""The command that loads a kernel before bhyve runs it (``virBhyveProcessBuildLoadCmd``)."""

from __future__ import annotations

import math
from typing import Final

from hostel.errors import ErrorCode, ModelError
from hostel.model.domain.devices.character import CharacterType
from hostel.model.domain.devices.disk import Disk, DiskDevice
from hostel.model.domain.devices.source import SourceType
from hostel.model.domain.domain import Domain
from hostel.model.domain.os import BootDevice

_BHYVELOAD: Final = "/usr/sbin/bhyveload"
_KINDS: Final = {BootDevice.CDROM: DiskDevice.CDROM, BootDevice.HD: DiskDevice.DISK}


def loader_command(domain: Domain, device_map: str) -> list[str]:
    """The command: bhyveload, grub-bhyve, or the one that the document names.

    Args:
        domain: the document, complete.
        device_map: the file that tells GRUB which of its devices is which file.

    Raises:
        ModelError: nothing can be booted.
    """
    if domain.bootloader is None:
        disk = _boot_disk(domain)
        if domain.bootloader_args:
            return [_BHYVELOAD, *_explicit(domain)]
        return [_BHYVELOAD, "-m", _memory(domain), "-d", _path(disk), domain.name]
    if "grub-bhyve" in domain.bootloader and domain.bootloader_args is None:
        return _grub(domain, device_map)
    if domain.bootloader_args is None:
        reason = "Custom loader requires explicit bootloader_args configuration"
        raise ModelError("/domain/bootloader_args", reason, code=ErrorCode.CONFIG_UNSUPPORTED)
    return [domain.bootloader, *_explicit(domain)]


def _explicit(domain: Domain) -> list[str]:
    return (domain.bootloader_args or "").split(" ")


def _memory(domain: Domain) -> str:
    return str(math.ceil(domain.memory.value / 1024)) if domain.memory is not None else "0"


def _path(disk: Disk) -> str:
    return (disk.source.file if disk.source is not None else None) or ""


def usable_disks(domain: Domain) -> list[Disk]:
    """Disks that a loader can read.

    Raises:
        ModelError: there is none at all.
    """
    if not domain.devices.disks:
        reason = "Domain should have at least one disk defined"
        raise ModelError("/domain/devices", reason, code=ErrorCode.CONFIG_UNSUPPORTED)
    return [
        disk
        for disk in domain.devices.disks
        if disk.device in (DiskDevice.DISK, DiskDevice.CDROM) and disk.type == SourceType.FILE
    ]


def _boot_disk(domain: Domain) -> Disk:
    disks = usable_disks(domain)
    kinds = domain.os.boot if domain.os is not None else []
    ordered = [disk for disk in disks if disk.boot is not None]
    if len(kinds) > 1 or (not kinds and len(ordered) > 1):
        raise ModelError("/domain/os/boot", "Only one boot device is supported", code=ErrorCode.CONFIG_UNSUPPORTED)
    if kinds and kinds[0] not in _KINDS:
        reason = f"Cannot boot from device {kinds[0]}"
        raise ModelError("/domain/os/boot", reason, code=ErrorCode.CONFIG_UNSUPPORTED)
    if kinds:
        disks = [disk for disk in disks if disk.device == _KINDS[kinds[0]]]
    found = ordered[0] if ordered and not kinds else next(iter(disks), None)
    if found is None:
        reason = f"Cannot find boot device of requested type {kinds[0] if kinds else 'hd'}"
        raise ModelError("/domain/os/boot", reason, code=ErrorCode.CONFIG_UNSUPPORTED)
    return found


def _grub_disks(domain: Domain) -> list[Disk]:
    """What GRUB sees: the disk that is to be booted, else the first disk and the first CD."""
    disks = usable_disks(domain)
    ordered = [(disk.boot.order, position) for position, disk in enumerate(disks) if disk.boot is not None]
    if ordered:
        return [disks[min(ordered)[1]]]
    firsts = [
        next((disk for disk in disks if disk.device == kind), None) for kind in (DiskDevice.DISK, DiskDevice.CDROM)
    ]
    return [disk for disk in firsts if disk is not None]


def grub_device_map(domain: Domain) -> str:
    """The text of GRUB's device map.

    Raises:
        ModelError: there is no disk.
    """
    names = {DiskDevice.CDROM: "(cd)"}
    return "".join(f"{names.get(disk.device, '(hd0)')} {_path(disk)}\n" for disk in _grub_disks(domain))


def _grub(domain: Domain, device_map: str) -> list[str]:
    is_cd = any(disk.device == DiskDevice.CDROM for disk in _grub_disks(domain))
    words = [domain.bootloader or "", "--root", "cd" if is_cd else "hd0,msdos1", "--device-map", device_map]
    words += ["--memory", _memory(domain)]
    for serial in domain.devices.serials[:1]:
        source = serial.source
        if serial.type != CharacterType.NMDM or source is None or source.master is None:
            reason = "only nmdm console types are supported"
            raise ModelError(domain.devices.path(serial), reason, code=ErrorCode.CONFIG_UNSUPPORTED)
        words += ["--cons-dev", source.master]
    return [*words, domain.name]

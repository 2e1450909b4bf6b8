"""What can be changed of a device while its machine runs, and the refusal of all else."""

from __future__ import annotations

from typing import Any, Final

from hostel.drivers.fault import fault
from hostel.drivers.qemu.launch import Launcher
from hostel.drivers.qemu.plug.element import Given, find
from hostel.drivers.qemu.plug.interface import change_interface
from hostel.drivers.qemu.plug.medium import change_medium, place_of
from hostel.drivers.qemu.plug.requested import request_memory
from hostel.drivers.qemu.plug.screen import update_screen
from hostel.drivers.qemu.running import Running
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.model.domain.devices.disk import BlockIo, Disk, DiskDriver, Geometry, IoTune
from hostel.model.domain.devices.graphics import Graphics
from hostel.model.domain.devices.interface import Interface
from hostel.model.domain.devices.platform import MemoryDevice
from hostel.model.domain.devices.source import DiskSource

# What is not changed of a disk, by libvirt's words for it, in its order (``qemuDomainDiskChangeSupported``).
_GEOMETRY: Final = {
    "geometry cylinders": "cyls", "geometry heads": "heads", "geometry sectors": "secs",
    "BIOS-translation-modus": "trans",
}  # fmt: skip
_LIMITS: Final = tuple(
    f"{way}_{what}{most}"
    for most in ("", "_max")
    for what in ("bytes_sec", "iops_sec")
    for way in ("total", "read", "write")
)
_DRIVER: Final = {
    "cache": "cache", "error_policy": "error_policy", "rerror_policy": "rerror_policy", "io": "io",
    "ioeventfd": "ioeventfd", "event_idx": "event_idx", "copy_on_read": "copy_on_read",
}  # fmt: skip


def change(machine: Running, given: Given, launcher: Launcher, *, force: bool) -> bool:
    """Make of a device of a running machine what is given; False where none of its kind is changed.

    Raises:
        VirtError: there is no such device, or something else of it would be another.
    """
    match given.device:
        case Disk() as wanted:
            _change_disk(machine, wanted, launcher, force=force)
        case Interface() as wanted:
            held = find(machine.domain, given)
            assert isinstance(held, Interface)
            change_interface(machine, held, wanted, launcher)
        case Graphics() as wanted:
            update_screen(machine, wanted, launcher.settings())
        case MemoryDevice() as wanted:
            request_memory(machine, wanted)
        case _:
            return False
    return True


def _fixed(what: str) -> VirtError:
    return fault(ErrorCode.OPERATION_UNSUPPORTED, what, ErrorDomain.QEMU)


def _change_disk(machine: Running, wanted: Disk, launcher: Launcher, *, force: bool) -> None:
    dev = wanted.target.dev
    disk = next((item for item in machine.domain.devices.disks if item.target.dev == dev), None)
    if disk is None:
        raise fault(ErrorCode.INTERNAL_ERROR, f"disk '{dev}' not found", ErrorDomain.QEMU)
    for what, asked, held in _compared(wanted, disk):
        if asked is not None and asked != held:
            raise _fixed(f"cannot modify field '{what}' of the disk")
    if place_of(wanted) != place_of(disk):
        change_medium(machine, disk, wanted, launcher, force=force)
        disk = next(item for item in machine.domain.devices.disks if item.target.dev == dev)
    if wanted.source is not None and disk.source is not None:
        disk.source.startup_policy = wanted.source.startup_policy
    disk.snapshot = wanted.snapshot
    machine.save()


def _compared(wanted: Disk, disk: Disk) -> list[tuple[str, Any, Any]]:
    """Each thing that stays, with how it is asked for, None where it is not, and how it is."""
    found: list[tuple[str, Any, Any]] = [
        ("device", wanted.device, disk.device),
        ("bus", wanted.target.bus, disk.target.bus),
        ("tray", wanted.target.tray, disk.target.tray or "closed"),
        ("removable", wanted.target.removable, disk.target.removable),
    ]
    shape = disk.geometry or Geometry(cyls=0, heads=0, secs=0)
    found += [(word, getattr(wanted.geometry, name, None), getattr(shape, name)) for word, name in _GEOMETRY.items()]
    sizes, held = wanted.blockio or BlockIo(), disk.blockio or BlockIo()
    for name in ("logical_block_size", "physical_block_size"):
        found.append((f"blockio {name}", getattr(sizes, name) or 0, getattr(held, name) or 0))
    tune, limits = wanted.iotune or IoTune(), disk.iotune or IoTune()
    found += [(f"blkdeviotune {name}", getattr(tune, name) or None, getattr(limits, name)) for name in _LIMITS]
    found.append(("blkdeviotune size_iops_sec", tune.size_iops_sec or None, limits.size_iops_sec))
    found.append(("blkdeviotune group name", tune.group_name, limits.group_name))
    found += [(name, getattr(wanted, name), getattr(disk, name)) for name in ("serial", "wwn", "vendor", "product")]
    driver, old = wanted.driver or DiskDriver(), disk.driver or DiskDriver()
    found += [(word, _said(getattr(driver, name)), _said(getattr(old, name))) for word, name in _DRIVER.items()]
    found += [
        ("transient", wanted.transient is not None or None, disk.transient is not None),
        ("address", wanted.address, disk.address),
        ("boot order", wanted.boot.order if wanted.boot else None, disk.boot.order if disk.boot else None),
        ("rawio", wanted.rawio, disk.rawio),
        ("sgio", wanted.sgio, disk.sgio),
        ("discard", _said(driver.discard), _said(old.discard)),
        ("iothread", driver.iothread, old.iothread),
        ("readonly", wanted.readonly or None, disk.readonly),
        ("shared", wanted.shareable or None, disk.shareable),
    ]
    asked, source = wanted.source or DiskSource(), disk.source or DiskSource()
    found.append(("reservations", asked.reservations or False, source.reservations or False))
    return found


def _said(value: Any) -> Any:
    """A choice, unless it is to choose nothing."""
    return None if value in ("default", False) else value

"""Unplugging: QEMU asks the guest, and the device is gone when the guest has let go of it.

A device that is still there when the wait is over stays in the document, marked as on its way out. Whoever holds the
machine next takes it out of the document when QEMU no longer has it.
"""

from __future__ import annotations

import time
from typing import Final

from hostel.drivers.fault import fault
from hostel.drivers.qemu import transient
from hostel.drivers.qemu.block.jobs import check_without_job
from hostel.drivers.qemu.command.context import alias_of
from hostel.drivers.qemu.helper.virtiofs import is_virtiofs
from hostel.drivers.qemu.lockmanager import holding
from hostel.drivers.qemu.machines import failed
from hostel.drivers.qemu.plug import reservations
from hostel.drivers.qemu.plug.element import LASTING_LIVE, Given, by_alias, find, not_done, remove
from hostel.drivers.qemu.plug.graph import sweep_backends, sweep_nodes
from hostel.drivers.qemu.plug.matching import matching
from hostel.drivers.qemu.running import Running
from hostel.drivers.qemu.status import Plug
from hostel.errors import ErrorCode, ErrorDomain, QmpError, VirtError
from hostel.model.domain.devices.address import DriveAddress, PciAddress
from hostel.model.domain.devices.character import CharacterBackend
from hostel.model.domain.devices.controller import Controller, ControllerType
from hostel.model.domain.devices.device import Device
from hostel.model.domain.devices.disk import Disk, DiskBus, DiskDevice
from hostel.model.domain.devices.filesystem import Filesystem
from hostel.model.domain.devices.hostdev import Hostdev, ScsiHostdev
from hostel.model.domain.devices.input import Input
from hostel.model.domain.devices.interface import Interface
from hostel.model.domain.devices.paravirtual import Rng, SharedMemory
from hostel.model.domain.devices.platform import MemoryDevice, Watchdog
from hostel.model.domain.domain import Domain
from hostel.model.domain.implicit import find_controller

_GUEST_SECONDS: Final = 5.0
_NODE_SECONDS: Final = 2.0
_HOT: Final = (DiskBus.VIRTIO, DiskBus.SCSI, DiskBus.USB)


def meant(domain: Domain, given: Given) -> Device:
    """Which device of a running machine is to go.

    Raises:
        VirtError: it is not there, or none of its kind goes.
    """
    if given.kind in LASTING_LIVE:
        raise not_done("live detach", given)
    device = given.device
    if isinstance(device, Watchdog) and domain.devices.watchdogs and not matching(domain, given):
        what = f"model '{domain.devices.watchdogs[0].model}' watchdog device not present in domain configuration"
        raise fault(ErrorCode.DEVICE_MISSING, f"device not found: {what}", ErrorDomain.QEMU)
    return find(domain, given)


def plug_out(machine: Running, device: Device, *, wait: bool = True) -> bool:
    """Ask the guest to let go of a device; returns whether it is gone.

    Args:
        machine: the machine.
        device: one of its live document.
        wait: give the guest five seconds.

    Raises:
        VirtError: it cannot be taken out, or QEMU or the guest refused.
    """
    _check(machine, device)
    alias = alias_of(device)
    if all(plug.alias != alias for plug in machine.status.plugs):
        machine.save(plugs=(*machine.status.plugs, Plug(way="out", alias=alias)))
    try:
        machine.qmp.execute("device_del", id=alias)
    except QmpError as error:
        if error.error_class == "DeviceNotFound":
            gone(machine, alias)
            return True
        if error.error_class != "Timeout" and "already in the process of unplug" not in error.desc:
            machine.save(plugs=_others(machine, alias))
        raise machine.translated(error, "device_del") from error
    if not wait or not _wait(machine, alias):
        return False
    gone(machine, alias)
    return True


def _wait(machine: Running, alias: str) -> bool:
    deadline = time.monotonic() + _GUEST_SECONDS
    while (left := deadline - time.monotonic()) > 0:
        event = machine.qmp.wait(left, "DEVICE_DELETED", "DEVICE_UNPLUG_GUEST_ERROR", "MEM_UNPLUG_ERROR")
        if event is None:
            return False
        if event["data"].get("device") != alias:
            continue
        if event["event"] == "DEVICE_DELETED":
            return True
        machine.save(plugs=_others(machine, alias))
        machine.publish("device-removal-failed", alias=alias)
        raise failed(f"unplug of device was rejected by the guest: {alias}")
    return False


def gone(machine: Running, alias: str) -> None:
    """Write down that QEMU no longer has a device, and remove what served it."""
    device = by_alias(machine.domain, alias)
    if isinstance(device, Interface):
        machine.attempt("netdev_del", id=f"host{alias}")
        machine.release(device)
    if device is not None:
        remove(machine.domain, device)
    # What is left to do after this is done by whoever finds the mark, and cannot tell what kind of device it was.
    machine.save()
    take_away(machine, alias, device)
    if device is None or isinstance(device, Disk):
        sweep_nodes(machine, patience=_NODE_SECONDS)
        reservations.sweep(machine)
        transient.sweep(machine)
        holding.settle(machine)
    if device is None or isinstance(device, ScsiHostdev):
        sweep_backends(machine, patience=_NODE_SECONDS)
    if device is None or isinstance(device, Hostdev | Interface | Disk):
        machine.give_back()
    machine.save(plugs=_others(machine, alias))
    machine.publish("device-removed", alias=alias)


# What QEMU has for a device besides it, by the commands that take it away; each is one kind's own.
_BESIDE: Final[tuple[tuple[str, str, tuple[type[Device], ...]], ...]] = (
    ("object-del", "obj{}", (Rng,)),
    ("object-del", "mem{}", (MemoryDevice,)),
    ("chardev-remove", "char{}", (CharacterBackend, SharedMemory, Rng, Interface)),
    ("object-del", "objchar{}_tls0", (CharacterBackend, Rng)),
    ("object-del", "objchar{}_tls0-secret0", (CharacterBackend, Rng)),
    ("object-del", "shmmem-{}", (SharedMemory,)),
    ("chardev-remove", "chr-vu-{}", (Filesystem,)),
)


def take_away(machine: Running, alias: str, device: Device | None) -> None:
    """Remove what served a device that QEMU does not have any more, or never had; None stands for any kind."""
    if device is None:
        machine.attempt("netdev_del", id=f"host{alias}")
    for command, name, kinds in _BESIDE:
        if device is None or isinstance(device, kinds):
            machine.attempt(command, id=name.format(alias))


def _others(machine: Running, alias: str) -> tuple[Plug, ...]:
    return tuple(plug for plug in machine.status.plugs if plug.alias != alias)


def _check(machine: Running, device: Device) -> None:
    domain = machine.domain
    match device:
        case Disk():
            _check_disk(machine, device)
        case Controller():
            if device.type != ControllerType.SCSI:
                raise _not_hot(f"'{device.type}' controller cannot be hot unplugged.")
            if _is_busy(domain, device):
                raise failed("device cannot be detached: device is busy")
        case Input():
            if device.bus not in ("usb", "virtio"):
                raise _not_hot(f"input device on bus '{device.bus}' cannot be detached")
        case Watchdog() if device.model != "i6300esb":
            raise _not_hot(f"hot unplug of watchdog of model {device.model} is not supported")
        case SharedMemory() if device.model == "ivshmem":
            raise _not_hot(f"live detach of shmem model '{device.model}' is not supported")
        case Filesystem() if not is_virtiofs(device):
            raise _not_hot("only virtiofs filesystems can be hotplugged")
        case _ if device.TAG in LASTING_LIVE:
            raise _not_hot(f"live detach of device '{device.TAG}' is not supported")
        case _:
            pass
    address = device.address
    if not isinstance(address, PciAddress):
        return
    where = "{:04x}:{:02x}:{:02x}.{}".format(*address.place)
    if address.multifunction or address.function:
        raise failed(f"cannot hot unplug {device.TAG} device with multifunction PCI guest address: {where}")
    bus = find_controller(domain, ControllerType.PCI, address.bus)
    if bus is not None and bus.target is not None and bus.target.hotplug is False:
        raise failed(
            f"cannot hot unplug {device.TAG} device with PCI guest address: {where} - not allowed by controller"
        )
    if bus is not None and bus.model == "pcie-root":
        raise failed(
            f"cannot hot unplug {device.TAG} device with PCI guest address: {where} - "
            "it is on the root bus, which takes nothing out while the machine runs"
        )


def _check_disk(machine: Running, disk: Disk) -> None:
    is_removable = disk.device in (DiskDevice.CDROM, DiskDevice.FLOPPY)
    if is_removable and not (disk.device == DiskDevice.CDROM and disk.target.bus in (DiskBus.USB, DiskBus.SCSI)):
        raise _not_hot(f"disk device type '{disk.device}' cannot be detached")
    if disk.target.bus not in _HOT:
        raise _not_hot("This type of disk cannot be hot unplugged")
    check_without_job(machine, disk)


def _is_busy(domain: Domain, controller: Controller) -> bool:
    disks: list[Device] = [item for item in domain.devices.disks if item.target.bus == DiskBus.SCSI]
    disks += [item for item in domain.devices.hostdevs if isinstance(item, ScsiHostdev)]
    return any(isinstance(it.address, DriveAddress) and it.address.controller == controller.index for it in disks)


def _not_hot(message: str) -> VirtError:
    return fault(ErrorCode.OPERATION_UNSUPPORTED, message, ErrorDomain.QEMU)

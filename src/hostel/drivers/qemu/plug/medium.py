"""Media: another one into a drive, or none.

The nodes of the new medium are there before the tray opens, and those of the old one until it is closed again, so that
at each moment one of both can be in. The mark says what the drive will be; whoever finds it asks QEMU which of both is
in the drive.
"""

from __future__ import annotations

import time
from typing import Any, Final

from hostel.drivers.fault import fault
from hostel.drivers.qemu.command import disk as block
from hostel.drivers.qemu.command.context import alias_of
from hostel.drivers.qemu.document import unsupported
from hostel.drivers.qemu.hostdevs import is_nvme
from hostel.drivers.qemu.launch import Launcher
from hostel.drivers.qemu.lockmanager import holding
from hostel.drivers.qemu.machines import failed
from hostel.drivers.qemu.plug.graph import add_nodes, device_of, sweep_nodes
from hostel.drivers.qemu.running import Running
from hostel.drivers.qemu.status import Plug
from hostel.errors import ErrorCode, ErrorDomain
from hostel.model.domain.devices.disk import Disk, DiskDevice, DiskDriver
from hostel.model.domain.devices.source import SourceType
from hostel.model.domain.rules.disk import is_empty

_TRAY_SECONDS: Final = 5.0


def place_of(disk: Disk) -> tuple[Any, ...] | None:
    """Where a disk's data is, in a form that can be compared; None while it is empty."""
    if is_empty(disk) or disk.source is None:
        return None
    source = disk.source
    if source.pool is not None and source.volume is not None:
        return SourceType.VOLUME, source.pool, source.volume
    hosts = tuple((host.name, host.port, host.socket) for host in source.hosts)
    where = source.file, source.dev, source.protocol, source.name, hosts
    return disk.type, *where, source.address, source.namespace


def change_medium(machine: Running, disk: Disk, wanted: Disk, launcher: Launcher, *, force: bool) -> None:
    """Put what ``wanted`` describes into the drive ``disk`` of the live document, or take out what is in.

    Raises:
        VirtError: the guest holds the tray, or the medium cannot be used; the old one is in then.
    """
    if disk.device not in (DiskDevice.CDROM, DiskDevice.FLOPPY):
        what = "disk source can be changed only in removable drives"
        raise fault(ErrorCode.CONFIG_UNSUPPORTED, what, ErrorDomain.QEMU)
    if any(job.disk == disk.target.dev for job in machine.status.jobs):
        what = "can't change media while a block job is running on the device"
        raise fault(ErrorCode.OPERATION_UNSUPPORTED, what, ErrorDomain.QEMU)
    if is_nvme(wanted):
        raise unsupported(f"disk '{disk.target.dev}': an NVMe disk of the host is no medium; plug it in as a disk")
    after = disk.copy()
    after.type, after.source, after.backing_store = wanted.type, _copy(wanted), None
    after.target.tray = None
    if wanted.driver is not None and wanted.driver.type is not None:
        after.driver = after.driver or DiskDriver()
        after.driver.type = wanted.driver.type
    if after.source is not None and after.driver is not None and after.type != SourceType.VOLUME:
        after.driver.type = after.driver.type or "raw"
    launcher.prepare(after)
    last = block.number_images([after], machine.status.nodes)
    machine.save(plugs=(*machine.status.plugs, Plug(way="medium", alias=alias_of(disk), disk=after)), nodes=last)
    try:
        _open(machine, after)
        _open_tray(machine, disk, force=force)
        _exchange(machine, disk, after)
    except BaseException:
        settle(machine, alias_of(disk))
        raise
    settle(machine, alias_of(disk))


def _open(machine: Running, after: Disk) -> None:
    """Add what opens the new medium, and its nodes."""
    holding.hold_if_running(machine)
    with machine.supplied(after):
        add_nodes(machine, block.nodes(after))


def _copy(disk: Disk) -> Any:
    return None if disk.source is None or is_empty(disk) else disk.source.copy()


def _open_tray(machine: Running, disk: Disk, *, force: bool) -> None:
    if _drive(machine, alias_of(disk)).get("tray_open"):
        return
    machine.ask("blockdev-open-tray", id=block.drive_id(disk), force=force)
    deadline = time.monotonic() + _TRAY_SECONDS
    while _drive(machine, alias_of(disk)).get("tray_open") is False:
        left = deadline - time.monotonic()
        if left <= 0 or machine.qmp.wait(left, "DEVICE_TRAY_MOVED") is None:
            raise failed(
                f"the guest does not open the tray of disk '{disk.target.dev}' within {_TRAY_SECONDS:.0f} seconds; "
                "eject it in the guest, or change the medium with --force"
            )


def _exchange(machine: Running, disk: Disk, after: Disk) -> None:
    name = block.drive_id(disk)
    machine.ask("blockdev-remove-medium", id=name)
    top = block.top_node(after)
    if top is not None:
        machine.ask("blockdev-insert-medium", id=name, **{"node-name": top})
        if disk.iotune is not None:
            machine.ask("block_set_io_throttle", **block.throttle(disk))
    machine.ask("blockdev-close-tray", id=name)


def _drive(machine: Running, alias: str) -> dict[str, Any]:
    """What QEMU says of a drive."""
    for found in machine.ask("query-block"):
        if device_of(found) == alias:
            return dict(found)
    raise failed(f"QEMU has no drive '{alias}'")


def settle(machine: Running, alias: str) -> None:
    """Bring document and drive together after a change of medium that was finished, refused, or cut off."""
    plug = next(item for item in machine.status.plugs if item.alias == alias)
    disk = next((item for item in machine.domain.devices.disks if item.alias == alias), None)
    if disk is not None and plug.disk is not None:
        name = block.drive_id(disk)
        inside = _drive(machine, alias).get("inserted", {}).get("node-name")
        if inside is None and block.top_node(plug.disk) is not None:
            inside = block.top_node(disk)
            if inside is not None:
                machine.attempt("blockdev-open-tray", id=name, force=True)
                machine.attempt("blockdev-insert-medium", id=name, **{"node-name": inside})
        machine.attempt("blockdev-close-tray", id=name)
        if inside == block.top_node(plug.disk):
            disks = machine.domain.devices.disks
            disks[:] = [plug.disk if item is disk else item for item in disks]
            others = tuple(item for item in machine.status.ejected if not item.startswith(f"{alias}="))
            is_out = is_empty(plug.disk)
            machine.save(ejected=(*others, f"{alias}={machine.status.nodes}") if is_out else others)
    sweep_nodes(machine, settled=[alias])
    machine.save(plugs=tuple(item for item in machine.status.plugs if item.alias != alias))
    holding.settle(machine)

"""The helper for persistent reservations, where a disk that comes into a running machine is the first that needs it."""

from __future__ import annotations

from hostel.drivers.qemu.command.objects import reservation_helper
from hostel.drivers.qemu.command.protocol import SHARED_HELPER
from hostel.drivers.qemu.helper import attached
from hostel.drivers.qemu.helper.reservations import SOCKET, are_managed, is_managed
from hostel.drivers.qemu.launch import Launcher
from hostel.drivers.qemu.running import Running
from hostel.model.domain.devices.disk import Disk
from hostel.model.domain.domain import Domain


def serve(machine: Running, after: Domain, disk: Disk, launcher: Launcher) -> None:
    """Have the helper there that a disk needs, and QEMU know it; ``after`` is the document with the disk.

    Raises:
        VirtError: there is no such program, we may not run it, or it does not get ready; or QEMU refuses.
    """
    if not is_managed(disk) or _knows(machine):
        return
    taken = None
    if not (machine.run / SOCKET).exists():
        taken = launcher.helpers.serve_reservations(after, machine.status)
    machine.ask("object-add", **reservation_helper(machine.run))
    if taken is not None:
        taken.touch()


def sweep(machine: Running) -> None:
    """Let the helper go once no disk needs it; one that was there before QEMU ends with it."""
    coming = any(plug.disk is not None and is_managed(plug.disk) for plug in machine.status.plugs)
    if coming or are_managed(machine.domain) or not _knows(machine):
        return
    if machine.attempt("object-del", id=SHARED_HELPER) is not None:  # else whoever comes next tries again
        attached.end(machine.run / SOCKET)


def _knows(machine: Running) -> bool:
    return any(item["name"] == SHARED_HELPER for item in machine.attempt("qom-list", path="/objects") or [])

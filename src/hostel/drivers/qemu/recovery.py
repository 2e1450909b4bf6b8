"""What earlier operations left: devices on their way, block jobs that have ended; put right by whoever comes next."""

from __future__ import annotations

from hostel.drivers.qemu import transient
from hostel.drivers.qemu.blockjob import settle_jobs
from hostel.drivers.qemu.dumping import settle_dump
from hostel.drivers.qemu.lease import is_leased
from hostel.drivers.qemu.lockmanager import holding
from hostel.drivers.qemu.migration.settling import settle_migration
from hostel.drivers.qemu.plug import reservations
from hostel.drivers.qemu.plug.element import by_alias, remove
from hostel.drivers.qemu.plug.graph import sweep_backends, sweep_nodes
from hostel.drivers.qemu.plug.inward import let_go
from hostel.drivers.qemu.plug.medium import settle
from hostel.drivers.qemu.plug.outward import gone, take_away
from hostel.drivers.qemu.running import Running
from hostel.drivers.qemu.saving import SAVING, settle_save
from hostel.drivers.qemu.snapshot.overlay import settle_overlays
from hostel.drivers.qemu.snapshot.revert import stop
from hostel.drivers.qemu.status import MERGING
from hostel.model.domain.devices.interface import Interface


def recover(machine: Running) -> None:
    """Bring a live document into line with its QEMU, and QEMU into line with the document.

    Raises:
        VirtError: QEMU does not answer.
    """
    if machine.status.ending.startswith(SAVING):
        settle_save(machine)
        if machine.is_gone:
            return
    if machine.status.migration is not None and not is_leased(machine.lease):
        settle_migration(machine)
        if machine.is_gone:
            return
    if machine.status.dump:
        settle_dump(machine)
    if machine.status.ending == MERGING:
        stop(machine)
        return
    if machine.status.plugs:
        _settle_plugs(machine)
    if any(plug.way == "overlay" for plug in machine.status.plugs):
        settle_overlays(machine)  # the marks stay for the snapshot that they are part of
    if machine.status.jobs or machine.status.backup is not None:
        settle_jobs(machine)
    holding.settle(machine)


def _settle_plugs(machine: Running) -> None:
    """For each device on its way ask QEMU whether it has it; secrets that it was to read are read, or never will be."""
    for path in machine.run.glob("*.secret"):
        path.unlink(missing_ok=True)
    there = {str(item["name"]) for item in machine.ask("qom-list", path="/machine/peripheral")}
    for plug in machine.status.plugs:
        if plug.way == "overlay":
            continue  # below, all at once
        if plug.way == "medium":
            settle(machine, plug.alias)
        elif plug.way == "in":
            device = by_alias(machine.domain, plug.alias)
            if plug.alias not in there and device is not None:
                take_away(machine, plug.alias, None)
                if isinstance(device, Interface):
                    let_go(machine, device)
                remove(machine.domain, device)
            sweep_nodes(machine)
            reservations.sweep(machine)
            transient.sweep(machine)
            sweep_backends(machine)
            machine.give_back()
            machine.save(plugs=tuple(item for item in machine.status.plugs if item.alias != plug.alias))
            if plug.alias in there:
                machine.publish("device-added", alias=plug.alias)
        elif plug.alias not in there:
            gone(machine, plug.alias)

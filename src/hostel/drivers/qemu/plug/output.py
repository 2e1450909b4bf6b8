"""Descriptors that a device which is about to be plugged in writes to, in place of files."""

from __future__ import annotations

from collections.abc import Mapping

from hostel.drivers.qemu.command.context import Output
from hostel.drivers.qemu.output.sinks import SETS, Sinks, replaces_files
from hostel.drivers.qemu.running import Running
from hostel.errors import QmpError
from hostel.model.domain.devices.character import CharacterEnd
from hostel.model.domain.devices.device import Device


def give(machine: Running, device: Device) -> dict[str, Output]:
    """Open what the device writes to, and give it to QEMU; nothing where QEMU opens files itself.

    QEMU forgets what no device has taken when we hang up.

    Raises:
        VirtError: something cannot be opened, or QEMU refused.
    """
    if not isinstance(device, CharacterEnd) or not replaces_files(machine.status.stdio):
        return {}
    with Sinks(machine.status.stdio, machine.machines.directories, machine.domain, machine.run) as sinks:
        used = [entry["fdset-id"] for entry in machine.ask("query-fdsets")]
        found = sinks.characters(max([SETS - 1, *used]) + 1, device)
        sinks.begin()
        try:
            for name, item in found.items():
                machine.qmp.execute("add-fd", [item.file or -1], **{"fdset-id": item.set, "opaque": name})
        except QmpError as error:
            take_back(machine, found)
            raise machine.translated(error, "add-fd") from error
    return {name: item._replace(file=None) for name, item in found.items()}


def take_back(machine: Running, given: Mapping[str, Output]) -> None:
    """Have QEMU forget what a device that did not come into the machine would have written to."""
    for item in given.values():
        machine.attempt("remove-fd", **{"fdset-id": item.set})

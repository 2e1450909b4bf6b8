"""How the last job of a domain went, for who asks later (``virsh domjobinfo --completed``)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hostel.drivers.qemu.machines import Machines
    from hostel.drivers.qemu.running import Running


def keep(machine: Running, told: Mapping[str, int]) -> None:
    """Remember how a job of a machine went."""
    machine.machines.completed.write(machine.name, json.dumps(dict(told)))


def completed(machines: Machines, name: str, *, stays: bool) -> dict[str, int]:
    """How the last job of a domain went, which is told once unless it ``stays``; empty where nobody knows."""
    try:
        told = json.loads(machines.completed.read(name) or "{}")
        found = {str(key): int(value) for key, value in told.items()}
    except (ValueError, TypeError, AttributeError):
        found = {}
    if not stays:
        machines.completed.remove(name)
    return found

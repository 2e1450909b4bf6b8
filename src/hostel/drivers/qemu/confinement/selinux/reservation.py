"""Which machine has which categories: no two of a host have the same."""

from __future__ import annotations

from hostel.drivers.qemu.confinement.selinux import kernel
from hostel.drivers.qemu.confinement.selinux.context import Categories, choose_range
from hostel.drivers.qemu.machines import Machines


def reserve(machines: Machines, name: str, allowed: Categories) -> str:
    """A range that no other machine of this session has, nor any process of the host.

    The caller holds the machine's lock. What was written down for one that did not come up is taken away here.

    Raises:
        ValueError: all are taken.
    """
    store = machines.ranges
    with store.locked():
        taken = kernel.ranges_in_use()
        for other in store.names():
            if not machines.statuses.has(other) and not machines.is_held(other):
                store.remove(other)
            elif other != name:
                taken.add((store.read(other) or "").strip())
        found = choose_range(allowed, taken)
        store.write(name, found)
    return found


def release(machines: Machines, name: str) -> None:
    """Let others have a machine's range, which is no more."""
    machines.ranges.remove(name)

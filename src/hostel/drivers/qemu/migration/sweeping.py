"""Finding the migrations that processes have left that died since; what settles them is loaded where there are any."""

from __future__ import annotations

import contextlib
from typing import Final

from hostel.drivers.qemu import lease
from hostel.drivers.qemu.machines import Machines
from hostel.errors import VirtError

_SECONDS: Final = 1.0  # that one domain is waited for
_MARK: Final = "<migration "


def sweep(machines: Machines) -> None:
    """Settle what processes have left that died since: of what was expected, and of what runs."""
    for name in machines.incoming.names():
        if not lease.is_leased(machines.lease(name)):
            from hostel.drivers.qemu.migration.settling import forget_expected

            with contextlib.suppress(VirtError), machines.locked(name, _SECONDS):
                forget_expected(machines, name)
    for name in machines.statuses.names():
        with contextlib.suppress(VirtError):
            if _MARK in (machines.statuses.read(name) or "") and not lease.is_leased(machines.lease(name)):
                from hostel.drivers.qemu.migration.settling import settle_left

                with machines.locked(name, _SECONDS):
                    settle_left(machines, name)

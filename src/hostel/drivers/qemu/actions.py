"""What follows when a guest ends by itself: QEMU does it, or stops the machine for whoever looks next to do it.

QEMU alone ends or resets a machine whose guest reboots, and ends one whose guest has powered off or crashed. For all
else it stops; then whoever asks for the machine's state goes on from there (:mod:`hostel.drivers.qemu.lifecycle`).
Where a document needs that, a process is there that asks at once (:mod:`hostel.drivers.qemu.keeper`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hostel.errors import QmpError
from hostel.model.domain.domain import Domain

if TYPE_CHECKING:
    from hostel.drivers.qemu.monitor import Monitor

KEPT: Final = ("restart", "coredump-destroy", "coredump-restart")  # what QEMU does not do of a crash
POWERED_OFF: Final = "shutdown"  # QEMU's states
PANICKED: Final = "guest-panicked"


def apply(domain: Domain, qmp: Monitor) -> None:
    """Tell QEMU what it does by itself.

    Raises:
        QmpError: it cannot.
    """
    actions = {
        "shutdown": "pause" if domain.on_poweroff == "restart" else "poweroff",
        "reboot": "shutdown" if domain.on_reboot == "destroy" else "reset",
    }
    if domain.on_crash not in (None, "destroy"):
        qmp.execute("set-action", panic="pause", **actions)
        return
    try:
        qmp.execute("set-action", panic="exit-failure", **actions)
    except QmpError as error:
        # Before 7.1 it ends as if the guest had powered off; before 6.0 it cannot be told, and does so too.
        if error.error_class != "CommandNotFound" or needs_keeper(domain):
            qmp.execute("set-action", panic="shutdown", **actions)


def needs_keeper(domain: Domain) -> bool:
    """Whether something follows that QEMU does not do by itself."""
    return domain.on_poweroff == "restart" or domain.on_crash in KEPT

"""What comes after what: snapshots and checkpoints of a domain that are defined again."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from hostel.drivers.fault import fault
from hostel.errors import ErrorCode, ErrorDomain
from hostel.model.moment import MomentParent


def check_parent(
    name: str, parent: MomentParent | None, names: Iterable[str], descendants: Callable[[str], Iterable[str]]
) -> None:
    """Refuse one that comes after itself, or after one that there is not (``virDomainMomentCheckCycles``).

    Args:
        name: its name.
        parent: the one before.
        names: those that there are.
        descendants: gives those after one, and after these.

    Raises:
        VirtError: ``INVALID_ARG``.
    """
    if parent is None:
        return
    reason = None
    if parent.name == name:
        reason = f"cannot set moment {name} as its own parent"
    elif parent.name not in names:
        reason = f"parent {parent.name} for moment {name} not found"
    elif parent.name in descendants(name):
        reason = f"parent {parent.name} would create cycle to {name}"
    if reason is not None:
        raise fault(ErrorCode.INVALID_ARG, reason, ErrorDomain.DOMAIN)

"""What follows when a guest ends by itself, as a document says it."""

from __future__ import annotations

from hostel.drivers.base.dumping import ACTIONS, LIFECYCLES
from hostel.drivers.fault import fault
from hostel.errors import ErrorCode, ErrorDomain
from hostel.model.domain.domain import Domain


def check_lifecycle(type: int, action: int) -> None:
    """Refuse what there is not.

    Raises:
        VirtError: ``INVALID_ARG``, or ``CONFIG_UNSUPPORTED``: only a crash can be dumped.
    """
    for value, names, what in ((type, LIFECYCLES, "type"), (action, ACTIONS, "action")):
        if not 0 <= value < len(names):
            raise fault(ErrorCode.INVALID_ARG, f"invalid lifecycle {what} '{value}'", ErrorDomain.DOMAIN)
    if ACTIONS[action].startswith("coredump") and LIFECYCLES[type] != "crash":
        reason = f"Lifecycle event '{LIFECYCLES[type]}' doesn't support '{ACTIONS[action]}' action"
        raise fault(ErrorCode.CONFIG_UNSUPPORTED, reason, ErrorDomain.DOMAIN)


def set_action(domain: Domain, type: int, action: int) -> None:
    """Write it into the document; both have been checked."""
    setattr(domain, f"on_{LIFECYCLES[type]}", ACTIONS[action])

"""Calls that hand over descriptors: ways to the screens of machines, and open files for their disks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from hostel.daemon.access import api_name
from hostel.daemon.machine import domain_of, driver_of
from hostel.drivers.adapters import check_flags
from hostel.drivers.fault import fault
from hostel.errors import ErrorCode
from hostel.wire.rpc.connection import Call, Handed

if TYPE_CHECKING:
    from hostel.daemon.client import Client

_LABELS: Final = 1 | 2  # VIR_DOMAIN_FD_ASSOCIATE_SECLABEL_RESTORE, _WRITABLE: there are no labels here
_SKIP_AUTH: Final = 1  # VIR_DOMAIN_OPEN_GRAPHICS_SKIPAUTH


def _open(client: Client, call: Call) -> Sequence[Any]:
    domain, number, flags = call.arguments
    check_flags(flags, _SKIP_AUTH, api_name(call.procedure.name))
    driver: Any = driver_of(client, call, "domain_open_graphics")
    if len(call.fds) != 1:
        raise fault(ErrorCode.INVALID_ARG, f"one descriptor of a socket is needed, not {len(call.fds)}")
    driver.domain_open_graphics(domain_of(domain), number, call.fds[0], skip_auth=bool(flags & _SKIP_AUTH))
    return ()


def _open_fd(client: Client, call: Call) -> Sequence[Any]:
    domain, number, flags = call.arguments
    check_flags(flags, _SKIP_AUTH, api_name(call.procedure.name))
    driver: Any = driver_of(client, call, "domain_open_graphics_fd")
    descriptor = driver.domain_open_graphics_fd(domain_of(domain), number, skip_auth=bool(flags & _SKIP_AUTH))
    return Handed((), (descriptor,))


def _associate(client: Client, call: Call) -> Sequence[Any]:
    domain, name, flags = call.arguments
    check_flags(flags, _LABELS, api_name(call.procedure.name))
    driver: Any = driver_of(client, call, "domain_fd_associate")
    driver.domain_fd_associate(domain_of(domain), name, call.fds)
    return ()


ANSWERS: Final[dict[str, Callable[[Client, Call], Sequence[Any]]]] = {
    "domain_fd_associate": _associate,
    "domain_open_graphics": _open,
    "domain_open_graphics_fd": _open_fd,
}

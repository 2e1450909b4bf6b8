"""Calls about the inside of guests, whose answers are shaped otherwise than the driver's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from hostel.daemon.access import api_name
from hostel.daemon.machine import domain_of, driver_of
from hostel.drivers.adapters import check_flags, typed_value
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.wire.rpc.connection import Call

if TYPE_CHECKING:
    from hostel.daemon.client import Client

_INT, _UINT = 1, 2  # of virTypedParameterType
_MOST_FILESYSTEMS, _MOST_PARAMETERS = 256, 2048  # of one answer
_SMALL: Final = (".count", ".prefix")


def _filesystems(client: Client, call: Call) -> Sequence[Any]:
    domain, flags = call.arguments
    check_flags(flags, 0, api_name(call.procedure.name))
    driver: Any = driver_of(client, call, "domain_get_fsinfo")
    found = driver.domain_get_fsinfo(domain_of(domain))
    if len(found) > _MOST_FILESYSTEMS:
        what = f"Too many mountpoints in fsinfo: {len(found)} for limit {_MOST_FILESYSTEMS}"
        raise VirtError(ErrorCode.RPC, what, domain=ErrorDomain.RPC)
    return [tuple(each) for each in found], len(found)


def _guest_info(client: Client, call: Call) -> Sequence[Any]:
    domain, types, flags = call.arguments
    check_flags(flags, 0, api_name(call.procedure.name))
    driver: Any = driver_of(client, call, "domain_get_guest_info")
    found = driver.domain_get_guest_info(domain_of(domain), types)
    if len(found) > _MOST_PARAMETERS:
        what = f"too many parameters '{len(found)}' for limit '{_MOST_PARAMETERS}'"
        raise VirtError(ErrorCode.RPC, what, domain=ErrorDomain.RPC)
    return ([(name, _typed(name, value)) for name, value in found.items()],)


def _typed(name: str, value: Any) -> tuple[int, Any]:
    if name.endswith(_SMALL):
        return _UINT, value
    return (_INT, value) if name == "timezone.offset" else typed_value(value)


ANSWERS: Final[dict[str, Callable[[Client, Call], Sequence[Any]]]] = {
    "domain_get_fsinfo": _filesystems,
    "domain_get_guest_info": _guest_info,
}

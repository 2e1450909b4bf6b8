"""Calls about the connection itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from hostel.drivers.adapters import uuid_text
from hostel.drivers.base.counting import CountingDriver
from hostel.drivers.base.domain import Affect
from hostel.drivers.base.machine import VcpuFlag
from hostel.drivers.base.migration import FEATURES as MIGRATION_FEATURES
from hostel.drivers.base.migration import MigrationDriver
from hostel.drivers.fault import fault
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.wire.rpc.connection import Call

if TYPE_CHECKING:
    from hostel.daemon.client import Client

_READ_ONLY: Final = 1  # VIR_CONNECT_RO

# virDrvFeature: those that a daemon has whatever its drivers are.
_DESCRIPTORS, _TEXT_PARAMETERS, _KEEPALIVE, _EVENTS, _CLOSE_EVENTS, _UPDATE_ORDER = 8, 9, 10, 14, 15, 16
_FEATURES: Final = frozenset({_DESCRIPTORS, _TEXT_PARAMETERS, _KEEPALIVE, _EVENTS, _CLOSE_EVENTS, _UPDATE_ORDER})


def _supports_feature(client: Client, call: Call) -> Sequence[Any]:
    (feature,) = call.arguments
    if feature == _KEEPALIVE:
        client.start_keepalive()
    driver = client.host.drivers.hypervisor if client.host is not None else None
    can_move = feature in MIGRATION_FEATURES and isinstance(driver, MigrationDriver)
    return (int(feature in _FEATURES or can_move),)


def _open(client: Client, call: Call) -> Sequence[Any] | None:
    name, flags = call.arguments
    # Other flags are the client library's own, which its remote driver passes on as they are.
    if client.host is not None:
        raise VirtError(ErrorCode.INTERNAL_ERROR, "internal error: connection already open", domain=ErrorDomain.RPC)
    client.read_only = client.read_only or bool(flags & _READ_ONLY)
    hosts = client.daemon.hosts
    found = hosts.find(name)
    if found is not None:
        client.opened(*found)
        return ()

    def work() -> None:
        try:
            uri, host = hosts.acquire(name)
        except Exception as error:
            client.refused(call, error)
            return
        client.daemon.reactor.call_soon(lambda: _opened(client, call, uri, host))

    client.daemon.workers.submit(work)
    return None


def _opened(client: Client, call: Call, uri: str, host: Any) -> None:
    if client.channel.is_closed or client.host is not None:
        client.daemon.workers.submit(lambda: client.daemon.hosts.release(host))
        return
    client.opened(uri, host)
    client.accepted(call)


def _close(client: Client, call: Call) -> Sequence[Any]:
    # The client hangs up next; what it has opened is let go then, when nothing of it is worked on any more.
    return ()


def _is_active(client: Client, call: Call) -> Sequence[Any]:
    assert client.host is not None
    driver = client.host.drivers.hypervisor
    return (int(driver.domain_lookup_by_uuid(uuid_text(call.arguments[0].uuid)).id != -1),)


def _max_memory(client: Client, call: Call) -> Sequence[Any]:
    assert client.host is not None
    driver = client.host.drivers.hypervisor
    ref = driver.domain_lookup_by_uuid(uuid_text(call.arguments[0].uuid))
    return (driver.domain_get_info(ref).max_memory,)


def _max_vcpus(client: Client, call: Call) -> Sequence[Any]:
    assert client.host is not None
    driver = client.host.drivers.hypervisor
    ref = driver.domain_lookup_by_uuid(uuid_text(call.arguments[0].uuid))
    if ref.id == -1:
        raise fault(ErrorCode.OPERATION_INVALID, "domain is not running", ErrorDomain.DOMAIN)
    if isinstance(driver, CountingDriver):
        return (driver.domain_get_vcpus_flags(ref, Affect.LIVE, VcpuFlag.MAXIMUM),)
    return (driver.domain_get_info(ref).vcpus,)


def _never_updated(client: Client, call: Call) -> Sequence[Any]:
    return (0,)


ANSWERS: Final[dict[str, Callable[[Client, Call], Sequence[Any] | None]]] = {
    "connect_open": _open,
    "connect_close": _close,
    "connect_supports_feature": _supports_feature,
    "connect_get_uri": lambda client, call: (client.uri,),
    "connect_is_secure": lambda client, call: (int(client.daemon.is_local(client)),),
    "connect_register_close_callback": lambda client, call: (),
    "connect_unregister_close_callback": lambda client, call: (),
    "domain_is_active": _is_active,
    "domain_get_max_memory": _max_memory,
    "domain_get_max_vcpus": _max_vcpus,
    "domain_is_updated": _never_updated,
}
NEVER_WAIT: Final = frozenset(name for name in ANSWERS if not name.startswith("domain_"))

"""Calls about migration: the steps with their parameters, as they are and as they were before there were any.

What a client has begun and not brought to its end is settled when the client is gone.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from hostel.daemon.access import api_name
from hostel.daemon.machine import domain_of
from hostel.daemon.stream import Upload
from hostel.drivers.adapters import check_flags, uuid_bytes
from hostel.drivers.base import DomainRef, Hole
from hostel.drivers.base.migration import (
    BANDWIDTH,
    DEST_NAME,
    DEST_XML,
    URI,
    MigrateFlag,
    MigrationDriver,
    MigrationSettings,
    Tunnel,
)
from hostel.drivers.base.offered import offered
from hostel.drivers.fault import fault
from hostel.drivers.parameters import read_parameters
from hostel.errors import ErrorCode, ErrorDomain
from hostel.wire.rpc.connection import Call

if TYPE_CHECKING:
    from hostel.daemon.client import Client

Answer = Callable[["Client", Call], "Sequence[Any]"]
_ALL: Final = sum(MigrateFlag)
_POSTCOPY: Final = 1  # of virDomainMigrateMaxSpeedFlags


def _driver(client: Client, call: Call) -> MigrationDriver:
    assert client.host is not None
    return offered(client.host.drivers.hypervisor, MigrationDriver, api_name(call.procedure.name))


def _flags(call: Call, value: int) -> MigrateFlag:
    check_flags(value, _ALL, api_name(call.procedure.name))
    return MigrateFlag(value)


def _older(dname: str | None, resource: int, *, uri: str | None = None, xml: str | None = None) -> dict[str, Any]:
    """The parameters of a call that has them as arguments."""
    given = {DEST_NAME: dname, BANDWIDTH: resource or None, URI: uri, DEST_XML: xml}
    return {name: value for name, value in given.items() if value is not None}


def _started(client: Client, name: str, *, over: bool = False) -> None:
    """The client has begun something about a domain, or has brought it to its end."""
    if over:
        client.migrating.discard(name)
    else:
        client.migrating.add(name)


def forsake(client: Client) -> None:
    """Settle what a client has left that is gone."""
    names, client.migrating = client.migrating, set()
    if client.host is None:
        return
    driver: Any = client.host.drivers.hypervisor
    for name in names:
        driver.domain_migrate_forsake(name)


# The steps, whatever the form of the call.


def _begin(client: Client, call: Call, domain: Any, params: dict[str, Any], flags: int) -> Sequence[Any]:
    wanted = _flags(call, flags)
    driver = _driver(client, call)
    answer = driver.domain_migrate_begin3_params(domain_of(domain), params, wanted)
    if wanted & MigrateFlag.CHANGE_PROTECTION:
        _started(client, domain.name)
    return answer


def _prepare(client: Client, call: Call, params: dict[str, Any], cookie: bytes, flags: int) -> Sequence[Any]:
    driver = _driver(client, call)
    answer = driver.domain_migrate_prepare3_params(params, bytes(cookie), _flags(call, flags))
    _started(client, _name(params))
    return answer


def _name(params: dict[str, Any]) -> str:
    """What the domain is called at the destination."""
    if DEST_NAME in params:
        return str(params[DEST_NAME])
    from hostel.model.domain.domain import Domain

    return Domain.parse(params[DEST_XML]).name


def _perform(
    client: Client, call: Call, domain: Any, peer: str | None, params: dict[str, Any], cookie: bytes, flags: int
) -> Sequence[Any]:
    wanted = _flags(call, flags)
    driver = _driver(client, call)
    if not wanted & MigrateFlag.PEER2PEER:
        _started(client, domain.name)
    return (driver.domain_migrate_perform3_params(domain_of(domain), peer, params, bytes(cookie), wanted),)


def _finish(
    client: Client, call: Call, params: dict[str, Any], cookie: bytes, flags: int, cancelled: int
) -> Sequence[Any]:
    driver = _driver(client, call)
    _started(client, str(params.get(DEST_NAME, "")), over=True)
    ref, answer = driver.domain_migrate_finish3_params(params, bytes(cookie), _flags(call, flags), bool(cancelled))
    return (ref.name, uuid_bytes(ref.uuid), ref.id), answer


def _confirm(
    client: Client, call: Call, domain: Any, params: dict[str, Any], cookie: bytes, flags: int, cancelled: int
) -> Sequence[Any]:
    driver = _driver(client, call)
    wanted = _flags(call, flags)
    driver.domain_migrate_confirm3_params(domain_of(domain), params, bytes(cookie), wanted, bool(cancelled))
    _started(client, domain.name, over=True)
    return ()


def _begin_params(client: Client, call: Call) -> Sequence[Any]:
    domain, params, flags = call.arguments
    return _begin(client, call, domain, read_parameters(params), flags)


def _begin_older(client: Client, call: Call) -> Sequence[Any]:
    domain, xml, flags, dname, resource = call.arguments
    return _begin(client, call, domain, _older(dname, resource, xml=xml), flags)


def _prepare_params(client: Client, call: Call) -> Sequence[Any]:
    params, cookie, flags = call.arguments
    return _prepare(client, call, read_parameters(params), cookie, flags)


def _prepare_older(client: Client, call: Call) -> Sequence[Any]:
    cookie, uri, flags, dname, resource, xml = call.arguments
    return _prepare(client, call, _older(dname, resource, uri=uri, xml=xml), cookie, flags)


def _perform_params(client: Client, call: Call) -> Sequence[Any]:
    domain, peer, params, cookie, flags = call.arguments
    return _perform(client, call, domain, peer, read_parameters(params), cookie, flags)


def _perform_older(client: Client, call: Call) -> Sequence[Any]:
    domain, xml, cookie, peer, uri, flags, dname, resource = call.arguments
    return _perform(client, call, domain, peer, _older(dname, resource, uri=uri, xml=xml), cookie, flags)


def _finish_params(client: Client, call: Call) -> Sequence[Any]:
    params, cookie, flags, cancelled = call.arguments
    return _finish(client, call, read_parameters(params), cookie, flags, cancelled)


def _finish_older(client: Client, call: Call) -> Sequence[Any]:
    dname, cookie, _, uri, flags, cancelled = call.arguments
    return _finish(client, call, _older(dname, 0, uri=uri), cookie, flags, cancelled)


def _confirm_params(client: Client, call: Call) -> Sequence[Any]:
    domain, params, cookie, flags, cancelled = call.arguments
    return _confirm(client, call, domain, read_parameters(params), cookie, flags, cancelled)


def _confirm_older(client: Client, call: Call) -> Sequence[Any]:
    domain, cookie, flags, cancelled = call.arguments
    return _confirm(client, call, domain, {}, cookie, flags, cancelled)


# The tunnel.


def _tunnel_params(client: Client, call: Call) -> None:
    params, cookie, flags = call.arguments
    _tunnel(client, call, read_parameters(params), cookie, flags)


def _tunnel_older(client: Client, call: Call) -> None:
    cookie, flags, dname, resource, xml = call.arguments
    _tunnel(client, call, _older(dname, resource, xml=xml), cookie, flags)


def _tunnel(client: Client, call: Call, params: dict[str, Any], cookie: bytes, flags: int) -> None:
    driver = _driver(client, call)
    answer, tunnel = driver.domain_migrate_prepare_tunnel3_params(params, bytes(cookie), _flags(call, flags))
    _started(client, _name(params))
    stream = Upload(
        client,
        client.frames(call),
        functools.partial(_carry, tunnel),
        functools.partial(client.accepted, call, (answer,)),
        functools.partial(client.refused, call),
    )
    try:
        client.open_stream(call, stream, stream.run)
    except BaseException:
        tunnel.abort()
        raise


def _carry(tunnel: Tunnel, pieces: Iterator[bytes | memoryview | Hole]) -> None:
    try:
        for piece in pieces:
            if isinstance(piece, Hole):
                raise fault(ErrorCode.OPERATION_INVALID, "a machine's memory has no holes", ErrorDomain.STREAMS)
            tunnel.send(piece)
        tunnel.finish()
    finally:
        tunnel.abort()


# What may be set.


def _settings(client: Client, call: Call) -> tuple[MigrationSettings, DomainRef]:
    assert client.host is not None
    name = api_name(call.procedure.name)
    return offered(client.host.drivers.hypervisor, MigrationSettings, name), domain_of(call.arguments[0])


def _get(method: str) -> Answer:
    def answer(client: Client, call: Call) -> Sequence[Any]:
        settings, domain = _settings(client, call)
        check_flags(call.arguments[-1], 0, api_name(call.procedure.name))
        return (getattr(settings, method)(domain),)

    return answer


def _set(method: str) -> Answer:
    def answer(client: Client, call: Call) -> Sequence[Any]:
        settings, domain = _settings(client, call)
        check_flags(call.arguments[-1], 0, api_name(call.procedure.name))
        getattr(settings, method)(domain, *call.arguments[1:-1])
        return ()

    return answer


def _get_speed(client: Client, call: Call) -> Sequence[Any]:
    settings, domain = _settings(client, call)
    flags = call.arguments[1]
    check_flags(flags, _POSTCOPY, "virDomainMigrateGetMaxSpeed")
    return (settings.domain_migrate_get_max_speed(domain, postcopy=bool(flags)),)


def _set_speed(client: Client, call: Call) -> Sequence[Any]:
    settings, domain = _settings(client, call)
    _, bandwidth, flags = call.arguments
    check_flags(flags, _POSTCOPY, "virDomainMigrateSetMaxSpeed")
    settings.domain_migrate_set_max_speed(domain, bandwidth, postcopy=bool(flags))
    return ()


ANSWERS: Final[dict[str, Answer]] = {
    "domain_migrate_begin3": _begin_older,
    "domain_migrate_prepare3": _prepare_older,
    "domain_migrate_perform3": _perform_older,
    "domain_migrate_finish3": _finish_older,
    "domain_migrate_confirm3": _confirm_older,
    "domain_migrate_begin3_params": _begin_params,
    "domain_migrate_prepare3_params": _prepare_params,
    "domain_migrate_perform3_params": _perform_params,
    "domain_migrate_finish3_params": _finish_params,
    "domain_migrate_confirm3_params": _confirm_params,
    "domain_migrate_get_max_downtime": _get("domain_migrate_get_max_downtime"),
    "domain_migrate_set_max_downtime": _set("domain_migrate_set_max_downtime"),
    "domain_migrate_get_compression_cache": _get("domain_migrate_get_compression_cache"),
    "domain_migrate_set_compression_cache": _set("domain_migrate_set_compression_cache"),
    "domain_migrate_get_max_speed": _get_speed,
    "domain_migrate_set_max_speed": _set_speed,
    "domain_migrate_start_post_copy": _set("domain_migrate_start_post_copy"),
}
STREAMING: Final[dict[str, Callable[[Client, Call], None]]] = {
    "domain_migrate_prepare_tunnel3": _tunnel_older,
    "domain_migrate_prepare_tunnel3_params": _tunnel_params,
}

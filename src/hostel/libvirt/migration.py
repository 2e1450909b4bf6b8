"""``virDomain.migrate`` and its siblings: the steps over the calls of two connections, or let the source lead."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hostel.drivers.adapters import uuid_text
from hostel.drivers.base import DomainRef, DomainState, StateInfo
from hostel.drivers.base.migration import DEST_NAME, DEST_XML, NUMBERS, URI, Feature, MigrateFlag
from hostel.drivers.fault import fault
from hostel.drivers.migrating import migrate
from hostel.drivers.remote.machine import wire
from hostel.drivers.remote.migration import RemoteMigration
from hostel.errors import ErrorCode, VirtError
from hostel.libvirt.error import failed
from hostel.wire.rpc.programs import REMOTE

if TYPE_CHECKING:
    from hostel.libvirt.method import Caller, Handle


class _Calls:
    """A caller's calls by name."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    def call(self, name: str, *arguments: Any) -> Any:
        """Call."""
        return self._caller.call(REMOTE.by_name[name], arguments)


class _End(RemoteMigration):
    """One of both connections, as a driver that has the steps."""

    def __init__(self, caller: Caller) -> None:
        calls: Any = _Calls(caller)
        self._client = calls

    def domain_get_state(self, domain: DomainRef) -> StateInfo:
        """State with its reason."""
        state, reason = self._client.call("domain_get_state", wire("domain", domain), 0)
        return StateInfo(DomainState(state), reason)


def move(domain: Handle, there: Any, params: Mapping[str, Any], flags: int, what: str) -> DomainRef:
    """Lead all steps; ``there`` is a connection.

    Raises:
        libvirtError: it failed.
    """
    source, destination = _End(domain._caller), _End(there._caller)
    try:
        wanted = _checked(flags)
        if wanted & MigrateFlag.PEER2PEER:
            raise fault(ErrorCode.INVALID_ARG, "use virDomainMigrateToURI3 for peer-to-peer migration")
        if wanted & MigrateFlag.TUNNELLED:
            message = "cannot perform tunnelled migration without using peer2peer flag"
            raise fault(ErrorCode.INVALID_ARG, message)
        for end, word in ((source, "source"), (destination, "destination")):
            if not end.supports(Feature.PARAMS):
                raise fault(ErrorCode.NO_SUPPORT, f"{what}: the {word} does not migrate")
        ends: tuple[Any, Any] = source, destination
        return migrate(*ends, _ref(domain), _known(params), wanted & ~MigrateFlag.CHANGE_PROTECTION)
    except VirtError as error:
        failed(error, what)


def let_move(domain: Handle, uri: str | None, params: Mapping[str, Any], flags: int, what: str) -> None:
    """Let the source lead.

    Raises:
        libvirtError: it failed.
    """
    source = _End(domain._caller)
    try:
        wanted = _checked(flags)
        if not wanted & MigrateFlag.PEER2PEER:
            raise fault(ErrorCode.ARGUMENT_UNSUPPORTED, "direct migration is not supported by the source host")
        if uri is None:
            raise fault(ErrorCode.INVALID_ARG, f"dconnuri in {what} must not be NULL")
        if not source.supports(Feature.P2P):
            raise fault(ErrorCode.ARGUMENT_UNSUPPORTED, "p2p migration is not supported by the source host")
        source.domain_migrate_perform3_params(_ref(domain), uri, _known(params), b"", wanted)
    except VirtError as error:
        failed(error, what)


def given(dname: str | None, uri: str | None, bandwidth: int, xml: str | None = None) -> dict[str, Any]:
    """The parameters of the functions that have them as arguments."""
    named = {DEST_NAME: dname, URI: uri, "bandwidth": bandwidth or None, DEST_XML: xml}
    return {name: value for name, value in named.items() if value is not None}


def _checked(flags: int) -> MigrateFlag:
    if flags & ~sum(MigrateFlag):
        raise fault(ErrorCode.INVALID_ARG, f"unsupported flags ({flags & ~sum(MigrateFlag):#x})")
    return MigrateFlag(flags)


def _known(params: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters as the steps take them."""
    return {
        name: tuple(value) if isinstance(value, list) else int(value) if name in NUMBERS else value
        for name, value in params.items()
    }


def _ref(domain: Handle) -> DomainRef:
    held = domain._wire
    return DomainRef(held.name, uuid_text(held.uuid), held.id)

"""Lists of snapshots and of checkpoints, and the older pairs of a number and names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from hostel.daemon.access import api_name
from hostel.drivers.adapters import check_flags, from_wire, to_wire
from hostel.drivers.base.backup import CheckpointListFlag
from hostel.drivers.base.snapshot import SnapshotListFlag
from hostel.drivers.fault import fault
from hostel.errors import ErrorCode
from hostel.wire.rpc.connection import Call

if TYPE_CHECKING:
    from hostel.daemon.client import Client

Find = Callable[["Client", Call], Sequence[Any]]

_SNAPSHOT_FLAGS: Final = 2047  # every bit of virDomainSnapshotListFlags
_CHECKPOINT_FLAGS: Final = 15


def _snapshots(method: str) -> Find:
    return lambda client, call: _found(client, call, method, _SNAPSHOT_FLAGS, SnapshotListFlag)


def _checkpoints(method: str) -> Find:
    return lambda client, call: _found(client, call, method, _CHECKPOINT_FLAGS, CheckpointListFlag)


def _found(client: Client, call: Call, method: str, allowed: int, flags: Callable[[int], Any]) -> Sequence[Any]:
    """What a driver's list of a domain, a snapshot or a checkpoint has, by the flags, which come last."""
    assert client.host is not None
    driver: Any = client.host.drivers.hypervisor
    name = api_name(call.procedure.name)
    if not hasattr(driver, method):
        raise fault(ErrorCode.NO_SUPPORT, name)
    check_flags(call.arguments[-1], allowed, name)
    convert = from_wire(call.procedure.arguments.fields[0])
    assert convert is not None
    found: Sequence[Any] = getattr(driver, method)(convert(call.arguments[0]), flags(call.arguments[-1]))
    return found


def _list_all(find: Find) -> Callable[[Client, Call], Sequence[Any]]:
    def answer(client: Client, call: Call) -> Sequence[Any]:
        found = find(client, call)
        convert = to_wire(call.procedure.result.fields[0])
        assert convert is not None
        return [convert(ref) for ref in found] if call.arguments[1] else [], len(found)

    return answer


def _names(find: Find) -> Callable[[Client, Call], Sequence[Any]]:
    return lambda client, call: ([ref.name for ref in find(client, call)][: max(0, call.arguments[1])],)


def _number(find: Find) -> Callable[[Client, Call], Sequence[Any]]:
    return lambda client, call: (len(find(client, call)),)


_OF_DOMAIN: Final = _snapshots("domain_list_all_snapshots")
_OF_SNAPSHOT: Final = _snapshots("domain_snapshot_list_all_children")

ANSWERS: Final[dict[str, Callable[[Client, Call], Sequence[Any]]]] = {
    "domain_list_all_snapshots": _list_all(_OF_DOMAIN),
    "domain_snapshot_list_names": _names(_OF_DOMAIN),
    "domain_snapshot_list_all_children": _list_all(_OF_SNAPSHOT),
    "domain_snapshot_list_children_names": _names(_OF_SNAPSHOT),
    "domain_snapshot_num_children": _number(_OF_SNAPSHOT),
    "domain_list_all_checkpoints": _list_all(_checkpoints("domain_list_all_checkpoints")),
    "domain_checkpoint_list_all_children": _list_all(_checkpoints("domain_checkpoint_list_all_children")),
}

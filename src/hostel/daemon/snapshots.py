"""Lists of snapshots, and the older pairs of a number and names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from hostel.daemon.access import api_name
from hostel.drivers.adapters import check_flags, from_wire, to_wire, uuid_text
from hostel.drivers.base import DomainRef
from hostel.drivers.base.snapshot import SnapshotDriver, SnapshotListFlag, SnapshotRef
from hostel.drivers.fault import fault
from hostel.errors import ErrorCode
from hostel.wire.rpc.connection import Call

if TYPE_CHECKING:
    from hostel.daemon.client import Client

_ALL: Final = 2047  # every bit of virDomainSnapshotListFlags


def _driver(client: Client, call: Call) -> SnapshotDriver:
    assert client.host is not None
    driver: object = client.host.drivers.hypervisor
    if not hasattr(driver, "domain_list_all_snapshots"):
        raise fault(ErrorCode.NO_SUPPORT, api_name(call.procedure.name))
    return driver  # type: ignore[return-value]


def _flags(call: Call) -> SnapshotListFlag:
    check_flags(call.arguments[-1], _ALL, api_name(call.procedure.name))
    return SnapshotListFlag(call.arguments[-1])


def _of_domain(client: Client, call: Call) -> list[SnapshotRef]:
    domain = call.arguments[0]
    ref = DomainRef(domain.name, uuid_text(domain.uuid), domain.id)
    return _driver(client, call).domain_list_all_snapshots(ref, _flags(call))


def _of_snapshot(client: Client, call: Call) -> list[SnapshotRef]:
    convert = from_wire(call.procedure.arguments.fields[0])
    assert convert is not None
    return _driver(client, call).domain_snapshot_list_all_children(convert(call.arguments[0]), _flags(call))


Find = Callable[["Client", Call], list[SnapshotRef]]


def _list_all(find: Find) -> Callable[[Client, Call], Sequence[Any]]:
    def answer(client: Client, call: Call) -> Sequence[Any]:
        found = find(client, call)
        convert = to_wire(call.procedure.result.fields[0])
        assert convert is not None
        return [convert(ref) for ref in found] if call.arguments[1] else [], len(found)

    return answer


def _names(find: Find) -> Callable[[Client, Call], Sequence[Any]]:
    return lambda client, call: ([ref.name for ref in find(client, call)][: max(0, call.arguments[1])],)


ANSWERS: Final[dict[str, Callable[[Client, Call], Sequence[Any]]]] = {
    "domain_list_all_snapshots": _list_all(_of_domain),
    "domain_snapshot_list_names": _names(_of_domain),
    "domain_snapshot_list_all_children": _list_all(_of_snapshot),
    "domain_snapshot_list_children_names": _names(_of_snapshot),
    "domain_snapshot_num_children": lambda client, call: (len(_of_snapshot(client, call)),),
}

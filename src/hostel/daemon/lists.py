"""Lists of objects, with libvirt's filters, and the older pairs of a number and names."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from xml.etree import ElementTree

from hostel.daemon.access import Access, api_name
from hostel.drivers.adapters import check_flags, to_wire, uuid_bytes
from hostel.drivers.base import DomainRef, DomainState, PoolRef, VolumeRef
from hostel.drivers.base.nodedev import CAPABILITIES, LIST_FLAGS, NodeDeviceRef
from hostel.drivers.base.nwfilter import NwfilterBindings
from hostel.drivers.base.offered import offered
from hostel.drivers.base.secret import SecretRef
from hostel.drivers.fault import fault
from hostel.drivers.registry import Drivers
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.wire.rpc.connection import Call

if TYPE_CHECKING:
    from hostel.daemon.client import Client

Test = Callable[[Drivers, Any], bool]


class Filter(NamedTuple):
    """Bits of which one must hold, when any is set.

    Attributes:
        tests: by bit, whether an object has it.
    """

    tests: dict[int, Test]


def _state(drivers: Drivers, ref: DomainRef) -> DomainState:
    return drivers.hypervisor.domain_get_state(ref).state


def _without(method: str) -> Test:
    """Whether a domain has none of what a driver's method would tell, which is so where there is no such method."""

    def test(drivers: Drivers, ref: Any) -> bool:
        asked = getattr(drivers.hypervisor, method, None)
        return asked is None or not asked(ref)

    return test


def _with(method: str) -> Test:
    without = _without(method)
    return lambda drivers, ref: not without(drivers, ref)


_NAMED_STATES: Final = (DomainState.RUNNING, DomainState.PAUSED, DomainState.SHUTOFF)
_DOMAINS: Final = (
    Filter({1: lambda d, r: r.id != -1, 2: lambda d, r: r.id == -1}),
    Filter(
        {
            4: lambda d, r: d.hypervisor.domain_is_persistent(r),
            8: lambda d, r: not d.hypervisor.domain_is_persistent(r),
        }
    ),
    Filter(
        {
            16: lambda d, r: _state(d, r) is DomainState.RUNNING,
            32: lambda d, r: _state(d, r) is DomainState.PAUSED,
            64: lambda d, r: _state(d, r) is DomainState.SHUTOFF,
            128: lambda d, r: _state(d, r) not in _NAMED_STATES,
        }
    ),
    Filter({256: _with("domain_has_managed_save_image"), 512: _without("domain_has_managed_save_image")}),
    Filter(
        {
            1024: lambda d, r: d.hypervisor.domain_get_autostart(r),
            2048: lambda d, r: not d.hypervisor.domain_get_autostart(r),
        }
    ),
    Filter({4096: _with("domain_snapshot_num"), 8192: _without("domain_snapshot_num")}),
    Filter({1 << 14: _with("domain_list_all_checkpoints"), 1 << 15: _without("domain_list_all_checkpoints")}),
)
_NETWORKS: Final = (
    Filter({1: lambda d, r: not d.network.network_is_active(r), 2: lambda d, r: d.network.network_is_active(r)}),
    Filter(
        {
            4: lambda d, r: d.network.network_is_persistent(r),
            8: lambda d, r: not d.network.network_is_persistent(r),
        }
    ),
    Filter(
        {
            16: lambda d, r: d.network.network_get_autostart(r),
            32: lambda d, r: not d.network.network_get_autostart(r),
        }
    ),
)
# virStoragePoolType's bits begin here, in the order of the names.
_POOL_TYPES: Final = (
    "dir", "fs", "netfs", "logical", "disk", "iscsi", "scsi", "mpath", "rbd", "sheepdog", "gluster", "zfs", "vstorage",
    "iscsi-direct",
)  # fmt: skip


def _pool_type(name: str) -> Test:
    quoted = (f"<pool type='{name}'", f'<pool type="{name}"')
    return lambda d, r: d.storage.storage_pool_get_xml_desc(r).startswith(quoted)


_INTERFACES: Final = (
    Filter(
        {
            1: lambda d, r: not d.interface.interface_is_active(r),
            2: lambda d, r: d.interface.interface_is_active(r),
        }
    ),
)
_POOLS: Final = (
    Filter(
        {
            1: lambda d, r: not d.storage.storage_pool_is_active(r),
            2: lambda d, r: d.storage.storage_pool_is_active(r),
        }
    ),
    Filter(
        {
            4: lambda d, r: d.storage.storage_pool_is_persistent(r),
            8: lambda d, r: not d.storage.storage_pool_is_persistent(r),
        }
    ),
    Filter(
        {
            16: lambda d, r: d.storage.storage_pool_get_autostart(r),
            32: lambda d, r: not d.storage.storage_pool_get_autostart(r),
        }
    ),
    Filter({1 << (6 + place): _pool_type(name) for place, name in enumerate(_POOL_TYPES)}),
)


def _says(word: str, meant: str) -> Test:
    """Whether a secret's document says so of it; libvirt writes both always."""
    return lambda d, r: f"{word}='{meant}'" in d.secret.secret_get_xml_desc(r)


_SECRETS: Final = (
    Filter({1: _says("ephemeral", "yes"), 2: _says("ephemeral", "no")}),
    Filter({4: _says("private", "yes"), 8: _says("private", "no")}),
)


def chosen(
    drivers: Drivers, refs: Iterable[Any], flags: int, filters: Sequence[Filter], gone: ErrorCode, what: str
) -> list[Any]:
    """The objects that pass every filter; one that is gone while it is asked about does not.

    Raises:
        VirtError: ``INVALID_ARG`` for a flag that no filter has.
    """
    check_flags(flags, sum(bit for one in filters for bit in one.tests), what)
    asked = []
    for one in filters:
        bits = [bit for bit in one.tests if flags & bit]
        # All of them together leave nothing out.
        if bits and len(bits) < len(one.tests):
            asked.append([one.tests[bit] for bit in bits])
    found = []
    for ref in refs:
        try:
            if all(any(test(drivers, ref) for test in tests) for tests in asked):
                found.append(ref)
        except VirtError as error:
            if error.code is not gone:
                raise
    return found


def _is_down(drivers: Drivers, ref: Any) -> bool:
    is_down: Callable[[Any], bool] | None = getattr(drivers.interface, "is_down", None)
    return is_down(ref) if is_down is not None else not drivers.interface.interface_is_active(ref)


class _Kind(NamedTuple):
    """A kind of object that has lists."""

    list: Callable[[Drivers], Sequence[Any]]
    filters: tuple[Filter, ...]
    gone: ErrorCode
    is_active: Test = lambda d, r: True
    is_defined: Test | None = None  # in the older lists of those that are not active, where not all of them are


_KINDS: Final = {
    "domains": _Kind(
        lambda d: d.hypervisor.connect_list_all_domains(), _DOMAINS, ErrorCode.NO_DOMAIN,
        lambda d, r: r.id != -1,
    ),
    "networks": _Kind(
        lambda d: d.network.connect_list_all_networks(), _NETWORKS, ErrorCode.NO_NETWORK,
        lambda d, r: d.network.network_is_active(r),
    ),
    "storage_pools": _Kind(
        lambda d: d.storage.connect_list_all_storage_pools(), _POOLS, ErrorCode.NO_STORAGE_POOL,
        lambda d, r: d.storage.storage_pool_is_active(r),
    ),
    "interfaces": _Kind(
        lambda d: d.interface.connect_list_all_interfaces(), _INTERFACES, ErrorCode.NO_INTERFACE,
        lambda d, r: d.interface.interface_is_active(r), _is_down,
    ),
}  # fmt: skip


def _drivers(client: Client) -> Drivers:
    assert client.host is not None
    return client.host.drivers


def visible(
    client: Client, call: Call, refs: Sequence[Any], key: Callable[[Any], str] = lambda ref: str(ref.name)
) -> Sequence[Any]:
    """Those that the caller may see; ``key`` is what rules know each by."""
    access: Access = client.daemon.access
    if access.is_open:
        return refs
    seen = refs
    for permission in call.procedure.permissions:
        if permission.filters:
            seen = [ref for ref in seen if access.allows(client.identity, permission, key(ref))]
    return seen


def _on_the_wire(call: Call, refs: Sequence[Any]) -> list[Any]:
    """References as they go over the wire, if the caller wants more than their number."""
    if not call.arguments[0]:
        return []
    convert = to_wire(call.procedure.result.fields[0])
    return list(refs) if convert is None else [convert(ref) for ref in refs]


def _chosen(kind: _Kind, client: Client, call: Call, flags: int) -> Sequence[Any]:
    """Those that the flags let through, and that the caller may see."""
    drivers = _drivers(client)
    name = api_name(call.procedure.name)
    return visible(client, call, chosen(drivers, kind.list(drivers), flags, kind.filters, kind.gone, name))


def _list_all(kind: _Kind) -> Callable[[Client, Call], Sequence[Any]]:
    def answer(client: Client, call: Call) -> Sequence[Any]:
        refs = _chosen(kind, client, call, call.arguments[1])
        return _on_the_wire(call, refs), len(refs)

    return answer


def _by_state(client: Client, call: Call, kind: _Kind, active: bool) -> Sequence[Any]:
    drivers = _drivers(client)
    found = []
    for ref in kind.list(drivers):
        try:
            is_other = kind.is_defined if not active else None
            if is_other(drivers, ref) if is_other is not None else kind.is_active(drivers, ref) == active:
                found.append(ref)
        except VirtError as error:
            if error.code is not kind.gone:
                raise
    return visible(client, call, found)


def _number(kind: _Kind, active: bool) -> Callable[[Client, Call], Sequence[Any]]:
    return lambda client, call: (len(_by_state(client, call, kind, active)),)


def _names(kind: _Kind, active: bool) -> Callable[[Client, Call], Sequence[Any]]:
    return lambda client, call: (
        [ref.name for ref in _by_state(client, call, kind, active)][: max(0, call.arguments[0])],
    )


def _ids(client: Client, call: Call) -> Sequence[Any]:
    refs = _by_state(client, call, _KINDS["domains"], True)
    return ([ref.id for ref in refs][: max(0, call.arguments[0])],)


def _volumes(client: Client, call: Call) -> Sequence[VolumeRef]:
    pool = call.arguments[0]
    from hostel.drivers.adapters import uuid_text

    ref = PoolRef(pool.name, uuid_text(pool.uuid))
    found: Sequence[VolumeRef] = visible(client, call, _drivers(client).storage.storage_pool_list_all_volumes(ref))
    return found


def _list_all_volumes(client: Client, call: Call) -> Sequence[Any]:
    _, _, flags = call.arguments
    check_flags(flags, 0, api_name(call.procedure.name))
    volumes = _volumes(client, call)
    return list(volumes) if call.arguments[1] else [], len(volumes)


def _secrets(client: Client, call: Call) -> Sequence[SecretRef]:
    found = _drivers(client).secret.connect_list_all_secrets()
    access: Access = client.daemon.access
    return [
        ref
        for ref in found
        if all(access.allows(client.identity, one, ref.usage_id) for one in call.procedure.permissions if one.filters)
    ]


_FILTER: Final = _Kind(lambda d: d.nwfilter.connect_list_all_nwfilters(), (), ErrorCode.NO_NWFILTER)


def _bindings(client: Client, call: Call) -> Sequence[Any]:
    driver = _drivers(client).nwfilter
    name = api_name(call.procedure.name)
    check_flags(call.arguments[1], 0, name)
    found = offered(driver, NwfilterBindings, name).connect_list_all_nwfilter_bindings()
    access: Access = client.daemon.access
    permissions = [one for one in call.procedure.permissions if one.filters]
    refs = [ref for ref in found if all(access.allows(client.identity, one, ref.port_device) for one in permissions)]
    return refs if call.arguments[0] else [], len(refs)


def _devices(client: Client, call: Call) -> Sequence[Any]:
    """Devices by the flags, which their driver looks at itself: each look at one is a look at the whole host."""
    flags = call.arguments[1]
    check_flags(flags, LIST_FLAGS, api_name(call.procedure.name))
    refs = visible(client, call, _drivers(client).node_device.connect_list_all_node_devices(flags))
    return _on_the_wire(call, refs), len(refs)


def _devices_of(client: Client, call: Call) -> Sequence[NodeDeviceRef]:
    """Those that have a capability, where one is named."""
    capability, flags = call.arguments[0], call.arguments[-1]
    check_flags(flags, 0, api_name(call.procedure.name))
    if capability is not None and capability not in CAPABILITIES:
        return []
    wanted = 0 if capability is None else 1 << CAPABILITIES.index(capability)
    return visible(client, call, _drivers(client).node_device.connect_list_all_node_devices(wanted))


def _capabilities(client: Client, call: Call) -> list[str]:
    return _drivers(client).node_device.node_device_list_caps(NodeDeviceRef(*call.arguments[0]))


def _list_all_secrets(client: Client, call: Call) -> Sequence[Any]:
    _, flags = call.arguments
    drivers = _drivers(client)
    refs = chosen(drivers, _secrets(client, call), flags, _SECRETS, ErrorCode.NO_SECRET, api_name(call.procedure.name))
    return _on_the_wire(call, refs), len(refs)


def _by_target(client: Client, call: Call) -> Sequence[Any]:
    """The active pool whose volumes lie in a directory."""
    (path,) = call.arguments
    storage = _drivers(client).storage
    clean = re.sub("/+", "/", path).rstrip("/") or "/"
    for pool in storage.connect_list_all_storage_pools():
        try:
            xml = storage.storage_pool_get_xml_desc(pool) if storage.storage_pool_is_active(pool) else None
        except VirtError as error:
            if error.code is not ErrorCode.NO_STORAGE_POOL:  # it went away meanwhile
                raise
            continue
        if xml is not None and ElementTree.fromstring(xml).findtext("target/path") == clean:
            return ((pool.name, uuid_bytes(pool.uuid)),)
    shown = "" if path == clean else f" ({clean})"
    what = f"no storage pool with matching target path '{path}'{shown}"
    raise fault(ErrorCode.NO_STORAGE_POOL, what, ErrorDomain.STORAGE)


def _legacy() -> dict[str, Callable[[Client, Call], Sequence[Any]]]:
    found: dict[str, Callable[[Client, Call], Sequence[Any]]] = {}
    for plural, kind in _KINDS.items():
        found[f"connect_list_all_{plural}"] = _list_all(kind)
        found[f"connect_num_of_{plural}"] = _number(kind, True)
        found[f"connect_num_of_defined_{plural}"] = _number(kind, False)
        found[f"connect_list_{plural}"] = _names(kind, True)
        found[f"connect_list_defined_{plural}"] = _names(kind, False)
    return found


ANSWERS: Final[dict[str, Callable[[Client, Call], Sequence[Any]]]] = {
    **_legacy(),
    "connect_list_domains": _ids,
    "storage_pool_lookup_by_target_path": _by_target,
    "storage_pool_list_all_volumes": _list_all_volumes,
    "connect_list_all_node_devices": _devices,
    "node_num_of_devices": lambda client, call: (len(_devices_of(client, call)),),
    "node_list_devices": lambda client, call: (
        [ref.name for ref in _devices_of(client, call)][: max(0, call.arguments[1])],
    ),
    "node_device_num_of_caps": lambda client, call: (len(_capabilities(client, call)),),
    "node_device_list_caps": lambda client, call: (_capabilities(client, call)[: max(0, call.arguments[1])],),
    "connect_list_all_nwfilters": _list_all(_FILTER),
    "connect_num_of_nwfilters": lambda client, call: (len(_chosen(_FILTER, client, call, 0)),),
    "connect_list_nwfilters": lambda client, call: (
        [ref.name for ref in _chosen(_FILTER, client, call, 0)][: max(0, call.arguments[0])],
    ),
    "connect_list_all_nwfilter_bindings": _bindings,
    "connect_list_all_secrets": _list_all_secrets,
    "connect_num_of_secrets": lambda client, call: (len(_secrets(client, call)),),
    "connect_list_secrets": lambda client, call: (
        [ref.uuid for ref in _secrets(client, call)][: max(0, call.arguments[0])],
    ),
    "storage_pool_num_of_volumes": lambda client, call: (len(_volumes(client, call)),),
    "storage_pool_list_volumes": lambda client, call: (
        [volume.name for volume in _volumes(client, call)][: max(0, call.arguments[1])],
    ),
}

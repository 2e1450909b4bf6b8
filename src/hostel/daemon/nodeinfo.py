"""Calls about the host's processors and memory, whose answers are shaped otherwise than the driver's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from hostel.daemon.access import api_name
from hostel.daemon.machine import driver_of
from hostel.drivers.adapters import check_flags, typed_value
from hostel.drivers.base.host import HostDriver
from hostel.wire.rpc.connection import Call

if TYPE_CHECKING:
    from hostel.daemon.client import Client


_TEXT_OKAY: Final = 4  # VIR_TYPED_PARAM_STRING_OKAY


def _driver(client: Client, call: Call) -> HostDriver:
    check_flags(call.arguments[-1], 0, api_name(call.procedure.name))
    assert client.host is not None
    return client.host.drivers.host


def _cpu_map(client: Client, call: Call) -> Sequence[Any]:
    need_map, need_online, _ = call.arguments
    cpus = _driver(client, call).node_get_cpu_map()
    bits = sum(1 << cpu for cpu, online in enumerate(cpus) if online)
    raw = bits.to_bytes(-(-len(cpus) // 8), "little")
    return raw if need_map else b"", sum(cpus) if need_online else 0, len(cpus)


def _counted(values: Mapping[str, int], wanted: int) -> Sequence[Any]:
    """How many there are for who asks for none, and else all of them."""
    return ([] if wanted <= 0 else list(values.items())[:wanted]), len(values)


def _cpu_stats(client: Client, call: Call) -> Sequence[Any]:
    cpu, wanted, _ = call.arguments
    return _counted(_driver(client, call).node_get_cpu_stats(cpu), wanted)


def _memory_stats(client: Client, call: Call) -> Sequence[Any]:
    wanted, cell, _ = call.arguments
    return _counted(_driver(client, call).node_get_memory_stats(cell), wanted)


def _sev_info(client: Client, call: Call) -> Sequence[Any]:
    _, flags = call.arguments  # clients say that they want none, and want all
    check_flags(flags, _TEXT_OKAY, api_name(call.procedure.name))
    driver: Any = driver_of(client, call, "node_get_sev_info")
    found = driver.node_get_sev_info()
    return [(name, typed_value(value)) for name, value in found.items()], len(found)


ANSWERS: Final[dict[str, Callable[[Client, Call], Sequence[Any]]]] = {
    "node_get_cpu_map": _cpu_map,
    "node_get_cpu_stats": _cpu_stats,
    "node_get_memory_stats": _memory_stats,
    "node_get_sev_info": _sev_info,
}

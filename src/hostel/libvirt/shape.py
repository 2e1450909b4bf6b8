"""What libvirt-python makes of answers: numbers, texts, handles, and the lists and dictionaries of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from hostel.codec.xdr import split_type
from hostel.wire.rpc.procedure import Procedure

Shape = Callable[[Any, Sequence[Any]], Any]

# virDomainMemoryStatTags, by their numbers.
_MEMORY: Final = (
    "swap_in", "swap_out", "major_fault", "minor_fault", "unused", "available", "actual", "rss", "usable",
    "last_update", "disk_caches", "hugetlb_pgalloc", "hugetlb_pgfail",
)  # fmt: skip


def of(procedure: Procedure, name: str) -> Shape:
    """The shape of a procedure's answers: the named one, or else what their form says."""
    if name:
        return _NAMED[name]
    fields = procedure.result.fields
    if not fields:
        return lambda handle, result: 0
    item, mark, _ = split_type(fields[0].type)
    if item == "param":
        return lambda handle, result: typed(result[0])
    if item == "chars":
        return lambda handle, result: text(result[0])
    if item in _plain_types():
        return (lambda handle, result: list(result[0])) if mark == "<" and item != "bytes" else _first
    if mark == "<":
        return lambda handle, result: [_made(handle, item, wire) for wire in result[0]]
    return lambda handle, result: _made(handle, item, result[0])


def _plain_types() -> frozenset[str]:
    return frozenset({"str", "bytes", "uuid", "i8", "u8", "i16", "u16", "i32", "u32", "i64", "u64", "f64"})


def _first(handle: Any, result: Sequence[Any]) -> Any:
    value = result[0]
    return int(value) if isinstance(value, int) else value


def _made(handle: Any, kind: str, wire: Any) -> Any:
    from hostel.libvirt.method import made

    return made(handle, kind, wire)


def text(raw: bytes) -> str:
    """An array of characters that C ends with a NUL."""
    return raw.split(b"\0")[0].decode("utf-8", "surrogateescape")


def typed(params: Sequence[Any]) -> dict[str, Any]:
    """Typed parameters."""
    return {name: bool(value) if kind == 6 else value for name, (kind, value) in params}


def bits(raw: bytes, count: int) -> tuple[bool, ...]:
    """The first ``count`` bits as truth values."""
    return tuple(bool(raw[index >> 3] >> (index & 7) & 1) if index >> 3 < len(raw) else False for index in range(count))


def _list(handle: Any, result: Sequence[Any]) -> list[Any]:
    return [text(value) if isinstance(value, bytes) else value for value in result]


def _label(handle: Any, result: Sequence[Any]) -> list[Any]:
    label, enforcing = result
    return [text(label), bool(enforcing)]


def _block_info(handle: Any, result: Sequence[Any]) -> list[int]:
    """In the order of C's structure, which is not the wire's."""
    allocation, capacity, physical = result
    return [capacity, allocation, physical]


def _stats(handle: Any, result: Sequence[Any]) -> dict[str, int]:
    return dict(result[0])


def _cpu_map(handle: Any, result: Sequence[Any]) -> tuple[int, tuple[bool, ...], int]:
    raw, online, total = result
    return total, bits(raw, total), online


def _block_job(handle: Any, result: Sequence[Any]) -> dict[str, int]:
    found, kind, bandwidth, current, end = result
    return {"type": kind, "bandwidth": bandwidth, "cur": current, "end": end} if found else {}


def _job_stats(handle: Any, result: Sequence[Any]) -> dict[str, Any]:
    return {"type": result[0], **typed(result[1])}


def _time(handle: Any, result: Sequence[Any]) -> dict[str, int]:
    return {"seconds": result[0], "nseconds": result[1]}


def _memory(handle: Any, result: Sequence[Any]) -> dict[str, int]:
    return {_MEMORY[tag]: value for tag, value in result[0] if 0 <= tag < len(_MEMORY)}


def _addresses(handle: Any, result: Sequence[Any]) -> dict[str, Mapping[str, Any]]:
    found: dict[str, Mapping[str, Any]] = {}
    for name, mac, addresses in result[0]:
        listed = [{"addr": each.addr, "prefix": each.prefix, "type": each.type} for each in addresses]
        found[name] = {"addrs": listed or None, "hwaddr": mac}
    return found


def _iothreads(handle: Any, result: Sequence[Any]) -> list[tuple[int, list[bool]]]:
    count = cpu_count(handle)
    return [(number, list(bits(raw, count))) for number, raw in result[0]]


def _leases(handle: Any, result: Sequence[Any]) -> list[dict[str, Any]]:
    return [lease._asdict() for lease in result[0]]


def _started(handle: Any, result: Sequence[Any]) -> int:
    """It runs, and has a number."""
    if result:
        handle._wire = result[0]
    else:
        from hostel.libvirt.method import call

        (handle._wire,) = call(handle, "domain_lookup_by_uuid", handle._wire[1])
    return 0


def _stopped(handle: Any, result: Sequence[Any]) -> int:
    """It runs no more, and has no number."""
    handle._wire = handle._wire._replace(id=-1)
    return 0


def cpu_count(handle: Any) -> int:
    """How many CPUs the host has, as far as maps of them go."""
    from hostel.libvirt.method import call

    _, _, total = call(handle, "node_get_cpu_map", 0, 0, 0)
    return int(total)


_NAMED: Final[dict[str, Shape]] = {
    "list": _list,
    "list_first": lambda handle, result: list(result[0]),
    "tuple": lambda handle, result: tuple(result),
    "stats": _stats,
    "cpu_map": _cpu_map,
    "block_info": _block_info,
    "block_job": _block_job,
    "job_stats": _job_stats,
    "time": _time,
    "disk_errors": lambda handle, result: dict(result[0]),
    "memory_stats": _memory,
    "interface_addresses": _addresses,
    "iothreads": _iothreads,
    "label": _label,
    "labels": lambda handle, result: [_label(handle, each) for each in result[0]],
    "leases": _leases,
    "started": _started,
    "stopped": _stopped,
    "renamed": lambda handle, result: 0,
}

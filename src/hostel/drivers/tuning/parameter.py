"""Typed parameters that a call takes: their names and types (``virTypedParamsValidate``)."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from hostel.drivers.fault import fault
from hostel.errors import ErrorCode, ErrorDomain
from hostel.model.domain.tune import PERF_EVENTS


class _Range(NamedTuple):
    least: int
    most: int


class ParameterType(enum.IntEnum):
    """``virTypedParameterType``."""

    INT = 1
    UINT = 2
    LLONG = 3
    ULLONG = 4
    DOUBLE = 5
    BOOLEAN = 6
    STRING = 7


_RANGES: Final = {
    ParameterType.INT: _Range(-(2**31), 2**31 - 1),
    ParameterType.UINT: _Range(0, 2**32 - 1),
    ParameterType.LLONG: _Range(-(2**63), 2**63 - 1),
    ParameterType.ULLONG: _Range(0, 2**64 - 1),
}
SCHEDULER: Final = {
    "cpu_shares": ParameterType.ULLONG,
    "vcpu_period": ParameterType.ULLONG,
    "vcpu_quota": ParameterType.LLONG,
    "emulator_period": ParameterType.ULLONG,
    "emulator_quota": ParameterType.LLONG,
    "global_period": ParameterType.ULLONG,
    "global_quota": ParameterType.LLONG,
    "iothread_period": ParameterType.ULLONG,
    "iothread_quota": ParameterType.LLONG,
}
MEMORY: Final = dict.fromkeys(("hard_limit", "soft_limit", "swap_hard_limit"), ParameterType.ULLONG)
BLKIO: Final = {
    "weight": ParameterType.UINT,
    "device_weight": ParameterType.STRING,
    "device_read_iops_sec": ParameterType.STRING,
    "device_write_iops_sec": ParameterType.STRING,
    "device_read_bytes_sec": ParameterType.STRING,
    "device_write_bytes_sec": ParameterType.STRING,
}
NUMA: Final = {"numa_mode": ParameterType.INT, "numa_nodeset": ParameterType.STRING}
BANDWIDTH: Final = dict.fromkeys(
    (
        "inbound.average", "inbound.peak", "inbound.burst", "inbound.floor",
        "outbound.average", "outbound.peak", "outbound.burst",
    ),
    ParameterType.UINT,
)  # fmt: skip
IOTHREAD: Final = {
    "poll_max_ns": ParameterType.ULLONG,
    "poll_grow": ParameterType.UINT,
    "poll_shrink": ParameterType.UINT,
    "thread_pool_min": ParameterType.INT,
    "thread_pool_max": ParameterType.INT,
}
PERF: Final = dict.fromkeys(PERF_EVENTS, ParameterType.BOOLEAN)
# Types that are not those of every number that is not negative.
TYPES: Final[Mapping[str, ParameterType]] = {
    name: kind for table in (SCHEDULER, BLKIO, NUMA, BANDWIDTH, IOTHREAD) for name, kind in table.items()
}


def check(given: Mapping[str, Any], known: Mapping[str, ParameterType]) -> None:
    """Hold parameters against what a call knows.

    Raises:
        VirtError: ``ARGUMENT_UNSUPPORTED`` for a name, ``INVALID_ARG`` for a value of another type.
    """
    for name, value in given.items():
        kind = known.get(name)
        if kind is None:
            raise fault(ErrorCode.ARGUMENT_UNSUPPORTED, f"parameter '{name}' not supported", ErrorDomain.NONE)
        if not _fits(value, kind):
            found = "string" if isinstance(value, str) else type(value).__name__
            what = f"invalid type '{found}' for parameter '{name}', expected '{kind.name.lower()}'"
            raise fault(ErrorCode.INVALID_ARG, what, ErrorDomain.NONE)


def _fits(value: Any, kind: ParameterType) -> bool:
    if kind is ParameterType.STRING:
        return isinstance(value, str)
    if kind is ParameterType.BOOLEAN:
        return isinstance(value, int) and value in (0, 1)
    limits = _RANGES.get(kind)
    return limits is not None and isinstance(value, int) and limits.least <= value <= limits.most

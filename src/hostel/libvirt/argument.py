"""What callers give, as it goes over the wire."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from hostel.libvirt.constants import host

if TYPE_CHECKING:
    from hostel.libvirt.method import Handle

_INT, _UINT, _LLONG, _ULLONG, _DOUBLE, _BOOLEAN, _STRING = (
    host.VIR_TYPED_PARAM_INT,
    host.VIR_TYPED_PARAM_UINT,
    host.VIR_TYPED_PARAM_LLONG,
    host.VIR_TYPED_PARAM_ULLONG,
    host.VIR_TYPED_PARAM_DOUBLE,
    host.VIR_TYPED_PARAM_BOOLEAN,
    host.VIR_TYPED_PARAM_STRING,
)
# Types that Python's own types do not tell, where no answer tells them either.
_TYPES: Final[dict[str, int]] = {
    "granularity": _UINT,
    "poll_grow": _UINT,
    "poll_shrink": _UINT,
    "thread_pool_min": _INT,
    "thread_pool_max": _INT,
    "sev-secret-set-address": _ULLONG,
}
# What tells the types of the parameters that a procedure sets: a procedure, and how many of the arguments it takes.
_GETTERS: Final[dict[str, tuple[str, int]]] = {
    "domain_set_blkio_parameters": ("domain_get_blkio_parameters", 0),
    "domain_set_memory_parameters": ("domain_get_memory_parameters", 0),
    "domain_set_numa_parameters": ("domain_get_numa_parameters", 0),
    "domain_set_scheduler_parameters": ("domain_get_scheduler_parameters_flags", 0),
    "domain_set_scheduler_parameters_flags": ("domain_get_scheduler_parameters_flags", 0),
    "domain_set_block_io_tune": ("domain_get_block_io_tune", 1),
    "domain_set_interface_parameters": ("domain_get_interface_parameters", 1),
    "node_set_memory_parameters": ("node_get_memory_parameters", 0),
}
_PARAMETERS: Final = 16  # asked for


def texts(values: Sequence[str] | None) -> list[str]:
    """A list of texts; None is an empty one."""
    return [] if values is None else list(values)


def bitmap(handle: Handle, places: Iterable[Any]) -> bytes:
    """Truth values, one a CPU, as bits; the lowest bit of the first byte is CPU 0."""
    value = sum(1 << index for index, wanted in enumerate(places) if wanted)
    return value.to_bytes(max(1, -(-value.bit_length() // 8)), "little")


def parameters(
    handle: Handle, procedure: str, values: Mapping[str, Any] | None, *before: Any
) -> list[tuple[str, tuple[int, Any]]]:
    """Typed parameters; where a type is not to be seen, it is the one that they have now.

    Raises:
        TypeError: a value is of no type that a parameter can have.
    """
    known: dict[str, int] = {}
    if values and procedure in _GETTERS:
        from hostel.libvirt.method import call

        getter, arguments = _GETTERS[procedure]
        own = () if handle._wire is None else (handle._wire,)
        answer = call(handle, getter, *own, *before[:arguments], _PARAMETERS, 0)
        known = {name: kind for name, (kind, _) in answer[0]}
    found: list[tuple[str, tuple[int, Any]]] = []
    for name, value in (values or {}).items():
        for item in value if isinstance(value, list) else [value]:
            kind = known.get(name, _TYPES.get(name)) or _kind(name, item)
            found.append((name, (kind, float(item) if kind == _DOUBLE else item)))
    return found


def _kind(name: str, value: Any) -> int:
    for python, kind in ((bool, _BOOLEAN), (str, _STRING), (float, _DOUBLE)):
        if isinstance(value, python):
            return kind
    if isinstance(value, int):
        return _ULLONG if value >= 0 else _LLONG
    raise TypeError(f"{name}: a parameter is a number, a truth value or a text, not {type(value).__name__}")

"""What callers give, as it goes over the wire."""

from __future__ import annotations

import operator
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from hostel.codec.xdr import Field, split_type
from hostel.daemon.access import api_name
from hostel.errors import ErrorCode, VirtError
from hostel.libvirt.constants import host
from hostel.libvirt.error import failed
from hostel.wire.rpc.procedure import Procedure
from hostel.wire.rpc.programs import REMOTE

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
    "poll_max_ns": _ULLONG,
    "poll_grow": _UINT,
    "poll_shrink": _UINT,
    "thread_pool_min": _INT,
    "thread_pool_max": _INT,
    "sev-secret-set-address": _ULLONG,
    "process-id": _LLONG,
}
# What tells the types of the parameters that a procedure sets: a procedure, and how many of the arguments it takes.
_GETTERS: Final[dict[str, tuple[str, int]]] = {
    "domain_set_blkio_parameters": ("domain_get_blkio_parameters", 0),
    "domain_set_memory_parameters": ("domain_get_memory_parameters", 0),
    "domain_set_numa_parameters": ("domain_get_numa_parameters", 0),
    "domain_set_perf_events": ("domain_get_perf_events", 0),
    "domain_set_scheduler_parameters": ("domain_get_scheduler_parameters_flags", 0),
    "domain_set_scheduler_parameters_flags": ("domain_get_scheduler_parameters_flags", 0),
    "domain_set_block_io_tune": ("domain_get_block_io_tune", 1),
    "domain_set_interface_parameters": ("domain_get_interface_parameters", 1),
    "node_set_memory_parameters": ("node_get_memory_parameters", 0),
}
TEXT_OKAY: Final = 4  # VIR_TYPED_PARAM_STRING_OKAY: we know parameters that are texts
_OPTIONAL: Final = frozenset({"domain_block_copy"})  # may do without any
_STRUCTURES: Final = frozenset(REMOTE.types.names())
# Texts that libvirt's functions call something else than libvirt-python's do.
_CALLED: Final = {
    "domain_block_stats": "disk",
    "domain_block_stats_flags": "disk",
    "domain_get_block_info": "disk",
    "domain_get_block_job_info": "disk",
    "domain_interface_stats": "device",
}
# Paths that the C library makes absolute: who answers works in another directory.
FILES: Final = frozenset(
    {
        ("domain_core_dump", "to"),
        ("domain_core_dump_with_format", "to"),
        ("domain_restore", "from"),
        ("domain_restore_flags", "from"),
        ("domain_save", "to"),
        ("domain_save_flags", "to"),
        ("domain_save_image_define_xml", "file"),
        ("domain_save_image_get_xml_desc", "file"),
    }
)
_NEVER_NONE: Final = ("domain_authorized_ssh_keys_get", "domain_authorized_ssh_keys_set", "domain_fd_associate")
_SIGNED: Final = dict.fromkeys(("i8", "i16", "i32"), 0x7FFF_FFFF) | {"i64": 0x7FFF_FFFF_FFFF_FFFF}
_UNSIGNED: Final = {"u8": 0xFF, "u16": 0xFFFF, "u32": 0xFFFF_FFFF, "u64": 0xFFFF_FFFF_FFFF_FFFF}


def texts(values: Sequence[str] | None) -> list[str]:
    """A list of texts; None is an empty one."""
    return [] if values is None else list(values)


def absolute(path: Any) -> Any:
    """A path from the root, as the program means it; what is no text is refused later."""
    if not isinstance(path, str):
        return path
    return os.path.join(os.getcwd(), path) if path else os.getcwd()


def octets(value: bytes | str | None) -> bytes:
    """Bytes, as which libvirt-python takes a text too; None is none, which is refused as none are.

    Raises:
        TypeError: it is neither.
    """
    if value is None:
        return b""
    if isinstance(value, str):
        return value.encode()
    if not isinstance(value, bytes):
        raise TypeError(f"a bytes-like object is required, not '{type(value).__name__}'")
    return value


def bitmap(handle: Handle, places: Iterable[Any]) -> bytes:
    """Truth values, one a CPU, as bits; the lowest bit of the first byte is CPU 0.

    Raises:
        TypeError: they are no tuple, and no list.
    """
    if not isinstance(places, list | tuple):
        raise TypeError("Unexpected type, tuple is required")
    value = sum(1 << index for index, wanted in enumerate(places) if wanted)
    return value.to_bytes(max(1, -(-value.bit_length() // 8)), "little")


def parameters(
    handle: Handle, procedure: str, values: Mapping[str, Any] | None, flags: int, *before: Any
) -> list[tuple[str, tuple[int, Any]]]:
    """Typed parameters; where a type is not to be seen, it is the one that they have now.

    Args:
        handle: of the object that they are of.
        procedure: sets them.
        values: the parameters.
        flags: those of the call; with the same ones it is asked what there is.
        before: the call's arguments that come before the parameters.

    Raises:
        LookupError: there is none, or one that the object does not have, where it tells what it has.
        TypeError: they are no dictionary, or a value is not of its parameter's type.
        OverflowError: a number does not fit.
    """
    if not isinstance(values, Mapping) and (values is not None or procedure not in _OPTIONAL):
        raise TypeError(f"{api_name(procedure)}(): params must be a dictionary")
    known: dict[str, int] = {}
    if procedure in _GETTERS:
        if not values:
            raise LookupError("Need non-empty dictionary to set attributes")
        known = _known(handle, *_GETTERS[procedure], before, flags)
        for name in values:
            if name not in known:
                raise LookupError(f'Attribute name "{name}" could not be recognized')
    found: list[tuple[str, tuple[int, Any]]] = []
    for name, value in (values or {}).items():
        for item in value if isinstance(value, list) else [value]:
            kind = known.get(name, _TYPES.get(name)) or _kind(name, item)
            found.append((name, (kind, _unwrapped(kind, item))))
    return found


def _known(handle: Handle, getter: str, taken: int, before: Sequence[Any], flags: int) -> dict[str, int]:
    """The parameters that an object has, and their types."""
    from hostel.libvirt.method import bound, call

    procedure = REMOTE.by_name[getter]
    own = () if handle._wire is None else (handle._wire,)
    # How many are wanted; a daemon refuses a number that is greater than any it has room for.
    known = tells_parameters(procedure)
    counts = [bound(procedure)] if known else []
    answer = call(handle, getter, *own, *before[:taken], *counts, operator.index(flags) | (TEXT_OKAY if known else 0))
    return {name: kind for name, (kind, _) in answer[0]}


def _kind(name: str, value: Any) -> int:
    for python, kind in ((bool, _BOOLEAN), (str, _STRING), (float, _DOUBLE)):
        if isinstance(value, python):
            return kind
    if isinstance(value, int):
        return _ULLONG if value >= 0 else _LLONG
    raise TypeError(f"{name}: a parameter is a number, a truth value or a text, not {type(value).__name__}")


def _unwrapped(kind: int, value: Any) -> Any:
    """A value as a parameter of a type has it; refused in the words of Python's own conversions to C's types."""
    if kind == _DOUBLE:
        return float(value)
    if kind == _BOOLEAN:
        return bool(value)
    if kind == _STRING:
        if not isinstance(value, str):
            raise TypeError("bad argument type for built-in operation")
        return value
    if kind == _ULLONG and not isinstance(value, int):
        raise TypeError("an integer is required")
    number = operator.index(value)
    if kind in (_ULLONG, _LLONG):
        if kind == _ULLONG and number < 0:
            raise OverflowError("can't convert negative int to unsigned")
        if not -(1 << 63) <= number < 1 << (64 if kind == _ULLONG else 63):
            raise OverflowError("int too big to convert")
        return number
    if not -(1 << 63) <= number < 1 << 63:
        raise OverflowError("Python int too large to convert to C long")
    if kind == _UINT and not 0 <= number < 1 << 32:
        raise OverflowError("Python int too large to convert to C unsigned int")
    if kind == _INT and not -(1 << 31) <= number < 1 << 31:
        raise OverflowError("Python int too large to convert to C int")
    return number


def tells_parameters(procedure: Procedure) -> bool:
    """Whether a procedure gives as many parameters as it is asked for; such take :data:`TEXT_OKAY`."""
    return any(field.name == "nparams" for field in procedure.arguments.fields) and bool(
        procedure.result.fields and split_type(procedure.result.fields[0].type)[0] == "param"
    )


def fitted(procedure: Procedure, arguments: Sequence[Any], names: Sequence[str]) -> list[Any]:
    """Arguments that their types did not take, as C's types would: an unsigned number keeps the bits that fit.

    Args:
        procedure: the procedure.
        arguments: its arguments.
        names: what the caller calls them; empty where the caller does not give it.

    Raises:
        libvirtError: None in place of a text.
        OverflowError: a number that does not fit.
        TypeError: a value of another type.
        ValueError: a text with a NUL.
    """
    fields = procedure.arguments.fields
    offset = 1 if fields and fields[0].type in _STRUCTURES else 2  # libvirt-python counts the object, too
    given = [
        _fitted(procedure, field, value, number)
        for number, (field, value) in enumerate(zip(fields, arguments, strict=True), offset)
    ]
    for field, value, name in zip(fields, given, names, strict=True):
        if field.type == "str" and value is None:
            function, called = api_name(procedure.name), _CALLED.get(procedure.name, name or field.name)
            failed(VirtError(ErrorCode.INVALID_ARG, f"{called} in {function} must not be NULL"), function)
    return given


def _fitted(procedure: Procedure, field: Field, value: Any, number: int) -> Any:
    item, mark, _ = split_type(field.type)
    if mark not in ("", "?") or (mark == "?" and value is None):
        return value
    if item == "str":
        _check_text(procedure.name, value, number)
    if item in _UNSIGNED:
        found = operator.index(value)
        if item == "u64" and not -(1 << 63) <= found < 1 << 64:
            raise OverflowError("Python int too large to convert to C long")
        return found & _UNSIGNED[item]
    if item in _SIGNED:
        found, most = operator.index(value), _SIGNED[item]
        if not -(1 << 63) <= found < 1 << 63:
            raise OverflowError("Python int too large to convert to C long")
        if not -most - 1 <= found <= most:
            raise OverflowError(f"signed integer is {'greater than maximum' if found > 0 else 'less than minimum'}")
    return value


def _check_text(procedure: str, value: Any, number: int) -> None:
    if isinstance(value, str):
        if "\0" in value:
            raise ValueError("embedded null character")
        return
    if value is not None or procedure in _NEVER_NONE:
        wanted = "str" if procedure in _NEVER_NONE else "str or None"
        what = "None" if value is None else type(value).__name__
        raise TypeError(f"{api_name(procedure)}() argument {number} must be {wanted}, not {what}")

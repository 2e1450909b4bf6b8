"""The parameters of a migration, between drivers and the wire (``virTypedParamsValidate``)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from hostel.drivers.base.migration import LISTS, NUMBERS, TEXTS, Parameters
from hostel.drivers.fault import fault
from hostel.errors import ErrorCode, VirtError

_STRING: Final = 7
_TYPES: Final = ("unspecified", "int", "unsigned int", "long long", "unsigned long long", "double", "boolean", "string")


def read_parameters(wire: Iterable[Any]) -> dict[str, Any]:
    """What a client has sent.

    Raises:
        VirtError: ``ARGUMENT_UNSUPPORTED``: a parameter is not known; ``INVALID_ARG``: it is of another type, or is
            there twice.
    """
    found: dict[str, Any] = {}
    for name, (kind, value) in wire:
        wanted = NUMBERS.get(name, _STRING if name in TEXTS | LISTS else None)
        if wanted is None:
            raise fault(ErrorCode.ARGUMENT_UNSUPPORTED, f"parameter '{name}' not supported")
        if kind != wanted:
            given = _TYPES[kind] if 0 <= kind < len(_TYPES) else str(kind)
            raise _invalid(f"invalid type '{given}' for parameter '{name}', expected '{_TYPES[wanted]}'")
        if name in LISTS:
            found[name] = (*found.get(name, ()), value)
        elif name in found:
            raise _invalid(f"parameter '{name}' occurs multiple times")
        else:
            found[name] = value
    return found


def write_parameters(params: Parameters) -> list[tuple[str, tuple[int, Any]]]:
    """What a server is sent."""
    wire: list[tuple[str, tuple[int, Any]]] = []
    for name, value in params.items():
        if name in LISTS and not isinstance(value, str | int):
            wire += [(name, (_STRING, item)) for item in value]
        else:
            wire.append((name, (NUMBERS.get(name, _STRING), value)))
    return wire


def _invalid(message: str) -> VirtError:
    return fault(ErrorCode.INVALID_ARG, message)

"""Declared parameters of commands, checked and refused as QEMU's schema does, from JSON or from a command line."""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from hostel.block.options import SWITCH
from hostel.errors import QmpError
from hostel.units import parse_size

_NUMBER: Final = re.compile(r"[+-]?(0[xX][0-9a-fA-F]+|[0-9]+)", re.ASCII)
_INT64: Final = range(-(2**63), 2**63)
_UNSIGNED: Final = {"uint16": 2**16, "uint32": 2**32}


class Kind(enum.Enum):
    """A parameter's type; the value is how messages call it."""

    STRING = "string"
    BOOL = "boolean"
    INT = "integer"
    UINT16 = "uint16"
    UINT32 = "uint32"
    UINT64 = "uint64"
    SIZE = "size"
    OBJECT = "object"
    ARRAY = "array"
    ANY = "value"


class Parameter(NamedTuple):
    """One parameter.

    Attributes:
        required: it must be there.
        values: the strings that it may be; any where there are none.
        members: what an object has; anything where nothing is declared.
    """

    name: str
    kind: Kind = Kind.STRING
    required: bool = False
    values: tuple[str, ...] = ()
    members: tuple[Parameter, ...] = ()


def needed(name: str, kind: Kind = Kind.STRING, values: tuple[str, ...] = ()) -> Parameter:
    """Declare a parameter that must be there."""
    return Parameter(name, kind, True, values)


def generic(message: str) -> QmpError:
    """An error of the class that nearly all are of."""
    return QmpError("GenericError", message)


def check(parameters: Sequence[Parameter], given: Mapping[str, Any], *, text: bool = False, path: str = "") -> Any:
    """Check what was given against what is declared, and convert text where it comes from a command line.

    Raises:
        QmpError: something is missing, of the wrong type, or not known; the text is QEMU's.
    """
    found: dict[str, Any] = {}
    for parameter in parameters:
        name = path + parameter.name
        if parameter.name not in given:
            if parameter.required:
                raise generic(f"Parameter '{name}' is missing")
            continue
        value = given[parameter.name]
        found[parameter.name] = (_from_text if text else _from_json)(parameter, value, name)
    for key in given:
        if key not in found:
            raise generic(f"Parameter '{path}{key}' is unexpected")
    return found


def _from_json(parameter: Parameter, value: Any, name: str) -> Any:
    kind = parameter.kind
    numeric = isinstance(value, int) and not isinstance(value, bool)
    match kind:
        case Kind.ANY:
            return value
        case Kind.STRING:
            fits = isinstance(value, str)
        case Kind.BOOL:
            fits = isinstance(value, bool)
        case Kind.OBJECT:
            fits = isinstance(value, Mapping)
        case Kind.ARRAY:
            fits = isinstance(value, list)
        case _:
            fits = numeric
    if not fits and (kind.value in _UNSIGNED or kind in (Kind.UINT64, Kind.SIZE)):
        raise generic(f"Parameter '{name}' expects uint64")
    if not fits:
        expected = kind.value if kind in (Kind.STRING, Kind.BOOL, Kind.OBJECT, Kind.ARRAY) else "integer"
        raise generic(f"Invalid parameter type for '{name}', expected: {expected}")
    return _narrow(parameter, value, name, text=False)


def _from_text(parameter: Parameter, value: Any, name: str) -> Any:
    kind = parameter.kind
    if kind in (Kind.OBJECT, Kind.ARRAY, Kind.ANY):
        if kind is Kind.ANY or isinstance(value, Mapping if kind is Kind.OBJECT else list):
            return _narrow(parameter, value, name, text=True)
        raise generic(f"Invalid parameter type for '{name}', expected: {kind.value}")
    if not isinstance(value, str):
        raise generic(f"Invalid parameter type for '{name}', expected: {kind.value}")
    if kind is Kind.STRING:
        return _narrow(parameter, value, name, text=True)
    if kind is Kind.BOOL:
        if value in SWITCH:
            return SWITCH[value]
        raise generic(f"Parameter '{name}' expects 'on' or 'off'")
    if kind is Kind.SIZE:
        try:
            return _narrow(parameter, parse_size(value), name, text=True)
        except (ValueError, OverflowError):
            raise generic(f"Parameter '{name}' expects size") from None
    match = _NUMBER.fullmatch(value)
    if match is None:
        raise generic(f"Parameter '{name}' expects integer")
    return _narrow(parameter, int(value, 0) if match[1][:2].lower() == "0x" else int(value), name, text=True)


def _narrow(parameter: Parameter, value: Any, name: str, *, text: bool) -> Any:
    """Look at what a value of the right type says."""
    if parameter.values and value not in parameter.values:
        # QEMU names the member here without what it is a member of.
        raise generic(f"Parameter '{parameter.name}' does not accept value '{value}'")
    if parameter.kind is Kind.OBJECT and parameter.members:
        return check(parameter.members, value, text=text, path=f"{name}.")
    if parameter.kind in (Kind.UINT64, Kind.SIZE):
        return _wide(value, name, text=text)
    limit = _UNSIGNED.get(parameter.kind.value)
    if limit is not None and not 0 <= value < limit:
        raise generic(f"Parameter '{name}' expects {parameter.kind.value}_t")
    if parameter.kind is Kind.INT and value not in _INT64 and not text:
        raise generic(f"Invalid parameter type for '{name}', expected: integer")
    if parameter.kind is Kind.INT and value not in _INT64:
        raise generic(f"Parameter '{name}' expects integer")
    return value


def _wide(value: int, name: str, *, text: bool) -> int:
    """A number of 64 bits without a sign, which QEMU also takes as one with a sign."""
    if not -(2**63) <= value < 2**64:
        raise generic(f"Parameter '{name}' expects {'integer' if text else 'uint64'}")
    return value % 2**64

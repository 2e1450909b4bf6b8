"""What objects are told, read as QEMU reads it: what is wrong for QEMU is wrong here, even where no image needs it."""

from __future__ import annotations

import contextlib
import os
import platform
import socket
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from hostel.block.options import SWITCH as SWITCHES
from hostel.cli.qemu.failure import Failure
from hostel.cli.qemu.object_types import INT, MEMBERS, SWITCH, WORDS, Property, sayable
from hostel.codec.xmlvalue import read_integer
from hostel.units import INT64_MAX

_INT32_MAX: Final = 2**31 - 1
_INTEGERS: Final = (INT, "int32_t")
_JSON: Final = {INT: "integer", "int32_t": "integer", SWITCH: "boolean"}
_CONNECT_SECONDS: Final = 5.0
_KEYCTL: Final = {"x86_64": 250, "aarch64": 219}  # the number of keyctl(2)
_KEYCTL_READ: Final = 11
_MAX_KEY: Final = 1 << 20  # bytes; the kernel's keys are smaller


def read_properties(kind: str, given: dict[str, Any], *, text: bool) -> None:
    """Turn an object's properties into values of their own types; those of a command line are ``text``.

    Raises:
        Failure: one is missing, unknown, or of another type; the text is QEMU's.
    """
    _read_members(sayable(kind), given, "", text=text, others=("id",))


def read_property(declared: Property, value: Any) -> Any:
    """One property that a monitor has been given.

    Raises:
        Failure: it is of another type; the text is QEMU's.
    """
    return _read(declared, value, declared.name, text=False)


def _read_members(
    members: Iterable[Property], given: dict[str, Any], prefix: str, *, text: bool, others: Sequence[str] = ()
) -> None:
    known = set(others)
    for declared in members:
        name = declared.name
        known.add(name)
        if name in given:
            given[name] = _read(declared, given[name], prefix + name, text=text)
        elif declared.needed:
            raise Failure(f"Parameter '{prefix}{name}' is missing")
    for name in given:
        if name not in known:
            raise Failure(f"Parameter '{prefix}{name}' is unexpected")


def _read(declared: Property, value: Any, path: str, *, text: bool) -> Any:
    if not declared.many:
        return _read_one(declared.type, value, path, text=text)
    if not isinstance(value, list):
        raise Failure(f"Invalid parameter type for '{path}', expected: array")
    place = "{}.{}" if text else "{}[{}]"
    return [_read_one(declared.type, each, place.format(path, index), text=text) for index, each in enumerate(value)]


def _read_one(type: str, value: Any, path: str, *, text: bool) -> Any:
    if type in MEMBERS:
        if not isinstance(value, Mapping):
            raise Failure(f"Invalid parameter type for '{path}', expected: object")
        read = dict(value)
        _read_members(MEMBERS[type], read, f"{path}.", text=text)
        return read
    if text and isinstance(value, (Mapping, list)):
        raise Failure(f"Parameters '{path}.*' are unexpected")
    if text and type == SWITCH:
        if value not in SWITCHES:
            raise Failure(f"Parameter '{path}' expects 'on' or 'off'")
        return SWITCHES[value]
    if text and type in _INTEGERS:
        with contextlib.suppress(ValueError):
            if _is_int64(number := read_integer(value, 0)):
                return number
        raise Failure(f"Parameter '{path}' expects integer")
    expected = _JSON.get(type, "string")
    if not _is_json(value, expected):
        raise Failure(f"Invalid parameter type for '{path}', expected: {expected}")
    if type in WORDS and value not in WORDS[type]:
        raise Failure(f"Parameter '{path.rpartition('.')[2]}' does not accept value '{value}'")
    return value


def _is_json(value: Any, expected: str) -> bool:
    """Whether JSON's value is of this type; a number is one of 64 bits."""
    if expected == "integer":
        return type(value) is int and _is_int64(value)
    return isinstance(value, bool if expected == "boolean" else str)


def _is_int64(number: int) -> bool:
    return -INT64_MAX - 1 <= number <= INT64_MAX


def check_loop(given: Mapping[str, Any]) -> None:
    """Refuse what no loop of requests can be told.

    Raises:
        Failure: with QEMU's text.
    """
    for name in (each.name for each in sayable("iothread")):
        if not 0 <= int(given.get(name, 0)) <= INT64_MAX:
            raise Failure(f"{name} value must be in range [0, {INT64_MAX}]")
    low, high = int(given.get("thread-pool-min", 0)), int(given.get("thread-pool-max", 64))
    if low > high or not 0 < high <= _INT32_MAX:
        raise Failure("bad thread-pool-min/thread-pool-max values")


def check_helper(given: Mapping[str, Any]) -> None:
    """See that somebody listens where a helper for persistent reservations is to be.

    Raises:
        Failure: nobody does; the text is QEMU's.
    """
    path = given["path"]
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(_CONNECT_SECONDS)
        try:
            sock.connect(path or b"\0")
        except OSError as error:
            reason = error.strerror or "the helper does not answer"
            raise Failure(f"Failed to connect to '{path}': {reason}") from None


def check_suites(given: Mapping[str, Any]) -> None:
    """Refuse a list of cipher suites that does not say of which priorities.

    Raises:
        Failure: with QEMU's text.
    """
    if "priority" not in given:
        raise Failure("'priority' property is not set")


def read_key(given: Mapping[str, Any]) -> bytes:
    """What a key of the kernel's holds.

    Raises:
        Failure: it cannot be read; the text is QEMU's.
    """
    import ctypes

    serial = given["serial"]
    if not -_INT32_MAX - 1 <= serial <= _INT32_MAX:
        raise Failure("Parameter 'serial' expects int32_t")
    if not serial:
        raise Failure("'serial' should not be equal to 0")
    number = _KEYCTL.get(platform.machine())
    if number is None:
        raise Failure(f"keys of the kernel cannot be read on {platform.machine()}: use a secret with 'file'")
    content = ctypes.create_string_buffer(_MAX_KEY)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    length = libc.syscall(ctypes.c_long(number), _KEYCTL_READ, serial, content, ctypes.c_size_t(_MAX_KEY), 0)
    if length <= 0:
        raise Failure(f"Unable to read serial key {serial % 2**32:08x}: {os.strerror(ctypes.get_errno())}")
    return content.raw[: min(length, _MAX_KEY)]

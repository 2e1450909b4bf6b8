"""What objects are told that no image here needs, read as QEMU reads it: what is wrong for QEMU is wrong here too."""

from __future__ import annotations

import contextlib
import os
import platform
import socket
from collections.abc import Mapping
from typing import Any, Final

from hostel.block.options import SWITCH
from hostel.cli.qemu.failure import Failure
from hostel.codec.xmlvalue import read_integer
from hostel.units import INT64_MAX

_INT: Final = "integer"
_SWITCH: Final = "boolean"
_TEXT: Final = "string"
_INT32_MAX: Final = 2**31 - 1
_LOOP: Final = dict.fromkeys(("aio-max-batch", "thread-pool-min", "thread-pool-max"), _INT)
# The properties of types by QEMU's schema, in its order; those that must be there.
FIELDS: Final[Mapping[str, Mapping[str, str]]] = {
    "iothread": {**_LOOP, **dict.fromkeys(("poll-max-ns", "poll-grow", "poll-shrink"), _INT)},
    "main-loop": _LOOP,
    "pr-manager-helper": {"path": _TEXT},
    "secret_keyring": {"loaded": _SWITCH, **dict.fromkeys(("format", "keyid", "iv"), _TEXT), "serial": _INT},
    "tls-cipher-suites": {"verify-peer": _SWITCH, **dict.fromkeys(("dir", "endpoint", "priority"), _TEXT)},
}
_REQUIRED: Final = ("path", "serial")
_CHOICES: Final = {"format": ("raw", "base64"), "endpoint": ("client", "server")}
_CONNECT_SECONDS: Final = 5.0
_KEYCTL: Final = {"x86_64": 250, "aarch64": 219}  # the number of keyctl(2)
_KEYCTL_READ: Final = 11
_MAX_KEY: Final = 1 << 20  # bytes; the kernel's keys are smaller


def read_fields(kind: str, given: dict[str, Any], *, text: bool) -> None:
    """Turn a type's properties into values of their own types; those of a command line are ``text``.

    Raises:
        Failure: one is missing, or of another type; the text is QEMU's.
    """
    for name, expected in FIELDS.get(kind, {}).items():
        if name in given:
            given[name] = _read(name, expected, given[name], text=text)
        elif name in _REQUIRED:
            raise Failure(f"Parameter '{name}' is missing")


def _read(name: str, expected: str, value: Any, *, text: bool) -> Any:
    if text and expected == _SWITCH:
        if value not in SWITCH:
            raise Failure(f"Parameter '{name}' expects 'on' or 'off'")
        return SWITCH[value]
    if text and expected == _INT:
        with contextlib.suppress(ValueError):
            if _is_int64(number := read_integer(value, 0)):
                return number
        raise Failure(f"Parameter '{name}' expects integer")
    wanted = {_INT: int, _SWITCH: bool, _TEXT: str}[expected]
    if type(value) is not wanted or (isinstance(value, int) and not _is_int64(value)):
        raise Failure(f"Invalid parameter type for '{name}', expected: {expected}")
    if name in _CHOICES and value not in _CHOICES[name]:
        raise Failure(f"Parameter '{name}' does not accept value '{value}'")
    return value


def _is_int64(number: int) -> bool:
    return -INT64_MAX - 1 <= number <= INT64_MAX


def check_loop(given: Mapping[str, Any]) -> None:
    """Refuse what no loop of requests can be told.

    Raises:
        Failure: with QEMU's text.
    """
    for name in FIELDS["iothread"]:
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

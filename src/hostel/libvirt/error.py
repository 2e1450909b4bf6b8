"""Errors as libvirt-python raises them, and the last one of each thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

from hostel.daemon.fault import located
from hostel.errors import VirtError
from hostel.wire.rpc.connection import pack_error
from hostel.wire.rpc.programs import ERROR


class Details(NamedTuple):
    """What libvirt-python says of an error, in its order."""

    code: int
    domain: int
    message: str
    level: int
    str1: str | None
    str2: str | None
    str3: str | None
    int1: int
    int2: int

    def __repr__(self) -> str:
        # What libvirt-python has, and programs print, is a plain tuple.
        return repr(tuple(self))


class _Thread(threading.local):
    last: Details | None = None


_thread = _Thread()
_handler: tuple[Callable[[Any, Details], Any], Any] | None = None


class libvirtError(Exception):
    """A call failed; made, it takes up the last error of its thread.

    Attributes:
        err: libvirt's numbers and texts, or None where nothing is known but the message.
    """

    def __init__(
        self,
        defmsg: str,
        conn: object = None,
        dom: object = None,
        net: object = None,
        pool: object = None,
        vol: object = None,
    ) -> None:
        self.err = virGetLastError()
        super().__init__(defmsg if self.err is None else self.err.message)

    def get_error_code(self) -> int | None:
        """One of ``VIR_ERR_``."""
        return None if self.err is None else self.err.code

    def get_error_domain(self) -> int | None:
        """One of ``VIR_FROM_``."""
        return None if self.err is None else self.err.domain

    def get_error_message(self) -> str | None:
        """The whole text."""
        return None if self.err is None else self.err.message

    def get_error_level(self) -> int | None:
        """``VIR_ERR_WARNING`` or ``VIR_ERR_ERROR``."""
        return None if self.err is None else self.err.level

    def get_str1(self) -> str | None:
        """The text's pattern."""
        return None if self.err is None else self.err.str1

    def get_str2(self) -> str | None:
        """What is put into the pattern."""
        return None if self.err is None else self.err.str2

    def get_str3(self) -> str | None:
        """More text."""
        return None if self.err is None else self.err.str3

    def get_int1(self) -> int | None:
        """A number about the error, such as the host's own; -1 for none."""
        return None if self.err is None else self.err.int1

    def get_int2(self) -> int | None:
        """Another number."""
        return None if self.err is None else self.err.int2


def failed(error: VirtError, what: str) -> NoReturn:
    """Raise a driver's error; ``what`` is the function that failed.

    Raises:
        libvirtError: always.
    """
    error = located(error, what)
    code, domain, message, level, _, str1, str2, str3, int1, int2, _ = ERROR.unpack(pack_error(error))
    _thread.last = Details(code, domain, message, level, str1, str2, str3, int1, int2)
    if _handler is not None:
        function, context = _handler
        function(context, _thread.last)
    raise libvirtError(f"{what}() failed") from error


def virGetLastError() -> Details | None:
    """The last error of this thread."""
    return _thread.last


def virGetLastErrorCode() -> int:
    """Its code; 0 where there was none."""
    return 0 if _thread.last is None else _thread.last.code


def virGetLastErrorDomain() -> int:
    """Where it came from; 0 where there was none."""
    return 0 if _thread.last is None else _thread.last.domain


def virGetLastErrorMessage() -> str:
    """Its text."""
    return "no error" if _thread.last is None else _thread.last.message


def virResetLastError() -> None:
    """Forget the last error of this thread."""
    _thread.last = None


def registerErrorHandler(f: Callable[[Any, Details], Any] | None, ctx: Any) -> int:
    """Let ``f(ctx, error)`` be told of each error before it is raised; None tells nobody.

    Without a handler nothing is printed: libvirt's C library would print each error to standard error.
    """
    global _handler
    _handler = None if f is None else (f, ctx)
    return 1

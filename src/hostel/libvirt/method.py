"""Methods from rows: what a method of libvirt-python takes, and the remote procedure that does it.

A row is ``name(parameters) procedure shape``. The procedure's arguments are the handle, where it is one of the class,
and the parameters in their order; how many results fit and whether they are wanted is filled in. The shape names what
is made of the answer where the answer's own form does not say it (:mod:`hostel.libvirt.shape`).
"""

from __future__ import annotations

import operator
import re
import sys
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn, Protocol, TypeVar

from hostel.codec.xdr import Field, split_type
from hostel.daemon.access import api_name
from hostel.drivers.adapters import uuid_bytes
from hostel.drivers.fault import fault
from hostel.errors import ErrorCode, LocalProtocolError, VirtError
from hostel.libvirt import shape
from hostel.libvirt.argument import (
    FILES,
    TEXT_OKAY,
    absolute,
    bitmap,
    fitted,
    octets,
    parameters,
    tells_parameters,
    texts,
)
from hostel.libvirt.error import failed, virResetLastError
from hostel.wire.rpc.procedure import Procedure
from hostel.wire.rpc.programs import REMOTE

_ROW: Final = re.compile(r"(?P<name>\w+)\((?P<parameters>.*)\) (?P<procedure>\w+) ?(?P<shape>\w*)")
_COUNTS: Final = re.compile(r"n\w*params|max\w+")


_STRUCTURES: Final = frozenset(REMOTE.types.names())
_Result = TypeVar("_Result")


class Peer(Protocol):
    """What is on the other side of a stream."""

    def receive(self, length: int, *, block: bool) -> bytes | int | None:
        """At most ``length`` bytes, none at the end; the length of a hole; None where there is nothing yet."""

    def wait(self, timeout: float) -> bool:
        """Whether :meth:`receive` would give something, its end and its failure too, within ``timeout`` seconds."""

    def send(self, data: bytes) -> None:
        """Send all of ``data``."""

    def send_hole(self, length: int) -> None:
        """Send zeroes that are not written."""

    def finish(self) -> None:
        """End in order; what was sent has arrived."""

    def abort(self) -> None:
        """End at once."""


class Caller(Protocol):
    """Who makes a connection's calls: drivers in this process, or a daemon."""

    def call(self, procedure: Procedure, arguments: Sequence[Any]) -> Sequence[Any]:
        """Call, with values as they go over the wire; the members of the answer.

        Raises:
            VirtError: the call failed.
        """

    def call_with_files(self, procedure: Procedure, arguments: Sequence[Any], files: Sequence[int]) -> Sequence[Any]:
        """Likewise, with open files, which stay the caller's."""

    def open_stream(self, procedure: Procedure, arguments: Sequence[Any]) -> tuple[Sequence[Any], Peer]:
        """Call a procedure that opens a stream; the members of the answer, and the stream."""

    def listen(self, heard: Callable[[Procedure, Sequence[Any]], None], ended: Callable[[int], None]) -> None:
        """Tell messages, and the reason when the connection ends by itself, from a thread of the caller's."""

    def is_alive(self) -> bool:
        """Whether the other side still answers."""

    def is_test(self) -> bool:
        """Whether it is libvirt's test driver that answers, in this process."""

    def is_encrypted(self) -> bool:
        """Whether nobody on the way can listen."""

    def set_keepalive(self, interval: int, count: int) -> bool:
        """Ask every ``interval`` seconds whether the other side is there; returns whether it answers that."""

    def close(self) -> None:
        """Release what the connection takes."""


class Lease:
    """What a connection and its handles hold together: the caller, which is closed when the last of them is gone.

    Attributes:
        caller: makes the calls.
        handles: those that are there.
    """

    def __init__(self, caller: Caller) -> None:
        self.caller = caller
        self.handles: weakref.WeakSet[Handle] = weakref.WeakSet()
        self._is_over = False

    def close(self) -> None:
        """Close the caller, once."""
        if not self._is_over:
            self._is_over = True
            self.caller.close()

    def __del__(self) -> None:
        # A program that ends has no threads any more that would hear an answer.
        if not sys.is_finalizing():
            self.close()


class Handle:
    """An object of a connection, which stays open as long as there is one.

    Attributes:
        KIND: the wire's name of the structure; empty for a connection.
        KEEPS_MAKER: made with the handle whose method found it, where other classes are with the connection.
    """

    KIND = ""
    KEEPS_MAKER = False
    _conn: Any
    _wire: Any
    _caller: Caller

    if TYPE_CHECKING:
        # What rows install is not seen by who checks types.
        def __getattr__(self, name: str) -> Any: ...

    def __init__(self, conn: Any, _obj: Any = None) -> None:
        self._conn = conn
        self._wire = _obj
        self._lease: Lease = conn._lease
        self._caller = self._lease.caller
        self._lease.handles.add(self)

    def connect(self) -> Any:
        """The connection; nothing is opened or closed."""
        return self._conn

    def c_pointer(self) -> int:
        """A number that no other handle has while this one is there, as the address of C's object is in libvirt-python.

        It is this object's own address. There is no object of C's behind it; the C library that is given it finds no
        mark of its own there, and says that the pointer is invalid.
        """
        return id(self)


class Row(NamedTuple):
    """A row, read."""

    name: str
    parameters: str
    procedure: Procedure
    shape: str

    @property
    def names(self) -> list[str]:
        """The parameters without their defaults."""
        return [word.split("=")[0].strip() for word in self.parameters.split(",") if word.strip()]


def rows(text: str) -> list[Row]:
    """Read rows, one a line."""
    found = []
    for line in text.strip().splitlines():
        match = _ROW.fullmatch(line.strip())
        assert match is not None, line
        name, given, procedure, wanted = match.groups()
        found.append(Row(name, given, REMOTE.by_name[procedure], wanted))
    return found


def install(cls: type[Handle], text: str) -> None:
    """Give a class the methods of its rows."""
    for row in rows(text):
        setattr(cls, row.name, _compiled(cls, row))


def invoke(handle: Handle, procedure: Procedure, arguments: Sequence[Any], names: Sequence[str] = ()) -> Sequence[Any]:
    """Call a procedure.

    Args:
        handle: of the object that it is about.
        procedure: what is called.
        arguments: as they go over the wire.
        names: what the caller calls them, for errors about them.

    Raises:
        libvirtError: it failed.
        TypeError: the arguments are not what it takes.
        OverflowError: likewise.
    """
    return performed(procedure, arguments, names, lambda given: handle._caller.call(procedure, given))


def performed(
    procedure: Procedure, arguments: Sequence[Any], names: Sequence[str], make: Callable[[Sequence[Any]], _Result]
) -> _Result:
    """Make a call by ``make``, once more with arguments that fit where these do not; see :func:`invoke`."""
    virResetLastError()
    try:
        try:
            return make(arguments)
        except LocalProtocolError:
            return make(fitted(procedure, arguments, names or [""] * len(arguments)))
    except LocalProtocolError as error:
        raise TypeError(f"{api_name(procedure.name)}(): {error}") from None
    except VirtError as error:
        failed(error, api_name(procedure.name))


def call(handle: Handle, procedure: str, *arguments: Any) -> Sequence[Any]:
    """Call a procedure by its name; see :func:`invoke`."""
    return invoke(handle, REMOTE.by_name[procedure], arguments)


def call_with_files(handle: Handle, procedure: str, files: Sequence[int], *arguments: Any) -> Sequence[Any]:
    """Call a procedure by its name, with open files that stay the caller's; see :func:`invoke`."""
    return invoke_with_files(handle, REMOTE.by_name[procedure], files, arguments)


def invoke_with_files(
    handle: Handle, procedure: Procedure, files: Sequence[int], arguments: Sequence[Any]
) -> Sequence[Any]:
    """Call a procedure with open files that stay the caller's; see :func:`invoke`."""
    if not isinstance(files, list | tuple):
        raise TypeError("unexpected type")
    numbers = [operator.index(file) for file in files]
    return performed(procedure, arguments, (), lambda given: handle._caller.call_with_files(procedure, given, numbers))


def unsupported(what: str) -> NoReturn:
    """Say that nothing here does this.

    Raises:
        libvirtError: always, with ``VIR_ERR_NO_SUPPORT``.
    """
    failed(fault(ErrorCode.NO_SUPPORT, what), what)


def _compiled(cls: type[Handle], row: Row) -> Callable[..., Any]:
    """The method of a row, with the row's own parameters."""
    names = row.names
    remaining = list(names)
    fields = list(row.procedure.arguments.fields)
    values = []
    if fields and cls.KIND and fields[0].type == cls.KIND:
        values.append("self._wire")
        fields = fields[1:]
    called = [""] * len(values)
    for field in fields:
        following = remaining[:1]
        values.append(_expression(field, remaining, row))
        called += following if following != remaining[:1] else [""]
    assert not remaining, f"{row.name}: {remaining} go nowhere"
    namespace: dict[str, Any] = {
        "invoke": invoke, "procedure": row.procedure, "shaped": shape.of(row.procedure, row.shape),
        "absolute": absolute, "bitmap": bitmap, "octets": octets,
        "parameters": parameters, "texts": texts, "wired": wired, "index": operator.index,
        "names": tuple(called),
    }  # fmt: skip
    given = f", {row.parameters}" if row.parameters else ""
    source = (
        f"def {row.name}(self{given}):\n"
        f"    return shaped(self, invoke(self, procedure, ({''.join(f'{value}, ' for value in values)}), names))\n"
    )
    exec(source, namespace)
    method: Callable[..., Any] = namespace[row.name]
    method.__doc__ = f"``{api_name(row.procedure.name)}``."
    method.__qualname__ = f"{cls.__name__}.{row.name}"
    method.__module__ = cls.__module__
    return method


def _expression(field: Field, remaining: list[str], row: Row) -> str:
    """What an argument of the procedure is given; the first name that remains is taken away where it is that."""
    item, mark, _ = split_type(field.type)
    if field.name.startswith("need_"):
        return "1"
    if _COUNTS.fullmatch(field.name) and field.name not in row.parameters.lower():
        return str(bound(row.procedure))
    name = remaining.pop(0) if remaining else None
    if name is None:
        assert field.name == "flags", f"{row.name}: nothing is given for {field.name}"
        return "0"
    if field.name == "flags" and tells_parameters(row.procedure):
        return f"index({name}) | {TEXT_OKAY}"
    if item == "param":
        before = ", ".join(row.names[: row.names.index(name)])
        flags = "flags" if "flags" in row.names else "0"
        return f"parameters(self, {row.procedure.name!r}, {name}, {flags}, {before})"
    if item == "bytes" and field.name == "value":
        return f"octets({name})"
    if item == "bytes" and field.name == "cpumap":
        return f"bitmap(self, {name})"
    if (row.procedure.name, field.name) in FILES:
        return f"absolute({name})"
    if item == "str" and mark == "<":
        return f"texts({name})"
    if item in _STRUCTURES:
        return f"wired({name}, {item!r}, {name!r})"
    return str(name)


def bound(procedure: Procedure) -> int:
    """How many members the answer may have."""
    for field in procedure.result.fields:
        _, mark, bound = split_type(field.type)
        if mark == "<":
            return bound
    return 0


# The classes of the wire's structures; the classes' modules fill it in.
KINDS: Final[dict[str, type[Handle]]] = {}


def kind(cls: type[Handle]) -> type[Handle]:
    """Let answers with a structure of the class's kind become handles of it."""
    KINDS[cls.KIND] = cls
    return cls


def wired(given: Any, kind: str, name: str) -> Any:
    """What stands for a handle on the wire.

    Raises:
        TypeError: it is no handle of the kind.
    """
    if not isinstance(given, KINDS[kind]):
        raise TypeError(f"{name} must be a {KINDS[kind].__name__}, not {type(given).__name__}")
    return given._wire


def by_uuid_text(handle: Handle, kind: str, procedure: str, text: str) -> Any:
    """The object of a UUID as it is written.

    Raises:
        libvirtError: the text is no UUID, or there is no such object.
        TypeError: it is no text.
    """
    function = f"{api_name(procedure)}String"
    if text is None:
        failed(VirtError(ErrorCode.INVALID_ARG, f"uuidstr in {function} must not be NULL"), function)
    if not isinstance(text, str):
        raise TypeError(f"{function}() argument uuidstr must be str or None, not {type(text).__name__}")
    try:
        raw = uuid_bytes(text)
    except VirtError:
        said = (function, "uuidstr", None, 0, 0)
        what = "Invalid UUID" if kind == "domain" else f"uuidstr in {function} must be a valid UUID"
        failed(VirtError(ErrorCode.INVALID_ARG, what, details=said), function)
    own = () if handle._wire is None else (handle._wire,)
    return made(handle, kind, call(handle, procedure, *own, raw)[0])


def made(handle: Handle, kind: str, wire: Any) -> Any:
    """A handle of a structure that came in an answer to ``handle``."""
    cls = KINDS[kind]
    return cls(handle if cls.KEEPS_MAKER else handle._conn, wire)

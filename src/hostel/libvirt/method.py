"""Methods from rows: what a method of libvirt-python takes, and the remote procedure that does it.

A row is ``name(parameters) procedure shape``. The procedure's arguments are the handle, where it is one of the class,
and the parameters in their order; how many results fit and whether they are wanted is filled in. The shape names what
is made of the answer where the answer's own form does not say it (:mod:`hostel.libvirt.shape`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, NoReturn, Protocol

from hostel.codec.xdr import Field, split_type
from hostel.daemon.access import api_name
from hostel.drivers.fault import fault
from hostel.errors import ErrorCode, LocalProtocolError, VirtError
from hostel.libvirt import shape
from hostel.libvirt.argument import bitmap, parameters, texts
from hostel.libvirt.error import failed
from hostel.wire.rpc.procedure import Procedure
from hostel.wire.rpc.programs import REMOTE

_ROW: Final = re.compile(r"(?P<name>\w+)\((?P<parameters>.*)\) (?P<procedure>\w+) ?(?P<shape>\w*)")
_COUNTS: Final = re.compile(r"n\w*params|max\w+")


class Peer(Protocol):
    """What is on the other side of a stream."""

    def receive(self, length: int, *, block: bool) -> bytes | int | None:
        """At most ``length`` bytes, none at the end; the length of a hole; None where there is nothing yet."""

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

    def is_encrypted(self) -> bool:
        """Whether nobody on the way can listen."""

    def set_keepalive(self, interval: int, count: int) -> None:
        """Ask every ``interval`` seconds whether the other side is there."""

    def close(self) -> None:
        """Release what the connection takes."""


class Handle:
    """An object of a connection.

    Attributes:
        KIND: the wire's name of the structure; empty for a connection.
    """

    KIND = ""
    _conn: Any
    _wire: Any
    _caller: Caller

    def __init__(self, conn: Any, _obj: Any = None) -> None:
        self._conn = conn
        self._wire = _obj
        self._caller = conn._caller

    def connect(self) -> Any:
        """The connection; nothing is opened or closed."""
        return self._conn


class Row(NamedTuple):
    """A row, read."""

    name: str
    parameters: str
    procedure: Procedure
    shape: str


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


def invoke(handle: Handle, procedure: Procedure, arguments: Sequence[Any]) -> Sequence[Any]:
    """Call a procedure.

    Raises:
        libvirtError: it failed.
        TypeError: the arguments are not what it takes.
    """
    try:
        return handle._caller.call(procedure, arguments)
    except LocalProtocolError as error:
        raise TypeError(f"{api_name(procedure.name)}(): {error}") from None
    except VirtError as error:
        failed(error, api_name(procedure.name))


def call(handle: Handle, procedure: str, *arguments: Any) -> Sequence[Any]:
    """Call a procedure by its name; see :func:`invoke`."""
    return invoke(handle, REMOTE.by_name[procedure], arguments)


def call_with_files(handle: Handle, procedure: str, files: Sequence[int], *arguments: Any) -> Sequence[Any]:
    """Call a procedure by its name, with open files that stay the caller's; see :func:`invoke`."""
    found = REMOTE.by_name[procedure]
    try:
        return handle._caller.call_with_files(found, arguments, [int(file) for file in files])
    except LocalProtocolError as error:
        raise TypeError(f"{api_name(procedure)}(): {error}") from None
    except VirtError as error:
        failed(error, api_name(procedure))


def unsupported(what: str) -> NoReturn:
    """Say that nothing here does this.

    Raises:
        libvirtError: always, with ``VIR_ERR_NO_SUPPORT``.
    """
    failed(fault(ErrorCode.NO_SUPPORT, what), what)


def _compiled(cls: type[Handle], row: Row) -> Callable[..., Any]:
    """The method of a row, with the row's own parameters."""
    names = [word.split("=")[0].strip() for word in row.parameters.split(",") if word.strip()]
    remaining = iter(names)
    fields = list(row.procedure.arguments.fields)
    values = []
    if fields and cls.KIND and fields[0].type == cls.KIND:
        values.append("self._wire")
        fields = fields[1:]
    values += [_expression(field, remaining, row) for field in fields]
    left = list(remaining)
    assert not left, f"{row.name}: {left} go nowhere"
    namespace: dict[str, Any] = {
        "invoke": invoke, "procedure": row.procedure, "shaped": shape.of(row.procedure, row.shape),
        "bitmap": bitmap, "parameters": parameters, "texts": texts,
    }  # fmt: skip
    given = f", {row.parameters}" if row.parameters else ""
    source = (
        f"def {row.name}(self{given}):\n"
        f"    return shaped(self, invoke(self, procedure, ({''.join(f'{value}, ' for value in values)})))\n"
    )
    exec(source, namespace)
    method: Callable[..., Any] = namespace[row.name]
    method.__doc__ = f"``{api_name(row.procedure.name)}``."
    method.__qualname__ = f"{cls.__name__}.{row.name}"
    method.__module__ = cls.__module__
    return method


def _expression(field: Field, remaining: Any, row: Row) -> str:
    """What an argument of the procedure is given."""
    item, mark, _ = split_type(field.type)
    if field.name.startswith("need_"):
        return "1"
    if _COUNTS.fullmatch(field.name) and field.name not in row.parameters.lower():
        return str(_bound(row.procedure))
    name = next(remaining, None)
    if name is None:
        assert field.name == "flags", f"{row.name}: nothing is given for {field.name}"
        return "0"
    if item == "param":
        return f"parameters(self, {row.procedure.name!r}, {name})"
    if item == "bytes" and field.name == "cpumap":
        return f"bitmap(self, {name})"
    if item == "str" and mark == "<":
        return f"texts({name})"
    if item in KINDS:
        return f"{name}._wire"
    return str(name)


def _bound(procedure: Procedure) -> int:
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


def made(handle: Handle, kind: str, wire: Any) -> Any:
    """A handle of a structure that came in an answer to ``handle``."""
    return KINDS[kind](getattr(handle, "_conn", None) or handle, wire)

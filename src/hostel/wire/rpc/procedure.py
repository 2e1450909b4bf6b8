"""Procedures and programs, read from the table's rows.

A row is ``number name | arguments | result | permissions | kind``, where cells at its end may be missing; a line that
is indented deeper than a number goes on with the row above. Arguments and result are fields of :mod:`hostel.codec.xdr`.

Permissions are ``object.permission``, all of which are needed. ``&N`` after one says that it is needed where the
call's flags have the bits of N, ``!N`` where they have none of them, ``=name:N`` where an argument is N; ``~``
before one, that the objects in the answer are those for which it is given. A procedure without any needs none.

Kinds: ``high`` is libvirt's mark for a call that waits for no guest; ``download`` and ``upload`` have a stream, which
``sparse`` ones may fill with holes; ``event`` is no call but a message of the daemon.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from hostel.codec.xdr import Codec, Types, parse_fields

# What somebody who may only look is given.
_LOOKING: Final = re.compile(r"(getattr|read|search_\w+|detect_\w+)$")
_ROW: Final = re.compile(r" {0,2}[0-9]")
_PERMISSION: Final = re.compile(
    r"(?P<filter>~?)(?P<object>\w+)\.(?P<name>\w+)(?:&(?P<all>\d+)|!(?P<none>\d+)|=(?P<field>\w+):(?P<is>\d+))?"
)


class Permission(NamedTuple):
    """What a caller needs: a permission on the object that the call is about.

    Attributes:
        object: the kind of object: ``connect``, ``domain``, ...
        name: the permission.
        filters: it is about each object of the answer.
        field: the argument that decides whether it is needed; empty where it always is.
        all_of: needed where the argument has all of these bits.
        none_of: needed where it has none of these bits.
        equal: needed where it has this value.
    """

    object: str
    name: str
    filters: bool = False
    field: str = ""
    all_of: int = 0
    none_of: int = 0
    equal: int | None = None

    def is_needed(self, value: int) -> bool:
        """Whether the permission is needed, by the value of :attr:`field`."""
        if self.equal is not None:
            return value == self.equal
        if self.none_of:
            return not value & self.none_of
        return value & self.all_of == self.all_of

    @property
    def only_looks(self) -> bool:
        """Whether somebody who may not change anything has it."""
        return _LOOKING.match(self.name) is not None

    def __str__(self) -> str:
        return f"{self.object}.{self.name}"


class Procedure(NamedTuple):
    """One row.

    Attributes:
        number: on the wire.
        name: libvirt's, in small letters; a driver's method has the same.
        arguments: the codec of the call's body, or of an event's.
        result: the codec of the answer's body.
        permissions: see above.
        high: see above.
        stream: ``""``, ``"download"`` or ``"upload"``, as the client sees it.
        sparse: the stream may have holes.
        event: a message that the daemon sends.
    """

    number: int
    name: str
    arguments: Codec
    result: Codec
    permissions: tuple[Permission, ...]
    high: bool
    stream: str
    sparse: bool
    event: bool


class Program:
    """A numbered set of procedures.

    Args:
        name: ours, for what is logged.
        number: on the wire.
        types: the structures that the rows name.
        rows: the table's text.

    Attributes:
        by_number: the procedures.
        by_name: likewise.
    """

    def __init__(self, name: str, number: int, types: Types, *rows: str) -> None:
        self.name = name
        self.number = number
        self.types = types
        found = sorted(_parse(row, types) for text in rows for row in _split(text))
        self.by_number: dict[int, Procedure] = {procedure.number: procedure for procedure in found}
        self.by_name: dict[str, Procedure] = {procedure.name: procedure for procedure in found}


def _split(text: str) -> list[str]:
    rows: list[str] = []
    for line in text.splitlines():
        if _ROW.match(line):
            rows.append(line)
        elif line.strip():
            rows[-1] += " " + line.strip()
    return rows


def _parse(row: str, types: Types) -> Procedure:
    head, arguments, result, permissions, kind = [*(cell.strip() for cell in row.split("|")), *[""] * 4][:5]
    number, name = head.split()
    kinds = set(kind.split())
    return Procedure(
        int(number),
        name,
        types.codec(parse_fields(arguments)),
        types.codec(parse_fields(result)),
        tuple(_permission(word) for word in permissions.split()),
        high="high" in kinds,
        stream="download" if "download" in kinds else "upload" if "upload" in kinds else "",
        sparse="sparse" in kinds,
        event="event" in kinds,
    )


def _permission(word: str) -> Permission:
    match = _PERMISSION.fullmatch(word)
    if match is None:
        raise ValueError(f"'{word}' is no permission")
    field = match["field"] or ("flags" if match["all"] or match["none"] else "")
    return Permission(
        match["object"],
        match["name"],
        filters=bool(match["filter"]),
        field=field,
        all_of=int(match["all"] or 0),
        none_of=int(match["none"] or 0),
        equal=int(match["is"]) if match["is"] else None,
    )

r"""XDR (RFC 4506), declared in a compact notation and compiled into one Python function for each direction.

A list of fields is ``name:type`` words. The types:

======================== =============================================================== ==================
``i8 u8 i16 u16 i32 u32`` numbers, each in four bytes on the wire                          int
``i64 u64 f64``           numbers in eight bytes                                           int, float
``str``                   text of at most :data:`TEXT_MAX` bytes                           str
``uuid``                  sixteen bytes                                                    bytes
``bytes[N] bytes<N>``     bytes: exactly N, at most N                                      bytes
``chars[N] chars<N>``     likewise, but each takes four bytes, as C's ``char`` arrays do   bytes
``T?``                    a value or none                                                  value, or None
``T[N] T<N>``             values of a type: exactly N, at most N                           list
a name                    a structure of the same :class:`Types`                           named tuple
======================== =============================================================== ==================

>>> types = Types('''
... point  x:i32 y:i32
... number 1=i32 2=str
... ''')
>>> shape = types.codec("name:str corners:point<4> size:number")
>>> data = shape.pack(("a", [(1, 2)], (2, "b")))
>>> shape.unpack(data)
('a', [point(x=1, y=2)], (2, 'b'))

A line ``name number=type ...`` declares a union: a pair of the number and what it says that follows. Text is UTF-8, and
bytes that are none are kept as surrogates. Nothing is allocated for a count before the bytes are there.
"""

from __future__ import annotations

import struct
from collections import namedtuple
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from hostel.codec.xdrsource import Source
from hostel.errors import LocalProtocolError, RemoteProtocolError
from hostel.units import MiB

TEXT_MAX: Final = 4 * MiB  # bytes of a text; libvirt's bound

_NUMBERS: Final = {
    "i8": "i", "u8": "I", "i16": "i", "u16": "I", "i32": "i", "u32": "I", "i64": "q", "u64": "Q", "f64": "d",
}  # fmt: skip


class Field(NamedTuple):
    """A member of a structure: its name, and its type as it is written."""

    name: str
    type: str


class Types:
    """A set of structures and unions that may name each other.

    Args:
        declarations: one a line; a line that is indented goes on with the one above.
    """

    def __init__(self, declarations: str) -> None:
        self._fields: dict[str, tuple[Field, ...]] = {}
        self._unions: dict[str, dict[int, str]] = {}
        self._classes: dict[str, type] = {}
        for line in _joined(declarations):
            name, *words = line.split()
            if "=" in words[0]:
                cases = (word.split("=") for word in words)
                self._unions[name] = {int(number): kind for number, kind in cases}
            else:
                self._fields[name] = parse_fields(" ".join(words))

    def names(self) -> list[str]:
        """The names of the structures."""
        return list(self._fields)

    def fields(self, name: str) -> tuple[Field, ...]:
        """The members of a structure."""
        return self._fields[name]

    def structure(self, name: str) -> Any:
        """The named tuple that a structure becomes."""
        found = self._classes.get(name)
        if found is None:
            found = self._classes[name] = namedtuple(name, [field.name for field in self._fields[name]])
        return found

    def codec(self, fields: str | Sequence[Field]) -> Codec:
        """The codec of a list of fields."""
        return Codec(self, parse_fields(fields) if isinstance(fields, str) else tuple(fields))

    def read(self, source: Source, kind: str) -> str:
        """Write into ``source`` what reads a value of a type; the expression of the value."""
        item, mark, bound = split_type(kind)
        if mark == "?":
            return source.read_optional(lambda: self.read(source, item))
        if item in ("bytes", "chars"):
            width = 1 if item == "bytes" else 4
            return source.read_fixed_bytes(bound, width) if mark == "[" else source.read_bytes(bound, width)
        if mark:
            return source.read_list(
                lambda: self.read(source, item), self.least(item), bound, fixed=mark == "[", code=_NUMBERS.get(item)
            )
        if kind in _NUMBERS:
            return source.read_number(_NUMBERS[kind])
        if kind == "str":
            return source.read_text(TEXT_MAX)
        if kind == "uuid":
            return source.read_fixed_bytes(16, 1)
        if kind in self._unions:
            return source.read_union(self._unions[kind], lambda case: self.read(source, case))
        values = [self.read(source, field.type) for field in self._fields[kind]]
        return source.made(source.constant(f"T_{kind}", self.structure(kind)), values)

    def write(self, source: Source, kind: str, value: str) -> None:
        """Write into ``source`` what packs the value of an expression."""
        item, mark, bound = split_type(kind)
        if mark == "?":
            source.write_optional(value, lambda inner: self.write(source, item, inner))
        elif item in ("bytes", "chars"):
            width = 1 if item == "bytes" else 4
            if mark == "[":
                source.write_fixed_bytes(value, bound, width)
            else:
                source.write_bytes(value, bound, width)
        elif mark:
            source.write_list(value, lambda inner: self.write(source, item, inner), bound, fixed=mark == "[")
        elif kind in _NUMBERS:
            source.write_number(_NUMBERS[kind], value)
        elif kind == "str":
            source.write_text(value, TEXT_MAX)
        elif kind == "uuid":
            source.write_fixed_bytes(value, 16, 1)
        elif kind in self._unions:
            source.write_union(value, self._unions[kind], lambda case, inner: self.write(source, case, inner))
        else:
            fields = self._fields[kind]
            for field, part in zip(fields, source.taken_apart(value, len(fields)), strict=True):
                self.write(source, field.type, part)

    def least(self, kind: str) -> int:
        """The fewest bytes that a value of a type takes."""
        item, mark, bound = split_type(kind)
        if mark == "[":
            return bound * (1 if item == "bytes" else 4 if item == "chars" else self.least(item))
        if mark or kind == "str":
            return 4
        if kind in _NUMBERS:
            return struct.calcsize(">" + _NUMBERS[kind])
        if kind == "uuid":
            return 16
        if kind in self._unions:
            return 4 + min(map(self.least, self._unions[kind].values()))
        return sum(self.least(field.type) for field in self._fields[kind])


class Codec:
    """Packs and unpacks the values of a list of fields; compiled when it is first used.

    Attributes:
        fields: their names and types.
    """

    def __init__(self, types: Types, fields: tuple[Field, ...]) -> None:
        self._types = types
        self.fields = fields
        self._unpacker: Callable[[bytes, int], tuple[Any, ...]] | None = None
        self._packer: Callable[[Sequence[Any]], bytes] | None = None

    def unpack(self, data: bytes, offset: int = 0) -> tuple[Any, ...]:
        """Read the values that lie from ``offset`` bytes to the end of ``data``.

        Raises:
            RemoteProtocolError: they end before, or there is more, or a bound or a union's number is broken.
        """
        unpacker = self._unpacker
        if unpacker is None:
            source = Source()
            values = [self._types.read(source, field.type) for field in self.fields]
            unpacker = self._unpacker = source.compile_unpacker(values)
        try:
            return unpacker(data, offset)
        except struct.error:
            raise RemoteProtocolError("Unable to decode message payload: it ends too early") from None
        except OverflowError as error:
            raise RemoteProtocolError(f"Unable to decode message payload: {error}") from None

    def pack(self, values: Sequence[Any]) -> bytes:
        """Write values as bytes.

        Raises:
            LocalProtocolError: they do not fit their types.
        """
        packer = self._packer
        if packer is None:
            source = Source()
            for field, value in zip(self.fields, source.taken_apart("values", len(self.fields)), strict=True):
                self._types.write(source, field.type, value)
            packer = self._packer = source.compile_packer()
        try:
            return packer(values)
        except (struct.error, TypeError, ValueError, OverflowError, AttributeError, KeyError) as error:
            names = ", ".join(field.name for field in self.fields)
            raise LocalProtocolError(f"Unable to encode message payload ({names}): {error}") from None


def parse_fields(text: str) -> tuple[Field, ...]:
    """Read ``name:type`` words."""
    return tuple(Field(*word.split(":", 1)) for word in text.split())


def split_type(kind: str) -> tuple[str, str, int]:
    """A type's item, its mark (``?``, ``[``, ``<`` or none) and its bound."""
    if kind.endswith("?"):
        return kind[:-1], "?", 1
    if kind.endswith((">", "]")):
        mark = "<" if kind.endswith(">") else "["
        item, _, bound = kind[:-1].rpartition(mark)
        return item, mark, int(bound)
    return kind, "", 1


def _joined(text: str) -> list[str]:
    """The lines of a text, each with those that go on with it."""
    lines: list[str] = []
    for line in text.splitlines():
        if line[:1].isspace() and lines:
            lines[-1] += " " + line.strip()
        elif line.strip():
            lines.append(line)
    return lines

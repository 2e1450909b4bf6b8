"""Values in XML: how the text of an attribute or an element becomes a Python value, and back.

Numbers are read as libvirt's ``virStrToLong`` functions read them, with C's bases; errors end in its words
(``src/util/virxml.c``), without the beginning that names the attribute.
"""

from __future__ import annotations

import enum
import re
import uuid as uuids
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from hostel.errors import ErrorCode

T = TypeVar("T")
E = TypeVar("E", bound=enum.StrEnum)

_MANY: Final = 16  # choices beyond which a message does not list them
_BASES: Final = {
    10: re.compile(r"\s*([+-]?)(\d+)", re.ASCII),
    16: re.compile(r"\s*([+-]?)(?:0[xX])?([0-9a-fA-F]+)", re.ASCII),
}
_C_LITERAL: Final = re.compile(r"\s*([+-]?)(?:0[xX]([0-9a-fA-F]+)|(0[0-7]*)|([1-9]\d*))", re.ASCII)
_UUID: Final = re.compile(r"\s*([0-9a-fA-F]{2}(?:-?[0-9a-fA-F]{2}){15})\s*", re.ASCII)


class Kind(Generic[T]):
    """One kind of value.

    Attributes:
        parse: text to value; raises ``ValueError`` that says what is expected.
        format: value to text.
        values: every value there is, where these are few.
        code: libvirt's number for a value that is none.
        words: what libvirt says of one, with ``{}`` for the value and ``{name}`` for whose it is, in place of its
            general words.
    """

    def __init__(
        self,
        parse: Callable[[str], T],
        format: Callable[[T], str],
        values: tuple[T, ...] = (),
        code: ErrorCode = ErrorCode.XML_ERROR,
        words: str = "",
    ) -> None:
        self.parse = parse
        self.format = format
        self.values = values
        self.code = code
        self.words = words

    def saying(self, words: str, code: ErrorCode = ErrorCode.XML_ERROR) -> Kind[T]:
        """The same kind, of which libvirt says something else where a value is none."""
        return Kind(self.parse, self.format, self.values, code, words)

    def refusal(self, name: str, value: str, general: str, error: ValueError) -> str:
        """Why a text is no value: libvirt's words, general ones where it has none of its own, and what is expected."""
        return f"{self.words.format(value, name=name) or general}. {error}".rstrip()


def _string(text: str) -> str:
    return text


def read_integer(text: str, base: int = 10) -> int:
    """Read a whole number as C's ``strtol`` does; base 0 takes ``0x`` and a leading ``0`` for what C takes them for.

    Raises:
        ValueError: anything else is there.
    """
    if base:
        found = _BASES[base].fullmatch(text)
        if found is None:
            raise ValueError(text)
        value = int(found[2], base)
    else:
        found = _C_LITERAL.fullmatch(text)
        if found is None:
            raise ValueError(text)
        value = int(found[2], 16) if found[2] else int(found[3], 8) if found[3] else int(found[4])
    return -value if found[1] == "-" else value


def _reader(base: int, minimum: int, maximum: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        try:
            value = read_integer(text, base)
        except ValueError:
            raise ValueError(
                "Expected non-negative integer value" if minimum >= 0 else "Expected integer value"
            ) from None
        if value < minimum <= 1 and minimum == 1 and value == 0:
            raise ValueError("Zero is not permitted")
        if value < minimum:
            raise ValueError("Expected non-negative integer value" if minimum == 0 else f"The least is {minimum}")
        if value > maximum:
            raise ValueError(f"The most is {maximum}")
        return value

    return read


def integer(
    minimum: int = 0,
    maximum: int = 2**32 - 1,
    *,
    base: int = 10,
    code: ErrorCode = ErrorCode.XML_ERROR,
    words: str = "",
) -> Kind[int]:
    """A whole number between two limits, written in decimal; an ``unsigned int`` unless said otherwise."""
    return Kind(_reader(base, minimum, maximum), str, code=code, words=words)


def hexadecimal(digits: int, *, base: int = 0, maximum: int | None = None) -> Kind[int]:
    """A number written as ``0x`` and at least ``digits`` digits; without ``maximum`` it has no more than these."""
    return Kind(_reader(base, 0, 16**digits - 1 if maximum is None else maximum), lambda value: f"0x{value:0{digits}x}")


def octal(digits: int, maximum: int) -> Kind[int]:
    """A number written in octal with a leading zero and at least ``digits`` digits after it."""

    def read(text: str) -> int:
        try:
            value = int(text, 8) if text.isascii() and text.isdigit() else -1
        except ValueError:
            value = -1
        if not 0 <= value <= maximum:
            raise ValueError(f"Write an octal number up to {maximum:o}, such as 0644")
        return value

    return Kind(read, lambda value: f"0{value:0{digits}o}")


def choice(*names: str, code: ErrorCode = ErrorCode.XML_ERROR, words: str = "") -> Kind[str]:
    """One of some words."""
    known = frozenset(names)

    def read(text: str) -> str:
        if text not in known:
            raise ValueError(_listed(names))
        return text

    return Kind(read, _string, names, code, words)


def enumeration(cls: type[E], *, code: ErrorCode = ErrorCode.XML_ERROR, words: str = "") -> Kind[E]:
    """A member of an enumeration, by its value."""

    def read(text: str) -> E:
        try:
            return cls(text)
        except ValueError:
            raise ValueError(_listed(tuple(cls))) from None

    return Kind(read, lambda value: value.value, tuple(cls), code, words)


def _listed(names: tuple[str, ...]) -> str:
    return f"Write {', '.join(names[:-1])} or {names[-1]}" if 1 < len(names) <= _MANY else ""


def _boolean(yes: str, no: str) -> Kind[bool]:
    def read(text: str) -> bool:
        if text not in (yes, no):
            raise ValueError(f"Write {yes} or {no}")
        return text == yes

    return Kind(read, lambda value: yes if value else no, (True, False))


def _read_uuid(text: str) -> str:
    found = _UUID.fullmatch(text)
    if found is None:
        raise ValueError("Expected UUID")
    return str(uuids.UUID(found[1]))


STRING: Final = Kind(_string, _string)
YES_NO: Final = _boolean("yes", "no")
ON_OFF: Final = _boolean("on", "off")
UUID: Final = Kind(_read_uuid, _string)

r"""Files of ``name = value`` lines, as Xen's, VMware's and LXC's configuration is (``src/util/virconf.c``).

>>> parse('memory = 512\nvif = [ "mac=00:16:3e:00:00:01" ]  # a card', Dialect.XEN)
[Assignment(name='memory', value=512), Assignment(name='vif', value=['mac=00:16:3e:00:00:01'])]

A name may come any number of times; what that means is for who asks.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable
from typing import Final, NamedTuple

from hostel.errors import ErrorCode, ModelError

Value = str | int | list["Value"]

_LIMIT: Final = 10 * 1024 * 1024  # characters; MAX_CONFIG_FILE_SIZE
_DEPTH: Final = 16  # lists in lists

_BLANKS: Final = re.compile(r"[ \t]*")
_SPACE: Final = re.compile(r"[ \t\r\n]*")
_COMMENT: Final = re.compile(r"#[^\r\n]*")
_NUMBER: Final = re.compile(r"[+-]?[0-9]+")
_QUOTED: Final = re.compile(r"'([^'\r\n]*)'|\"\"\"(.*?)\"\"\"|\"([^\"\r\n]*)\"", re.DOTALL)
_REST: Final = re.compile(r"[^\r\n]*")


class Dialect(enum.Enum):
    """How names and values are written."""

    XEN = "xen"
    VMX = "vmx"
    LXC = "lxc"


_NAMES: Final = {
    Dialect.XEN: re.compile(r"[A-Za-z][A-Za-z0-9_]*"),
    Dialect.VMX: re.compile(r"[A-Za-z.][A-Za-z0-9_:.-]*"),
    Dialect.LXC: re.compile(r"[A-Za-z][A-Za-z0-9_.]*"),
}


class Assignment(NamedTuple):
    """One line.

    Attributes:
        name: what is set.
        value: a text, a number or a list of such.
    """

    name: str
    value: Value


class _Reader:
    def __init__(self, text: str, dialect: Dialect) -> None:
        self.text = text
        self.dialect = dialect
        self.position = 0

    def wrong(self, what: str) -> ModelError:
        line = self.text.count("\n", 0, self.position) + 1
        return ModelError(f"line {line}", what, code=ErrorCode.CONF_SYNTAX)

    def skip(self, pattern: re.Pattern[str]) -> str:
        """Go past what matches, which may be nothing."""
        found = pattern.match(self.text, self.position)
        if found is None:
            return ""
        self.position = found.end()
        return found[0]

    @property
    def next(self) -> str:
        return self.text[self.position : self.position + 1]

    def statements(self) -> Iterable[Assignment]:
        self.skip(_SPACE)
        while self.next:
            if not self.skip(_COMMENT):
                yield self.statement()
            self.skip(_BLANKS)
            if self.next not in ("", "\r", "\n", ";"):
                raise self.wrong("expecting a separator")
            if self.next == ";":
                self.position += 1
            self.skip(_SPACE)

    def statement(self) -> Assignment:
        name = self.skip(_NAMES[self.dialect])
        if not name:
            raise self.wrong("expecting a name")
        self.skip(_BLANKS)
        if self.next != "=":
            raise self.wrong("expecting an assignment")
        self.position += 1
        value = self.value(0)
        self.skip(_BLANKS)
        self.skip(_COMMENT)
        return Assignment(name, value)

    def value(self, depth: int) -> Value:
        self.skip(_BLANKS)
        if found := _QUOTED.match(self.text, self.position):
            self.position = found.end()
            return found[found.lastindex or 0]
        if self.next in ("'", '"') and self.next:
            raise self.wrong("unterminated string")
        if self.dialect is Dialect.LXC:
            return self.skip(_REST).rstrip(" \t")
        if self.dialect is Dialect.XEN and self.next == "[":
            return self.list(depth)
        if self.dialect is Dialect.XEN and (digits := self.skip(_NUMBER)):
            if len(digits) > 20:
                raise self.wrong("number too large")
            return int(digits)
        raise self.wrong("expecting a value in quotes" if self.dialect is Dialect.VMX else "expecting a value")

    def list(self, depth: int) -> list[Value]:
        if depth >= _DEPTH:
            raise self.wrong(f"more than {_DEPTH} lists in lists")
        self.position += 1
        items: list[Value] = []
        self.skip(_SPACE)
        while self.next != "]":
            items.append(self.value(depth + 1))
            self.skip(_SPACE)
            if self.next == ",":
                self.position += 1
                self.skip(_SPACE)
            elif self.next != "]":
                raise self.wrong("expecting a separator in list" if self.next else "list is not closed with ]")
        self.position += 1
        return items


def parse(text: str, dialect: Dialect) -> list[Assignment]:
    """Read a file.

    Raises:
        ModelError: it is none; the path says in which line.
    """
    if len(text) > _LIMIT:
        reason = f"the configuration is larger than {_LIMIT} characters"
        raise ModelError("", reason, code=ErrorCode.CONF_SYNTAX)
    return list(_Reader(text, dialect).statements())


def format_value(value: Value) -> str:
    """Write a value in Xen's way.

    Raises:
        ModelError: a text has every kind of quotation mark, or a line end in it.
    """
    if isinstance(value, int):
        return str(value)
    if isinstance(value, list):
        return "[ " + ", ".join(format_value(item) for item in value) + " ]"
    if "\n" not in value and "\r" not in value:
        for quote in ('"', "'"):
            if quote not in value:
                return f"{quote}{value}{quote}"
    if '"""' not in value and not value.endswith('"'):
        return f'"""{value}"""'
    raise ModelError("", f"cannot write {value!r} in quotation marks", code=ErrorCode.CONFIG_UNSUPPORTED)


def format_assignments(assignments: Iterable[Assignment]) -> str:
    """Write a file in Xen's way."""
    return "".join(f"{item.name} = {format_value(item.value)}\n" for item in assignments)

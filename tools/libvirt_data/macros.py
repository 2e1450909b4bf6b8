"""Reads calls of macros, such as ``DO_TEST("name", FLAG)``, from a test program's C source."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

_COMMENT = re.compile(r"/\*.*?\*/|(?m:^\s*//.*$)", re.DOTALL)
_DIRECTIVE = re.compile(r"(?m)^[ \t]*#.*$")
_LITERAL = re.compile(r'"((?:\\.|[^"\\])*)"')
_TOKEN = re.compile(r'"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])\'|[(),]|[^"\'(),]+')


class Call(NamedTuple):
    """A call of a macro.

    Attributes:
        macro: its name.
        arguments: strings without their quotes, none for ``NULL``, and everything else as it is written.
        position: where in the source it begins.
    """

    macro: str
    arguments: tuple[str | None, ...]
    position: int

    @property
    def words(self) -> tuple[str, ...]:
        """The arguments, an empty string for ``NULL``."""
        return tuple(argument or "" for argument in self.arguments)


class Macros:
    """A C source without comments and directives.

    Attributes:
        text: what is left of it.
    """

    def __init__(self, source: str) -> None:
        self.text = _DIRECTIVE.sub("", _COMMENT.sub(" ", source).replace("\\\n", " "))

    def calls(self, *names: str) -> Iterator[Call]:
        """Every call of these macros, outermost first to last."""
        begin = re.compile(rf"\b({'|'.join(names)})\s*\(")
        position = 0
        while found := begin.search(self.text, position):
            arguments, position = self._arguments(found.end())
            yield Call(found[1], arguments, found.start())

    def _arguments(self, position: int) -> tuple[tuple[str | None, ...], int]:
        depth, parts, part = 1, [], ""
        for token in _TOKEN.finditer(self.text, position):
            depth += {"(": 1, ")": -1}.get(token[0], 0)
            if depth == 0:
                position = token.end()
                break
            if token[0] == "," and depth == 1:
                parts.append(part)
                part = ""
            else:
                part += token[0]
        if part.strip() or parts:
            parts.append(part)
        return tuple(_value(part.strip()) for part in parts), position


def _value(text: str) -> str | None:
    if text == "NULL":
        return None
    if text.startswith('"') and not _LITERAL.sub("", text).strip():
        return "".join(found.replace('\\"', '"') for found in _LITERAL.findall(text))
    return " ".join(text.split())

"""Constant expressions of the assembler: numbers, characters, labels, ``$``, ``$$`` and C's operators.

A :class:`Value` remembers whether it was made of literals alone (``fixed``). Only a fixed value may choose a shorter
encoding: a label's address is not final in the first pass, and an instruction must have one size in both.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from hostel.errors import HostelError

_TOKEN: Final = re.compile(
    r"\s*(?:(?P<number>0[xX][0-9a-fA-F]+|0[bB][01]+|[0-9]+)(?![\w])"
    r"|(?P<name>\$\$|\$|\.?[A-Za-z_][\w.]*)"
    r"|(?P<text>'(?:[^']{1,4})'|\"(?:[^\"]{1,4})\")"
    r"|(?P<operator><<|>>|[-+*/%&|^~()]))"
)

_BINARY: Final[dict[str, tuple[int, Callable[[int, int], int]]]] = {
    "|": (1, lambda a, b: a | b),
    "^": (2, lambda a, b: a ^ b),
    "&": (3, lambda a, b: a & b),
    "<<": (4, lambda a, b: a << (b & 63)),
    ">>": (4, lambda a, b: a >> (b & 63)),
    "+": (5, lambda a, b: a + b),
    "-": (5, lambda a, b: a - b),
    "*": (6, lambda a, b: a * b),
    "/": (6, lambda a, b: a // b),
    "%": (6, lambda a, b: a % b),
}


class ExpressionError(HostelError):
    """An expression cannot be read or has no value; the assembler adds the line."""


class Value(NamedTuple):
    """What an expression is worth: ``fixed`` when no label took part, ``known`` when every name had a value."""

    number: int
    fixed: bool = True
    known: bool = True


class _Parser:
    def __init__(self, text: str, symbols: Mapping[str, Value]) -> None:
        self.text = text
        self.symbols = symbols
        self.tokens: list[tuple[str, str]] = []
        position = 0
        stripped = text.rstrip()
        while position < len(stripped):
            match = _TOKEN.match(stripped, position)
            if match is None:
                raise ExpressionError(f"cannot read '{stripped[position:].strip()}' in the expression '{text.strip()}'")
            kind = match.lastgroup or ""
            self.tokens.append((kind, match.group(kind)))
            position = match.end()
        self.index = 0

    def parse(self) -> Value:
        value = self.binary(1)
        if self.index != len(self.tokens):
            raise ExpressionError(
                f"'{self.tokens[self.index][1]}' is unexpected in the expression '{self.text.strip()}'"
            )
        return value

    def binary(self, level: int) -> Value:
        left = self.unary()
        while self.index < len(self.tokens):
            kind, text = self.tokens[self.index]
            if kind != "operator" or text not in _BINARY or _BINARY[text][0] < level:
                break
            self.index += 1
            precedence, apply = _BINARY[text]
            right = self.binary(precedence + 1)
            left = self.apply(text, apply, left, right)
        return left

    def apply(self, text: str, apply: Callable[[int, int], int], left: Value, right: Value) -> Value:
        known = left.known and right.known
        if text in "/%" and right.number == 0:
            if right.known:
                raise ExpressionError(f"division by zero in the expression '{self.text.strip()}'")
            return Value(0, False, False)
        return Value(apply(left.number, right.number), left.fixed and right.fixed, known)

    def unary(self) -> Value:
        if self.index == len(self.tokens):
            raise ExpressionError(f"the expression '{self.text.strip()}' ends too early")
        kind, text = self.tokens[self.index]
        self.index += 1
        if kind == "number":
            return Value(int(text, 0) if not text.isdigit() else int(text))
        if kind == "text":
            return Value(int.from_bytes(text[1:-1].encode("ascii", "replace"), "little"))
        if kind == "name":
            return self.symbols.get(text, Value(0, False, False))
        if text == "(":
            value = self.binary(1)
            if self.index == len(self.tokens) or self.tokens[self.index][1] != ")":
                raise ExpressionError(f"a closing bracket is missing in '{self.text.strip()}'")
            self.index += 1
            return value
        if text in "+-~":
            value = self.unary()
            number = {"+": value.number, "-": -value.number, "~": ~value.number}[text]
            return value._replace(number=number)
        raise ExpressionError(f"'{text}' is unexpected in the expression '{self.text.strip()}'")


def evaluate(text: str, symbols: Mapping[str, Value]) -> Value:
    """Work out an expression.

    Args:
        text: the expression, such as ``(image_end - $$) / 512``.
        symbols: labels, constants, and ``$`` and ``$$`` for this line.

    Returns:
        Its value; ``known`` is False where a name has no value yet.

    Raises:
        ExpressionError: it cannot be read, or divides by zero.
    """
    return _Parser(text, symbols).parse()


def unknown_names(text: str, symbols: Mapping[str, Value]) -> list[str]:
    """List the names in an expression that have no value, for an error message."""
    names = [match.group("name") for match in _TOKEN.finditer(text) if match.group("name")]
    return [name for name in names if name not in symbols or not symbols[name].known]

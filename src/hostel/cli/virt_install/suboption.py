"""Options with options of their own: ``--disk path=/a.qcow2,bus=virtio,cache=none``.

One table of :class:`Sub` for each option is the parser, the list that ``--disk=?`` prints, and where a value goes in
the document. The grammar is that of virt-install 4.1: commas between, quotes and backslashes protect them, and a value
that may have commas of its own runs on to the next known name.
"""

from __future__ import annotations

import enum
import re
import shlex
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from hostel.cli.virt_install.part import Part
from hostel.errors import UsageError

_TRUE: Final = ("y", "yes", "1", "true", "t", "on")
_FALSE: Final = ("n", "no", "0", "false", "f", "off")
_NUMBERED: Final = "[0-9]*"


class Refusal(UsageError):
    """An error that is complete on its own, without the option it came from."""


class Kind(enum.Enum):
    """What a value is, and how the document has it."""

    TEXT = "text"
    NUMBER = "number"
    YES_NO = "yes"  # on or off in every spelling, written yes or no
    ON_OFF = "on"  # the same, written on or off
    FLAG = "flag"  # the same, written as an empty element or none
    PATH = "path"  # made absolute


class Sub(NamedTuple):
    """One option of an option.

    Attributes:
        name: as it is typed; ``[0-9]*`` stands for the number of one among several.
        path: where the value goes in the document, ``{}`` for that number; empty when the option itself reads it.
        kind: what the value is.
        comma: whether the value may have commas.
        aliases: other names; those that ``=?`` lists have a row of their own.
        skip: a value that means the default, and is not written.
    """

    name: str
    path: str = ""
    kind: Kind = Kind.TEXT
    comma: bool = False
    aliases: tuple[str, ...] = ()
    skip: str | None = None

    def match(self, name: str) -> int | None:
        """The number in a name that is this option's, 0 where it has none; None for another name."""
        for known in (self.name, *self.aliases):
            if name == known:
                return 0
            if _NUMBERED in known:
                pattern = re.escape(known).replace(re.escape(_NUMBERED), r"(\d*)")
                if found := re.fullmatch(pattern, name):
                    return int(found[1] or 0)
        return None


Given = dict[str, "str | None"]
Hook = Callable[[Any, Part, "str | None"], None]


class SubOptions(NamedTuple):
    """The options of one option.

    Attributes:
        flag: the option they belong to, such as ``--disk``.
        subs: their table, in the order in which they are applied.
        first: the names of values that are given without one.
        renamed: names listed by ``=?`` that only stand for another row.
    """

    flag: str
    subs: tuple[Sub, ...]
    first: tuple[str, ...] = ()
    renamed: tuple[tuple[str, str], ...] = ()

    def read(self, text: str) -> Given:
        """Split what was typed into names and values; a value is None where there was no ``=``.

        Raises:
            UsageError: a quote is not closed.
        """
        pairs = split(text)
        unnamed = list(self.first)
        for index, (name, value) in enumerate(pairs):
            if value is not None or not unnamed:
                break
            pairs[index] = (unnamed.pop(0), name)
        given: Given = {}
        while pairs:
            name, value = pairs.pop(0)
            sub = self.find(name)
            if sub is not None and sub.comma:
                while pairs and self.find(pairs[0][0]) is None:
                    more, rest = pairs.pop(0)
                    value = f"{value or ''},{more}" + (f"={rest}" if rest else "")
            given[name] = value
        names = dict(self.renamed)
        return {names.get(name, name): value for name, value in given.items()}

    def find(self, name: str) -> Sub | None:
        """The row of a name."""
        return next((sub for sub in self.subs if sub.match(name) is not None), None)

    def apply(self, given: Given, part: Part, hooks: Mapping[str, Hook] | None = None, owner: Any = None) -> None:
        """Put each value where its row says; ``hooks`` are called with ``owner`` instead, by the row's name.

        Raises:
            UsageError: a value is missing or is not what it must be.
            Refusal: there is no such option.
        """
        left = dict(given)
        for sub in self.subs:
            for name in [name for name in left if sub.match(name) is not None]:
                value = self._value(sub, name, left.pop(name))
                if value is not None and value == sub.skip:
                    continue
                if hooks and sub.name in hooks:
                    hooks[sub.name](owner, part, value)
                elif sub.path:
                    part.put(sub.path.format(sub.match(name)), value)
        if left:
            raise Refusal(f"Unknown {self.flag} options: {list(left)}")

    def _value(self, sub: Sub, name: str, value: str | None) -> str | None:
        if value is None:
            raise UsageError(f"Option '{name}' had no value set.")
        return convert(sub.kind, name, value)

    def listing(self) -> str:
        """What ``=?`` prints."""
        names = sorted((sub.name for sub in self.subs), key=_listed)
        return "\n".join([f"{self.flag} options:", *(f"  {name}" for name in names), ""])


def _listed(name: str) -> tuple[int, str]:
    return (1 if name.startswith("address.") else 2), name


def split(text: str) -> list[tuple[str, str | None]]:
    """Split at commas that nothing protects, and at the first ``=`` of each piece.

    Raises:
        UsageError: a quote is not closed.
    """
    lexer = shlex.shlex(text, posix=True)
    lexer.commenters = ""
    lexer.whitespace = ","
    lexer.whitespace_split = True
    try:
        words = list(lexer)
    except ValueError as error:
        raise UsageError(f"'{text}': {error}") from None
    pairs: list[tuple[str, str | None]] = []
    for word in words:
        name, equals, value = word.partition("=")
        pairs.append((name, value if equals else None))
    return pairs


def convert(kind: Kind, name: str, value: str) -> str | None:
    """A value as the document has it; None unsets.

    Raises:
        UsageError: it is no number.
        Refusal: it is neither on nor off.
    """
    if value == "":
        return None
    if kind is Kind.NUMBER:
        return str(number(name, value))
    if kind is Kind.PATH:
        import os

        return os.path.abspath(value)
    if kind is Kind.TEXT:
        return value
    truth = on_off(name, value)
    if kind is Kind.FLAG:
        return "" if truth else None
    return {Kind.YES_NO: ("no", "yes"), Kind.ON_OFF: ("off", "on")}[kind][truth]


def on_off(name: str, value: str) -> bool:
    """Read a truth in any spelling.

    Raises:
        Refusal: it is neither.
    """
    lowered = value.lower()
    if lowered in _TRUE:
        return True
    if lowered in _FALSE:
        return False
    raise Refusal(f"{name} must be 'yes' or 'no'")


def number(name: str, value: str) -> int:
    """Read a whole number, decimal or with 0x.

    Raises:
        UsageError: it is none.
    """
    try:
        return int(value, 16 if value.lower().startswith("0x") else 10)
    except ValueError:
        raise UsageError(f"{name}: '{value}' is not a whole number") from None

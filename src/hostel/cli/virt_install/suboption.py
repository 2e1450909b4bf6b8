"""Options with options of their own: ``--disk path=/a.qcow2,bus=virtio,cache=none``.

One table of :class:`Sub` for each option is the parser, the list that ``--disk=?`` prints, and where a value goes in
the document. The grammar is that of virt-install 4.1: commas between, quotes and backslashes protect them, and a value
that may have commas of its own runs on to the next known name.
"""

from __future__ import annotations

import enum
import os
import re
import shlex
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from hostel.cli.virt_install import edit
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


TEXT, NUMBER, YES_NO, ON_OFF, FLAG, PATH = Kind


class Sub(NamedTuple):
    """One option of an option.

    Attributes:
        name: as it is typed; ``[0-9]*`` stands for the number of one among several.
        path: where the value goes in the document, ``{}`` for such a number; empty when the option itself reads it.
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

    def match(self, name: str) -> tuple[int, ...] | None:
        """The numbers in a name that is this option's, 0 where one is left out; None for another name."""
        for known in (self.name, *self.aliases):
            if name == known:
                return (0,) * self.name.count(_NUMBERED)
            if _NUMBERED in known:
                pattern = re.escape(known).replace(re.escape(_NUMBERED), r"(\d*)")
                if found := re.fullmatch(pattern, name):
                    return tuple(int(number or 0) for number in found.groups())
        return None

    def place(self, name: str) -> str:
        """Where the value goes that was given under this name."""
        return self.path.format(*(self.match(name) or ()))


def at(name: str, kind: Kind = Kind.TEXT, *aliases: str, comma: bool = False, inside: str = "") -> Sub:
    """A row whose place is its name: ``a.b.c`` is the attribute ``c`` of ``a/b``, here ``inside`` other elements."""
    *steps, last = name.replace(_NUMBERED, "[{}]").split(".")
    path = "/".join([*([inside] if inside else []), *steps, f"@{last}"])
    return Sub(name, path, kind, comma, aliases)


def within(element: str, *names: str, kind: Kind = Kind.TEXT) -> tuple[Sub, ...]:
    """A row for each name: an element of that name in ``element``."""
    return tuple(Sub(name, f"{element}/{name}" if element else name, kind) for name in names)


Given = dict[str, "str | None"]
Hook = Callable[[Any, Part, "str | None"], None]
Lookup = Callable[[Part, "str | None"], bool]
CLEAR: Final = "clearxml"
_XPATHS: Final = ("delete", "set", "create", "value")
_EVERY_OBJECT: Final = (Sub(CLEAR), *(Sub(f"xpath[0-9]*.{verb}", comma=True) for verb in _XPATHS))


class SubOptions(NamedTuple):
    """The options of one option.

    Attributes:
        flag: the option they belong to, such as ``--disk``.
        subs: their table, in the order in which they are applied.
        first: the names of values that are given without one.
        renamed: names listed by ``=?`` that only stand for another row.
        clears: whether ``clearxml`` is one of them, which virt-xml has a use for.
        owner: the element that they describe: ``disk``, ``cpu``; empty where they describe several. Then each may be
            changed by ``xpath`` options, too.
    """

    flag: str
    subs: tuple[Sub, ...]
    first: tuple[str, ...] = ()
    renamed: tuple[tuple[str, str], ...] = ()
    clears: bool = True
    owner: str = ""

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
        return next((sub for sub in self.rows() if sub.match(name) is not None), None)

    def rows(self) -> tuple[Sub, ...]:
        """All rows, with those that every table has."""
        if not self.clears:
            return self.subs
        return (*(_EVERY_OBJECT if self.owner else _EVERY_OBJECT[:1]), *self.subs)

    def apply(
        self,
        given: Given,
        part: Part,
        hooks: Mapping[str, Hook] | None = None,
        owner: Any = None,
    ) -> None:
        """Put each value where its row says; ``hooks`` are called with ``owner`` instead, by the row's name.

        Raises:
            UsageError: a value is missing or is not what it must be.
            Refusal: there is no such option.
        """
        left = dict(given)
        if CLEAR in left and not self.owner:
            self._value(Sub(CLEAR, kind=Kind.YES_NO), CLEAR, left[CLEAR])
            raise UsageError(f"Don't know how to clearxml for {self.flag}")
        left.pop(CLEAR, None)
        place = self.owner if part.tag == "domain" else ""
        part.edits += [change.inside(place) for change in _edits(left)]
        for sub in self.subs:
            for name in [name for name in left if sub.match(name) is not None]:
                text = left.pop(name)
                value = self._value(sub, name, text)
                if value is not None and value == sub.skip:
                    continue
                if hooks and sub.name in hooks:
                    hooks[sub.name](owner, part, value)
                elif sub.path and sub.kind is Kind.FLAG and value is None and text:
                    part.remove(sub.place(name))
                elif sub.path and sub.kind is Kind.FLAG and value is not None and part.get(sub.place(name)):
                    continue  # the element is there, and has a value besides
                elif sub.path:
                    part.put(sub.place(name), value)
        self.refuse(left)

    def refuse(self, left: Given) -> None:
        """Refuse what no row has taken.

        Raises:
            Refusal: there is something.
        """
        if left:
            raise Refusal(f"Unknown {self.flag} options: {list(left)}")

    def describes(self, given: Given, part: Part, lookups: Mapping[str, Lookup] | None = None) -> bool:
        """Whether an object that exists has all of these values.

        Raises:
            UsageError: a value is missing, or is nothing that an object can be found by.
            Refusal: there is no such option.
        """
        unknown = {name: value for name, value in given.items() if self.find(name) is None}
        for name, text in given.items():
            sub = self.find(name)
            if sub is None:
                continue
            value = self._value(sub, name, text)
            if lookups and sub.name in lookups:
                if not lookups[sub.name](part, value):
                    return False
            elif not sub.path:
                kind = "" if part.tag in ("domain", "seclabel") else part.tag
                raise UsageError(f"Don't know how to match device type '{kind}' property '{name}'")
            elif not _agree(sub.kind, part.get(sub.place(name)), value):
                return False
        self.refuse(unknown)
        return True

    def _value(self, sub: Sub, name: str, value: str | None) -> str | None:
        if value is None:
            raise UsageError(f"Option '{name}' had no value set.")
        return convert(sub.kind, name, value)

    def listing(self) -> str:
        """What ``=?`` prints."""
        names = sorted((sub.name for sub in self.rows()), key=_listed)
        return "\n".join([f"{self.flag} options:", *(f"  {name}" for name in names), ""])


def _listed(name: str) -> tuple[int, str]:
    for rank, start in enumerate((CLEAR, "address.", "xpath")):
        if name.startswith(start):
            return rank, name
    return 3, name


def _edits(given: Given) -> list[edit.Edit]:
    """Take the changes by XPath out of what was typed; each number is one change."""
    grouped: dict[int, dict[str, str | None]] = {}
    for sub in _EVERY_OBJECT[1:]:
        for name in [name for name in given if sub.match(name) is not None]:
            numbers = sub.match(name)
            assert numbers is not None
            grouped.setdefault(numbers[0], {})[f"xpath.{sub.name.rpartition('.')[2]}"] = given.pop(name)
    return [edit.choose(grouped[number]) for number in sorted(grouped)]


def _agree(kind: Kind, one: str | None, other: str | None) -> bool:
    """Whether two values say the same: numbers may be written in hexadecimal, and a flag is there or not."""
    if kind is Kind.FLAG:
        return (one is None) == (other is None)
    if kind is Kind.NUMBER and one is not None and other is not None:
        try:
            return number("", one) == number("", other)
        except UsageError:
            return False
    return one == other


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


def decimal(name: str, value: str | None) -> int:
    """Read a whole number in decimal.

    Raises:
        UsageError: it is none.
    """
    try:
        return int(value or "")
    except ValueError:
        raise UsageError(f"{name}: '{value or ''}' is not a whole number") from None


def number(name: str, value: str) -> int:
    """Read a whole number, decimal or with 0x.

    Raises:
        UsageError: it is none.
    """
    try:
        return int(value, 16 if value.lower().startswith("0x") else 10)
    except ValueError:
        raise UsageError(f"{name}: '{value}' is not a whole number") from None

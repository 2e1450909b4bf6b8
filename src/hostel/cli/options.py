"""Declared options of virsh-like commands: one table is the parser, the help and the error messages.

The grammar is that of libvirt 9.0's ``vsh``: ``--opt value`` and ``--opt=value``, no abbreviations, no short options,
data assigned to the declared values in order, ``--`` before data that begins with dashes, ``;`` between commands of
one line.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple, TypeVar

from hostel.errors import UsageError

Flag = TypeVar("Flag", bound=enum.IntFlag)
_BLANK: Final = " \t"
_NUMBER: Final = re.compile(r"[ \t\n]*([+-]?)([0-9]{1,20})", re.ASCII)
_MAX: Final = 2**64 - 1  # unsigned long long
UINT: Final = 2**32 - 1  # the greatest that a C unsigned int takes


class Kind(enum.Enum):
    """What an option takes, and how it is shown."""

    FLAG = "flag"
    STRING = "string"
    NUMBER = "number"
    DATA = "data"
    REST = "rest"


class Option(NamedTuple):
    """One option of a command; ``positional`` says whether bare data may fill it."""

    name: str
    help: str
    kind: Kind
    required: bool = False
    positional: bool = True


def flag(name: str, help: str) -> Option:
    """Declare an option without a value."""
    return Option(name, help, Kind.FLAG, positional=False)


def data(name: str, help: str) -> Option:
    """Declare a required value, usually given without its name."""
    return Option(name, help, Kind.DATA, required=True)


def value(name: str, help: str, *, positional: bool = True) -> Option:
    """Declare an optional value."""
    return Option(name, help, Kind.STRING, positional=positional)


def number(name: str, help: str, *, positional: bool = True) -> Option:
    """Declare an optional number."""
    return Option(name, help, Kind.NUMBER, positional=positional)


def rest(name: str, help: str) -> Option:
    """Declare what takes all data that is left."""
    return Option(name, help, Kind.REST)


class Args:
    """The options that one command was given."""

    __slots__ = ("_values", "rest")

    def __init__(self, values: Mapping[str, str | None], rest: Iterable[str] = ()) -> None:
        self._values = dict(values)
        self.rest = tuple(rest)

    def has(self, name: str) -> bool:
        """Whether the option was given."""
        return name in self._values

    def get(self, name: str) -> str | None:
        """The option's value, or None when it was not given.

        Raises:
            UsageError: it is empty.
        """
        found = self._values.get(name)
        if found == "":
            raise UsageError(f"Failed to get option '{name}': Option argument is empty")
        return found

    def written(self, name: str) -> str:
        """The option's value as it was given, which may be nothing."""
        return self._values.get(name) or ""

    def __getitem__(self, name: str) -> str:
        found = self.get(name)
        assert found is not None, name
        return found

    def number(self, name: str, *, wraps: bool = False, most: int = _MAX) -> int | None:
        """The option's value as an integer of at least 0.

        Args:
            name: the option's.
            wraps: whether -1 is the greatest there is.
            most: the greatest that is taken.

        Raises:
            UsageError: not such a number.
        """
        text = self._values.get(name)
        if text is None:
            return None
        match = _NUMBER.fullmatch(text)
        value = int(match[1] + match[2]) if match else _MAX + 1
        if value < 0 and wraps:
            value += _MAX + 1
        if not 0 <= value <= most:
            raise UsageError(f"Numeric value '{text}' for <{name}> option is malformed or out of range")
        return value

    def flags(self, none: Flag, bits: Mapping[str, Flag]) -> Flag:
        """The bits of all options that were given.

        Args:
            none: what it is where none was given.
            bits: by the names of options.
        """
        for name, bit in bits.items():
            if self.has(name):
                none |= bit
        return none

    def exclude(self, one: str, other: str) -> None:
        """Refuse two options together.

        Raises:
            UsageError: both were given.
        """
        if self.has(one) and self.has(other):
            raise UsageError(f"Options --{one} and --{other} are mutually exclusive")


class Command(NamedTuple):
    """A command: its name, its options and what runs it.

    Attributes:
        aliases: other names of options, which no help tells: the option that is meant, or the option and its value.
    """

    name: str
    summary: str
    options: tuple[Option, ...]
    run: Callable[[Any, Args], None]
    description: str = ""
    connects: bool = True
    aliases: Mapping[str, str] = {}

    def parse(self, words: Iterable[str]) -> Args:
        """Assign words to options.

        Raises:
            UsageError: with virsh's message.
        """
        return _Parse(self).run(words)

    def synopsis(self) -> str:
        """The one line that shows every option."""
        return " ".join([self.name, *(shown for shown, _ in self._shown())])

    def _shown(self) -> Iterator[tuple[str, bool]]:
        """Each option as the synopsis shows it, and whether bare words may be options before it."""
        follows_data = False
        for option in self.options:
            yield _shown(option, follows_data=follows_data), follows_data
            follows_data = follows_data or (option.kind is not Kind.FLAG and option.positional)

    def help(self) -> str:
        """The page that ``help COMMAND`` prints."""
        lines = ["  NAME", f"    {self.name} - {self.summary}", "", "  SYNOPSIS", f"    {self.synopsis()}"]
        description = self.description or f"{self.summary[:1].upper()}{self.summary[1:]}."
        lines += ["", "  DESCRIPTION", *(f"    {line}" for line in description.splitlines())]
        if self.options:
            names = [
                _named(option, follows_data=follows)
                for option, (_, follows) in zip(self.options, self._shown(), strict=True)
            ]
            helps = (option.help for option in self.options)
            lines += ["", "  OPTIONS", *(f"    {name:<15}  {text}" for name, text in zip(names, helps, strict=True))]
        return "\n".join([*lines, ""]) + "\n"


def _shown(option: Option, *, follows_data: bool) -> str:
    match option.kind:
        case Kind.FLAG:
            return f"[--{option.name}]"
        case Kind.STRING:
            return f"[--{option.name} <string>]"
        case Kind.NUMBER:
            return f"<{option.name}>" if option.required else f"[--{option.name} <number>]"
        case Kind.DATA:
            return f"<{option.name}>"
        case Kind.REST if option.required:
            return f"{{[--{option.name}] <string>}}..." if follows_data else f"<{option.name}>..."
        case Kind.REST:
            return f"[[--{option.name}] <string>]..." if follows_data else f"[<{option.name}>]..."


def _missing(command: Command, option: Option) -> str:
    shown = f"--{option.name}" if option.kind is Kind.NUMBER else f"<{option.name}>"
    return f"command '{command.name}' requires {shown} option"


def _named(option: Option, *, follows_data: bool) -> str:
    match option.kind:
        case Kind.FLAG:
            return f"--{option.name}"
        case Kind.STRING:
            return f"--{option.name} <string>"
        case Kind.NUMBER:
            return f"[--{option.name}] <number>" if option.required else f"--{option.name} <number>"
        case Kind.DATA:
            return f"[--{option.name}] <string>"
        case Kind.REST:
            return f"[--{option.name}] <string>" if follows_data else f"<{option.name}>"


class _Parse:
    """One run of the parser over one command's words."""

    def __init__(self, command: Command) -> None:
        self.command = command
        self.by_name = {option.name: option for option in command.options}
        self.values: dict[str, str | None] = {}
        self.rest: list[str] = []

    def run(self, words: Iterable[str]) -> Args:
        stream = iter(words)
        data_only = False
        for word in stream:
            if not data_only and word == "--":
                data_only = True
            elif not data_only and word.startswith("--") and word[2:3].isalnum():
                self._option(word[2:], stream)
            else:
                self._datum(word)
        missing = [option for option in self.command.options if option.required and option.name not in self.values]
        if missing and "help" not in self.values:
            raise UsageError("\n".join(_missing(self.command, option) for option in missing))
        return Args(self.values, self.rest)

    def _option(self, text: str, stream: Iterator[str]) -> None:
        name, equals, attached = text.partition("=")
        alias = self.command.aliases.get(name)
        if alias is not None:
            written, (name, has_value, meant) = name, alias.partition("=")
            if has_value and equals:
                raise UsageError(f"invalid '=' after option --{written}")
            if has_value:
                equals, attached = has_value, meant
        option = self.by_name.get(name)
        if name == "help":
            option = flag("help", "")
        if option is None:
            if self.command.name == "help":
                return
            raise UsageError(f"command '{self.command.name}' doesn't support option --{name}")
        if name in self.values and option.kind is not Kind.REST and name != "help":
            raise UsageError(f"option --{name} already seen")
        if option.kind is Kind.FLAG:
            if equals:
                raise UsageError(f"invalid '=' after option --{name}")
            self.values[name] = None
            return
        found = attached if equals else next(stream, None)
        if found is None:
            kind = "number" if option.kind is Kind.NUMBER else "string"
            raise UsageError(f"expected syntax: --{name} <{kind}>")
        self._store(option, found)

    def _datum(self, word: str) -> None:
        for option in self.command.options:
            if option.positional and (option.kind is Kind.REST or option.name not in self.values):
                self._store(option, word)
                return
        if self.command.name != "help":
            raise UsageError(f"unexpected data '{word}'")

    def _store(self, option: Option, word: str) -> None:
        self.values[option.name] = word
        if option.kind is Kind.REST:
            self.rest.append(word)


def split_list(text: str) -> list[str]:
    """Split a value with commas into its parts; two commas are one that belongs to a part."""
    parts: list[str] = []
    joins = False
    for piece in text.split(",") if text else ():
        if joins:
            parts[-1] += "," + piece
            joins = False
        elif not piece and parts:
            joins = True
        else:
            parts.append(piece)
    return [*parts, ""] if joins else parts


class Word(NamedTuple):
    """A part of a line of commands.

    Attributes:
        text: the word as a command sees it; None ends a command.
        start: where it begins in the line.
        end: where what follows it begins.
    """

    text: str | None
    start: int
    end: int


def split_line(line: str) -> list[list[str]]:
    """Split one line into commands and their words, by virsh's quoting; a comment ends the line.

    Raises:
        UsageError: an open double quote or a backslash at the end.
    """
    commands: list[list[str]] = [[]]
    for word in read_line(line):
        if word.text is None:
            commands.append([])
        else:
            commands[-1].append(word.text)
    return [words for words in commands if words]


def read_line(line: str, *, unfinished: bool = False) -> Iterator[Word]:
    """Go through the words of a line, and the ends of its commands.

    Args:
        line: what was written.
        unfinished: somebody still writes it: its last word may lack what would end it.

    Raises:
        UsageError: an open double quote or a backslash at the end.
    """
    pos = 0
    while True:
        while line[pos : pos + 1] and (line[pos] in _BLANK or line.startswith("\\\n", pos)):
            pos += 1 + (line[pos] == "\\")
        if pos >= len(line):
            return
        start = pos
        if line[pos] in ";\n":
            pos += 1
            yield Word(None, start, pos)
        elif line[pos] == "#":
            end = line.find("\n", pos)
            pos = len(line) if end < 0 else end
        else:
            text, pos = _word(line, pos, unfinished=unfinished)
            yield Word(text, start, pos)


def _word(line: str, pos: int, *, unfinished: bool) -> tuple[str, int]:
    """Read one word from ``pos``; returns it with the position after it."""
    out: list[str] = []
    quote = ""
    while pos < len(line):
        char = line[pos]
        if not quote and char in " \t;\n":
            break
        if char in "'\"" and quote in ("", char):
            quote = "" if quote else char
        elif char == "\\" and quote != "'":
            pos += 1
            if pos == len(line):
                if unfinished:
                    break
                raise UsageError("dangling \\")
            if line[pos] != "\n":
                out.append(line[pos])
        else:
            out.append(char)
        pos += 1
    if quote == '"' and not unfinished:
        raise UsageError('missing "')
    return "".join(out), pos

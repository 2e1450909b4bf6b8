"""A line of commands that somebody still writes, as far as it can be understood."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from hostel.cli.options import Args, Command, Kind, Option, Word, flag, read_line
from hostel.cli.virsh import registry
from hostel.cli.virsh.session import CommandError
from hostel.errors import UsageError


class Given(Args):
    """The options that were given so far: also what is required may be missing."""

    def __getitem__(self, name: str) -> str:
        found = self.get(name)
        if found is None:
            raise UsageError(f"option --{name} is not there yet")
        return found


class Partial(NamedTuple):
    """The last command of a line.

    Attributes:
        command: the command; None where its name is not finished, or there is no such command.
        args: the options that were given to it, before what is wrong.
        completing: the option whose value, or which itself, ends the line.
    """

    command: Command | None
    args: Given
    completing: Option | None


class _Unclear(Exception):
    """The line goes on with what is no part of a command; what was understood before counts."""


def understand(line: str) -> Partial:
    """Read a line up to where somebody writes."""
    found = _Reading(line)
    commands: list[list[Word]] = [[]]
    for word in read_line(line, unfinished=True):
        if word.text is None:
            commands.append([])
        else:
            commands[-1].append(word)
    for words in commands:
        found = _Reading(line)
        try:
            found.read(words)
        except _Unclear:
            break
    return Partial(found.command, Given(found.values, found.rest), found.completing)


class _Reading:
    """One command, read word by word."""

    def __init__(self, line: str) -> None:
        self._end = len(line)
        self.command: Command | None = None
        self.values: dict[str, str | None] = {}
        self.rest: list[str] = []
        self.completing: Option | None = None

    def read(self, words: list[Word]) -> None:
        stream = iter(words)
        first = next(stream, None)
        if first is None:
            return
        try:
            self.command = registry.find(first.text or "")
        except (UsageError, CommandError):
            raise _Unclear from None
        data_only = False
        for word in stream:
            text = word.text or ""
            if not data_only and text == "--":
                data_only = True
            elif not data_only and text.startswith("--") and text[2:3].isalnum():
                self._option(self.command, word, stream)
            else:
                self._datum(self.command, word)

    def _option(self, command: Command, word: Word, stream: Iterator[Word]) -> None:
        name, equals, attached = (word.text or "")[2:].partition("=")
        alias = command.aliases.get(name)
        if alias is not None:
            name, has_value, meant = alias.partition("=")
            equals, attached = (has_value, meant) if has_value else (equals, attached)
        known = (*command.options, flag("help", ""))
        option = next((option for option in known if option.name == name), None)
        if option is None and command.name == "help":
            return
        if option is None or (name in self.values and option.kind is not Kind.REST):
            raise _Unclear
        if option.kind is Kind.FLAG:
            if equals:
                raise _Unclear
            self._keep(option, None, word.end)
            return
        following = None if equals else next(stream, None)
        if not equals and following is None:
            # The value is what comes after one blank.
            self._keep(option, "", word.end + 1)
            raise _Unclear
        self._keep(option, attached if equals else following and following.text, (following or word).end)

    def _datum(self, command: Command, word: Word) -> None:
        for option in command.options:
            if option.positional and (option.kind is Kind.REST or option.name not in self.values):
                self._keep(option, word.text, word.end)
                return
        if command.name != "help":
            raise _Unclear

    def _keep(self, option: Option, text: str | None, end: int) -> None:
        self.values[option.name] = text
        if option.kind is Kind.REST:
            self.rest.append(text or "")
        if end == self._end:
            self.completing = option

"""A command line of QEMU: its words, its options, and their properties."""

from __future__ import annotations

import re
import shlex
from typing import Any, Final, NamedTuple

from hostel.block.options import SWITCH
from hostel.codec.qobject import parse_json
from hostel.errors import BlockError, ModelError
from hostel.model.native.settings import refused, whole_number

_LIMIT: Final = 1 << 20  # characters: no shell starts more
_ASSIGNMENT: Final = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)
_PART: Final = re.compile(r"(?:[^,]|,,)*")
# Options of QEMU that have no value.
_WITHOUT_VALUE: Final = """
S daemonize nodefaults nographic enable-kvm no-kvm no-acpi no-hpet no-reboot no-shutdown usb snapshot localtime
no-user-config nodefconfig win2k-hack rtc-td-hack singlestep full-screen alt-grab ctrl-grab no-quit no-fd-bootchk
only-migratable prom-env-none mem-prealloc sdl curses preconfig
"""
_ALONE: Final = frozenset(_WITHOUT_VALUE.split())


class Option(NamedTuple):
    """One option.

    Attributes:
        name: without the dashes before it.
        value: what follows; empty where it has none.
    """

    name: str
    value: str

    @property
    def words(self) -> list[str]:
        """The option as it is written."""
        return [f"-{self.name}"] if self.name in _ALONE else [f"-{self.name}", self.value]


class CommandLine(NamedTuple):
    """A command line.

    Attributes:
        environment: variables that are set for the program.
        program: what is run.
        options: in order.
    """

    environment: dict[str, str]
    program: str
    options: list[Option]


def parse_command_line(text: str) -> CommandLine:
    """Read a command as a shell would: quotes, lines that a backslash wraps, comments.

    Raises:
        ModelError: it is no command with options.
    """
    if len(text) > _LIMIT:
        raise refused("", f"a command line of more than {_LIMIT} characters")
    try:
        words = shlex.split(text.replace("\\\n", " "), comments=True)
    except ValueError as error:
        raise refused("", f"not a command line: {error}") from None
    environment: dict[str, str] = {}
    while words and (found := _ASSIGNMENT.fullmatch(words[0])):
        environment[found[1]] = found[2]
        words.pop(0)
    if not words:
        raise refused("", "no command: write qemu-system-x86_64 and its options")
    return CommandLine(environment, words[0], _options(words[1:]))


def _options(words: list[str]) -> list[Option]:
    options: list[Option] = []
    position = 0
    while position < len(words):
        word = words[position]
        position += 1
        if not word.startswith("-"):
            options.append(Option("hda", word))  # a file alone is the first disk
            continue
        name = word.removeprefix("-").removeprefix("-")
        if name in _ALONE:
            options.append(Option(name, ""))
            continue
        if position == len(words):
            raise refused(word, "the value of the last option is missing")
        options.append(Option(name, words[position]))
        position += 1
    return options


class Properties:
    """An option's properties; each is taken once, and what nobody took is refused at the end.

    Args:
        option: the option's name, for messages.
        value: JSON, or ``key=value,…`` with doubled commas.
        first: the property that a first word without a name is.
    """

    def __init__(self, option: str, value: str, first: str = "") -> None:
        self.option = f"-{option}"
        self._found: dict[str, Any] = {}
        if value.startswith("{"):
            self._found = _json(self.option, value)
            return
        position = 0
        while position <= len(value):
            part = _PART.match(value, position)
            assert part is not None
            position = part.end() + 1
            text = part[0].replace(",,", ",")
            key, equals, rest = text.partition("=")
            if not equals and len(self._found) == 0 and first and text:
                self._found[first] = text
            elif not equals and text:
                is_off = text.startswith("no") and len(text) > 2
                self._found[text[2:] if is_off else text] = "off" if is_off else "on"
            elif text:
                self._found[key] = rest

    @classmethod
    def of(cls, option: str, found: dict[str, Any]) -> Properties:
        """Properties that are known already."""
        made = cls(option, "")
        made._found = dict(found)
        return made

    def take(self, *names: str) -> str | None:
        """A property as text, under whichever of its names it has."""
        found = self.any(*names)
        if isinstance(found, bool):
            return "on" if found else "off"
        if isinstance(found, dict | list):
            raise refused(self.option, f"'{names[0]}' has to be a text or a number")
        return None if found is None else str(found)

    def any(self, *names: str) -> Any:
        """A property as it is."""
        found = None
        for name in names:
            value = self._found.pop(name, None)
            found = value if found is None else found
        return found

    def needed(self, name: str) -> str:
        """A property that has to be there."""
        found = self.take(name)
        if found is None:
            raise refused(self.option, f"'{name}' is missing")
        return found

    def number(self, *names: str, low: int = 0, high: int = 2**63 - 1) -> int | None:
        """A number."""
        found = self.take(*names)
        return None if found is None else whole_number(self.option, found, low, high, base=0)

    def flag(self, *names: str) -> bool | None:
        """A property that is on or off."""
        found = self.take(*names)
        if found is None:
            return None
        if found not in SWITCH:
            raise refused(self.option, f"'{names[0]}' expects 'on' or 'off', not '{found}'")
        return SWITCH[found]

    def below(self, prefix: str) -> dict[str, Any]:
        """Properties whose names have a prefix, without it: ``file.driver``; or those of an object of that name."""
        inside = self._found.pop(prefix, None)
        if inside is not None:
            if not isinstance(inside, dict):
                self._found[prefix] = inside
                return {}
            return inside
        names = [name for name in self._found if name.startswith(f"{prefix}.")]
        return {name.removeprefix(f"{prefix}."): self._found.pop(name) for name in names}

    def all(self) -> dict[str, Any]:
        """Everything that nobody took yet; names with dots become objects."""
        found: dict[str, Any] = {}
        for name, value in self._found.items():
            *outer, last = name.split(".")
            place = found
            for part in outer:
                place = place.setdefault(part, {})
                if not isinstance(place, dict):
                    raise refused(self.option, f"'{part}' is a value and an object")
            place[last] = value
        return found

    def ignore(self, *names: str) -> None:
        """Take what makes no difference to the guest."""
        for name in names:
            self._found.pop(name, None)

    def end(self) -> None:
        """Refuse what nobody took.

        Raises:
            ModelError: naming it.
        """
        for name, value in self._found.items():
            raise refused(self.option, f"'{name}={value}' cannot be said in a document; leave it out")


def _json(option: str, text: str) -> dict[str, Any]:
    try:
        found = parse_json(text)
    except (ValueError, BlockError, ModelError) as error:
        raise refused(option, f"not JSON: {error}") from None
    if not isinstance(found, dict):
        raise refused(option, "a JSON object is expected")
    return found

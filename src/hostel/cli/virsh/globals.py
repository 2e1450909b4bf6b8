"""What stands before virsh's command: its own options, read as ``getopt_long`` reads them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from hostel.cli.virsh.console import is_escape
from hostel.cli.virsh.session import DEFAULT_ESCAPE
from hostel.cli.virsh.trace import Level
from hostel.errors import UsageError


class _Flag(NamedTuple):
    """An option: its letter, its long name, and whether it has a value; None where that may be left out."""

    letter: str
    long: str
    takes_value: bool | None = False


_FLAGS: Final = (
    _Flag("c", "connect", True),
    _Flag("d", "debug", True),
    _Flag("e", "escape", True),
    _Flag("h", "help"),
    _Flag("k", "keepalive-interval", True),
    _Flag("K", "keepalive-count", True),
    _Flag("l", "log", True),
    _Flag("q", "quiet"),
    _Flag("r", "readonly"),
    _Flag("t", "timing"),
    _Flag("v", "version", None),
    _Flag("V", ""),
)
_INTEGER: Final = re.compile(r"[ \t\n]*([+-]?)(0[xX][0-9a-fA-F]+|[0-9]+)", re.ASCII)
_MAX: Final = 2**31 - 1


class Globals:
    """What was asked for.

    Attributes:
        uri: of the connection, where one is named.
        debug: the least level that is shown; None where the environment says.
        escape: of consoles.
        interval: seconds between questions to a silent daemon; 0: none are asked, None: as usual.
        count: questions without an answer, after which it is gone; None: as usual.
        log: the file for what is said.
        shows: a page that is asked for instead of a command: ``help``, ``version`` or ``long-version``.
        complaints: what is wrong and does no harm.
        words: the command.
    """

    def __init__(self) -> None:
        self.uri: str | None = None
        self.debug: int | None = None
        self.escape = DEFAULT_ESCAPE
        self.interval: int | None = None
        self.count: int | None = None
        self.log: str | None = None
        self.quiet = False
        self.read_only = False
        self.timing = False
        self.shows = ""
        self.complaints: list[str] = []
        self.words: list[str] = []

    def take(self, flag: _Flag, text: str, written: str) -> None:
        """Note an option; ``written`` is how errors name it.

        Raises:
            UsageError: with virsh's message.
        """
        match flag.letter:
            case "c":
                self.uri = text
            case "d":
                self._take_debug(text, written)
            case "e":
                if not is_escape(text):
                    raise UsageError(f"Invalid string '{text}' for escape sequence")
                self.escape = text
            case "k":
                self.interval = _natural(text, written)
            case "K":
                self.count = _natural(text, written)
            case "l":
                self.log = text
            case "q":
                self.quiet = True
            case "r":
                self.read_only = True
            case "t":
                self.timing = True
            case "h":
                self.shows = "help"
            case _:
                self.shows = "long-version" if flag.letter == "V" or text == "long" else "version"

    def _take_debug(self, text: str, written: str) -> None:
        level = _integer(text, 10)
        if level is None:
            raise UsageError(f"option {written} takes a numeric argument")
        if Level.DEBUG <= level <= Level.ERROR:
            self.debug = level
        else:
            self.complaints.append(f"ignoring debug level {level} out of range [{int(Level.DEBUG)}-{int(Level.ERROR)}]")


def _integer(text: str, base: int = 0) -> int | None:
    match = _INTEGER.fullmatch(text)
    if match is None:
        return None
    digits = match[2]
    try:
        value = int(digits, 8 if base == 0 and re.fullmatch("0[0-7]+", digits) else base)
    except ValueError:
        return None
    value = -value if match[1] == "-" else value
    return value if -_MAX - 1 <= value <= _MAX else None


def _natural(text: str, written: str) -> int:
    value = _integer(text)
    if value is None:
        raise UsageError(f"Invalid value for option {written}")
    if value < 0:
        raise UsageError(f"option {written} requires a positive integer argument")
    return value


def debug_level(text: str) -> int | None:
    """A level as the environment names it; None where that is none."""
    level = _integer(text, 10)
    return level if level is not None and Level.DEBUG <= level <= Level.ERROR else None


def parse_globals(argv: list[str]) -> Globals:
    """Split the options of virsh itself from the command.

    Raises:
        UsageError: with virsh's message.
    """
    found = Globals()
    words = iter(argv)
    for word in words:
        if word == "--":
            break
        if not word.startswith("-") or word == "-":
            found.words.append(word)
            break
        for flag, text, written in _long(word, words) if word.startswith("--") else _short(word[1:], words):
            found.take(flag, text, written)
            if found.shows:
                return found
    found.words += words
    return found


def _long(word: str, words: Iterator[str]) -> Iterator[tuple[_Flag, str, str]]:
    name, equals, text = word[2:].partition("=")
    exact = [flag for flag in _FLAGS if flag.long and flag.long == name]
    found = exact or [flag for flag in _FLAGS if flag.long.startswith(name)]
    if len(found) != 1 or not name:
        raise UsageError(f"unsupported option '{word}'. See --help.")
    flag = found[0]
    if equals and flag.takes_value is False:
        raise UsageError(f"unsupported option '-{flag.letter}'. See --help.")
    if flag.takes_value and not equals:
        text = _following(flag, words)
    yield flag, text, f"--{flag.long}"


def _short(letters: str, words: Iterator[str]) -> Iterator[tuple[_Flag, str, str]]:
    for place, letter in enumerate(letters, 1):
        flag = next((flag for flag in _FLAGS if flag.letter == letter), None)
        if flag is None:
            raise UsageError(f"unsupported option '-{letter}'. See --help.")
        if flag.takes_value:
            yield flag, letters[place:] or _following(flag, words), f"-{letter}"
            return
        yield flag, "", f"-{letter}"


def _following(flag: _Flag, words: Iterator[str]) -> str:
    text = next(words, None)
    if text is None:
        raise UsageError(f"option '-{flag.letter}'/'--{flag.long}' requires an argument")
    return text

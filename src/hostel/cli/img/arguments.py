"""Declared options of ``qemu-img``'s commands, read as GNU ``getopt_long`` reads them.

Options and operands may be mixed, ``--`` ends the options, short ones may be bundled (``-pq``, ``-fraw``), long ones
abbreviated where that is unambiguous. An option is checked when its turn comes, so that of several mistakes the first
one is reported, as QEMU does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from hostel.cli.qemu.failure import Failure, HelpAsked
from hostel.cli.qemu.flag import HELP, Flag, make_object, take
from hostel.errors import UsageError


class CommandHelpAsked(HelpAsked):
    """Help was asked for after a command's name.

    Attributes:
        command: of which it was asked.
    """

    def __init__(self, command: Command) -> None:
        super().__init__()
        self.command = command


OBJECT: Final = Flag("object", long="object", value="objectdef", check=make_object)
FORMAT: Final = Flag("format", "f", value="fmt", newer=("format",))
IMAGE_OPTS: Final = Flag("image-opts", long="image-opts")
FORCE_SHARE: Final = Flag("force-share", "U", "force-share")
OUTPUT: Final = Flag("output", long="output", value="ofmt")
QUIET: Final = Flag("quiet", "q", newer=("quiet",))


class Arguments:
    """What one command was given."""

    def __init__(self, given: Sequence[tuple[str, str]], operands: Sequence[str]) -> None:
        self.given = tuple(given)
        self.operands = tuple(operands)

    def has(self, name: str) -> bool:
        """Whether an option was given."""
        return any(key == name for key, _ in self.given)

    def get(self, name: str) -> str | None:
        """An option's value, the last where it was repeated; None where it was not given."""
        return next((value for key, value in reversed(self.given) if key == name), None)

    def text(self, name: str, default: str) -> str:
        """An option's value, the last where it was repeated and be it empty; the default where it was not given."""
        given = self.get(name)
        return default if given is None else given

    def all(self, name: str) -> list[str]:
        """Every value of a repeated option, in order."""
        return [value for key, value in self.given if key == name]

    def in_order(self, *names: str) -> Iterator[tuple[str, str]]:
        """The occurrences of several options, in the order in which they were given."""
        return ((key, value) for key, value in self.given if key in names)

    def options(self, name: str = "options") -> str | None:
        """The values of a repeated ``-o``, joined as one list; None where there was none."""
        given = self.all(name)
        return ",".join(given) if given else None

    def one_image(self) -> str:
        """The only operand.

        Raises:
            UsageError: there is none, or there are several.
        """
        if len(self.operands) != 1:
            raise UsageError("Expecting one image file name")
        return self.operands[0]

    def wants_json(self) -> bool:
        """Whether ``--output=json`` was given.

        Raises:
            Failure: the value is neither ``human`` nor ``json``.
        """
        output = self.get("output")
        if output not in (None, "human", "json"):
            raise Failure("--output must be used with human or json as argument.")
        return output == "json"


class Command(NamedTuple):
    """A command: what its options and operands are.

    Attributes:
        operands: how ``--help`` shows what is not an option.
    """

    name: str
    flags: tuple[Flag, ...]
    operands: str

    def synopsis(self) -> str:
        """The command's line of ``--help``."""
        return " ".join([self.name, *(flag.synopsis() for flag in self.flags), self.operands])

    def parse(self, words: Sequence[str]) -> Arguments:
        """Read the words after the command's name.

        Raises:
            UsageError: an unknown option, or a value that is missing.
            CommandHelpAsked: help was asked for.
        """
        try:
            given, rest = parse((HELP, *self.flags), words)
        except HelpAsked:
            raise CommandHelpAsked(self) from None
        return Arguments(given, rest)


def parse(
    flags: Sequence[Flag], words: Sequence[str], *, permute: bool = True
) -> tuple[list[tuple[str, str]], list[str]]:
    """Split words into options and operands; without ``permute`` the first operand ends the options.

    Raises:
        UsageError: an unknown option, or a value that is missing.
        HelpAsked: help was asked for.
    """
    given: list[tuple[str, str]] = []
    operands: list[str] = []
    stream = iter(words)
    for word in stream:
        if word == "--":
            break
        if word[:1] != "-" or word == "-":
            operands.append(word)
            if not permute:
                break
            continue
        options = _long(flags, word, stream) if word.startswith("--") else _bundle(flags, word, stream)
        given += take(options)
    return given, operands + list(stream)


def _long(flags: Sequence[Flag], word: str, stream: Iterator[str]) -> Iterator[tuple[Flag, str]]:
    name, equals, value = word[2:].partition("=")
    found = [flag for flag in flags if len(name) > 1 and name in flag.names]
    found = found or [flag for flag in flags if flag.long and flag.long.startswith(name)]
    found = found or [flag for flag in flags if any(len(each) > 1 and each.startswith(name) for each in flag.newer)]
    if len(found) != 1 or (equals and not found[0].value):
        raise UsageError(f"unrecognized option '{word}'")
    takes = found[0].value and not found[0].optional
    yield found[0], value if equals or not takes else _next(word, stream)


def _bundle(flags: Sequence[Flag], word: str, stream: Iterator[str]) -> Iterator[tuple[Flag, str]]:
    for index, letter in enumerate(word[1:], 2):
        flag = next((flag for flag in flags if letter in (flag.short, *flag.newer)), None)
        if flag is None:
            raise UsageError(f"unrecognized option '{word}'")
        if flag.value and not flag.optional:
            yield flag, word[index:] or _next(word, stream)
            return
        yield flag, ""


def _next(word: str, stream: Iterator[str]) -> str:
    value = next(stream, None)
    if value is None:
        raise UsageError(f"missing argument for option '{word}'")
    return value


def check_option_list(text: str) -> None:
    """Refuse an ``-o`` value that could not be joined with another by a comma.

    Raises:
        Failure: it is empty, begins with a comma or ends with an odd number of them.
    """
    trailing = len(text) - len(text.rstrip(","))
    if not text or text[0] == "," or trailing % 2:
        raise Failure(f"Invalid option list: {text}")


OPTIONS: Final = Flag("options", "o", value="options", check=check_option_list, newer=("options",))


def _check_progress(value: str) -> None:
    if value not in ("", "json", "plain"):
        raise Failure("--progress must be used with json or plain as argument, or without one.")


PROGRESS: Final = Flag(
    "progress", "p", value="[=json|plain]", check=_check_progress, newer=("progress",), optional=True
)


def asks_for_help(options: str | None) -> bool:
    """Whether ``help`` or ``?`` is among the options of an ``-o``."""
    if options is None:
        return False
    from hostel.block.options import split_commas

    return any(part in ("help", "?") for part in split_commas(options))


def size(what: str, text: str, *, minimum: int = 0, maximum: int = 2**63 - 1) -> int:
    """Read a size from the command line, in bytes; ``what`` names it in messages.

    Raises:
        Failure: it is no size, or not from ``minimum`` to ``maximum``.
    """
    from hostel.units import parse_size

    try:
        found = parse_size(text)
    except OverflowError:
        found = -1
    except ValueError:
        raise Failure(
            f"Invalid {what} specified. You may use k, M, G, T, P or E suffixes for\n"
            "kilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes."
        ) from None
    if not minimum <= found <= maximum:
        raise Failure(f"Invalid {what} specified. Must be between {minimum} and {maximum}.")
    return found

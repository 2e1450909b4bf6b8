"""What a command of ``qemu-io`` is: its options and operands, and how numbers and results are written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from hostel.errors import HostelError
from hostel.units import SECTOR, parse_size

if TYPE_CHECKING:
    from hostel.cli.qemu_io.session import Session

INJECT: Final = "i"  # counts a request that is none; what follows is not looked at
MAX_REQUEST: Final = (2**31 - 1) // SECTOR * SECTOR  # bytes (BDRV_REQUEST_MAX_BYTES)
_UNITS: Final = ((60, " EiB"), (50, " PiB"), (40, " TiB"), (30, " GiB"), (20, " MiB"), (10, " KiB"))


class CommandError(HostelError):
    """A command failed; its text, if any, goes to standard output, as QEMU writes it."""


class BadUsage(HostelError):
    """The options or operands make no sense: the command's usage is shown, after the error's own text."""


class Command(NamedTuple):
    """A command.

    Attributes:
        alias: its other name, or nothing.
        options: as for getopt: letters, with a colon behind those that take a value.
        operands: the fewest and the most words after the name; -1 for no limit.
        synopsis: how ``help`` shows its words; None where it has none to show.
        needs_image: an image must be open.
        patient: it never has to wait for a suspended request.
        writes: the image must be open for writing.
        sizes: the letters whose values are numbers of bytes.
    """

    name: str
    alias: str
    run: Callable[[Session, Given], None]
    summary: str
    options: str = ""
    operands: tuple[int, int] = (0, 0)
    synopsis: str | None = None
    needs_image: bool = True
    patient: bool = False
    writes: bool = False
    sizes: str = ""

    def usage(self) -> str:
        """The line that says how to call it."""
        return f"{self.name} {self.synopsis or ''} -- {self.summary}"


class Given:
    """The words of one command."""

    def __init__(self, options: dict[str, str], operands: Sequence[str]) -> None:
        self._options = options
        self.operands = list(operands)

    def has(self, letter: str) -> bool:
        """Whether an option was given."""
        return letter in self._options

    def get(self, letter: str) -> str | None:
        """An option's value; None where it was not given."""
        return self._options.get(letter)

    def number(self, letter: str) -> int | None:
        """An option's value as a size in bytes; None where it was not given."""
        text = self.get(letter)
        return None if text is None else size(text)

    def pattern(self, default: int | None = None) -> int | None:
        """The byte that ``-P`` names."""
        text = self.get("P")
        return default if text is None else _pattern(text)

    def require(self, least: int, most: int | None = None) -> None:
        """Refuse another number of operands."""
        if len(self.operands) < least or len(self.operands) > (least if most is None else most):
            raise BadUsage


def _pattern(text: str) -> int:
    try:
        value = int(text, 0)
    except ValueError:
        value = -1
    if not 0 <= value <= 255:
        raise CommandError(f"{text} is not a valid pattern byte")
    return value


def parse(command: Command, words: Sequence[str]) -> Given:
    """Split the words of a command; the first mistake counts. A command without options has words only.

    Raises:
        BadUsage: an option is unknown or lacks its value.
        CommandError: a value is wrong.
    """
    given: dict[str, str] = {}
    operands: list[str] = []
    stream = iter(words)
    for word in stream:
        if word == "--" and command.options:
            operands.extend(stream)
        elif len(word) < 2 or word[0] != "-" or not command.options:
            operands.append(word)
        else:
            for letter in _read_letters(command.options, word[1:], stream, given):
                if letter == INJECT and INJECT in command.options:
                    return Given(given, operands)
                if letter == "P":
                    _pattern(given[letter])
                elif letter in command.sizes:
                    size(given[letter])
    return Given(given, operands)


def _read_letters(options: str, letters: str, stream: Iterator[str], given: dict[str, str]) -> Iterator[str]:
    """Take the letters of one word; each is given back as soon as it is taken."""
    for index, letter in enumerate(letters, 1):
        place = options.find(letter)
        if place < 0 or letter == ":":
            raise BadUsage(f"invalid option -- '{letter}'")
        if options[place + 1 : place + 2] != ":":
            given[letter] = ""
            yield letter
            continue
        value = letters[index:] or next(stream, None)
        if value is None:
            raise BadUsage(f"option requires an argument -- '{letter}'")
        given[letter] = value
        yield letter
        return


def size(text: str) -> int:
    """Read a number of bytes.

    Raises:
        CommandError: with QEMU's text.
    """
    try:
        return parse_size(text)
    except OverflowError:
        raise CommandError(f"Parsing error: argument too large -- {text}") from None
    except ValueError:
        raise CommandError(
            f"Parsing error: non-numeric argument, or extraneous/unrecognized suffix -- {text}"
        ) from None


def length(text: str, *, hint: str = "") -> int:
    """Read the length of one request, in bytes."""
    value = size(text)
    if value > MAX_REQUEST:
        raise CommandError(f"length cannot exceed {MAX_REQUEST}{hint}, given {text}")
    return value


def require_sectors(what: str, value: int) -> None:
    """Refuse what does not lie on sectors."""
    if value % SECTOR:
        raise CommandError(f"{value} is not a sector-aligned value for '{what}'")


def shown(value: float) -> str:
    """A number of bytes for people: ``64 KiB``, ``1.500 MiB``."""
    for bits, unit in _UNITS:
        if value >= 1 << bits:
            return f"{value / (1 << bits):.3f}".removesuffix(".000") + unit
    text = f"{value:f}"
    return (text[: text.index(".000")] if ".000" in text else text) + " bytes"


def report(verb: str, offset: int, count: int, seconds: float, *, parsable: bool) -> str:
    """The lines that a request ends with."""
    seconds = max(seconds, 1e-9)
    if parsable:
        return f"{count},1,{_clock(seconds)},{count / seconds:.3f},{1 / seconds:.3f}\n"
    took = f"{seconds:05.2f} sec" if seconds < 1 else _clock(seconds)
    return (
        f"{verb} {count}/{count} bytes at offset {offset}\n"
        f"{shown(count)}, 1 ops; {took} ({shown(count / seconds)}/sec and {1 / seconds:.4f} ops/sec)\n"
    )


def _clock(seconds: float) -> str:
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60 + seconds - whole:05.2f}"


def hexdump(data: bytes | bytearray, offset: int) -> str:
    """Bytes as ``read -v`` shows them."""
    lines = []
    for start in range(0, len(data), 16):
        row = data[start : start + 16]
        digits = "".join(f"{byte:02x} " for byte in row)
        text = "".join(chr(byte) if chr(byte).isascii() and chr(byte).isalnum() else "." for byte in row)
        lines.append(f"{offset + start:08x}:  {digits} {text}\n")
    return "".join(lines)

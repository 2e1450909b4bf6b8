"""Declared options: ``-o cluster_size=64K,lazy_refcounts=on``, as QEMU's ``QemuOpts`` reads and describes them."""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from hostel.errors import BlockError
from hostel.units import parse_size

Value = int | bool | str

SWITCH: Final = {  # the words that QEMU takes for a boolean
    **dict.fromkeys(("on", "yes", "true", "y"), True),
    **dict.fromkeys(("off", "no", "false", "n"), False),
}
_SUFFIX_HINT = "Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\nand exabytes, respectively."


class OptionError(BlockError):
    """An option's name or value is wrong; the text is QEMU's."""

    default_errno = 22  # EINVAL


class Kind(enum.Enum):
    """An option's type; the value is how ``-o help`` names it."""

    STRING = "str"
    BOOL = "bool (on/off)"
    NUMBER = "num"
    SIZE = "size"


class Option(NamedTuple):
    """One option.

    Attributes:
        default: what an absent option means, as text; None when absence is a meaning of its own.
    """

    name: str
    kind: Kind
    help: str
    default: str | None = None

    def convert(self, text: str) -> Value:
        """Turn the text into an int, a bool or a str.

        Raises:
            OptionError: the text is not of the option's kind.
        """
        if self.kind is Kind.STRING:
            return text
        if self.kind is Kind.BOOL:
            if text in SWITCH:
                return SWITCH[text]
            raise OptionError(f"Parameter '{self.name}' expects 'on' or 'off'")
        try:
            if self.kind is Kind.SIZE:
                return parse_size(text)
            number = _parse_number(text)
        except OverflowError:
            raise OptionError(f"Value '{text}' is out of range for parameter '{self.name}'") from None
        except ValueError:
            what = "a non-negative number below 2^64" if self.kind is Kind.SIZE else "a number"
            raise OptionError(
                f"Parameter '{self.name}' expects {what}",
                hint=_SUFFIX_HINT if self.kind is Kind.SIZE else None,
            ) from None
        if not -(2**64) < number < 2**64:
            raise OptionError(f"Value '{text}' is too large for parameter '{self.name}'")
        return number % 2**64


def _parse_number(text: str) -> int:
    """Read an integer as C's ``strtoull`` does: hexadecimal with ``0x``, octal with ``0``, a sign."""
    match = re.fullmatch(r"\s*([+-]?)(0[xX][0-9a-fA-F]+|[0-9]+)", text, re.ASCII)
    if match is None:
        raise ValueError(text)
    sign, digits = match.groups()
    octal = len(digits) > 1 and digits[0] == "0" and digits[1] not in "xX"
    number = int(digits, 8 if octal else 0)
    return -number if sign == "-" else number


class Options:
    """A declared set of options, in the order of declaration."""

    def __init__(self, *options: Option) -> None:
        self._options = {option.name: option for option in options}

    def __iter__(self) -> Iterator[Option]:
        return iter(self._options.values())

    def __contains__(self, name: str) -> bool:
        return name in self._options

    def __getitem__(self, name: str) -> Option:
        return self._options[name]

    def __add__(self, other: Options) -> Options:
        """These options, then those of ``other`` that are not among them."""
        return Options(*self, *(option for option in other if option.name not in self))

    def convert(self, given: Mapping[str, str]) -> dict[str, Value]:
        """Convert what was given and add the defaults.

        Raises:
            OptionError: an unknown name or a bad value.
        """
        for name in given:
            if name not in self._options:
                raise OptionError(f"Invalid parameter '{name}'")
        values: dict[str, Value] = {}
        for option in self:
            text = given.get(option.name, option.default)
            if text is not None:
                values[option.name] = option.convert(text)
        return values

    def describe(self) -> str:
        """The lines of ``-o help``: sorted by name, help from column 24."""
        lines = []
        for option in sorted(self, key=lambda option: option.name):
            left = f"  {option.name}=<{option.kind.value}>"
            lines.append(f"{left:<24} - {option.help}" if option.help else left)
        return "".join(f"{line}\n" for line in lines)


def as_text(value: object) -> str:
    """A value as JSON has it, in the words of ``-o``."""
    return ("on" if value else "off") if isinstance(value, bool) else str(value)


def check_numbered(name: str, given: Mapping[str, object]) -> None:
    """Refuse items of a list, ``name.0`` and so on, whose numbers have gaps.

    Raises:
        OptionError: with QEMU's text.
    """
    numbers = {key.split(".")[1] for key in given if key.startswith(f"{name}.")}
    if numbers != {str(number) for number in range(len(numbers))}:
        raise OptionError(f"Option {name} is not a valid array")


def split_options(text: str) -> dict[str, str]:
    """Split ``a=1,b=x,,y,flag,nodebug`` into names and values, of which the last of a name counts.

    ``,,`` is a comma; a bare name is ``on``, or ``off`` for what follows when it begins with ``no``.
    """
    return {given.name: given.value for given in given_options(text)}


class Given(NamedTuple):
    """One option as it was written; ``bare`` without a value."""

    name: str
    value: str
    bare: bool


def given_options(text: str) -> Iterator[Given]:
    """The options of a list in the order in which they are written; see :func:`split_options`."""
    for part in split_commas(text):
        if not part:
            continue
        name, equals, value = part.partition("=")
        if not equals:
            name, value = (name[2:], "off") if name.startswith("no") else (name, "on")
        yield Given(name, value, not equals)


def split_commas(text: str) -> list[str]:
    """Split at single commas; a double one stands for a comma."""
    parts = [""]
    index = 0
    while index < len(text):
        if text[index] != ",":
            parts[-1] += text[index]
        elif text[index + 1 : index + 2] == ",":
            parts[-1] += ","
            index += 1
        else:
            parts.append("")
        index += 1
    return parts

"""An option of a command line of QEMU's tools: its names, its value, and what looks at it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple

from hostel.cli.qemu.failure import Answered, HelpAsked, VersionAsked


class Flag(NamedTuple):
    """An option of a command.

    Attributes:
        name: what the command's code calls it.
        short: its letter, or nothing.
        long: its long name without dashes, or nothing.
        value: what ``--help`` calls its value; nothing where it takes none.
        check: looks at the value as soon as it is read, and raises.
        newer: other names, which QEMU has given it after 7.2: one letter is a short one. An abbreviation stands for one
            of these only where it stands for none of 7.2's names.
        optional: the value may be left out, and is part of the word (``--progress=json``) where it is there.
    """

    name: str
    short: str = ""
    long: str = ""
    value: str = ""
    check: Callable[[str], object] | None = None
    newer: tuple[str, ...] = ()
    optional: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """All its names, short ones first."""
        names = dict.fromkeys(name for name in (self.short, self.long, *self.newer) if name)
        return tuple(sorted(names, key=lambda name: len(name) > 1))

    def synopsis(self) -> str:
        """How ``--help`` shows it."""
        if self.short:
            return f"[-{self.short} {self.value}]" if self.value and not self.optional else f"[-{self.short}]"
        name = self.long or self.newer[-1]
        return f"[--{name}={self.value}]" if self.value else f"[--{name}]"


def _ask_version(_: str) -> None:
    raise VersionAsked


HELP: Final = Flag("help", "h", "help")
VERSION: Final = Flag("version", "V", "version", check=_ask_version)


def take(options: Iterable[tuple[Flag, str]]) -> Iterator[tuple[str, str]]:
    """The names and values of options, each looked at when its turn comes.

    Raises:
        HelpAsked: help was asked for.
    """
    for flag, value in options:
        if flag is HELP:
            raise HelpAsked
        if flag.check is not None:
            flag.check(value)
        yield flag.name, value


def make_object(text: str) -> None:
    """Make an object where its option is met, as QEMU does.

    Raises:
        Failure: its definition is wrong.
        Answered: it asks for help.
    """
    from hostel.cli.qemu.objects import create_object

    told = create_object(text)
    if told is not None:
        raise Answered(told)

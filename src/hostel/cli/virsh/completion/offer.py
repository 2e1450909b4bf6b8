"""What virsh offers for a line: ``complete`` prints it, and the shell's Tab asks for it."""

from __future__ import annotations

from collections.abc import Iterable

from hostel.cli.options import Args, Kind
from hostel.cli.virsh.completion.machine import PARTS
from hostel.cli.virsh.completion.objects import OBJECTS
from hostel.cli.virsh.completion.partial import Partial, understand
from hostel.cli.virsh.completion.table import kind_of
from hostel.cli.virsh.completion.words import WORDS
from hostel.cli.virsh.registry import COMMANDS
from hostel.cli.virsh.session import Session
from hostel.errors import HostelError


def offers(session: Session, line: str, text: str, *, escaped: bool = True) -> list[str]:
    """What ``text``, the end of a line, may become.

    Args:
        session: whose objects are meant.
        line: all that was written.
        text: its last word.
        escaped: whether blanks are written with a backslash, as outside of quotes.
    """
    found = _candidates(session, understand(line), text)
    shown = [word.replace(" ", "\\ ") for word in found] if escaped else found
    return [word for word in shown if word.startswith(text)]


def _candidates(session: Session, partial: Partial, text: str) -> Iterable[str]:
    command, option = partial.command, partial.completing
    # A whole command may be the beginning of another one.
    if command is None or command.name == text:
        return COMMANDS
    if option is None or option.kind is Kind.FLAG:
        named = command.options
        return [f"--{each.name}" for each in named if each.kind is Kind.REST or not partial.args.has(each.name)]
    kind = kind_of(command.name, option.name)
    if kind is None:
        return ()
    try:
        values = list(_values(session, kind, partial.args))
    except HostelError:
        return ()  # nothing is known where the object is not there
    return _joined(partial.args.written(option.name), values) if kind.endswith("-list") else values


def _values(session: Session, kind: str, args: Args) -> Iterable[str]:
    if kind in WORDS:
        return WORDS[kind]
    return (OBJECTS.get(kind) or PARTS[kind])(session, args)


def _joined(written: str, values: Iterable[str]) -> list[str]:
    """Values for the last place of a list with commas: what is in it already is not offered again."""
    before, comma, _ = written.rpartition(",")
    return [f"{before}{comma}{value}" for value in values if not comma or value not in before.split(",")]

"""The shell: lines that are read, edited, completed and remembered, until ``quit`` or the end of input."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Final

from hostel.cli.options import read_line
from hostel.cli.virsh.completion.offer import offers
from hostel.cli.virsh.session import Session
from hostel.drivers.store import Directories

_DELIMITERS: Final = " \t\n`@$><=;|&{("  # where readline, as virsh sets it up, begins a word
_LINES: Final = 500  # of history, unless the environment says otherwise
_MOST_LINES: Final = 500_000


def interact(session: Session, run: Callable[[str], None]) -> int:
    """Read lines and run them; returns the exit code."""
    session.interactive = True
    session.greet()
    output = session.output
    with _editing(session) as editor:
        output.note("Welcome to virsh, the virtualization interactive terminal.\n")
        output.note("Type:  'help' for help with commands\n       'quit' to quit\n")
        while not session.finished:
            prompt = "virsh > " if session.read_only else "virsh # "
            try:
                line = input(prompt) if editor is not None else _read_line(session, prompt)
            except EOFError:
                break
            except KeyboardInterrupt:
                output.line()
                continue
            run(line)
    output.line()
    return 0


def _read_line(session: Session, prompt: str) -> str:
    """Read a line from what is no terminal, and show it as if it had been typed, as virsh's line editor does."""
    session.output.text(prompt)
    session.output.out.flush()
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    line = line.removesuffix("\n")
    session.output.line(line)
    return line


@contextlib.contextmanager
def _editing(session: Session) -> Iterator[ModuleType | None]:
    """Set up readline with what was typed in earlier shells, and keep what is typed in this one.

    Gives None where there is no terminal.
    """
    if not sys.stdin.isatty():
        yield None
        return
    import readline

    history = Directories.from_environment(os.environ).cache / "virsh" / "history"
    readline.set_completer_delims(_DELIMITERS)
    readline.set_completer(_Completer(session, readline))
    readline.parse_and_bind("tab: complete")
    readline.set_history_length(_history_length(session))
    with contextlib.suppress(OSError):
        readline.read_history_file(history)
    try:
        yield readline
    finally:
        try:
            history.parent.mkdir(parents=True, exist_ok=True)
            readline.write_history_file(history)
        except OSError as error:
            session.output.error(f"Failed to write '{history}': {error.strerror}")


def _history_length(session: Session) -> int:
    text = os.environ.get("VIRSH_HISTSIZE", str(_LINES))
    if not re.fullmatch("[0-9]{1,9}", text):
        session.output.error("Bad $VIRSH_HISTSIZE value.")
    elif int(text) > _MOST_LINES:
        session.output.error(f"$VIRSH_HISTSIZE value should be between 0 and {_MOST_LINES}")
    else:
        return int(text)
    return _LINES


class _Completer:
    """What readline asks when Tab is pressed: the first answer, the second one, until there is none."""

    def __init__(self, session: Session, readline: ModuleType) -> None:
        self._session = session
        self._readline = readline
        self._found: list[str] = []

    def __call__(self, text: str, state: int) -> str | None:
        """One answer: what ``text`` may become."""
        if state == 0:
            line = self._readline.get_line_buffer()[: self._readline.get_endidx()]
            try:
                self._found = completions(self._session, line, text)
            except Exception:  # readline would not say it, and a line that is edited is not the place to
                self._found = []
        return self._found[state] if state < len(self._found) else None


def completions(session: Session, line: str, text: str) -> list[str]:
    """What the end of a line may become, as readline wants it.

    Args:
        session: whose objects are meant.
        line: all up to the cursor.
        text: what readline takes for the last word, which may be less than it.
    """
    last = next((word for word in reversed(list(read_line(line, unfinished=True))) if word.end == len(line)), None)
    written, meant = ("", "") if last is None or last.text is None else (line[last.start :], last.text)
    if written.startswith("--") and "=" in written:
        written, meant = written.partition("=")[2], meant.partition("=")[2]
    quote = written[:1] if written[:1] in ("'", '"') else ""
    found = offers(session, line, written.removeprefix(quote), escaped=not quote)
    found = [quote + word for word in found] or _files(written, meant, escaped=not quote)
    end = quote + " " if quote else " "
    if len(found) == 1 and not found[0].endswith("/"):
        found[0] += end
    return [word[len(written) - len(text) :] for word in found]


def _files(written: str, meant: str, *, escaped: bool) -> list[str]:
    """Files whose names begin so: what may be meant where nothing else is."""
    if written.startswith("--"):
        return []
    place, slash, name = meant.rpartition("/")
    head = written[: written.rindex("/") + 1] if slash else written[: len(written) - len(written.lstrip("'\""))]
    try:
        entries = sorted(os.scandir(Path(place + slash or ".").expanduser()), key=lambda entry: entry.name)
    except OSError:
        return []
    named = [entry for entry in entries if entry.name.startswith(name) and (name or entry.name[0] != ".")]
    return [head + (_escaped(entry.name) if escaped else entry.name) + "/" * entry.is_dir() for entry in named]


def _escaped(name: str) -> str:
    return name.replace(" ", "\\ ")

"""Documents in the user's editor (``virsh-edit.c``): until they are taken, or given up."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, TypeVar

from hostel.cli.virsh.session import MAX_DOCUMENT, CommandError, Session
from hostel.drivers.fault import fault
from hostel.errors import ErrorCode, HostelError

Made = TypeVar("Made")
_PLAIN: Final = re.compile(r"[-A-Za-z0-9/_.:@]+", re.ASCII)  # what no shell is needed for
_DEFAULT: Final = "vi" if os.name == "posix" else "notepad"
_FOLDER: Final = "/tmp" if os.name == "posix" else None  # None: where this system keeps temporary files
_CHANGED: Final = "The XML configuration was changed by another user."
_FAILED: Final = "Failed."
_HELP: Final = (
    "y - yes, start editor again",
    "n - no, throw away my changes",
    "i - turn off validation and try to redefine again",
    "f - force, try to redefine again",
    "? - print this help",
)


def edit_document(
    session: Session,
    get: Callable[[], str],
    define: Callable[[str, bool], Made],
    *,
    validates: bool = False,
    always: bool = False,
) -> Made | None:
    """Let the user edit a document, and define what it became; None where it stayed as it was.

    Where it is not taken, or somebody else has changed it meanwhile, a user at a terminal is asked what to do.

    Args:
        session: whose command it is.
        get: the document as it is now.
        define: takes the edited document, and whether to validate it.
        validates: whether it is validated at first.
        always: define it also where it stayed as it was.

    Raises:
        CommandError: it was given up, or not taken and there is nobody to ask; what was edited is lost.
    """
    before = get()
    with _file(before) as path:
        while True:
            run_editor(path)
            edited = _read(path)
            if edited == before and not always:
                return None
            answer = "f"
            while answer != "y":
                validates = validates and answer != "i"
                now = get()
                cause: HostelError | None = None
                if now != before:
                    before, tried = now, _CHANGED
                else:
                    try:
                        return define(edited, validates)
                    except HostelError as error:
                        tried, cause = _FAILED, error
                if not sys.stdin.isatty():
                    raise CommandError(tried, cause)
                answer = _ask(session, tried, cause, validates=validates)
                if answer == "n":
                    raise CommandError("")


def edit_text(text: str) -> str:
    """Let the user edit a text; what it became.

    Raises:
        CommandError: the editor failed.
    """
    with _file(text) as path:
        run_editor(path)
        return _read(path)


@contextlib.contextmanager
def _file(text: str) -> Iterator[Path]:
    """A file with a text, of its user's alone; it is gone afterwards."""
    try:
        descriptor, name = tempfile.mkstemp(".xml", "virsh", os.environ.get("TMPDIR") or _FOLDER)
    except OSError as error:
        raise CommandError(f"g_mkstemp_full: failed to create temporary file: {error.strerror}") from error
    path = Path(name)
    try:
        with open(descriptor, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            file.write(text)
        yield path
    finally:
        path.unlink(missing_ok=True)


def run_editor(path: Path) -> None:
    """Run ``VISUAL``, ``EDITOR``, or vi on a file.

    Raises:
        CommandError: it is not there, or ended with an error.
    """
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or _DEFAULT
    if _PLAIN.fullmatch(editor):
        command = [editor, str(path)]
    elif _PLAIN.fullmatch(str(path)):
        command = ["sh", "-c", f"{editor} {path}"]
    else:
        what = "temporary filename contains shell meta or other unacceptable characters (is $TMPDIR wrong?)"
        raise CommandError(f"{path}: {what}")
    sys.stdout.flush()
    shown = " ".join(command)
    try:
        status = subprocess.run(command, check=False).returncode
    except OSError as error:
        what = f"cannot execute binary {editor}: {error.strerror}"
        raise CommandError(str(fault(ErrorCode.INTERNAL_ERROR, what)), None) from error
    if status:
        how = f"unexpected exit status {status}" if status > 0 else f"unexpected fatal signal {-status}"
        raise CommandError(str(fault(ErrorCode.INTERNAL_ERROR, f"Child process ({shown}) {how}")))


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_DOCUMENT + 1)
    except OSError as error:
        raise CommandError(f"{path}: failed to read temporary file: {error.strerror}") from error
    if len(data) > MAX_DOCUMENT:
        raise CommandError(f"{path}: failed to read temporary file: Value too large for defined data type")
    return data.decode(errors="surrogateescape")


def _ask(session: Session, tried: str, cause: HostelError | None, *, validates: bool) -> str:
    """What the user wants, by one key: ``y``, ``n``, ``f``, or ``i`` where it is validated."""
    output = session.output
    if cause is not None:
        output.error(str(cause))
    keys = "yif" if validates else "yf"
    shown = "[y,n,i,f,?]" if validates else "[y,n,f,?]"
    with _single_keys():
        while True:
            output.text(f"\r{tried} Try again? {shown}: ")
            output.out.flush()
            key = os.read(sys.stdin.fileno(), 1).decode(errors="replace").lower()
            if key == "?":
                output.text("\n" + "".join(f"{line}\n" for line in _HELP if validates or not line.startswith("i")))
            elif key in ("n", ""):  # the terminal is gone
                output.text("\n")
                return "n"
            elif key in keys:
                output.text("\n")
                return key


@contextlib.contextmanager
def _single_keys() -> Iterator[None]:
    """Have the terminal give each key at once, where it can; keys that were pressed before are kept."""
    try:
        import termios
        import tty
    except ImportError:
        yield
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor, termios.TCSADRAIN)
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)

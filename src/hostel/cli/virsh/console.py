"""The guest's console on our terminal: raw bytes both ways until the escape character."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Final, NoReturn

from hostel.cli.virsh.session import CommandError, Session
from hostel.drivers.base import ConsoleStream, DomainRef, DomainState

_CHUNK: Final = 4096  # bytes
_TICK: Final = 0.1  # seconds between looks at whether the other direction has ended
_ALLOWED_CONTROLS: Final = "@[\\]^_"
# What would leave the terminal raw if it ended us.
_SIGNALS: Final = ("SIGQUIT", "SIGTERM", "SIGINT", "SIGHUP")


def is_escape(text: str) -> bool:
    """Whether ``-e`` takes this: one character, or ``^`` and the name of a control character."""
    if len(text) == 2 and text[0] == "^":
        return text[1].isascii() and (text[1].isalpha() or text[1] in _ALLOWED_CONTROLS)
    return len(text) == 1 and text != "^"


def run(session: Session, domain: DomainRef, device: str | None = None, *, force: bool = False) -> None:
    """Connect the terminal to a console of a running domain, until the escape character or its end.

    Raises:
        CommandError: the domain is not running, there is no terminal, or something failed on the way.
        VirtError: the console cannot be opened.
    """
    if session.hypervisor.domain_get_state(domain).state is DomainState.SHUTOFF:
        raise CommandError("The domain is not running")
    if not sys.stdin.isatty():
        raise CommandError("Cannot run interactive console without a controlling TTY")
    output = session.output
    output.note(f"Connected to domain '{domain.name}'")
    control = f" (Ctrl + {session.escape[1]})" if session.escape.startswith("^") else ""
    output.note(f"Escape character is {session.escape}{control}")
    output.out.flush()
    stream = session.hypervisor.domain_open_console(domain, device, force=force)
    try:
        with _raw(sys.stdin.fileno()):
            _relay(stream, sys.stdin.fileno(), sys.stdout.fileno(), _escape_byte(session.escape))
    finally:
        stream.close()


def _escape_byte(text: str) -> bytes:
    return bytes([ord(text[1].upper()) & 0x1F]) if text.startswith("^") else text.encode()


@contextlib.contextmanager
def _raw(terminal: int) -> Iterator[None]:
    """Make a terminal raw; whatever ends us, it is as it was afterwards.

    Raises:
        CommandError: terminals of this system cannot be made raw.
    """
    try:
        import termios
        import tty
    except ImportError:
        raise CommandError("Consoles need a terminal of a POSIX system; use WSL, or ssh to the host") from None
    before = termios.tcgetattr(terminal)
    handlers = {number: signal.signal(number, _interrupt) for number in map(signal.Signals.__getitem__, _SIGNALS)}
    try:
        tty.setraw(terminal)
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _interrupt(number: int, _frame: FrameType | None) -> NoReturn:
    raise CommandError(f"console ended by {signal.Signals(number).name}")


def _relay(stream: ConsoleStream, keyboard: int, screen: int, escape: bytes) -> None:
    ended = threading.Event()
    failures: list[Exception] = []
    reader = threading.Thread(target=_show, args=(stream, screen, ended, failures), daemon=True)
    reader.start()
    try:
        while not ended.is_set():
            ready, _, _ = select.select([keyboard], [], [], _TICK)
            if not ready:
                continue
            typed = os.read(keyboard, _CHUNK)
            if not typed:
                raise CommandError("internal error: EOF on stdin")
            if typed.startswith(escape):  # as in virsh, only what is typed by itself: a pasted one goes through
                break
            stream.write(typed)
    finally:
        ended.set()
        reader.join(timeout=5)
    if failures:
        raise failures[0]


def _show(stream: ConsoleStream, screen: int, ended: threading.Event, failures: list[Exception]) -> None:
    try:
        while not ended.is_set():
            data = stream.read(_CHUNK, _TICK)
            if data == b"":
                break
            while data:
                data = data[os.write(screen, data) :]
    except (OSError, ValueError) as error:  # ValueError: the stream was closed under us
        failures.append(error)
    finally:
        ended.set()

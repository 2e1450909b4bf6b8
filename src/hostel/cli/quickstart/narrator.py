"""Showing what runs: each command as a user could type it, its output, and how long it took."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from typing import Final, TextIO

from hostel.cli.main import BROKEN_PIPE, INTERRUPTED, run_tool
from hostel.errors import HostelError

_WIDTH: Final = 100  # columns after which a command is broken
_INDENT: Final = "    "
_TICK: Final = 0.05  # seconds between looks at what is waited for
_BOLD, _DIM, _PLAIN = "\x1b[1m", "\x1b[2m", "\x1b[0m"


class StepFailed(HostelError):
    """What was to be shown did not happen; the message says what, and what is known of the cause."""


class Indented(io.TextIOBase):
    """A stream that sets in what tools print, also after the carriage returns of a progress, and drops empty lines.

    The end of a line is held back until the next one begins, so that something can be added to the last.

    Attributes:
        peer: the other stream of the tool, whose line ends where one of ours begins.
        is_broken: nobody reads what is printed, which a tool may have found and passed over.
    """

    def __init__(self, stream: TextIO) -> None:
        self.peer: Indented | None = None
        self.is_broken = False
        self._stream = stream
        self._in_line = False
        self._end = ""
        self._lines = 0

    def write(self, text: str) -> int:
        """Print with an indent at the start of each line."""
        for part in re.split(r"([\r\n])", text):
            if part in ("\r", "\n"):
                self._end = part if self._in_line or self._end else ""
                self._in_line = False
            elif part:
                self._print(part)
        return len(text)

    def _print(self, part: str) -> None:
        if not self._in_line:
            if self.peer is not None:
                self.peer.finish()
            self._lines += self._end != "\r"
            part = f"{self._end}{_INDENT}{part}"
        self._hand_on(part)
        self._in_line, self._end = True, ""

    def finish(self, text: str = "") -> None:
        """End the last line; ``text`` is added to an only line, and else a line of its own."""
        if self._in_line or self._end:
            self._hand_on(f"  {text}\n" if text and self._lines == 1 else "\n")
            text = text if self._lines > 1 else ""
        if text:
            self._hand_on(f"{_INDENT}{text}\n")
        self._in_line, self._end = False, ""
        self.flush()

    def writable(self) -> bool:
        """Always."""
        return True

    def __del__(self) -> None:
        """Nothing is written: the stream behind is its owner's, and may be closed already."""

    def flush(self) -> None:
        """Hand on what was printed."""
        self._hand_on("", flush=True)

    def _hand_on(self, text: str, *, flush: bool = False) -> None:
        try:
            self._stream.write(text)
            if flush:
                self._stream.flush()
        except BrokenPipeError:
            self.is_broken = True
            raise

    def isatty(self) -> bool:
        """Whether a person is looking on."""
        return self._stream.isatty()

    def fileno(self) -> int:
        """The descriptor behind it."""
        return self._stream.fileno()


class Narrator:
    """Prints the tour and runs its commands, through the same entry point as the command line.

    Attributes:
        steps: how many steps there are.
        on_terminal: whether somebody may be looking on.
    """

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.on_terminal = sys.stdout.isatty()
        self._colours = self.on_terminal and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
        self._step = 0
        self._begun = time.monotonic()

    def step(self, title: str) -> None:
        """Begin the next step."""
        self._step += 1
        self.line()
        self.line(self._style(_BOLD, f"[{self._step}/{self.steps}] {title}"))

    def line(self, text: str = "") -> None:
        """Print a line, at once."""
        print(text, flush=True)

    def note(self, text: str) -> None:
        """Print a remark under the commands."""
        self.line(_INDENT + text)

    @property
    def seconds(self) -> float:
        """How long the tour has taken so far."""
        return time.monotonic() - self._begun

    def run(self, *words: str) -> None:
        """Show a command of ``hostel`` and run it.

        Raises:
            StepFailed: it did not succeed; what it had to say is printed.
        """
        self._run(words, Indented(sys.stdout))

    def answer(self, *words: str) -> str:
        """Show a command and run it for its output, which is returned and not printed.

        Raises:
            StepFailed: it did not succeed.
        """
        answer = io.StringIO()
        self._run(words, Indented(sys.stdout), answer)
        return answer.getvalue()

    def _run(self, words: Sequence[str], out: Indented, answer: io.StringIO | None = None) -> None:
        self.line(self._style(_BOLD, "\n".join(broken(words))))
        err = Indented(sys.stderr)
        out.peer, err.peer = err, out
        begun = time.monotonic()
        with contextlib.redirect_stdout(answer or out), contextlib.redirect_stderr(err):
            code = run_tool(words[0], list(words[1:]))
        err.finish()
        if code == BROKEN_PIPE or out.is_broken:
            raise BrokenPipeError(errno.EPIPE, "nobody reads what is printed")
        out.finish(self._style(_DIM, f"[{time.monotonic() - begun:.2f} s]"))
        if code == INTERRUPTED:
            raise KeyboardInterrupt
        if code:
            raise StepFailed(f"'hostel {words[0]}' ended with exit code {code}")

    def wait(self, what: str, reached: Callable[[], bool], timeout: float) -> None:
        """Wait until something is so, showing how long it takes.

        Raises:
            StepFailed: it was not so after ``timeout`` seconds.
        """
        begun = time.monotonic()
        try:
            while not reached():
                spent = time.monotonic() - begun
                if spent > timeout:
                    raise StepFailed(f"{what}: not after {timeout:.0f} s")
                if self.on_terminal:
                    print(f"\r    {what} ... {spent:.1f} s", end="", flush=True)
                time.sleep(_TICK)
        finally:
            if self.on_terminal:
                print("\r\x1b[K", end="", flush=True)
        self.note(f"{what}  {self._style(_DIM, f'[{time.monotonic() - begun:.2f} s]')}")

    def _style(self, style: str, text: str) -> str:
        return f"{style}{text}{_PLAIN}" if self._colours else text


def broken(words: Sequence[str]) -> list[str]:
    """A command as one line, or as several that a shell reads as one."""
    whole = f"  $ hostel {shlex.join(words)}"
    if len(whole) <= _WIDTH:
        return [whole]
    groups: list[list[str]] = [["hostel"]]
    for word in words:
        if word.startswith("--"):
            groups.append([])
        groups[-1].append(word)
    lines = ["  $ " + shlex.join(groups[0])]
    for group in groups[1:]:
        text = shlex.join(group)
        if len(lines[-1]) + len(text) + 3 <= _WIDTH:
            lines[-1] += f" {text}"
        else:
            lines.append(f"      {text}")
    return [f"{line} \\" for line in lines[:-1]] + lines[-1:]

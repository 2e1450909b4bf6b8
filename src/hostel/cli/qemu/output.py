"""Where QEMU's tools print, and how their errors and warnings look."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, TextIO

from hostel.block.filename import without_secrets
from hostel.cause import hint_of
from hostel.cli.streams import discard
from hostel.errors import BlockError


class Output:
    r"""The two streams of the tool.

    Standard output is not flushed before an error is written, as in QEMU: where both go to one pipe, errors come first.
    Passwords in names of images are left out.
    On a terminal, what would move its cursor is shown as ``\xNN``: names come from images, and images from anywhere.
    What nobody reads, or cannot be written, never ends the work on an image: it is dropped, and :meth:`end` tells.

    Attributes:
        prog: the tool's name, which begins every message.
        quiet: drops what :meth:`note` prints.
    """

    def __init__(self, prog: str, out: TextIO | None = None, err: TextIO | None = None) -> None:
        self.prog = prog
        self.out = out if out is not None else sys.stdout
        self.err = err if err is not None else sys.stderr
        self.quiet = False
        self._lost: OSError | None = None  # why standard output could not be written
        self._terminals = [stream for stream in (self.out, self.err) if stream.isatty()]

    def text(self, text: str) -> None:
        """Print text as it is."""
        self._write(self.out, text)

    def line(self, text: str = "") -> None:
        """Print a line."""
        self._write(self.out, text + "\n")

    def encoded(self, text: memoryview) -> None:
        """Print text that is encoded already."""
        stream = getattr(self.out, "buffer", None)
        if stream is None or self.out in self._terminals:
            self.text(bytes(text).decode(errors="surrogateescape"))
        else:
            self.flush()
            try:
                stream.write(text)
            except OSError as error:
                self._lose(self.out, error)

    def note(self, text: str) -> None:
        """Print a line that ``-q`` drops."""
        if not self.quiet:
            self.line(text)

    def error(self, message: str, hint: str | None = None) -> None:
        """Report an error: each line of the message with the tool's name, the hint as it is."""
        for line in message.split("\n"):
            self._write(self.err, f"{self.prog}: {line}\n")
        if hint:
            self._write(self.err, hint.rstrip("\n") + "\n")

    def failed(self, error: OSError, prefix: str = "") -> None:
        """Report an error of the block layer or of the host."""
        self.error(prefix + reason(error), hint_of(error))

    def warning(self, message: str) -> None:
        """Report what deserves attention and stops nothing."""
        self._write(self.err, f"{self.prog}: warning: {message}\n")

    def noticed(self, text: str) -> None:
        """Print what the block layer noticed: a warning as one, the rest as it is."""
        told = text.removeprefix("warning: ")
        if told != text:
            self.warning(told)
        else:
            self.diagnostic(text)

    def _write(self, stream: TextIO, text: str) -> None:
        text = without_secrets(text)
        if stream in self._terminals and not text.isprintable():
            text = "".join(map(_visible, text))
        try:
            stream.write(text)
        except OSError as error:
            self._lose(stream, error)

    def flush(self) -> None:
        """Let readers see what was printed."""
        try:
            self.out.flush()
        except OSError as error:
            self._lose(self.out, error)

    def end(self, code: int, *, failed: int = 1) -> int:
        """The exit code of a tool that has printed all: ``code``, or ``failed`` instead of 0 where that was in vain.

        That is told on standard error; but a reader that has gone is no news, as with QEMU.
        """
        self.flush()
        if self._lost is None or isinstance(self._lost, BrokenPipeError):
            return code
        self.error(f"Could not write to standard output: {reason(self._lost)}")
        return code or failed

    def _lose(self, stream: TextIO, error: OSError) -> None:
        if stream is self.out and self._lost is None:
            self._lost = error
        discard(stream)

    def diagnostic(self, text: str) -> None:
        """Print a line on standard error as it is."""
        self._write(self.err, text + "\n")


def _visible(char: str) -> str:
    if char in "\n\r\t" or char.isprintable():
        return char
    return "".join(f"\\x{byte:02x}" for byte in char.encode(errors="surrogateescape"))


def reason(error: OSError) -> str:
    """What an error says, for the end of a message: a block error's text, or the host's own."""
    if isinstance(error, BlockError):
        return error.message
    return error.strerror or str(error)


def dump(value: Mapping[str, Any] | list[Any], depth: int) -> str:
    """Write a value for people, as under ``Format specific information``."""
    if isinstance(value, Mapping):
        from hostel.codec.qobject import hash_order

        items = [(key.replace("-", " "), value[key]) for key in hash_order(value)]
    else:
        items = [(f"[{index}]", item) for index, item in enumerate(value)]
    lines = []
    for name, item in items:
        start = f"{'    ' * depth}{name}:"
        if isinstance(item, Mapping | list):
            lines.append(f"{start}\n{dump(item, depth + 1)}")
        else:
            shown = ("true" if item else "false") if isinstance(item, bool) else item
            lines.append(f"{start} {shown}\n")
    return "".join(lines)

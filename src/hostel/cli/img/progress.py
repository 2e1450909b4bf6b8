"""Progress of long commands.

``-p`` prints what QEMU prints, on standard output, where each line overwrites the one before it: programs split it at
the carriage returns, so it is the same in a pipe. ``--progress=plain`` prints a line each and ``--progress=json`` an
object each, on standard error, so that standard output stays what it is without them. Without any, SIGUSR1 asks for a
line on standard error.
"""

from __future__ import annotations

import signal
import time
from types import FrameType, TracebackType
from typing import Self

from hostel.cli.img.arguments import Arguments
from hostel.cli.qemu.output import Output


class Progress:
    """Prints how far a command has come; a context manager, the end of which ends the line.

    Args:
        output: where to print.
        arguments: may have asked for it.
        step: percent to have gone on before the next line is printed.

    Attributes:
        shown: it was asked for.
    """

    def __init__(self, output: Output, arguments: Arguments, *, step: float) -> None:
        self.shown = arguments.has("progress") and not output.quiet
        self._style = arguments.get("progress") or ""
        self._output = output
        self._step = step
        self._last = 0.0
        self._told = -1.0
        self._asked = False
        self._start = time.monotonic()

    def __enter__(self) -> Self:
        if not self.shown:
            signal.signal(signal.SIGUSR1, self._ask)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.shown and not self._style:
            self._output.text("\n")

    def report(self, done: int, total: int) -> None:
        """Say that ``done`` of ``total`` units are done."""
        self.percent(100.0 * done / total if total else 0.0)

    def percent(self, percent: float) -> None:
        """Say how far it is, from 0 to 100."""
        percent = min(percent, 100.0)
        if abs(percent - self._last) <= self._step and percent not in (0.0, 100.0):
            return
        self._last = percent
        if self.shown:
            self._show(percent)
        elif self._asked:
            self._asked = False
            self._output.diagnostic(f"    ({percent:3.2f}/100%)")

    def _show(self, percent: float) -> None:
        if not self._style:
            self._output.text(f"    ({percent:3.2f}/100%)\r")
            self._output.flush()
        elif percent == self._told:
            return
        elif self._style == "plain":
            self._output.diagnostic(f"    ({percent:3.2f}/100%)")
        else:
            elapsed = time.monotonic() - self._start
            self._output.diagnostic(f'{{"percent": {percent:.2f}, "elapsed": {elapsed:.3f}}}')
        self._told = percent

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._asked = True

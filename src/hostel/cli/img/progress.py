"""Progress of long commands: ``-p`` on standard output, or one line on standard error for each SIGUSR1."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Self

from hostel.cli.img.output import Output


class Progress:
    """Prints how far a command has come; a context manager, the end of which ends the line.

    Args:
        output: where to print.
        shown: ``-p`` was given; else only SIGUSR1 asks for a line.
        step: percent to have gone on before the next line is printed.
    """

    def __init__(self, output: Output, *, shown: bool, step: float) -> None:
        self._output = output
        self._shown = shown
        self._step = step
        self._last = 0.0
        self._asked = False

    def __enter__(self) -> Self:
        if not self._shown:
            signal.signal(signal.SIGUSR1, self._ask)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._shown:
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
        if self._shown:
            self._output.text(f"    ({percent:3.2f}/100%)\r")
            self._output.out.flush()
        elif self._asked:
            self._asked = False
            self._output.diagnostic(f"    ({percent:3.2f}/100%)")

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._asked = True

"""What virsh says of its own work: on standard output from a level on (``-d``), and in a file with errors (``-l``)."""

from __future__ import annotations

import datetime
import enum
import os
from pathlib import Path
from typing import Final, TextIO

from hostel.cli.output import Output


class Level(enum.IntEnum):
    """How much something matters, as ``-d`` counts."""

    DEBUG = 0
    INFO = 1
    NOTICE = 2
    WARNING = 3
    ERROR = 4


_WORDS: Final = {Level.NOTICE: "INFO"}  # what the file calls levels that are not called by their name


class Trace:
    """Where such words go.

    Args:
        out: where they are shown.
        level: the least that is shown; above ``ERROR`` is nothing.
        path: the file, which is written on.

    Raises:
        OSError: the file cannot be opened.
    """

    def __init__(self, out: TextIO | None = None, level: int = Level.ERROR, path: Path | None = None) -> None:
        self._out = out
        self._level = level
        self._log = None if path is None else path.open("a")

    def say(self, level: Level, text: str) -> None:
        """Say something about the work."""
        if level < self._level or self._out is None:
            return
        self.note(level, text)
        self._out.write(text + "\n")
        self._out.flush()

    def note(self, level: Level, text: str) -> None:
        """Write into the file alone."""
        if self._log is not None:
            now = datetime.datetime.now().strftime("%Y.%m.%d %H:%M:%S")
            self._log.write(f"[{now} virsh {os.getpid()}] {_WORDS.get(level, level.name)} {text}\n")
            self._log.flush()

    def close(self) -> None:
        """Close the file."""
        if self._log is not None:
            self._log.close()


class TracedOutput(Output):
    """The two streams of virsh, whose errors are written into the file too."""

    def __init__(self, trace: Trace) -> None:
        super().__init__()
        self._trace = trace

    def error(self, message: str) -> None:
        """Print an error, and note it."""
        super().error(message)
        for line in filter(None, message.split("\n")):
            self._trace.note(Level.ERROR, line)

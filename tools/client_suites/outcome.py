"""How a script of a suite came out."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple


class Outcome(NamedTuple):
    """What a script said.

    Attributes:
        status: its exit code; -1 where it did not end in time.
        passed: checks that were as they should be, without those left out.
        failed: the others.
        text: all that it printed.
    """

    status: int
    passed: int
    failed: int
    text: str

    def is_as_good_as(self, other: Outcome) -> bool:
        """Whether no fewer checks pass than there, and it ends as well."""
        return self.passed >= other.passed and self.failed <= other.failed and (not self.status or bool(other.status))

    def __str__(self) -> str:
        ended = "" if not self.status else " (no end)" if self.status < 0 else f" (exit {self.status})"
        return f"{self.passed}/{self.passed + self.failed}{ended}"


def run(command: Sequence[str], folder: Path, environment: Mapping[str, str], seconds: float) -> tuple[int, str]:
    """Run a script, and all that it starts, for so many seconds at most; its exit code and what it printed."""
    with tempfile.TemporaryFile("w+") as printed:
        process = subprocess.Popen(
            command, cwd=folder, env={**os.environ, "LC_ALL": "C", **environment}, stdin=subprocess.DEVNULL,
            stdout=printed, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            status = process.wait(seconds)
        except subprocess.TimeoutExpired:
            status = -1
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        printed.seek(0)
        return status, printed.read()


def of_tap(status: int, text: str) -> Outcome:
    """The outcome of a script that speaks TAP; checks that it leaves out do not count."""
    checks = [
        line for line in text.splitlines() if line.startswith(("ok ", "not ok ")) and "# skip" not in line.lower()
    ]
    failed = sum(line.startswith("not ") for line in checks)
    return Outcome(status, len(checks) - failed, failed, text)

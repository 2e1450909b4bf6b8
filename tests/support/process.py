"""Programs that run beside a test, for the length of a block."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator, Sequence

PATIENCE = 20.0  # seconds in which a program that is asked to end does


@contextlib.contextmanager
def started(words: Sequence[str], *, stdout: int = subprocess.DEVNULL) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program in the background; it is asked to end, and made to."""
    quiet = subprocess.DEVNULL
    with subprocess.Popen(words, stdin=quiet, stdout=stdout, stderr=quiet) as process:
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()

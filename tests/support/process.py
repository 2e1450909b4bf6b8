"""Programs that run beside a test, for the length of a block."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

PATIENCE = 20.0  # seconds in which a program that is asked to end does


@contextlib.contextmanager
def started(words: Sequence[str], *, stdout: int = subprocess.DEVNULL) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program in the background; it is asked to end, and made to."""
    quiet = subprocess.DEVNULL
    with subprocess.Popen(words, stdin=quiet, stdout=stdout, stderr=quiet) as process:
        try:
            yield process
        finally:
            end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask a program to end, and make it: QEMU's servers do not always hear that they are told to."""
    process.terminate()
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(PATIENCE)


def machines_of(home: Path) -> set[int]:
    """The process ids of every QEMU whose command line names this directory."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"qemu-system" in command[0] and any(str(home).encode() in part for part in command):
                found.add(int(entry.name))
    return found

"""Programs that run beside a test, for the length of a block."""

from __future__ import annotations

import contextlib
import os
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


def programs_of(home: Path) -> dict[int, bytes]:
    """The processes whose command line names this directory: each one's program."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes()
            except OSError:  # it has ended since
                continue
            if os.fsencode(home) in command:
                found[int(entry.name)] = command.partition(b"\0")[0]
    return found


def machines_of(home: Path) -> set[int]:
    """The process ids of every QEMU whose command line names this directory."""
    return {pid for pid, program in programs_of(home).items() if b"qemu-system" in program}

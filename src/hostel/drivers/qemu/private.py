"""Files that QEMU reads when it starts, and nobody else may."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from hostel.drivers.qemu import process


def write_private(path: Path, content: bytes, run: Path) -> Path:
    """Write a new file that is for a run's QEMU alone; returns its path."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "wb") as stream:
            stream.write(content)
        process.hand_over(run, path)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return path


def unlink(paths: Iterable[Path]) -> None:
    """Remove files, those that are there."""
    for path in paths:
        path.unlink(missing_ok=True)

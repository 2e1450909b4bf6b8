"""Files as block devices of the host's."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

TIMEOUT = 30.0  # seconds for a tool


@contextlib.contextmanager
def device(path: Path, size: int) -> Iterator[str]:
    """A new file of ``size`` bytes as a loop device whose partitions the kernel knows; gives its path."""
    with path.open("wb") as file:
        file.truncate(size)
    found = _run("losetup", "--find", "--partscan", "--show", str(path)).strip()
    try:
        yield found
    finally:
        _run("losetup", "--detach", found)
        path.unlink()


def may_attach() -> bool:
    """Whether this user may make loop devices, and this host has them."""
    return os.geteuid() == 0 and Path("/dev/loop-control").exists()


def _run(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, timeout=TIMEOUT, check=True).stdout

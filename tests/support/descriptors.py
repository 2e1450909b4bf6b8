"""What this process has open."""

from __future__ import annotations

import contextlib
import os


def descriptors() -> set[tuple[str, str]]:
    """Each descriptor, and what it is of; what is not in an earlier set of these was opened since.

    Their number says less: the collector of garbage may close, at any moment, what earlier tests have left.
    """
    found = set()
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # it was that of the directory
            found.add((number, os.readlink(f"/proc/self/fd/{number}")))
    return found

"""Which single call to a file fails, and how."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import NamedTuple

from support.memory import Kind


class Fault(NamedTuple):
    """Which call fails, and how."""

    at: int
    code: int
    short: bool


def faults(kinds: list[Kind]) -> Iterator[Fault]:
    """Each call fails with EIO; one that may need space also with ENOSPC, and a write half done."""
    for at, kind in enumerate(kinds):
        yield Fault(at, errno.EIO, False)
        if kind in (Kind.WRITE, Kind.ZERO, Kind.RESIZE, Kind.FLUSH):
            yield Fault(at, errno.ENOSPC, False)
        if kind is Kind.WRITE:
            yield Fault(at, errno.ENOSPC, True)

"""Ranges of a node that one request at a time may be at work on."""

from __future__ import annotations

import contextlib
import errno
import threading
import time
from collections.abc import Iterator
from typing import Final

from hostel.errors import BlockError

_PATIENCE: Final = 300.0  # seconds; a copy takes as long as the slower of two disks


class Ranges:
    """Ranges in use; whoever wants one that overlaps another waits for it."""

    def __init__(self) -> None:
        self._held: list[tuple[int, int]] = []
        self._freed = threading.Condition()

    @contextlib.contextmanager
    def hold(self, start: int, end: int) -> Iterator[None]:
        """Have the bytes from ``start`` to ``end`` for oneself.

        Raises:
            BlockError: ETIMEDOUT, where the others do not come to an end.
        """
        mine = start, end
        until = time.monotonic() + _PATIENCE
        with self._freed:
            while any(low < end and start < high for low, high in self._held):
                if not self._freed.wait(max(0.0, until - time.monotonic())) and time.monotonic() >= until:
                    raise BlockError("A copy of the range does not come to an end", errno=errno.ETIMEDOUT)
            self._held.append(mine)
        try:
            yield
        finally:
            with self._freed:
                self._held.remove(mine)
                self._freed.notify_all()

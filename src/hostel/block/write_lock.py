"""Writes to parts of blocks, which must be read first, beside other writes.

What a write to a part of a block leaves as it was is written again. Whatever another one has written there meanwhile
would be lost: so the one waits for the other.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator


class WriteLock:
    """Writes go on together, or one alone; neither is begun within the other."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._together = 0
        self._waiting = 0

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Write what needs nothing to be read first."""
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting)
            self._together += 1
        try:
            yield
        finally:
            with self._changed:
                self._together -= 1
                self._changed.notify_all()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Read, change and write back."""
        with self._changed:
            self._waiting += 1
            try:
                self._changed.wait_for(lambda: not self._together)
                yield
            finally:
                self._waiting -= 1
                self._changed.notify_all()

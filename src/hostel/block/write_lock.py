"""Writes to parts of blocks, which must be read first, beside other writes.

What a write to a part of a block leaves as it was is written again. Whatever another one has written there meanwhile
would be lost: so the one waits for the other.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Final

from hostel.errors import Reentered

_GLANCE: Final = 1.0  # seconds after which the one who waits looks for himself


class WriteLock:
    """Writes go on together, or one alone; neither is begun within the other.

    Raises:
        Reentered: by both methods: in a signal handler, of a thread that is in one of them; it would wait for itself.
    """

    def __init__(self) -> None:
        self._mutex = threading.RLock()  # taken by itself: Condition's own way in may be interrupted in between
        self._changed = threading.Condition(self._mutex)
        self._together: set[int] = set()  # threads
        self._alone: set[int] = set()  # those that wait for that too; one of them has the lock

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Write what needs nothing to be read first."""
        me = self._identify()
        try:
            with self._mutex:
                while self._alone:
                    self._changed.wait(_GLANCE)
                self._together.add(me)
            yield
        finally:
            self._together.discard(me)
            with self._mutex:
                self._changed.notify_all()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Read, change and write back."""
        me = self._identify()
        with self._mutex:
            try:
                self._alone.add(me)
                while self._together:
                    self._changed.wait(_GLANCE)
                yield
            finally:
                self._alone.discard(me)
                self._changed.notify_all()

    def _identify(self) -> int:
        me = threading.get_ident()
        if me in self._together or me in self._alone:
            raise Reentered("A signal handler cannot write to what its own thread is in the middle of writing")
        return me

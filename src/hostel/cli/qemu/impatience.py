"""Signals that end a server while it opens an image, which may take as long as another server likes."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from typing import Final

_GRACE: Final = 1.0  # seconds; most images are open by then, and what is repaired as they are is whole


class GivenUp(KeyboardInterrupt):
    """An image is not waited for any more."""


class Impatience:
    """Gives up an image that is being opened a second after a signal has come."""

    def __init__(self) -> None:
        self._opening = False
        signal.signal(signal.SIGALRM, self._ring)

    def begin(self) -> None:
        """For the signal's handler."""
        signal.setitimer(signal.ITIMER_REAL, _GRACE)

    @contextlib.contextmanager
    def opening(self) -> Iterator[None]:
        """Open an image meanwhile.

        Raises:
            GivenUp: it took too long.
        """
        self._opening = True
        try:
            yield
        finally:
            self._opening = False

    def _ring(self, *_: object) -> None:
        if self._opening:
            self._opening = False
            raise GivenUp

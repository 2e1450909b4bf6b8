"""Sleeping between looks at what is to happen soon."""

from __future__ import annotations

import time
from typing import Final

_FIRST: Final = 0.001  # seconds
_LONGEST: Final = 0.02  # seconds


class Pause:
    """Sleeps twice as long each time, up to a bound: most of what is waited for happens at once."""

    def __init__(self, longest: float = _LONGEST) -> None:
        self._seconds = _FIRST
        self._longest = longest

    def __call__(self) -> None:
        """Sleep once."""
        time.sleep(self._seconds)
        self._seconds = min(2 * self._seconds, self._longest)

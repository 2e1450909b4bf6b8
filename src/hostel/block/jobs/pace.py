"""Speed limits."""

from __future__ import annotations

import time


class Pace:
    """Says how long to wait so that no more than ``speed`` bytes a second are copied; 0 for no limit."""

    def __init__(self, speed: int) -> None:
        self.speed = speed
        self._next = 0.0

    def spend(self, length: int) -> None:
        """Bytes that were copied."""
        if self.speed:
            self._next = max(self._next, time.monotonic()) + length / self.speed

    def due(self) -> float:
        """Seconds until more may be copied."""
        return max(0.0, self._next - time.monotonic()) if self.speed else 0.0

    def change(self, speed: int) -> None:
        """Set another limit; what was owed under the old one is forgiven."""
        self.speed, self._next = speed, 0.0

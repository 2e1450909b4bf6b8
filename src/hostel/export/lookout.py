"""Whether to look for the next request for a moment before sleeping, found out by doing both in turns.

Being woken takes longer than most clients take to send their next request, so that looking for it pays where the client
has a processor of its own. Where both share one, looking only keeps the client from it; and which it is depends on what
else the host has to do at this moment.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Final

_TRIED: Final = 40  # rounds for which each way is tried
_SETTLING: Final = 8  # of them that do not count, since threads may still change processors
_FEW, _MANY = 1024, 16384  # rounds between trials: the first, and where the outcome remains the same
_GAIN: Final = 0.9  # what looking must at most take of the time that sleeping takes, for the processor that it costs
_SLOW: Final = 200e-6  # seconds of a round from which on nothing is gained by looking
_OUTLIER: Final = 4  # times the usual: rounds in which somebody else had the processor


class Lookout:
    """Judges the rounds of one thread that answers requests and then waits for more.

    Args:
        clock: tells seconds.
        processors: how many this process may use; with one it sleeps at once.

    Attributes:
        looks: look for a moment before sleeping, this time.
    """

    def __init__(
        self, clock: Callable[[], float] = time.perf_counter, processors: int = len(os.sched_getaffinity(0))
    ) -> None:
        self.looks = False
        self._clock = clock
        self._may_look = processors > 1
        self._chosen = False
        self._rest = _FEW
        self._left = _TRIED
        self._trying = True
        self._start = 0.0
        self._rounds: list[tuple[float, int]] = []
        self._cost_of_sleeping = 0.0

    def ended(self, requests: int) -> None:
        """A round of waiting and answering has ended, the time of which this call ends too."""
        self._left = left = self._left - 1
        if self._trying:
            now = self._clock()
            if left < _TRIED - _SETTLING:
                self._rounds.append((now - self._start, requests))
            self._start = now
            if not left:
                self._tried()
        elif not left:
            self._try(looking=False)

    def _try(self, *, looking: bool) -> None:
        self._trying, self.looks, self._left = True, looking, _TRIED
        self._rounds.clear()

    def _tried(self) -> None:
        """One way was tried: go on with the other, or with the better one."""
        cost = _cost(self._rounds)
        if not self.looks:
            self._cost_of_sleeping = cost
            if cost < _SLOW and self._may_look:
                self._try(looking=True)
                return
        looks = self.looks and cost < _GAIN * self._cost_of_sleeping
        self._rest = min(2 * self._rest, _MANY) if looks is self._chosen else _FEW
        self._chosen = self.looks = looks
        self._trying, self._left = False, self._rest


def _cost(rounds: list[tuple[float, int]]) -> float:
    """Seconds that a request takes."""
    limit = _OUTLIER * sorted(rounds)[len(rounds) // 2][0]
    usual = [each for each in rounds if each[0] <= limit]
    return sum(seconds for seconds, _ in usual) / max(1, sum(requests for _, requests in usual))

"""Threads for calls that may wait: for a guest, a disk, a lock."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

_IDLE: Final = 30.0  # seconds after which a thread with nothing to do ends
_STOP: Final = 10.0  # seconds that stopping waits for what is being done


class Workers:
    """A pool that grows when there is work and nobody is idle, up to its limit.

    Args:
        limit: threads for any work.
        reserve: more threads, for work that is urgent: it frees others that wait for a guest.
        failed: told an exception that work let out.
    """

    def __init__(self, limit: int, reserve: int, failed: Callable[[Exception], None]) -> None:
        self._limit = limit
        self._reserve = reserve
        self._failed = failed
        self._lock = threading.Condition()
        self._work: deque[Callable[[], None]] = deque()
        self._urgent: deque[Callable[[], None]] = deque()
        self._idle = 0
        self._threads: set[threading.Thread] = set()
        self._busy = 0  # threads with work that is not urgent
        self._stopping = False

    @property
    def threads(self) -> int:
        """How many there are now."""
        return len(self._threads)

    def submit(self, work: Callable[[], None], *, urgent: bool = False) -> None:
        """Have work done by some thread, in the order of submission but for what is urgent."""
        with self._lock:
            (self._urgent if urgent else self._work).append(work)
            if len(self._work) + len(self._urgent) <= self._idle:
                self._lock.notify()
            elif len(self._threads) < self._limit + (self._reserve if urgent else 0):
                thread = threading.Thread(target=self._run, name="worker", daemon=True)
                self._threads.add(thread)
                thread.start()

    def stop(self) -> bool:
        """Do no more work, and wait for what is being done; whether all of it ended in time."""
        with self._lock:
            self._stopping = True
            self._work.clear()
            self._urgent.clear()
            self._lock.notify_all()
            threads = list(self._threads)
        deadline = time.monotonic() + _STOP
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in threads)

    def _run(self) -> None:
        while (taken := self._take()) is not None:
            work, is_urgent = taken
            try:
                work()
            except Exception as error:
                self._failed(error)
            finally:
                if not is_urgent:
                    with self._lock:
                        self._busy -= 1

    def _take(self) -> tuple[Callable[[], None], bool] | None:
        """Wait for work; None when the thread is to end."""
        with self._lock:
            while not self._stopping:
                if self._urgent:
                    return self._urgent.popleft(), True
                if self._work and self._busy < self._limit:
                    self._busy += 1
                    return self._work.popleft(), False
                self._idle += 1
                heard = self._lock.wait(_IDLE)
                self._idle -= 1
                if not heard and not self._urgent and not self._work:
                    break
            self._threads.discard(threading.current_thread())
            return None

"""A second thread that copies beside the job's own, so that one reads while the other writes."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable
from typing import Final

_ENDED: Final = None


class Companion:
    """Does a part of a step; the step is over only when both parts are.

    The thread starts with the first part that it is given, and lasts until :meth:`close`.
    """

    def __init__(self) -> None:
        self._parts: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    @staticmethod
    def is_worth_it() -> bool:
        """Whether there is a processor for it."""
        return len(os.sched_getaffinity(0)) > 1

    def run(self, first: Callable[[], None], second: Callable[[], None]) -> None:
        """Do both, ``second`` in the other thread, and wait for both.

        Raises:
            Exception: what ``first`` raised or, failing that, ``second``.
        """
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name="job-companion", daemon=True)
            self._thread.start()
        self._parts.put(second)
        try:
            first()
        finally:
            # Each part ends by itself: it waits for I/O alone.
            failure = self._results.get()
        if failure is not None:
            raise failure

    def _serve(self) -> None:
        while (part := self._parts.get()) is not _ENDED:
            try:
                part()
            except BaseException as error:
                self._results.put(error)
            else:
                self._results.put(None)

    def close(self) -> None:
        """End the thread."""
        if self._thread is not None:
            self._parts.put(_ENDED)
            self._thread.join()
            self._thread = None

"""A few threads that work on the parts of a plan: ahead of one that finishes the parts in order, or each to the end."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any, Final, Generic, TypeVar

from hostel.block.node import BlockNode

MAX_WORKERS: Final = 4
_SPARE_SLOTS: Final = 1  # beside one for each worker: the part that is being finished
_MOST_PARTS: Final = 64

Part = TypeVar("Part")
Slot = TypeVar("Slot")
Result = TypeVar("Result")


def portions(parts: Iterable[Part], room: int, cost: Callable[[Part], int]) -> Iterator[list[Part]]:
    """Gather small parts until they are worth a thread's while: up to ``room`` of their cost together."""
    portion: list[Part] = []
    left = room
    for part in parts:
        price = cost(part)
        if portion and price > left:
            yield portion
            portion, left = [], room
        portion.append(part)
        left -= price
        if left <= 0 or len(portion) == _MOST_PARTS:
            yield portion
            portion, left = [], room
    if portion:
        yield portion


def worker_count(wanted: int) -> int:
    """How many workers are worth having, of at most ``wanted``."""
    return max(1, min(wanted, MAX_WORKERS, len(os.sched_getaffinity(0))))


class _Task:
    """A part in a worker's hands; ``done`` is released when ``result`` or ``error`` is there."""

    __slots__ = ("done", "error", "result", "slot")

    def __init__(self, slot: Any, error: BaseException | None = None) -> None:
        self.slot = slot
        self.result: Any = None
        self.error = error
        self.done = threading.Lock()
        if error is None:
            self.done.acquire()


class Team(Generic[Part, Slot, Result]):
    """Workers that go ahead through a plan until all slots are full, and the caller's thread, which finishes the parts.

    The caller's thread finds its next part ready while the workers are fast enough, so that it need not be woken for
    each. Where nothing is left to finish, it is a worker itself. Of several failures the earliest part's is the one
    reported: a run fails alike every time. A team runs once.

    Args:
        plan: the parts; advanced by one thread at a time, with the nodes' locks held.
        nodes: the images whose metadata the plan reads.
        slot: makes what a part is worked on in, such as a buffer; it is used again when the part is finished.
        worker: called once in each thread; what it returns works on one part.
    """

    def __init__(
        self,
        plan: Iterator[Part],
        nodes: Sequence[BlockNode],
        slot: Callable[[], Slot],
        worker: Callable[[], Callable[[Part, Slot], Result]],
    ) -> None:
        self._plan = plan
        self._nodes = [node for top in nodes for node in top.chain()]
        self._slot = slot
        self._worker = worker
        self._plan_lock = threading.Lock()
        self._stopped = False
        self._taken = 0

    def run(self, workers: int, finish: Callable[[Result], None]) -> None:
        """Work off the plan.

        Args:
            workers: how many threads beside the caller's; 0 for none.
            finish: called in the caller's thread with what came of each part, in the plan's order.

        Raises:
            Exception: what working on a part, finishing it, or the plan raised first.
        """
        if not workers:
            work, slot = self._worker(), self._slot()
            for part in self._plan:
                finish(work(part, slot))
            return
        from queue import SimpleQueue

        free: SimpleQueue[Slot | None] = SimpleQueue()
        order: SimpleQueue[_Task | None] = SimpleQueue()
        for _ in range(workers + _SPARE_SLOTS):
            free.put(self._slot())
        threads = [threading.Thread(target=self._work, args=(free, order), daemon=True) for _ in range(workers)]
        for thread in threads:
            thread.start()
        try:
            self._finish(free, order, workers, finish)
        finally:
            self._stopped = True
            for _ in threads:
                free.put(None)
            for thread in threads:
                thread.join()

    def run_unordered(self, workers: int) -> None:
        """Work off the plan, where a part is done once it was worked on.

        Args:
            workers: how many threads, with the caller's; 0 as 1.

        Raises:
            Exception: what working on a part or the plan raised first.
        """
        failures: list[tuple[int, BaseException]] = []
        threads = [threading.Thread(target=self._labour, args=(failures,), daemon=True) for _ in range(1, workers)]
        for thread in threads:
            thread.start()
        try:
            self._labour(failures)
            for thread in threads:
                thread.join()
        finally:
            self._stopped = True
            for thread in threads:
                thread.join()
        if failures:
            raise min(failures, key=lambda failure: failure[0])[1]

    def _labour(self, failures: list[tuple[int, BaseException]]) -> None:
        """What each worker does that finishes its parts; it says what failed, and where in the plan."""
        index = -1
        try:
            work, slot = self._worker(), self._slot()
            while True:
                with self._plan_lock:
                    self._taken += 1
                    index = self._taken
                    part = self._advance()
                if part is None:
                    return
                work(part, slot)
        except BaseException as error:
            self._stopped = True
            failures.append((index, error))

    def _finish(self, free: Any, order: Any, workers: int, finish: Callable[[Result], None]) -> None:
        """Finish the parts in order, until every worker has said that it found no more."""
        while workers:
            task = order.get()
            if task is None:
                workers -= 1
                continue
            task.done.acquire()
            if task.error is not None:
                raise task.error
            finish(task.result)
            free.put(task.slot)

    def _work(self, free: Any, order: Any) -> None:
        """What each worker does; it always says when it is at its end."""
        try:
            work = self._worker()
            while (slot := free.get()) is not None and (taken := self._take(slot, order)) is not None:
                part, task = taken
                try:
                    task.result = work(part, slot)
                except BaseException as error:
                    task.error = error
                    return
                finally:
                    task.done.release()
        except BaseException as error:
            order.put(_Task(None, error))
        finally:
            order.put(None)

    def _take(self, slot: Slot, order: Any) -> tuple[Part, _Task] | None:
        """The next part, which gets its place in the order; None at the end of the plan."""
        with self._plan_lock:
            part = self._advance()
            if part is None:
                return None
            task = _Task(slot)
            order.put(task)
            return part, task

    def _advance(self) -> Part | None:
        """The next part, for who holds the plan's lock; None at its end, or once the team was stopped."""
        if self._stopped:
            return None
        with ExitStack() as stack:
            for node in self._nodes:
                stack.enter_context(node.hold())
            return next(self._plan, None)

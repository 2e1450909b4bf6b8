"""A few threads that work off one plan, each part in its turn."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from typing import Final, Generic, TypeVar

from hostel.block.node import BlockNode

MAX_THREADS: Final = 4
_MOST_PARTS: Final = 64

Part = TypeVar("Part")


def portions(parts: Iterable[Part], room: int, cost: Callable[[Part], int]) -> Iterator[list[Part]]:
    """Gather small parts until taking them is worth a turn: up to ``room`` of their cost together."""
    portion: list[Part] = []
    left = room
    for part in parts:
        if portion and (cost(part) > left or len(portion) == _MOST_PARTS):
            yield portion
            portion, left = [], room
        portion.append(part)
        left -= cost(part)
    if portion:
        yield portion


def thread_count(wanted: int) -> int:
    """How many threads are worth having, of at most ``wanted``."""
    return max(1, min(wanted, MAX_THREADS, len(os.sched_getaffinity(0))))


class Turn:
    """A part's place in the order of the plan."""

    __slots__ = ("_after", "_before", "number")

    def __init__(self, number: int, before: threading.Lock) -> None:
        self.number = number
        self._before = before
        self._after = threading.Lock()
        self._after.acquire()

    def wait(self) -> None:
        """Wait until every part before this one is done with; each of them is sooner or later, whatever happens."""
        self._before.acquire()

    def end(self) -> None:
        """Let the next part go on."""
        self._after.release()

    def next(self) -> Turn:
        """The turn after this one."""
        return Turn(self.number + 1, self._after)


class Team(Generic[Part]):
    """Threads that take parts of a plan one after another until it ends or a part fails.

    Of several failures the one of the earliest part is reported, so that a run fails alike every time.

    Args:
        plan: the parts; advanced by one thread at a time, with the nodes' locks held.
        nodes: the images whose metadata the plan reads.
    """

    def __init__(self, plan: Iterator[Part], nodes: Sequence[BlockNode]) -> None:
        self._plan = plan
        self._nodes = [node for top in nodes for node in top.chain()]
        self._plan_lock = threading.Lock()
        self._failure_lock = threading.Lock()
        self._failure: tuple[int, BaseException] | None = None
        self._next = Turn(0, threading.Lock())

    @property
    def failed(self) -> bool:
        """Whether a part failed: what is not done yet need not be done any more."""
        return self._failure is not None

    def run(self, threads: int, worker: Callable[[], Callable[[Part, Turn], None]]) -> None:
        """Work off the plan.

        Args:
            threads: how many; the caller's is one of them.
            worker: called once in each thread; what it returns does one part.

        Raises:
            Exception: what a part or the plan raised.
        """
        others = [threading.Thread(target=self._run, args=(worker,), daemon=True) for _ in range(threads - 1)]
        for thread in others:
            thread.start()
        self._run(worker)
        try:
            for thread in others:
                thread.join()
        except BaseException as error:  # an interrupt: nobody may go on with what the caller closes next
            self._fail(-1, error)
            for thread in others:
                thread.join()
        if self._failure is not None:
            raise self._failure[1]

    def _fail(self, number: int, error: BaseException) -> None:
        with self._failure_lock:
            if self._failure is None or number < self._failure[0]:
                self._failure = number, error

    def _run(self, worker: Callable[[], Callable[[Part, Turn], None]]) -> None:
        try:
            work = worker()
            while (taken := self._take()) is not None:
                part, turn = taken
                try:
                    work(part, turn)
                except Exception as error:
                    self._fail(turn.number, error)
                finally:
                    turn.end()
        except BaseException as error:
            self._fail(-1, error)

    def _take(self) -> tuple[Part, Turn] | None:
        with self._plan_lock, ExitStack() as stack:
            if self.failed:
                return None
            for node in self._nodes:
                stack.enter_context(node.lock())
            turn = self._next
            try:
                part = next(self._plan, None)
            except Exception as error:
                self._fail(turn.number, error)
                return None
            if part is None:
                return None
            self._next = turn.next()
            return part, turn

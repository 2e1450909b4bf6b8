from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from hostel.img.team import Team, Turn, portions


def test_parts_are_finished_in_the_order_of_the_plan_whoever_is_first() -> None:
    done: list[int] = []

    def worker() -> Callable[[int, Turn], None]:
        def work(part: int, turn: Turn) -> None:
            time.sleep(0.002 if part % 3 == 0 else 0)
            turn.wait()
            done.append(part)

        return work

    Team(iter(range(50)), ()).run(4, worker)
    assert done == list(range(50))


def test_earliest_failure_is_the_one_reported() -> None:
    second_failed = threading.Event()

    def worker() -> Callable[[int, Turn], None]:
        def work(part: int, turn: Turn) -> None:
            if part == 1:
                second_failed.set()
                raise OSError(5, "the second")
            assert second_failed.wait(10)
            raise OSError(28, "the first")

        return work

    with pytest.raises(OSError, match="the first"):
        Team(iter(range(10)), ()).run(2, worker)


def test_failure_stops_the_others_and_lets_go_who_waits() -> None:
    done: list[int] = []

    def worker() -> Callable[[int, Turn], None]:
        def work(part: int, turn: Turn) -> None:
            if part == 5:
                raise OSError(5, "lost")
            turn.wait()
            if not team.failed:
                done.append(part)

        return work

    team = Team(iter(range(10**9)), ())
    with pytest.raises(OSError, match="lost"):
        team.run(3, worker)
    assert set(done) <= set(range(5))


def test_failure_of_the_plan_is_raised() -> None:
    def plan() -> Iterator[int]:
        yield 1
        raise OSError(5, "metadata")

    with pytest.raises(OSError, match="metadata"):
        Team(plan(), ()).run(2, lambda: lambda part, turn: None)


def test_interrupt_in_one_thread_ends_all() -> None:
    def worker() -> Callable[[int, Turn], None]:
        def work(part: int, turn: Turn) -> None:
            if part == 7:
                raise KeyboardInterrupt

        return work

    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        Team(iter(range(10**9)), ()).run(3, worker)
    assert threading.active_count() == before


def test_portions_are_bounded_by_cost_and_number() -> None:
    found = list(portions([3, 3, 3, 9, 1, *[0] * 200], 6, lambda part: part))
    assert found[:4] == [[3, 3], [3], [9], [1, *[0] * 63]]
    assert max(map(len, found)) == 64
    assert sum(map(len, found)) == 205

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from hostel.img.team import Team, portions

Work = Callable[[int, list[int]], int]


def team(plan: Iterator[int], work: Work) -> Team[int, list[int], int]:
    return Team(plan, (), list, lambda: work)


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_parts_are_finished_in_the_order_of_the_plan_whoever_is_first(workers: int) -> None:
    def work(part: int, slot: list[int]) -> int:
        time.sleep(0.002 if part % 3 == 0 else 0)
        return part * 10

    done: list[int] = []
    team(iter(range(1, 50)), work).run(workers, done.append)
    assert done == [part * 10 for part in range(1, 50)]


def test_workers_go_ahead_only_as_far_as_there_are_slots() -> None:
    started: list[int] = []
    slots: list[list[int]] = []

    def slot() -> list[int]:
        slots.append([])
        return slots[-1]

    def work(part: int, slot: list[int]) -> int:
        started.append(part)
        assert not slot
        slot.append(part)
        return part

    def finish(part: int) -> None:
        if part == 1:
            time.sleep(0.05)
            assert len(started) <= len(slots)
        next(slot for slot in slots if slot == [part]).clear()

    Team(iter(range(1, 30)), (), slot, lambda: work).run(2, finish)
    assert sorted(started) == list(range(1, 30))  # who takes a part may be held up before it begins
    assert len(slots) == 3


def test_earliest_failure_is_the_one_reported() -> None:
    second_failed = threading.Event()

    def work(part: int, slot: list[int]) -> int:
        if part == 2:
            second_failed.set()
            raise OSError(5, "the second")
        assert second_failed.wait(10)
        raise OSError(28, "the first")

    with pytest.raises(OSError, match="the first"):
        team(iter(range(1, 10)), work).run(2, lambda part: None)


def test_parts_before_a_failure_are_finished_and_none_after_it() -> None:
    done: list[int] = []

    def work(part: int, slot: list[int]) -> int:
        if part == 5:
            raise OSError(5, "lost")
        return part

    with pytest.raises(OSError, match="lost"):
        team(iter(range(1, 10**9)), work).run(3, done.append)
    assert done == [1, 2, 3, 4]


@pytest.mark.parametrize("workers", [0, 2])
def test_failure_of_the_plan_of_a_worker_or_at_the_end_is_raised(workers: int) -> None:
    def plan() -> Iterator[int]:
        yield 1
        raise OSError(5, "metadata")

    def fail(part: int) -> None:
        raise OSError(28, "no room")

    def broken() -> Work:
        raise OSError(95, "no codec")

    with pytest.raises(OSError, match="metadata"):
        team(plan(), lambda part, slot: part).run(workers, lambda part: None)
    with pytest.raises(OSError, match="no room"):
        team(iter(range(1, 10**9)), lambda part, slot: part).run(workers, fail)
    with pytest.raises(OSError, match="no codec"):
        Team(iter(range(1, 10)), (), list, broken).run(workers, lambda part: None)


def test_interrupt_anywhere_ends_all_threads() -> None:
    def interrupt(part: int, slot: list[int] | None = None) -> int:
        if part == 7:
            raise KeyboardInterrupt
        return part

    def finish(part: int) -> None:
        interrupt(part)

    before = set(threading.enumerate())
    with pytest.raises(KeyboardInterrupt):
        team(iter(range(1, 10**9)), interrupt).run(3, lambda part: None)
    with pytest.raises(KeyboardInterrupt):
        team(iter(range(1, 10**9)), lambda part, slot: part).run(3, finish)
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_each_part_is_worked_on_once_in_a_slot_that_nobody_shares(workers: int) -> None:
    done: list[int] = []

    def work(part: int, slot: list[int]) -> int:
        assert not slot
        slot.append(part)
        time.sleep(0.002 if part % 3 == 0 else 0)
        done.append(slot.pop())
        return part

    team(iter(range(1, 50)), work).run_unordered(workers)
    assert sorted(done) == list(range(1, 50))


def test_earliest_failure_is_reported_by_workers_in_no_order() -> None:
    before, second_failed = set(threading.enumerate()), threading.Event()

    def work(part: int, slot: list[int]) -> int:
        if part == 2:
            second_failed.set()
            raise OSError(5, "the second")
        assert second_failed.wait(10)
        raise OSError(28, "the first")

    with pytest.raises(OSError, match="the first"):
        team(iter(range(1, 10**9)), work).run_unordered(2)
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_in_no_order_report_the_plan_themselves_and_an_interrupt(workers: int) -> None:
    def plan() -> Iterator[int]:
        yield 1
        raise OSError(5, "metadata")

    def broken() -> Work:
        raise OSError(95, "no codec")

    def interrupt(part: int, slot: list[int]) -> int:
        if part == 7:
            raise KeyboardInterrupt
        return part

    before = set(threading.enumerate())
    with pytest.raises(OSError, match="metadata"):
        team(plan(), lambda part, slot: part).run_unordered(workers)
    with pytest.raises(OSError, match="no codec"):
        Team(iter(range(1, 10)), (), list, broken).run_unordered(workers)
    with pytest.raises(KeyboardInterrupt):
        team(iter(range(1, 10**9)), interrupt).run_unordered(workers)
    assert set(threading.enumerate()) <= before


def test_portions_are_bounded_by_cost_and_number() -> None:
    found = list(portions([3, 3, 3, 9, 1, *[0] * 200], 6, lambda part: part))
    assert found[:4] == [[3, 3], [3], [9], [1, *[0] * 63]]
    seen: list[int] = []

    def parts() -> Iterator[int]:
        for part in (6, 6):
            seen.append(part)
            yield part

    eager = portions(parts(), 6, lambda part: part)
    assert (next(eager), seen) == ([6], [6])
    assert max(map(len, found)) == 64
    assert sum(map(len, found)) == 205

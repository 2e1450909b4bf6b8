"""Threads for calls that may wait."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from hostel.daemon.workers import Workers


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_work_is_done_in_as_many_threads_as_needed_and_no_more() -> None:
    failures: list[Exception] = []
    workers = Workers(3, 1, failures.append)
    gate = threading.Event()
    running, most, done = 0, 0, 0
    lock = threading.Lock()

    def work() -> None:
        nonlocal running, most, done
        with lock:
            running += 1
            most = max(most, running)
        gate.wait(20)
        with lock:
            running -= 1
            done += 1

    for _ in range(10):
        workers.submit(work)
    wait_until(lambda: running == 3)
    time.sleep(0.1)  # in which more would begin
    gate.set()
    wait_until(lambda: done == 10)
    assert most == 3
    assert workers.stop()
    assert not failures


def test_urgent_work_does_not_wait_for_what_waits() -> None:
    workers = Workers(2, 1, lambda error: None)
    gate, urgent = threading.Event(), threading.Event()

    def wait() -> None:
        gate.wait(20)

    for _ in range(5):
        workers.submit(wait)
    workers.submit(urgent.set, urgent=True)
    assert urgent.wait(20)
    gate.set()
    assert workers.stop()


def test_work_that_fails_is_told_and_the_next_is_done() -> None:
    failures: list[Exception] = []
    workers = Workers(1, 0, failures.append)
    done = threading.Event()

    def fail() -> None:
        raise ValueError("wrong")

    workers.submit(fail)
    workers.submit(done.set)
    assert done.wait(20)
    assert [str(error) for error in failures] == ["wrong"]
    assert workers.stop()


def test_stopping_waits_for_all_that_hang_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hostel.daemon.workers._STOP", 0.5)
    workers = Workers(8, 0, lambda error: None)
    gate = threading.Event()

    def hang() -> None:
        gate.wait(20)

    for _ in range(8):
        workers.submit(hang)
    wait_until(lambda: workers._busy == 8)
    begun = time.monotonic()
    assert not workers.stop()
    assert time.monotonic() - begun < 2
    gate.set()
    assert workers.stop()


def test_idle_threads_are_used_again() -> None:
    workers = Workers(5, 0, lambda error: None)
    for _ in range(20):
        done = threading.Event()
        workers.submit(done.set)
        assert done.wait(20)
        wait_until(lambda: workers._idle == workers.threads)  # it has come back from what it did
    assert workers.threads == 1
    assert workers.stop()

from __future__ import annotations

import errno
import functools
import os
import threading

import pytest

from hostel.cli.qemu import ending
from hostel.cli.qemu.ending import Ending
from hostel.errors import BlockError


def fail(code: int) -> None:
    raise OSError(code, os.strerror(code))


def test_each_failure_is_told_with_what_it_is_of() -> None:
    done: list[str] = []
    end = Ending(lambda _: None)
    end.begin({"one": lambda: fail(errno.ENOSPC), "two": lambda: done.append("two")})
    end.begin({"three": lambda: fail(errno.EIO)})
    with pytest.raises(BlockError) as caught:
        end.finish()
    assert str(caught.value) == "one: No space left on device\nthree: Input/output error"
    assert done == ["two"]


def test_what_comes_first_has_ended_where_nothing_hangs() -> None:
    order: list[int] = []
    end = Ending(lambda _: None)
    for number in range(20):
        end.begin({str(number): functools.partial(order.append, number)})
    end.finish()
    assert order == list(range(20))


def test_who_gives_up_before_anything_is_told_waits_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ending, "_QUIET", 0.3)
    told: list[str] = []
    go, done = threading.Event(), threading.Event()

    def heard(line: str) -> None:
        told.append(line)
        go.set()

    def last() -> None:
        go.wait(20)
        done.set()

    end = Ending(heard)
    end.begin({"it": last}, turn=0)
    end.give_up()
    end.finish()
    assert done.is_set()
    assert [line.partition(";")[0] for line in told] == ["waiting for it"]


def test_who_gives_up_then_is_told_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ending, "_QUIET", 0.1)
    go = threading.Event()
    end = Ending(lambda _: end.give_up())
    end.begin({"it": lambda: go.wait(20)}, turn=0, loss="it is lost")
    try:
        with pytest.raises(BlockError, match=r"^it did not end within 0 seconds: it is lost$") as caught:
            end.finish()
    finally:
        go.set()
    assert caught.value.errno == errno.ETIMEDOUT


class Slow:
    """Stands for a node whose requests take longer than closing waits for them."""

    closed = False

    def __init__(self) -> None:
        self.asked = 0

    def close(self) -> None:
        self.asked += 1
        if self.asked < 3:
            raise BlockError("Requests do not come to an end; it stays open", errno=errno.EBUSY)
        self.closed = True

    def flush(self) -> None:
        pass


def test_what_is_slow_is_closed_once_it_can_be() -> None:
    end, node = Ending(lambda _: None), Slow()
    end.close({"it": node})  # type: ignore[dict-item]
    end.finish()
    assert (node.closed, node.asked) == (True, 3)

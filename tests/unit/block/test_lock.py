"""Interruptions while a node is entered or closed: nobody else is kept out by who was interrupted."""

from __future__ import annotations

import contextlib
import functools
import gc
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import pytest

from hostel.block.draining import drained
from hostel.block.gate import BYPASS, Gate
from hostel.block.node import BlockNode
from hostel.block.rewiring import reopen
from support import jobs


class Interruption:
    """Ctrl-C after the ``at``-th call of a function in C: where the interpreter looks whether there was one.

    Args:
        at: see above.
        events: where it comes: with ``call`` also where a function in Python begins.

    Attributes:
        came: whether there were so many; a callback of the interpreter's may have kept it to itself.
    """

    def __init__(self, at: int, events: tuple[str, ...] = ("c_return",)) -> None:
        self._left = at
        self._events = events
        self.came = False

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        if event in self._events:
            self._left -= 1
            if not self._left:
                self.came = True
                raise KeyboardInterrupt

    def meets(self, enter: Callable[[], object]) -> bool:
        """Whether what is done was interrupted before it called :func:`sys.setprofile` to end this."""
        before, collects = sys.getprofile(), gc.isenabled()
        gc.disable()  # else what is called back at a collection may meet it, and nobody hears of that
        sys.setprofile(self)
        try:
            enter()
        except KeyboardInterrupt:
            return True
        finally:
            sys.setprofile(before)
            if collects:
                gc.enable()
        return False


def _in_another_thread(act: Callable[[], bool]) -> bool:
    answers: list[bool] = []
    thread = threading.Thread(target=lambda: answers.append(act()), daemon=True)
    thread.start()
    thread.join(10)
    return answers == [True]


def _can_be_had(node: BlockNode) -> bool:
    def drain() -> bool:
        had = node.drain(0.5)
        if had:
            node.resume()
        return bool(had)

    return _in_another_thread(drain)


def _is_open(gate: Gate) -> bool:
    def close() -> bool:
        had = gate.close(0.5)
        if had:
            gate.open()
        return bool(had)

    return _in_another_thread(close)


def _enter(node: BlockNode) -> None:
    with node.lock():
        sys.setprofile(None)


def _enter_drained(node: BlockNode) -> None:
    if node.drain(1):
        try:
            _enter(node)
        finally:
            node.resume()


def _drain(node: BlockNode) -> None:
    with drained(node):
        sys.setprofile(None)


def _drain_alone(node: BlockNode) -> None:
    if node.drain(1):
        sys.setprofile(None)
        node.resume()


@pytest.mark.parametrize("format", ["raw", "qcow2"])
@pytest.mark.parametrize("enter", [_enter, _enter_drained, _drain_alone, _drain])
def test_who_is_interrupted_on_coming_in_keeps_nobody_out(
    tmp_path: Path, format: str, enter: Callable[[BlockNode], None]
) -> None:
    with jobs.empty(tmp_path / "disk", format=format) as node:
        at = 1
        while Interruption(at).meets(lambda: enter(node)):
            assert _can_be_had(node), f"after call {at}"
            assert _is_open(BYPASS.changing), f"after call {at}"
            at += 1
        assert at > 1


@pytest.mark.parametrize("way", ["enter_at_once", "close", "with"])
def test_who_is_interrupted_at_a_gate_keeps_nobody_out(way: str) -> None:
    gate = Gate()

    def use() -> None:
        if way == "with":
            with gate:
                sys.setprofile(None)
        elif way == "close":
            if gate.close(1):
                sys.setprofile(None)
                gate.open()
        elif gate.enter_at_once():
            sys.setprofile(None)
            gate.step_out()

    at = 1
    while Interruption(at).meets(use):
        assert _is_open(gate), f"after call {at}"
        at += 1
    assert at > 1


def _drain_twice(node: BlockNode) -> None:
    with drained(node, *node.driver.children.values()), drained(node):
        pass


def _hold(node: BlockNode) -> None:
    with node.hold():
        node.read(0, 512)


USES: dict[str, Callable[[BlockNode], object]] = {
    "drain": _drain_twice,
    "hold": _hold,
    "zero": lambda node: node.write_zeroes(0, 512),
    "shrink": lambda node: node.resize(512),
    "read-only": lambda node: reopen(node, read_only=True),
}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # one that came into a callback
@pytest.mark.parametrize("format", ["raw", "qcow2"])
@pytest.mark.parametrize("use", USES)
def test_who_is_interrupted_at_any_step_keeps_nobody_out(tmp_path: Path, format: str, use: str) -> None:
    """The whole way in and out; once the interruption is dealt with, others get in, or are told, and it is closed."""
    path, at = tmp_path / "disk", 1
    while True:
        node = jobs.empty(path, size=64 * 1024, format=format)
        interruption = Interruption(at, ("c_return", "call"))
        interruption.meets(functools.partial(USES[use], node))
        assert _can_be_had(node), f"after step {at}"
        assert _is_open(BYPASS.changing), f"after step {at}"
        with contextlib.suppress(OSError):  # what was interrupted in the middle may not know whether it is open
            node.close()
        assert node.closed, f"after step {at}"
        if not interruption.came:
            break
        at += 1
    assert at > 10

"""Interruptions while a node is entered or closed: nobody else is kept out by who was interrupted."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import pytest

from hostel.block.gate import BYPASS, Gate
from hostel.block.node import BlockNode
from hostel.block.rewiring import drained
from support import jobs


class Interruption:
    """Ctrl-C after the ``at``-th call of a function in C: where the interpreter looks whether there was one."""

    def __init__(self, at: int) -> None:
        self._left = at

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        if event == "c_return":
            self._left -= 1
            if not self._left:
                raise KeyboardInterrupt

    def meets(self, enter: Callable[[], None]) -> bool:
        """Whether what is done was interrupted before it called :func:`sys.setprofile` to end this."""
        before = sys.getprofile()
        sys.setprofile(self)
        try:
            enter()
        except KeyboardInterrupt:
            return True
        finally:
            sys.setprofile(before)
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
        return had

    return _in_another_thread(drain)


def _is_open(gate: Gate) -> bool:
    def close() -> bool:
        had = gate.close(0.5)
        if had:
            gate.open()
        return had

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

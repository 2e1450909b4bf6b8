"""Nodes that get smaller while requests to what is cut off are on their way."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hostel.block import draining, marks
from hostel.block.filters.forward import ForwardDriver
from hostel.block.node import BlockNode
from hostel.block.rewiring import insert_filter
from hostel.errors import OutOfRange
from support import jobs, qcow2

HALF, LAST = jobs.SIZE // 2, jobs.SIZE - 512
ACTS: dict[str, Callable[[BlockNode], object]] = {
    "write": lambda node: node.pwrite(LAST, b"x" * 512),
    "zeroes": lambda node: node.write_zeroes(LAST, 512),
}


class Late(marks.Marks):
    """Holds up who tells of a write, which is before it is made and after its range was looked at."""

    __slots__ = ("go", "reached")

    def __init__(self) -> None:
        super().__init__()
        self.reached, self.go = threading.Event(), threading.Event()

    def reach(self, end: int, name: str) -> None:
        self.reached.set()
        self.go.wait(20)


class Held(ForwardDriver):
    """Holds up writes, and can be interrupted by nobody."""

    def __init__(self, child: BlockNode) -> None:
        super().__init__(child)
        self.reached, self.go = threading.Event(), threading.Event()

    def pwrite(self, offset: int, data: memoryview) -> None:
        self.reached.set()
        self.go.wait(20)
        super().pwrite(offset, data)


@contextmanager
def _under_way(act: Callable[[], object], reached: threading.Event, go: threading.Event) -> Iterator[list[Exception]]:
    failures: list[Exception] = []

    def run() -> None:
        try:
            act()
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        assert reached.wait(10)
        yield failures
    finally:
        go.set()
        thread.join(20)
        assert not thread.is_alive()


@pytest.mark.parametrize("format", ["raw", "qcow2"])
@pytest.mark.parametrize("name", ACTS)
def test_a_write_that_comes_in_after_the_end_was_cut_off_is_outside(tmp_path: Path, format: str, name: str) -> None:
    path = tmp_path / "disk"
    with jobs.empty(path, format=format) as node:
        late = node.marks = Late()
        with _under_way(lambda: ACTS[name](node), late.reached, late.go) as failures:
            node.resize(HALF)
        assert [type(failure) for failure in failures] == [OutOfRange]
        assert node.length == HALF
    if format == "qcow2":
        result, lines, _ = qcow2.check(path.read_bytes())
        assert (result.leaks, *qcow2.faults(result)) == (0, 0, 0), lines


@pytest.mark.parametrize("format", ["raw", "qcow2"])
def test_a_write_that_is_in_is_waited_for(tmp_path: Path, format: str) -> None:
    with jobs.empty(tmp_path / "disk", format=format) as node:
        insert_filter(node, Held)
        held, shrunk = node.driver, threading.Event()
        assert isinstance(held, Held)

        def shrink() -> None:
            node.resize(HALF)
            shrunk.set()

        with _under_way(lambda: node.pwrite(LAST, b"x" * 512), held.reached, held.go) as failures:
            thread = threading.Thread(target=shrink)
            thread.start()
            assert not shrunk.wait(0.1)
        thread.join(20)
        assert shrunk.is_set()
        assert not failures
        assert node.length == HALF
        node.resize(jobs.SIZE)
        assert node.read(LAST, 512) == bytes(512)


def test_nobody_who_changes_another_disk_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draining, "DRAIN_TIMEOUT", 1.0)
    reached, go = threading.Event(), threading.Event()
    with (
        jobs.empty(tmp_path / "one", format="raw") as one,
        jobs.empty(tmp_path / "two", format="raw") as two,
    ):

        def change() -> None:
            with draining.drained(one):
                reached.set()
                go.wait(20)

        with _under_way(change, reached, go) as failures:
            two.resize(HALF)
        assert not failures
        assert two.length == HALF

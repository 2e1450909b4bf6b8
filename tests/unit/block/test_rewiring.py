"""Graphs that change while requests come in: none is lost, none goes astray, none waits for ever."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostel.block.draining import drained
from hostel.block.filters.forward import ForwardDriver
from hostel.block.gate import BYPASS, Gate
from hostel.block.node import BlockNode
from hostel.block.protocols.file import FileDriver
from hostel.block.rewiring import insert_filter, redirect, remove_filter, reopen, replace_backing, unfiltered, writable
from hostel.errors import BlockError, ReadOnly
from support import images, jobs


class Counting(ForwardDriver):
    """Counts the writes that pass it, and those that are in it."""

    name = "counting"

    def __init__(self, child: BlockNode) -> None:
        super().__init__(child)
        self.writes = 0
        self.inside = 0
        self.lock = threading.Lock()

    def pwrite(self, offset: int, data: memoryview) -> None:
        with self.lock:
            self.writes += 1
            self.inside += 1
        super().pwrite(offset, data)
        with self.lock:
            self.inside -= 1


@pytest.fixture(params=["raw", "qcow2"])
def node(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BlockNode]:
    with jobs.empty(tmp_path / "disk", format=request.param) as opened:
        yield opened


class Writers:
    """Threads that write to a node until the block is left, and remember what they wrote last to each place."""

    def __init__(self, node: BlockNode, count: int = 3) -> None:
        self.node = node
        self.last: dict[int, bytes] = {}
        self.writes = 0
        self.failures: list[BaseException] = []
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._write, args=(number,)) for number in range(count)]

    def _write(self, number: int) -> None:
        turn = 0
        try:
            while not self._stop.is_set():
                offset = (number * 100 + turn % 50) * 512
                data = f"{number}:{turn}".encode().ljust(512)
                self.node.pwrite(offset, data)
                with self._lock:
                    self.last[offset] = data
                    self.writes += 1
                turn += 1
        except BaseException as error:
            self.failures.append(error)

    def __enter__(self) -> Writers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive()
        assert not self.failures

    def check(self, node: BlockNode) -> None:
        assert self.last
        for offset, data in self.last.items():
            assert bytes(node.read(offset, 512)) == data


def test_filters_come_and_go_under_writers(node: BlockNode) -> None:
    passed = 0
    with Writers(node) as writers:
        for _ in range(60):
            with drained(node):
                insert_filter(node, Counting)
                driver = node.driver
                assert isinstance(driver, Counting)
            time.sleep(0.001)
            with drained(node):
                assert not driver.inside
                remove_filter(node, driver)
                passed += driver.writes
    assert passed
    writers.check(node)


def test_no_write_is_under_way_in_a_drained_node(node: BlockNode) -> None:
    insert_filter(node, Counting)
    driver = node.driver
    assert isinstance(driver, Counting)
    with Writers(node):
        for _ in range(50):
            with drained(node):
                seen = driver.writes
                assert not driver.inside
                time.sleep(0.0005)
                assert driver.writes == seen
            time.sleep(0.0005)
    assert driver.writes


def test_a_node_becomes_another_one_with_all_that_was_written_to_it(node: BlockNode, tmp_path: Path) -> None:
    with jobs.empty(tmp_path / "other", format="raw") as other:
        with Writers(node) as writers:
            time.sleep(0.05)
            with drained(node):
                other.pwrite(0, jobs.content(node))
                former = redirect(node, other)
                old = jobs.content(former)
            time.sleep(0.05)
        assert jobs.content(former) == old  # nothing went to the old one since
        former.close()
        writers.check(other)
        writers.check(node)
        assert unfiltered(node) is other


def test_filters_come_out_in_any_order(node: BlockNode) -> None:
    insert_filter(node, Counting)
    first = node.driver
    insert_filter(node, Counting)
    second = node.driver
    assert isinstance(first, Counting) and isinstance(second, Counting)
    node.pwrite(0, b"both")
    remove_filter(node, first)
    node.pwrite(0, b"second alone")
    remove_filter(node, second)
    node.pwrite(100, b"none")
    assert (first.writes, second.writes) == (1, 2)
    assert node.format in ("raw", "qcow2")
    assert bytes(node.read(0, 12)) == b"second alone"


def change(way: str, node: BlockNode, taken: Counting, other: BlockNode) -> None:
    if way == "remove":
        remove_filter(node, taken)
    elif way == "insert":
        insert_filter(node, Counting)
    elif way == "redirect":
        redirect(node, other)
    else:
        reopen(node, read_only=True)


@pytest.mark.parametrize("way", ["remove", "insert", "redirect", "reopen"])
def test_nothing_is_put_into_a_node_that_is_closed_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    node = jobs.empty(tmp_path / "disk", format="raw")
    insert_filter(node, Counting)
    counting = node.driver
    assert isinstance(counting, Counting)
    is_closing, may_close = threading.Event(), threading.Event()
    close = counting.close

    def late() -> None:
        is_closing.set()
        may_close.wait(20)
        close()

    monkeypatch.setattr(counting, "close", late)
    closing = threading.Thread(target=node.close, daemon=True)
    closing.start()
    assert is_closing.wait(20)
    timer = threading.Timer(0.1, may_close.set)  # when the change waits for it
    timer.start()
    with jobs.empty(tmp_path / "other") as other:
        with pytest.raises(BlockError, match="/disk' is closed"):
            change(way, node, counting, other)
        closing.join(20)
        timer.join(20)
        assert node.driver is counting
        with pytest.raises(BlockError, match="/disk' is closed"), node.hold():
            pass
        assert not other.closed
    assert other.closed  # nobody has been left with it


def test_what_an_overlay_cannot_be_put_on_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = jobs.chain(tmp_path, 2)
    with jobs.opened(paths[1]) as overlay:
        base = jobs.opened(paths[0], read_only=True)
        monkeypatch.setitem(drained.__wrapped__.__kwdefaults__, "timeout", 0.3)  # type: ignore[attr-defined]
        reached, go = threading.Event(), threading.Event()

        def hang() -> None:
            with overlay.lock():
                reached.set()
                go.wait(20)

        other = threading.Thread(target=hang)
        other.start()
        try:
            assert reached.wait(10)
            with pytest.raises(BlockError, match="do not come to an end"):
                replace_backing(overlay, base)
        finally:
            go.set()
            other.join(20)
        assert base.closed
        assert overlay.backing is not None


def test_a_filter_that_comes_while_another_one_is_taken_out_stays(node: BlockNode) -> None:
    insert_filter(node, Counting)
    first = node.driver
    assert isinstance(first, Counting)
    with drained(node):
        remover = threading.Thread(target=lambda: remove_filter(node, first))
        remover.start()
        time.sleep(0.05)  # it has found where the filter is, and waits
        insert_filter(node, Counting)
        second = node.driver
    remover.join(20)
    assert isinstance(second, Counting)
    node.pwrite(0, b"x" * 512)
    assert (first.writes, second.writes) == (0, 1)
    remove_filter(node, second)
    assert bytes(node.read(0, 512)) == b"x" * 512
    assert node.driver.name in ("raw", "qcow2")


def test_a_request_that_does_not_end_is_not_waited_for_longer_than_was_said(node: BlockNode) -> None:
    come, go = threading.Event(), threading.Event()

    class Stuck(ForwardDriver):
        def pread(self, offset: int, buf: memoryview) -> None:
            come.set()
            go.wait(30)

    insert_filter(node, Stuck)
    thread = threading.Thread(target=node.read, args=(0, 512))
    thread.start()
    assert come.wait(10)
    try:
        with pytest.raises(BlockError, match="do not come to an end") as raised, drained(node, timeout=0.1):
            pass
        assert raised.value.errno == errno.EBUSY
        node.pwrite(0, b"others pass")  # the gate is open again
    finally:
        go.set()
        thread.join(10)


def test_two_that_drain_the_same_nodes_in_another_order_both_get_their_turn(tmp_path: Path) -> None:
    with jobs.empty(tmp_path / "one") as one, jobs.empty(tmp_path / "two", format="raw") as two:
        turns: list[int] = []

        def drain(number: int, nodes: tuple[BlockNode, BlockNode]) -> None:
            for _ in range(20):
                with drained(*nodes):
                    turns.append(number)

        threads = [
            threading.Thread(target=drain, args=(number, nodes))
            for number, nodes in enumerate([(one, two), (two, one)])
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
        assert len(turns) == 40


def test_whoever_closed_a_gate_passes_and_others_wait() -> None:
    gate, passed = Gate(), threading.Event()
    assert gate.close(1)
    assert gate.close(1)
    with gate:
        pass

    def enter() -> None:
        with gate:
            passed.set()

    thread = threading.Thread(target=enter)
    thread.start()
    gate.open()
    assert not passed.wait(0.05)
    gate.open()
    assert passed.wait(10)
    thread.join(10)


def test_those_who_pass_nodes_by_are_kept_out_and_told(node: BlockNode) -> None:
    generation, passed = BYPASS.generation, threading.Event()

    file = node.file
    assert file is not None and isinstance(file.driver, FileDriver)
    gate = file.driver.past

    def past() -> None:
        with gate:
            passed.set()

    with drained(node):
        thread = threading.Thread(target=past)
        thread.start()
        assert not passed.wait(0.05)
    assert passed.wait(10)
    thread.join(10)
    assert BYPASS.generation != generation


def test_those_who_pass_nodes_by_hold_up_nobody_who_changes_others(node: BlockNode, tmp_path: Path) -> None:
    file = node.file
    assert file is not None and isinstance(file.driver, FileDriver)
    gate, reached, go = file.driver.past, threading.Event(), threading.Event()

    def past() -> None:
        with gate:  # as a read of a disk that does not answer
            reached.set()
            go.wait(20)

    other = jobs.empty(tmp_path / "other", format="raw")
    assert other.file is not None and isinstance(other.file.driver, FileDriver)
    with other.file.driver.past:
        pass
    thread = threading.Thread(target=past)
    thread.start()
    try:
        assert reached.wait(10)
        with drained(other, timeout=5):
            pass
        other.close()
        with pytest.raises(BlockError, match="do not come to an end"), drained(node, timeout=0.3):
            pass
    finally:
        go.set()
        thread.join(10)
    with drained(node, timeout=5):
        pass


@pytest.mark.parametrize("format", ["raw", "qcow2"])
def test_a_backing_file_is_written_while_it_is_opened_for_that_and_no_longer(tmp_path: Path, format: str) -> None:
    images.make(tmp_path / "base", jobs.SIZE, format=format)
    images.make(tmp_path / "top", jobs.SIZE, backing=tmp_path / "base", backing_format=format)
    with jobs.opened(tmp_path / "top") as top:
        base = top.backing
        assert base is not None
        with writable(base):
            base.pwrite(0, b"written")
            os.rename(tmp_path / "base", tmp_path / "moved")
        with pytest.raises(ReadOnly):
            base.pwrite(0, b"refused")
        assert bytes(top.read(0, 7)) == b"written"
    assert images.content(tmp_path / "moved", format)[:7] == b"written"


def test_an_image_that_another_process_reads_is_not_opened_for_writing(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    images.make(path, jobs.SIZE)
    script = (
        "import sys; from hostel.block import graph\n"
        "with graph.open(sys.argv[1], 'qcow2'): print('open', flush=True); sys.stdin.read()"
    )
    words = [sys.executable, "-c", script, str(path)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "open\n"
        with jobs.opened(path, read_only=True) as node:
            with pytest.raises(BlockError, match="lock"):
                reopen(node, read_only=False)
            assert node.read_only
            assert not any(node.read(0, 512))  # it is open as before
        other.communicate(timeout=20)

"""Writes to unallocated clusters whose steps are apart: several at once, one that comes too late, one that fails."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from hostel.block.draining import drained
from hostel.block.driver import CACHE_MODES
from hostel.block.filling import fill
from hostel.block.formats.qcow2.driver import Qcow2Driver
from hostel.block.jobs.bitmaps import add_bitmap
from hostel.block.node import BlockNode
from hostel.errors import BlockError
from support import jobs, qcow2
from support.memory import FaultyDriver, Kind

CLUSTER = 4096
SIZE = 1024 * CLUSTER
DATA = memoryview(b"data" * CLUSTER)  # four clusters


@pytest.fixture
def file() -> FaultyDriver:
    return FaultyDriver(qcow2.create(SIZE, {"cluster_size": CLUSTER}))


def _driver(node: BlockNode) -> Qcow2Driver:
    assert isinstance(node.driver, Qcow2Driver)
    return node.driver


def _is_sound(file: FaultyDriver) -> None:
    result, lines, _ = qcow2.check(file.data)
    assert (result.leaks, *qcow2.faults(result)) == (0, 0, 0), lines


def test_threads_fill_an_image_together(file: FaultyDriver) -> None:
    expected = random.Random(1).randbytes(SIZE)
    starts = iter(range(0, SIZE, len(DATA)))
    with qcow2.attach(file) as node:

        def run() -> None:
            for start in starts:
                assert fill(node, start, memoryview(expected)[start : start + len(DATA)])

        threads = [threading.Thread(target=run) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert node.read(0, SIZE) == expected
    _is_sound(file)
    with qcow2.attach(file, read_only=True) as node:
        assert node.read(0, SIZE) == expected


def test_what_was_written_meanwhile_stays(file: FaultyDriver) -> None:
    with qcow2.attach(file) as node:
        driver = _driver(node)
        place = driver.reserve(0, len(DATA))
        assert place is not None
        node.pwrite(CLUSTER, b"guest")
        driver.fill(place, DATA)
        assert not driver.adopt(0, len(DATA), place)
        assert node.read(CLUSTER, 5) == b"guest"
        assert not any(node.read(0, CLUSTER))
    _is_sound(file)


@pytest.mark.parametrize("at", range(8))
def test_a_fill_that_fails_gives_its_place_back(file: FaultyDriver, at: int) -> None:
    with qcow2.attach(file) as node:
        node.pwrite(SIZE - CLUSTER, b"before")
        file.arm(at, 28)
        try:
            fill(node, 0, DATA)
            failed = False
        except OSError:
            failed = True
        assert failed is file.fired
        file.armed = False
        assert node.read(0, len(DATA)) == (bytes(len(DATA)) if failed else bytes(DATA))
        assert node.read(SIZE - CLUSTER, 6) == b"before"
    _is_sound(file)


def test_the_data_is_there_before_anything_refers_to_it(file: FaultyDriver) -> None:
    with qcow2.attach(file) as node:
        file.arm()
        assert fill(node, 0, DATA)
        assert file.calls.count(Kind.WRITE) == 3  # the data, and before it room for the L1 entry and the L2 table
    _is_sound(file)


def test_bitmaps_record_it(file: FaultyDriver) -> None:
    with qcow2.attach(file) as node:
        bitmap = add_bitmap(node, "b", CLUSTER, persistent=True)
        assert fill(node, 8 * CLUSTER, DATA)
        assert list(bitmap.bits.ranges(0, SIZE))[1] == (8 * CLUSTER, len(DATA), True)


REFUSED: dict[str, Callable[[BlockNode], object]] = {
    "allocated": lambda node: node.pwrite(0, b"x"),
    "zero": lambda node: node.write_zeroes(0, CLUSTER),
    "writethrough": lambda node: setattr(node, "cache", CACHE_MODES["writethrough"]),
    "zeroes are looked for": lambda node: setattr(node, "detect_zeroes", "on"),
    "a filter": lambda node: add_bitmap(node, "b"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_any_other_range_or_node_is_left_to_the_usual_way(file: FaultyDriver, case: str) -> None:
    with qcow2.attach(file) as node:
        REFUSED[case](node)
        before = node.read(0, SIZE)
        assert not fill(node, 0, DATA)
        assert node.read(0, SIZE) == before
    _is_sound(file)


@pytest.mark.parametrize(("offset", "length"), [(1, CLUSTER), (0, 100), (CLUSTER, CLUSTER + 512), (SIZE, CLUSTER)])
def test_parts_of_clusters_and_what_is_outside_are_left_to_the_usual_way(
    file: FaultyDriver, offset: int, length: int
) -> None:
    with qcow2.attach(file) as node:
        assert not fill(node, offset, DATA[:length])


def test_images_with_subclusters_are_left_to_the_usual_way() -> None:
    file = FaultyDriver(qcow2.create(SIZE, {"extended_l2": True, "cluster_size": 16384}))
    with qcow2.attach(file) as node:
        assert not fill(node, 0, DATA)


def test_nobody_fills_while_the_graph_is_about_to_change(file: FaultyDriver) -> None:
    with qcow2.attach(file) as node:
        closed, done = threading.Event(), threading.Event()

        def change() -> None:
            assert node.stepwise().close(5)
            closed.set()
            done.wait(20)
            node.stepwise().open()

        other = threading.Thread(target=change)
        other.start()
        try:
            assert closed.wait(5)
            assert not fill(node, 0, DATA)
        finally:
            done.set()
            other.join(20)
        assert fill(node, 0, DATA)
    _is_sound(file)


class Stalled(FaultyDriver):
    """Writes at and beyond a place wait, as for a server that has gone."""

    def __init__(self, data: bytes | bytearray) -> None:
        super().__init__(data)
        self.stalls_from = 1 << 62
        self.reached, self.go = threading.Event(), threading.Event()

    def pwrite(self, offset: int, data: memoryview) -> None:
        if offset >= self.stalls_from:
            self.reached.set()
            self.go.wait(20)
        super().pwrite(offset, data)


def test_a_target_that_does_not_answer_holds_up_nobody_but_those_who_change_it(tmp_path: Path) -> None:
    file = Stalled(qcow2.create(SIZE, {"cluster_size": CLUSTER}))
    answers: list[bool] = []
    with qcow2.attach(file) as node, jobs.empty(tmp_path / "other", format="raw") as other:
        node.pwrite(SIZE - CLUSTER, b"tables are there")
        file.stalls_from = len(file.data)
        writer = threading.Thread(target=lambda: answers.append(fill(node, 0, DATA)))
        writer.start()
        try:
            assert file.reached.wait(10)
            with drained(other, timeout=5):
                other.flush()
            with pytest.raises(BlockError, match="do not come to an end"), drained(node, timeout=0.3):
                pass
        finally:
            file.go.set()
            writer.join(20)
        assert answers == [True]
        with drained(node, timeout=5):
            assert node.read(0, len(DATA)) == DATA
    _is_sound(file)


def test_who_has_drained_a_node_may_fill_it_and_fills_it_alone(file: FaultyDriver) -> None:
    with qcow2.attach(file) as node:
        answers: list[bool] = []
        with drained(node), drained(node):
            assert fill(node, 0, DATA)
            other = threading.Thread(target=lambda: answers.append(node.stepwise().enter_at_once()))
            other.start()
            other.join(10)
        assert answers == [False]
        assert node.stepwise().enter_at_once()
        node.stepwise().step_out()
    _is_sound(file)

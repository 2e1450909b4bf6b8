"""Requests of a guest that wait for long."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from hostel.block import graph
from hostel.block.draining import drained
from hostel.block.driver import FilterDriver, OpenMode
from hostel.block.node import BlockNode
from hostel.block.rewiring import insert_filter
from support.vhost import IN, MIB, driver, serving


class Slow(FilterDriver):
    """Reads wait, as below a limit or for a server that has gone."""

    name = "slow"

    def __init__(self, child: BlockNode) -> None:
        super().__init__({"file": child})
        self.reached, self.go = threading.Event(), threading.Event()

    @classmethod
    def open(cls, children: Mapping[str, BlockNode], mode: OpenMode) -> Slow:
        return cls(children["file"])

    def pread(self, offset: int, buf: memoryview) -> None:
        self.reached.set()
        self.go.wait(20)
        self.child.pread(offset, buf)


@pytest.fixture
def raw(tmp_path: Path) -> Iterator[BlockNode]:
    path = tmp_path / "raw"
    path.write_bytes(bytes(MIB))
    with graph.open(str(path), "raw", read_only=False) as opened:
        yield opened


def test_a_slow_request_does_not_hold_up_who_changes_other_disks(raw: BlockNode, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(bytes(MIB))
    insert_filter(raw, Slow)
    slow = raw.driver
    assert isinstance(slow, Slow)
    answers: list[tuple[int, bytes]] = []
    with serving(tmp_path, raw) as served, driver(served.path) as (_, queue):
        asking = threading.Thread(target=lambda: answers.append(queue.request(IN, 0, read=512)))
        asking.start()
        try:
            assert slow.reached.wait(10)
            with graph.open(str(other), "raw") as unconcerned, drained(unconcerned, timeout=5):
                pass
        finally:
            slow.go.set()
            asking.join(20)
    assert [status for status, _ in answers] == [0]

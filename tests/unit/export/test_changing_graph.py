"""Exports that go past the nodes while the graph changes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostel.block.draining import drained
from hostel.block.host_file import HostFile, host_file
from hostel.block.node import BlockNode
from hostel.block.rewiring import redirect
from hostel.export.nbd.export import NbdExport
from hostel.export.vhost_user_blk import device as device_module
from support import jobs
from support.vhost import MIB, OUT, FrontEnd, Queue, serving


@pytest.fixture
def raw(tmp_path: Path) -> Iterator[BlockNode]:
    with jobs.empty(tmp_path / "raw", format="raw") as node:
        yield node


def test_there_is_no_file_to_be_used_while_a_graph_is_half_changed(raw: BlockNode) -> None:
    export = NbdExport(raw)
    found: list[HostFile | None] = []
    with drained(raw):
        thread = threading.Thread(target=lambda: found.append(export.host_file()))
        thread.start()
        thread.join(10)
    assert found == [None]
    assert export.host_file() is not None


def test_no_queue_uses_what_another_one_is_about_to_find_out_anew(
    raw: BlockNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached, go = threading.Event(), threading.Event()

    def slow(node: BlockNode, *, writable: bool) -> HostFile | None:
        if not reached.is_set():
            reached.set()
            go.wait(20)
        return host_file(node, writable=writable)

    with (
        jobs.empty(tmp_path / "other", format="raw") as other,
        serving(tmp_path, raw, queues=2) as served,
        FrontEnd(served.path) as front,
    ):
        front.negotiate()
        first, second = Queue(front), Queue(front, 1, place=16 * MIB)
        try:
            for queue in (first, second):
                queue.start()
                assert queue.request(OUT, 0, bytes(512))[0] == 0
            former = redirect(raw, other)
            monkeypatch.setattr(device_module, "host_file", slow)
            asking = threading.Thread(target=lambda: first.request(OUT, 8, b"1" * 512))
            asking.start()
            try:
                assert reached.wait(10)
                assert second.request(OUT, 0, b"2" * 512)[0] == 0
                assert other.read(0, 512) == b"2" * 512
                assert former.read(0, 512) == bytes(512)
            finally:
                go.set()
                asking.join(20)
            assert other.read(8 * 512, 512) == b"1" * 512
        finally:
            first.close()
            second.close()
        former.close()

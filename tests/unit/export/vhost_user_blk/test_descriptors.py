"""What a front end sends along: closed once, and never used by its number when that is another file's."""

from __future__ import annotations

import errno
import os
import random
import select
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostel.block import graph
from hostel.block.node import BlockNode
from support.bystander import Bystander
from support.vhost import EVENT_IDX, IN, MIB, WRITE, FrontEnd, driver, serving


@pytest.fixture
def raw(tmp_path: Path) -> Iterator[BlockNode]:
    path = tmp_path / "raw"
    path.write_bytes(random.Random(1).randbytes(MIB))
    with graph.open(str(path), "raw", read_only=False) as opened:
        yield opened


def test_descriptors_that_nobody_asked_for_are_closed(raw: BlockNode, tmp_path: Path) -> None:
    with serving(tmp_path, raw) as served:
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(5):
            with FrontEnd(served.path) as front:
                front.tell(3, fds=[front.fd] * 8)
                front.ask(1)
        assert served.back_end.device.node is raw
        with FrontEnd(served.path) as front:
            front.ask(1)
        assert len(os.listdir("/proc/self/fd")) <= before + 4


def test_another_descriptor_may_be_given_while_the_guest_is_being_woken(
    raw: BlockNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number of the former one is free then: of an image that is opened, the first bytes would be gone."""
    reached, go = threading.Event(), threading.Event()
    numbers: list[int] = []
    write = os.write

    def held(fd: int, data: bytes) -> int:
        if threading.current_thread().name == "virtqueue" and not numbers:
            numbers.append(fd)
            reached.set()
            go.wait(20)
        return write(fd, data)

    with serving(tmp_path, raw) as served, driver(served.path, leave_out=EVENT_IDX) as (front, queue):
        monkeypatch.setattr(os, "write", held)
        queue.bytes[queue.data : queue.data + 16] = struct.pack("<IIQ", IN, 0, 0)
        queue.describe(0, [(queue.data, 16, 0), (queue.data + 4096, 512, WRITE), (queue.data + 16, 1, WRITE)])
        queue.offer(0)
        assert reached.wait(20)
        another = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        front.number(13, 0, [another])
        front.ask(1)  # it has it now
        with Bystander(tmp_path / "other", numbers[0]) as other:
            other.take()
            go.set()
            queue.stop()
            assert other.untouched()
            assert select.select([another], [], [], 0)[0] == [another]
        os.close(another)


def test_a_queue_that_is_to_call_nobody_lets_go_of_whom_it_called(raw: BlockNode, tmp_path: Path) -> None:
    with serving(tmp_path, raw) as served, driver(served.path) as (front, _):
        reads, writes = os.pipe()
        front.number(13, 0, [writes])
        os.close(writes)
        front.number(13, 0x100)
        assert select.select([reads], [], [], 20)[0] == [reads]
        assert os.read(reads, 1) == b""
        os.close(reads)


def test_a_descriptor_of_the_front_end_that_cannot_be_closed_is_closed_once(
    raw: BlockNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system of the guest's choice answers close() as it likes; the number is free whatever it says."""
    close = os.close
    closed: list[int] = []
    with serving(tmp_path, raw) as served:
        with driver(served.path) as (front, _):
            front.ask(1)  # all of it is set up
            connection = served.back_end._connection
            assert connection is not None
            number = connection._queues[0]._kick

            def failing(fd: int) -> None:
                closed.append(fd)
                close(fd)
                if fd == number:
                    raise OSError(errno.EIO, os.strerror(errno.EIO))

            monkeypatch.setattr(os, "close", failing)
            front.number(12, 0x100)
            assert served.has_said("front end dropped: ")
            monkeypatch.undo()
        assert closed.count(number) == 1


def test_a_channel_that_is_no_socket_is_closed(raw: BlockNode, tmp_path: Path) -> None:
    with serving(tmp_path, raw) as served:
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(5):
            with FrontEnd(served.path) as front:
                front.tell(21, fds=[front.fd])
                assert front.sock.recv(1) == b""
        with FrontEnd(served.path) as front:
            front.ask(1)
            assert len(os.listdir("/proc/self/fd")) <= before + 6

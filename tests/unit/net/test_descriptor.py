"""A descriptor is closed by the last who uses it, so that nobody ever uses another's."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from hostel.net.descriptor import Descriptor
from support.bystander import Bystander


def test_it_is_closed_once_nobody_uses_it(tmp_path: Path) -> None:
    reads, writes = os.pipe()
    shared = Descriptor(writes)
    inside, go = threading.Event(), threading.Event()

    def write() -> None:
        with shared.use() as fd:
            inside.set()
            go.wait(20)
            os.write(fd, b"mine")

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    assert inside.wait(20)
    shared.close()
    assert shared.is_closed
    with Bystander(tmp_path / "other", writes) as other:
        other.take()
        go.set()
        writer.join(20)
        assert other.untouched()
    assert os.read(reads, 10) == b"mine"
    assert os.read(reads, 10) == b""  # it was closed after that
    os.close(reads)


def test_nobody_is_let_at_it_any_more() -> None:
    reads, writes = os.pipe()
    shared = Descriptor(writes, reads)
    shared.close()
    shared.close()
    with pytest.raises(OSError) as caught, shared.use():
        pass
    assert caught.value.errno == errno.EBADF
    for fd in (reads, writes):
        with pytest.raises(OSError):
            os.fstat(fd)


def test_the_others_are_closed_where_the_first_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    reads, writes = os.pipe()
    shared = Descriptor(writes, reads)
    close = os.close

    def failing(fd: int) -> None:
        close(fd)
        if fd == writes:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "close", failing)
    with pytest.raises(OSError):
        shared.close()
    monkeypatch.undo()
    for fd in (reads, writes):
        with pytest.raises(OSError):
            os.fstat(fd)

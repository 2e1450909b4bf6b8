"""The directory of the host: whatever its file system says when a descriptor is closed, it is closed once."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from hostel.block.protocols.vvfat.guest import Node
from hostel.block.protocols.vvfat.host import HostDirectory
from hostel.block.protocols.vvfat.tree import Identity
from hostel.errors import BlockError


class Closing:
    """Closes, and fails from the ``fails``-th time on; remembers what was closed that was not open."""

    def __init__(self) -> None:
        self.fails: int | None = None
        self.twice: list[int] = []
        self._close = os.close

    def __call__(self, fd: int) -> None:
        try:
            self._close(fd)
        except OSError:
            self.twice.append(fd)
            raise
        if self.fails is not None:
            self.fails -= 1
            if self.fails < 0:
                raise OSError(errno.EIO, os.strerror(errno.EIO))


@pytest.mark.parametrize("fails", [0, 1, 2, 3])
def test_a_directory_that_cannot_be_closed_is_closed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: int
) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    top = Node("", None, is_directory=True)
    above = Node("a", top, is_directory=True)
    below = Node("b", above, is_directory=True)
    above.known, below.known = (Identity.of(os.stat(tmp_path / name)) for name in ("a", "a/b"))
    host = HostDirectory(str(tmp_path), Identity.of(os.stat(tmp_path)))
    closing = Closing()
    monkeypatch.setattr(os, "close", closing)
    closing.fails = fails
    for parent, name in ((below, "c"), (above, "d"), (below, "e")):
        try:
            host.make_directory(parent, name)
        except BlockError as error:
            assert error.errno == errno.EIO
    closing.fails = None
    host.close()
    assert closing.twice == []

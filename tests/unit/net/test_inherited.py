"""A socket that we are told the number of has one owner."""

from __future__ import annotations

import errno
import gc
import os
import socket
from collections.abc import Iterator

import pytest

from hostel.cli.storage_daemon import place
from hostel.errors import NetworkError
from hostel.net import inherited


@pytest.fixture
def pair() -> Iterator[tuple[int, socket.socket]]:
    """The number of a socket, as if we had been started with it, and its peer."""
    ours, theirs = socket.socketpair()
    number = ours.detach()
    os.set_inheritable(number, True)
    with theirs:
        yield number, theirs
        os.close(number)


def test_it_is_taken_once(pair: tuple[int, socket.socket]) -> None:
    taken = inherited.take(pair[0])
    assert taken.fileno() == pair[0]
    with pytest.raises(OSError) as caught:
        inherited.take(pair[0])
    assert caught.value.errno == errno.EBADF
    taken.detach()


def test_what_is_somebody_s_here_stays_so() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for number in (ours.fileno(), 1 << 40):
            with pytest.raises(OSError) as caught:
                inherited.take(number)
            assert caught.value.errno == errno.EBADF
        gc.collect()
        ours.sendall(b"x")
        assert theirs.recv(1) == b"x"


def test_one_that_is_not_listened_on_stays_open(pair: tuple[int, socket.socket]) -> None:
    """A connection of the daemon's own was closed under whoever used it; its number was the next file's."""
    number, theirs = pair
    for _ in range(2):
        where = place.read({"type": "fd", "str": str(number)}, text=False)
        with pytest.raises(NetworkError, match=f"^File descriptor '{number}' is not a listening socket$"):
            where.listen(1)
        gc.collect()
        os.write(number, b"x")
        assert theirs.recv(1) == b"x"

"""Character devices whose one client is there from the start: what they hold is closed when it is over."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostel.cli.qemu.failure import Failure
from hostel.cli.storage_daemon import chardev
from hostel.cli.storage_daemon.chardev import PairDevice, open_device
from support.descriptors import descriptors


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[tuple[PairDevice, socket.socket]]:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        device = open_device(f"socket,id=c,path={path}", lambda: False)
        assert isinstance(device, PairDevice)
        sock, _ = listener.accept()
    with sock:
        sock.settimeout(10)
        yield device, sock


def test_a_connection_that_nobody_uses_ends_with_its_device(peer: tuple[PairDevice, socket.socket]) -> None:
    device, sock = peer
    device.close()
    device.close()
    assert sock.recv(1) == b""
    assert device.accept() is None


def test_a_connection_ends_when_it_is_not_served_any_more(peer: tuple[PairDevice, socket.socket]) -> None:
    device, sock = peer
    channel = device.accept()
    assert channel is not None
    channel.send(b"hello")
    assert sock.recv(10) == b"hello"
    assert device.connected
    channel.close()
    assert sock.recv(1) == b""
    assert not device.connected
    device.close()
    assert device.accept() is None


def test_of_two_pipes_none_stays_open_where_one_cannot_be_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "p.in")
    (tmp_path / "p.out").mkdir()
    before = descriptors()
    with pytest.raises(Failure, match="Could not open"):
        chardev.open_pipe("c", str(tmp_path / "p"))
    assert descriptors() <= before

"""The NBD client driver where its server goes away, comes back, or never answers."""

from __future__ import annotations

import contextlib
import errno
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from hostel.block import graph
from hostel.block.blockdev import from_options
from hostel.block.protocols.nbd.connection import Connection, ConnectionLost
from hostel.block.protocols.nbd.driver import NbdDriver
from hostel.errors import BlockError
from hostel.export.nbd.export import NbdExport
from hostel.net.transport import SocketTransport
from hostel.wire.nbd.client import Connected, Export
from hostel.wire.nbd.protocol import Command, ExportFlag
from support import nbd
from support.nbd import MIB, played
from support.scripted_nbd import Scripted, opened


class Deaf(Scripted):
    """Goes away instead of answering, ``times`` times."""

    def __init__(self, size: int, flags: int, times: int, *, after: int = 0) -> None:
        super().__init__(size, flags)
        self.times = times
        self.after = after

    def serve(self, sock: socket.socket, *found: Any) -> None:
        if self.times and len(self.requests) > self.after:
            self.times -= 1
            sock.shutdown(socket.SHUT_RDWR)
            return
        super().serve(sock, *found)


def test_a_lost_server_is_an_error_of_all_that_follows(tmp_path: Path) -> None:
    with played(tmp_path, Deaf(MIB, 0, 1)) as path, opened(path) as node:
        for _ in range(2):
            with pytest.raises(BlockError, match=r"the connection to .* was lost: the server closed") as caught:
                node.read(0, 512)
            assert caught.value.errno == errno.EIO


def test_a_lost_server_is_waited_for_where_that_is_wanted(tmp_path: Path) -> None:
    script = Deaf(4 * MIB, 0, 2)
    with played(tmp_path, script) as path, opened(path, options=",reconnect-delay=10") as node:
        node.pwrite(0, b"x" * 3 * MIB)
        assert node.read(0, 3 * MIB) == b"x" * 3 * MIB
    assert not script.times


def test_a_server_is_waited_for_once_whoever_asks(tmp_path: Path) -> None:
    with (
        nbd.raw_disk(tmp_path, bytes(MIB)) as disk,
        nbd.serving(tmp_path, NbdExport(disk)) as served,
        opened(served.path, options=",reconnect-delay=2") as node,
    ):
        served.server.stop()
        served.thread.join(20)
        begun = threading.Barrier(8)
        took: list[float] = []
        said: list[str] = []

        def ask() -> None:
            begun.wait(20)
            start = time.monotonic()
            with pytest.raises(BlockError) as caught:
                node.read(0, 512)
            took.append(time.monotonic() - start)
            said.append(str(caught.value))

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert len(took) == 8
        assert max(took) < 8 * 2  # what they would take one after the other
        assert sum("; it did not come back within 2 seconds: " in text for text in said) == 1
        assert sum("; it is still away: " in text for text in said) == 7


@pytest.mark.parametrize("above", ["", "copy-on-read"])
def test_who_closes_a_disk_waits_for_no_server_to_come_back(tmp_path: Path, above: str) -> None:
    """Whether any number of requests may be in the node, or one that holds its lock."""
    with nbd.raw_disk(tmp_path, bytes(MIB)) as disk, nbd.serving(tmp_path, NbdExport(disk)) as served:
        own = {"driver": "nbd", "path": str(served.path), "reconnect-delay": "600"}
        below = {f"file.{key}": value for key, value in own.items()}
        node = graph.open(from_options({"driver": above, **below} if above else own), read_only=False)
        driver = node.driver.children["file"].driver if above else node.driver
        assert isinstance(driver, NbdDriver)
        served.server.stop()
        served.thread.join(20)
        failures: list[Exception] = []

        def ask() -> None:
            try:
                node.read(0, 512)
            except BlockError as error:
                failures.append(error)

        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        until = time.monotonic() + 20
        while driver._waiting is None and time.monotonic() < until:
            time.sleep(0.01)
        closing = threading.Thread(target=node.close, daemon=True)
        closing.start()
        closing.join(30)
        assert not closing.is_alive()
        assert node.closed
        asking.join(20)
        assert len(failures) == 1


def test_writes_that_a_lost_server_may_have_forgotten_are_an_error_of_the_flush(tmp_path: Path) -> None:
    script = Deaf(MIB, ExportFlag.SEND_FLUSH, 1, after=2)
    with played(tmp_path, script) as path, opened(path, options=",reconnect-delay=10") as node:
        node.pwrite(0, b"x")
        node.read(0, 1)
        node.read(0, 1)  # on a new connection
        for _ in range(2):
            with pytest.raises(BlockError, match="writes that were not flushed"):
                node.flush()
            node.pwrite(0, b"y")


def test_a_write_that_is_done_again_is_not_lost(tmp_path: Path) -> None:
    script = Deaf(MIB, ExportFlag.SEND_FLUSH, 1, after=2)
    with played(tmp_path, script) as path, opened(path, options=",reconnect-delay=10") as node:
        node.pwrite(0, b"x" * 512)
        node.flush()
        node.pwrite(512, b"y" * 512)  # the server goes away meanwhile
        assert not script.times
        node.flush()
        assert node.read(0, 1024) == b"x" * 512 + b"y" * 512


def test_a_flush_that_loses_the_server_does_not_succeed_on_the_next(tmp_path: Path) -> None:
    script = Deaf(MIB, ExportFlag.SEND_FLUSH, 1, after=2)
    with played(tmp_path, script) as path, opened(path, options=",reconnect-delay=10") as node:
        node.pwrite(0, b"x")
        with pytest.raises(BlockError, match="writes that were not flushed"):
            node.flush()


def test_nothing_is_received_for_those_who_know_that_the_connection_is_lost(tmp_path: Path) -> None:
    """A buffer may hold something else by then."""

    class Halved:
        """A server that still sends, and takes nothing any more."""

        socket: socket.socket

        def __init__(self) -> None:
            self.waits, self.ended = threading.Event(), threading.Event()
            self.refuses, self.received = False, False

        def recv_into(self, buffer: memoryview, /) -> int:
            self.waits.set()
            assert self.ended.wait(20)
            time.sleep(0.1)
            self.received = True
            return 0

        def send(self, parts: object, blocked: object = None) -> None:
            if self.refuses:
                raise BrokenPipeError(errno.EPIPE, "Broken pipe")

        def recv_now(self, buffer: memoryview, /) -> int | None:
            raise AssertionError("somebody receives already")

        def settimeout(self, seconds: float | None) -> None:
            pass

        def shutdown(self) -> None:
            self.ended.set()

        def close(self) -> None:
            pass

    server = Halved()
    connection = Connection(server, Connected(Export(""), structured=False, extended=False), b"")
    first = connection.start(Command.READ, 0, 512, target=memoryview(bytearray(512)))

    def wait() -> None:
        with contextlib.suppress(ConnectionLost):
            connection.finish(first)

    others = threading.Thread(target=wait)
    others.start()
    assert server.waits.wait(20)
    server.refuses = True
    with pytest.raises(ConnectionLost, match="Failed to send"):
        connection.start(Command.READ, 0, 512, target=memoryview(bytearray(512)))
    assert server.received
    others.join(20)


def test_who_waits_to_send_on_a_connection_that_another_thread_has_replaced_is_told() -> None:
    """Without a descriptor to wait for: it was a ValueError, which no request is done again for."""
    ours, theirs = socket.socketpair()
    with theirs:
        connection = Connection(SocketTransport(ours), Connected(Export(""), structured=False, extended=False), b"")
        ours.close()
        with pytest.raises(ConnectionLost):
            connection._make_way()


def test_a_server_that_comes_back_as_another_is_refused(tmp_path: Path) -> None:
    class Shrinking(Deaf):
        def shake_hands(self, sock: socket.socket) -> None:
            super().shake_hands(sock)
            self.size //= 2

    with (
        played(tmp_path, Shrinking(MIB, 0, 1)) as path,
        opened(path, options=",reconnect-delay=1") as node,
        pytest.raises(BlockError, match="came back with another size"),
    ):
        node.read(0, 512)


def test_a_server_that_is_not_there_yet_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "played.sock"
    seen = threading.Event()

    def later() -> None:
        time.sleep(0.3)
        with played(tmp_path, Scripted(MIB, 0)):
            seen.wait(20)

    thread = threading.Thread(target=later)
    thread.start()
    try:
        with opened(path, options=",open-timeout=10") as node:
            assert node.length == MIB
    finally:
        seen.set()
        thread.join(20)
    with pytest.raises(BlockError, match="Failed to connect"):
        opened(path, options=",open-timeout=0")


def test_a_server_that_says_nothing_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hostel.block.protocols.nbd.connection.TIMEOUT", 0.2)
    with (
        played(tmp_path, lambda sock: time.sleep(1)) as path,
        pytest.raises(BlockError, match="does not finish the NBD handshake"),
    ):
        opened(path)

"""The NBD client where its server takes nothing more before its replies are taken, as one with one thread does."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from hostel.block.protocols.nbd.connection import Connection, ConnectionLost, negotiate
from hostel.block.protocols.nbd.driver import NbdDriver
from hostel.errors import BlockError
from hostel.net.address import UnixAddress
from hostel.wire.nbd import protocol
from hostel.wire.nbd.client import ClientHandshake, Connected
from hostel.wire.nbd.protocol import Answer, Command, Option
from support.nbd import MIB, TIMEOUT, answer, played
from support.scripted_nbd import Scripted, opened


def connected(path: Path) -> Connection:
    handshake = ClientHandshake()
    transport, event = negotiate(UnixAddress(str(path)), handshake, None)
    assert isinstance(event, Connected)
    return Connection(transport, event, handshake.rest())


def test_a_write_behind_large_reads_receives_for_all(tmp_path: Path) -> None:
    script = Scripted(8 * MIB, 0)
    script.disk[:] = content = os.urandom(8 * MIB)
    with played(tmp_path, script) as path, contextlib.closing(connected(path)) as connection:
        buffers = [bytearray(MIB) for _ in range(4)]
        reads = [
            connection.start(Command.READ, place * MIB, MIB, target=memoryview(buffer))
            for place, buffer in enumerate(buffers)
        ]
        write = connection.start(Command.WRITE, 4 * MIB, 4 * MIB, payload=b"w" * 4 * MIB)
        assert [connection.finish(cookie).error for cookie in (write, *reads)] == [0] * 5
    assert b"".join(buffers) == content[: 4 * MIB]
    assert script.disk == content[: 4 * MIB] + b"w" * 4 * MIB


def test_threads_that_read_and_write_do_not_wait_for_each_other(tmp_path: Path) -> None:
    script = Scripted(16 * MIB, 0)
    script.disk[:] = content = os.urandom(16 * MIB)
    equal: list[bool] = []
    with played(tmp_path, script) as path, opened(path) as node:

        def read() -> None:
            equal.extend(node.read(0, 8 * MIB) == content[: 8 * MIB] for _ in range(4))

        def write() -> None:
            for _ in range(4):
                node.pwrite(8 * MIB, b"w" * 8 * MIB)

        threads = [threading.Thread(target=act, daemon=True) for act in (read, write, read)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(TIMEOUT)
            assert not thread.is_alive()
    assert equal == [True] * 8
    assert script.disk[8 * MIB :] == b"w" * 8 * MIB


def test_a_server_that_goes_while_it_takes_nothing_is_lost(tmp_path: Path) -> None:
    class Going(Scripted):
        def serve(self, sock: socket.socket, *found: Any) -> None:
            sock.shutdown(socket.SHUT_RDWR)

    with played(tmp_path, Going(8 * MIB, 0)) as path, contextlib.closing(connected(path)) as connection:
        connection.start(Command.READ, 0, 512, target=memoryview(bytearray(512)))
        with pytest.raises(ConnectionLost):
            connection.finish(connection.start(Command.WRITE, 0, 8 * MIB, payload=b"w" * 8 * MIB))


def test_nothing_is_sent_behind_a_part_of_a_request(tmp_path: Path) -> None:
    """What was interrupted was sent in part: the rest of it must not be what is asked next."""
    taken = threading.Event()

    class Slow(Scripted):
        def __call__(self, sock: socket.socket) -> None:
            self.shake_hands(sock)
            assert taken.wait(TIMEOUT)
            while sock.recv(1 << 20):
                pass

    with played(tmp_path, Slow(8 * MIB, 0)) as path, opened(path) as node:
        assert isinstance(node.driver, NbdDriver)

        def interrupt() -> None:
            raise KeyboardInterrupt

        node.driver._connection._make_way = interrupt  # type: ignore[method-assign]
        with pytest.raises(KeyboardInterrupt):
            node.pwrite(0, b"w" * 4 * MIB)
        taken.set()
        with pytest.raises(BlockError, match="interrupted"):
            node.pwrite(0, b"w" * 512)


class Starting(Scripted):
    """Has its export from the second connection on."""

    asked = 0

    def shake_hands(self, sock: socket.socket) -> None:
        self.asked += 1
        if self.asked != 2:
            super().shake_hands(sock)
            return
        sock.sendall(protocol.GREETING.pack(protocol.GREETING_MAGIC, protocol.OPTION_MAGIC, 3))
        sock.recv(4, socket.MSG_WAITALL)
        while True:
            _, number, length = protocol.OPTION.unpack(sock.recv(16, socket.MSG_WAITALL))
            sock.recv(length, socket.MSG_WAITALL)
            refused = Answer.ERR_UNKNOWN if number == Option.GO else Answer.ERR_UNSUP
            sock.sendall(answer(number, refused))
            if number == Option.GO:
                raise ConnectionResetError


def test_a_server_that_has_no_export_yet_is_waited_for(tmp_path: Path) -> None:
    script = Starting(MIB, 0)
    script.asked = 1
    with played(tmp_path, script) as path, opened(path, options=",open-timeout=10") as node:
        assert node.length == MIB
        assert script.asked == 3


def test_a_server_that_comes_back_without_its_export_is_waited_for(tmp_path: Path) -> None:
    class Restarting(Starting):
        def serve(self, sock: socket.socket, *found: Any) -> None:
            if self.asked == 1:
                sock.shutdown(socket.SHUT_RDWR)
            else:
                super().serve(sock, *found)

    script = Restarting(MIB, 0)
    with played(tmp_path, script) as path, opened(path, options=",reconnect-delay=10") as node:
        assert node.read(0, 512) == bytes(512)
        assert script.asked == 3


def test_an_export_that_is_not_there_is_an_error_at_once_where_nothing_else_is_wanted(tmp_path: Path) -> None:
    script = Starting(MIB, 0)
    script.asked = 1
    with (
        played(tmp_path, script) as path,
        pytest.raises(BlockError, match="Requested export not available") as caught,
    ):
        opened(path)
    assert caught.value.errno == errno.EINVAL
    assert script.asked == 2

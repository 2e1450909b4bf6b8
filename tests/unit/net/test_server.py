"""A server of threads: how many connections it serves, and how it ends."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hostel.net.address import UnixAddress, connect, listen
from hostel.net.server import Server
from support.descriptors import descriptors
from support.nbd import TIMEOUT


def echo(sock: socket.socket) -> bool:
    """Send back what comes; a connection on which something came counts."""
    counted = False
    while data := sock.recv(100):
        counted = True
        sock.sendall(data)
    return counted


@contextmanager
def running(
    path: Path, serve: Callable[[socket.socket], bool] = echo, *, limit: int = 0, once: bool = False
) -> Iterator[tuple[Server, threading.Thread]]:
    server = Server(listen(UnixAddress(str(path)), 16), serve, limit=limit, once=once)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield server, thread
    finally:
        server.stop()
        thread.join(TIMEOUT)
        assert not thread.is_alive()


def client(path: Path) -> socket.socket:
    sock = connect(UnixAddress(str(path)), TIMEOUT)
    sock.settimeout(TIMEOUT)
    return sock


def says(sock: socket.socket, text: bytes = b"hello") -> bool:
    sock.sendall(text)
    return sock.recv(100) == text


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sock"


def test_clients_are_served_at_the_same_time(path: Path) -> None:
    with running(path), client(path) as one, client(path) as other:
        assert says(other)
        assert says(one)


def test_clients_beyond_the_limit_wait_for_their_turn(path: Path) -> None:
    with running(path, limit=1), client(path) as one:
        assert says(one)
        with client(path) as other:
            other.sendall(b"hello")
            other.settimeout(0.1)
            with pytest.raises(TimeoutError):
                other.recv(5)
            one.close()
            other.settimeout(TIMEOUT)
            assert other.recv(5) == b"hello"


def test_once_ends_with_the_last_client_that_counted(path: Path) -> None:
    with running(path, once=True) as (_, thread):
        client(path).close()  # only looked
        with client(path) as one, client(path) as other:
            assert says(one)
            assert says(other)
            one.close()
            assert says(other)
        thread.join(TIMEOUT)
        assert not thread.is_alive()


def test_once_ends_also_where_the_last_to_go_only_looked(path: Path) -> None:
    with running(path, once=True) as (_, thread):
        with client(path):
            with client(path) as one:
                assert says(one)
            thread.join(0.2)
            assert thread.is_alive()
        thread.join(TIMEOUT)
        assert not thread.is_alive()


def test_stop_ends_idle_connections_and_leaves_no_descriptors(path: Path) -> None:
    before = descriptors()
    with running(path) as (server, thread), client(path) as one:
        assert says(one)
        server.stop()
        thread.join(TIMEOUT)
        assert one.recv(5) == b""
    assert descriptors() <= before
    server.stop()  # is harmless afterwards


def test_stop_waits_for_what_is_being_done(path: Path) -> None:
    done = []

    def slow(sock: socket.socket) -> bool:
        sock.recv(5)
        sock.sendall(b"hello")
        time.sleep(0.2)
        done.append(True)
        return True

    with running(path, slow) as (server, thread), client(path) as one:
        assert says(one)
        server.stop()
        thread.join(TIMEOUT)
        assert done


def test_a_connection_that_fails_does_not_end_the_server(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda _: None)

    def broken(sock: socket.socket) -> bool:
        if sock.recv(5) == b"break":
            raise RuntimeError
        sock.sendall(b"hello")
        return True

    with running(path, broken):
        with client(path) as one:
            one.sendall(b"break")
            assert one.recv(5) == b""
        with client(path) as other:
            assert says(other)


def test_a_host_without_threads_is_waited_for(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hostel.net.server._PAUSE", 0.05)
    real = threading.Thread.start
    refused: list[threading.Thread] = []

    def start(thread: threading.Thread) -> None:
        if thread.name == "connection" and not refused:
            refused.append(thread)
            raise RuntimeError("can't start new thread")
        real(thread)

    with running(path):
        monkeypatch.setattr(threading.Thread, "start", start)
        with client(path) as one:
            assert one.recv(5) == b""
        with client(path) as other:
            assert says(other)
    assert refused

"""Sockets that a loop waits for: nothing blocks it, nothing is lost, nothing grows without bound."""

from __future__ import annotations

import errno
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import pytest

from hostel.errors import NetworkError
from hostel.net.channel import Channel
from hostel.net.reactor import Reactor

MIB = 1 << 20


class Loop:
    """A reactor in a thread, and what happened in it."""

    def __init__(self) -> None:
        self.failures: list[Exception] = []
        self.reactor = Reactor(self.failures.append)
        self._thread = threading.Thread(target=self.reactor.run)
        self._thread.start()

    def run(self, call: Callable[[], object]) -> None:
        """Call in the loop, and wait until that is done."""
        done = threading.Event()

        def work() -> None:
            call()
            done.set()

        self.reactor.call_soon(work)
        assert done.wait(20)

    def stop(self) -> None:
        self.reactor.stop()
        self._thread.join(20)
        assert not self._thread.is_alive()
        self.reactor.close()


@pytest.fixture
def loop() -> Iterator[Loop]:
    running = Loop()
    yield running
    running.stop()
    assert not running.failures


class Pair:
    """A channel, and its peer as a plain socket."""

    def __init__(self, loop: Loop, limit: int = 64 * MIB) -> None:
        ours, self.peer = socket.socketpair()
        self.peer.settimeout(20)
        self.loop = loop
        self.channel = Channel(loop.reactor, ours, limit=limit)
        self.data = bytearray()
        self.fds: list[int] = []
        self.closed = threading.Event()
        self.error: Exception | None = None
        self.channel.receive = self._receive
        self.channel.closed = self._closed
        loop.run(self.channel.start)

    def _receive(self, data: bytes, fds: Sequence[int]) -> None:
        self.data += data
        self.fds += fds

    def _closed(self, error: Exception | None) -> None:
        self.error = error
        self.closed.set()

    def read_all(self, length: int) -> bytes:
        data = bytearray()
        while len(data) < length:
            piece = self.peer.recv(length - len(data))
            assert piece
            data += piece
        return bytes(data)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_bytes_go_both_ways(loop: Loop) -> None:
    pair = Pair(loop)
    pair.channel.send(b"hello ", b"world")
    assert pair.read_all(11) == b"hello world"
    pair.peer.sendall(b"answer")
    wait_until(lambda: pair.data == b"answer")
    pair.peer.close()
    assert pair.closed.wait(20)
    assert pair.error is None


def test_what_the_peer_does_not_take_is_kept_in_order(loop: Loop) -> None:
    pair = Pair(loop)
    data = os.urandom(8 * MIB)
    for start in range(0, len(data), 100_000):
        pair.channel.send(data[start : start + 100_000])
    assert pair.channel.queued > 0
    assert pair.read_all(len(data)) == data
    wait_until(lambda: pair.channel.queued == 0)
    pair.peer.close()
    assert pair.closed.wait(20)


def test_peer_that_takes_nothing_is_cut_off(loop: Loop) -> None:
    pair = Pair(loop, limit=MIB)
    for _ in range(100):
        pair.channel.send(bytes(100_000))
    assert pair.closed.wait(20)
    assert isinstance(pair.error, NetworkError)
    assert pair.channel.queued == 0


def test_push_waits_for_the_peer_and_needs_no_copy(loop: Loop) -> None:
    pair = Pair(loop)
    buffer = bytearray(MIB)
    got = bytearray()
    reader = threading.Thread(target=lambda: got.extend(pair.read_all(8 * MIB)))
    reader.start()
    expected = bytearray()
    for number in range(8):
        buffer[:] = bytes([number]) * MIB
        expected += buffer
        pair.channel.push([memoryview(buffer)], 20)
    reader.join(20)
    assert got == expected
    pair.peer.close()


def test_push_gives_up_on_a_peer_that_takes_nothing(loop: Loop) -> None:
    pair = Pair(loop)
    with pytest.raises(TimeoutError):
        pair.channel.push([bytes(8 * MIB)], 0.2)
    pair.peer.close()
    assert pair.closed.wait(20)
    with pytest.raises(NetworkError):
        pair.channel.push([b"x"], 1)


def test_push_ends_with_the_channel_and_its_socket_not_before_it(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = Pair(loop)
    waiting, go = threading.Event(), threading.Event()
    poll = select.poll

    class Held:
        """Waits for a descriptor once it may; what has its number by then is waited for."""

        def __init__(self) -> None:
            self._poll = poll()
            self.register = self._poll.register

        def poll(self, milliseconds: float) -> list[tuple[int, int]]:
            waiting.set()
            go.wait(20)
            return self._poll.poll(milliseconds)

    failures: list[Exception] = []

    def push() -> None:
        try:
            pair.channel.push([bytes(8 * MIB)], 20)
        except Exception as error:
            failures.append(error)

    number = pair.channel.socket.fileno()
    monkeypatch.setattr(select, "poll", Held)
    pusher = threading.Thread(target=push)
    pusher.start()
    assert waiting.wait(20)
    loop.run(lambda: pair.channel.close(None))
    reads, writes = os.pipe()  # one of which has the number, if it is free
    taken = number in (reads, writes)
    go.set()
    pusher.join(20)
    assert not taken
    assert [type(failure) for failure in failures] == [NetworkError]
    assert pair.channel.socket.fileno() == -1  # who waited has closed it
    while pair.peer.recv(MIB):
        pass
    for fd in (reads, writes):
        os.close(fd)
    pair.peer.close()


def test_push_does_not_wait_for_a_peer_that_the_loop_has_given_up(loop: Loop) -> None:
    pair = Pair(loop)
    failures: list[Exception] = []

    def push() -> None:
        try:
            pair.channel.push([bytes(8 * MIB)], 600)
        except Exception as error:
            failures.append(error)

    pusher = threading.Thread(target=push, daemon=True)
    pusher.start()
    wait_until(lambda: pair.channel.queued > 0)
    loop.run(lambda: pair.channel.close(None))
    pusher.join(20)
    assert [type(failure) for failure in failures] == [NetworkError]
    pair.peer.close()


def test_push_and_send_of_two_threads_do_not_mix(loop: Loop) -> None:
    pair = Pair(loop)

    def push() -> None:
        for _ in range(50):
            pair.channel.push([b"P" * 100_000], 20)

    def send() -> None:
        for _ in range(50):
            pair.channel.send(b"S" * 100_000)

    threads = [threading.Thread(target=push), threading.Thread(target=send)]
    for thread in threads:
        thread.start()
    data = pair.read_all(10_000_000)
    for thread in threads:
        thread.join(20)
    assert all(
        data[start : start + 100_000] in (b"P" * 100_000, b"S" * 100_000) for start in range(0, len(data), 100_000)
    )
    pair.peer.close()


def test_channel_that_is_not_read_leaves_bytes_with_the_peer(loop: Loop) -> None:
    pair = Pair(loop)
    loop.run(lambda: pair.channel.read(False))
    pair.peer.sendall(b"later")
    time.sleep(0.1)
    assert not pair.data
    loop.run(lambda: pair.channel.read(True))
    wait_until(lambda: pair.data == b"later")
    pair.peer.close()


def test_rest_of_something_long_lands_where_it_belongs(loop: Loop) -> None:
    pair = Pair(loop)
    place = bytearray(10)
    counts: list[int] = []
    pair.channel.room = lambda: memoryview(place)[sum(counts) :] if sum(counts) < 10 else None
    pair.channel.received = counts.append
    pair.peer.sendall(b"0123456789rest")
    wait_until(lambda: pair.data == b"rest")
    assert place == b"0123456789"
    pair.peer.close()


def test_descriptors_come_and_go(loop: Loop) -> None:
    pair = Pair(loop)
    read, write = os.pipe()
    socket.send_fds(pair.peer, [b"x"], [write])
    os.close(write)
    wait_until(lambda: len(pair.fds) == 1)
    os.write(pair.fds[0], b"through")
    assert os.read(read, 100) == b"through"
    pair.channel.send(b"take ", pair.fds[0])
    data, fds, _, _ = socket.recv_fds(pair.peer, 100, 5)
    while not fds:
        more, fds, _, _ = socket.recv_fds(pair.peer, 100, 5)
        data += more
    assert data == b"take \0"
    os.write(fds[0], b"again")
    assert os.read(read, 100) == b"again"
    for fd in (read, *fds):
        os.close(fd)
    with pytest.raises(OSError):
        os.fstat(pair.fds[0])  # it was sent, and so closed
    pair.peer.close()


def test_a_descriptor_is_closed_once_even_where_that_fails(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = Pair(loop)
    reads, writes = os.pipe()
    closed: list[int] = []
    close = os.close

    def failing(fd: int) -> None:
        closed.append(fd)
        close(fd)  # which frees the number, whatever comes of it
        if fd == writes:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "close", failing)
    pair.channel.send(b"take ", writes)
    assert pair.closed.wait(20)
    assert closed.count(writes) == 1
    monkeypatch.undo()
    os.close(reads)
    pair.peer.close()


def test_end_sends_what_waits(loop: Loop) -> None:
    pair = Pair(loop)
    pair.channel.send(bytes(4 * MIB))
    loop.run(pair.channel.end)
    assert len(pair.read_all(4 * MIB)) == 4 * MIB
    assert pair.peer.recv(1) == b""
    assert pair.closed.wait(20)


def test_handler_that_fails_does_not_end_the_loop() -> None:
    loop = Loop()
    pair = Pair(loop)

    def fail(data: bytes, fds: Sequence[int]) -> None:
        raise ValueError("wrong")

    pair.channel.receive = fail
    pair.peer.sendall(b"x")
    wait_until(lambda: len(loop.failures) == 1)
    loop.run(lambda: None)
    loop.stop()
    pair.peer.close()


def test_timers_are_called_in_order_unless_cancelled(loop: Loop) -> None:
    called: list[int] = []
    done = threading.Event()

    def arm() -> None:
        loop.reactor.call_later(0.1, done.set)
        loop.reactor.call_later(0.04, lambda: called.append(2))
        loop.reactor.call_later(0.02, lambda: called.append(1))
        loop.reactor.call_later(0.03, lambda: called.append(3)).cancel()

    loop.run(arm)
    assert done.wait(20)
    assert called == [1, 2]

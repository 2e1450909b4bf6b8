"""Waking a thread that waits, also when it is too late for that."""

from __future__ import annotations

import errno
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hostel.cli.storage_daemon.daemon import Daemon
from hostel.net.reactor import Reactor
from hostel.net.server import Server
from hostel.net.waker import Waker


def is_readable(waker: Waker, milliseconds: int = 0) -> bool:
    poll = select.poll()
    poll.register(waker, select.POLLIN)
    return bool(poll.poll(milliseconds))


def test_it_is_readable_from_waking_until_clearing() -> None:
    waker = Waker()
    assert not is_readable(waker)
    for _ in range(3):
        waker.wake()
    assert is_readable(waker)
    waker.clear()
    waker.clear()
    assert not is_readable(waker)
    waker.close()


def test_it_wakes_all_threads_that_wait() -> None:
    waker = Waker()
    threads = [threading.Thread(target=is_readable, args=(waker, 60_000)) for _ in range(3)]
    for thread in threads:
        thread.start()
    waker.wake()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    waker.close()


def test_a_signal_handler_may_wake_while_its_thread_does() -> None:
    waker = Waker()
    before = signal.signal(signal.SIGUSR1, lambda *_: waker.wake())
    try:
        with waker._lock:
            signal.raise_signal(signal.SIGUSR1)
        assert is_readable(waker)
    finally:
        signal.signal(signal.SIGUSR1, before)
        waker.close()


def test_it_is_woken_by_signals_as_long_as_it_is_said() -> None:
    waker = Waker()
    before = signal.signal(signal.SIGUSR1, lambda *_: None)
    try:
        with waker.woken_by_signals():
            signal.raise_signal(signal.SIGUSR1)
        assert is_readable(waker)
        waker.clear()
        signal.raise_signal(signal.SIGUSR1)
        assert not is_readable(waker)
    finally:
        signal.signal(signal.SIGUSR1, before)
        waker.close()


def loops() -> Iterator[tuple[Callable[[], object], Callable[[], None]]]:
    server = Server([], lambda sock: True)
    yield server.run, server.stop
    reactor = Reactor(lambda error: None)
    yield reactor.run, reactor.stop
    reactor.close()
    daemon = Daemon(lambda message: None)
    yield daemon.wait, daemon.stop
    daemon.close()


def ends_in_time(run: Callable[[], object], stop: Callable[[], None]) -> bool:
    """Whether a loop that this thread is in ends at a signal whose handler stops it."""
    ended, found = threading.Event(), []

    def send() -> None:
        time.sleep(0.1)  # so that it waits; if it does not yet, this shows nothing
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
        found.append(ended.wait(10))
        stop()

    before = signal.signal(signal.SIGUSR1, lambda *_: stop())
    thread = threading.Thread(target=send)
    try:
        thread.start()
        run()
        ended.set()
    finally:
        thread.join(30)
        signal.signal(signal.SIGUSR1, before)
    return found == [True]


def test_a_loop_ends_at_a_signal_that_does_not_interrupt_its_wait() -> None:
    """As one does not that comes just before; here because another thread is who is interrupted."""
    assert [ends_in_time(run, stop) for run, stop in loops()] == [True, True, True]


def test_the_descriptor_goes_with_the_last_who_knows_it() -> None:
    waker = Waker()
    number = waker.fileno()
    del waker
    with pytest.raises(OSError):
        os.fstat(number)


def test_where_no_descriptor_is_left_that_alone_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[object] = []

    def refuse(_: int) -> tuple[int, int]:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(sys, "unraisablehook", said.append)
    monkeypatch.setattr(os, "pipe2", refuse)
    code = 0
    try:
        Waker()
    except OSError as error:
        code = error.errno or 0
    # The error has gone, and with it the last who knew of what was half made.
    assert code == errno.EMFILE
    assert said == []


def late_wakes() -> Iterator[Callable[[], None]]:
    waker = Waker()
    waker.close()
    yield waker.wake
    yield waker.clear
    yield waker.close
    reactor = Reactor(lambda error: None)
    reactor.close()
    yield lambda: reactor.call_soon(lambda: None)
    yield reactor.stop
    server = Server([], lambda sock: True)
    server.stop()
    server.run()
    yield server.stop


@pytest.mark.parametrize("which", range(6))
def test_who_wakes_too_late_writes_into_no_other_file(tmp_path: Path, which: int) -> None:
    wake = list(late_wakes())[which]
    # The numbers that were given up, the lowest first, are those of the next files.
    files = [(tmp_path / str(number)).open("wb") for number in range(8)]
    wake()
    for file in files:
        os.fstat(file.fileno())  # nor does it close one
        file.close()
    assert [path.name for path in tmp_path.iterdir() if path.stat().st_size] == []

"""Signals for processes that may have ended, and whose number may be another's."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import threading
from pathlib import Path
from typing import NoReturn

import pytest

from hostel.drivers import signals
from support.descriptors import descriptors

_LAST = Path("/proc/sys/kernel/ns_last_pid")


def sleeping() -> subprocess.Popen[bytes]:
    return subprocess.Popen(["sleep", "60"])


def kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait(20)


def with_number(pid: int) -> subprocess.Popen[bytes]:
    """A new process of that number; other tests may get in between."""
    for _ in range(100):
        _LAST.write_text(str(pid - 1))
        process = sleeping()
        if process.pid == pid:
            return process
        kill(process)
    pytest.skip("somebody else has the number")


@pytest.mark.skipif(not os.access(_LAST, os.W_OK), reason="numbers of processes cannot be chosen")
def test_who_has_the_number_next_gets_no_signal() -> None:
    process = sleeping()
    others: list[subprocess.Popen[bytes]] = []

    def it_ends_at_once() -> bool:
        kill(process)
        others.append(with_number(process.pid))
        return True

    try:
        assert not signals.send(process.pid, signal.SIGKILL, it_ends_at_once)
        with pytest.raises(subprocess.TimeoutExpired):
            others[0].wait(0.2)
    finally:
        for each in (process, *others):
            kill(each)


def no_such_call(pid: int) -> NoReturn:
    raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))


@pytest.mark.parametrize("is_new", [True, False], ids=["pidfd", "before Linux 5.3"])
def test_only_what_is_looked_for_gets_the_signal(is_new: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not is_new:
        monkeypatch.setattr(os, "pidfd_open", no_such_call)
    before = descriptors()
    process = sleeping()
    try:
        assert not signals.send(process.pid, signal.SIGKILL, lambda: False)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.2)
        assert signals.send(process.pid, signal.SIGKILL, lambda: True)
        assert process.wait(20) == -signal.SIGKILL
        assert not signals.send(process.pid, signal.SIGKILL, lambda: True)
    finally:
        kill(process)
    assert not descriptors() - before


def test_a_number_that_is_a_threads_by_now_is_no_processes() -> None:
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        assert thread.native_id is not None
        for number in (thread.native_id, 0):
            assert not signals.send(number, signal.SIGKILL, lambda: False)
    finally:
        stop.set()
        thread.join()

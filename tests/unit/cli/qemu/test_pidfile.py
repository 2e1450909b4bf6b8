"""The file of a process id, which several processes may want at once."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hostel.cli.qemu import pidfile
from hostel.cli.qemu.failure import Failure

OTHER = """
import sys, time
from hostel.cli.qemu import pidfile
pidfile.write(sys.argv[1])
print("has it", flush=True)
time.sleep(60)
"""


def other(path: Path) -> subprocess.Popen[str]:
    """Another process that has the file."""
    process = subprocess.Popen([sys.executable, "-c", OTHER, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "has it\n"
    return process


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait(20)
    assert process.stdout is not None
    process.stdout.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "pid"


def before_the_lock(monkeypatch: pytest.MonkeyPatch, happens: Callable[[], None]) -> None:
    """Let something happen, once, between the opening of the file and its lock."""
    lock = fcntl.lockf

    def late(fd: int, command: int) -> None:
        monkeypatch.setattr(fcntl, "lockf", lock)
        happens()
        lock(fd, command)

    monkeypatch.setattr(fcntl, "lockf", late)


def test_a_file_that_its_process_removes_meanwhile_is_made_anew(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_text("1\n")
    before_the_lock(monkeypatch, path.unlink)
    fd = pidfile.write(str(path))
    try:
        assert path.read_text() == f"{os.getpid()}\n"
        assert os.path.samestat(os.fstat(fd), path.stat())
    finally:
        os.close(fd)


def test_a_file_that_another_process_makes_anew_meanwhile_is_its(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_text("1\n")
    others: list[subprocess.Popen[str]] = []

    def replace() -> None:
        path.unlink()
        others.append(other(path))

    before_the_lock(monkeypatch, replace)
    try:
        with pytest.raises(Failure, match=r"Cannot lock pid file '.*/pid': Resource temporarily unavailable"):
            pidfile.write(str(path))
        assert path.read_text() == f"{others[0].pid}\n"
    finally:
        for process in others:
            end(process)


def test_a_file_that_cannot_be_written_is_not_said_to_be_locked(path: Path) -> None:
    path.symlink_to("/dev/full")
    with pytest.raises(Failure, match=r"Failed to write pid file '.*/pid': "):
        pidfile.write(str(path))

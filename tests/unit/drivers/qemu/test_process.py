"""The supervisor: what it tells of a program's end, and what it does not let through."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import sys
import threading
import time
from pathlib import Path

import pytest

from hostel.drivers import procstat
from hostel.drivers.qemu import process


def test_exit_status_and_signal_are_recorded(tmp_path: Path) -> None:
    process.spawn(["sh", "-c", "exit 7"], tmp_path, tmp_path / "log")
    assert process.exit_status(tmp_path, 10) == 7
    (again := tmp_path / "again").mkdir()  # as every run has a directory of its own
    pid = process.spawn(["sleep", "60"], again, tmp_path / "log")
    os.kill(pid, signal.SIGKILL)
    assert process.describe(process.exit_status(again, 10)) == "QEMU was killed by SIGKILL"


def test_who_looks_at_a_run_does_not_keep_it_from_beginning(tmp_path: Path) -> None:
    looking = os.open(tmp_path / "alive", os.O_RDWR | os.O_CREAT)
    fcntl.flock(looking, fcntl.LOCK_SH)  # as whoever asks whether it is supervised does for a moment
    timer = threading.Timer(0.2, os.close, [looking])
    timer.start()
    process.spawn(["true"], tmp_path, tmp_path / "log")
    assert process.exit_status(tmp_path, 10) == 0
    timer.join(60)


def test_what_a_supervisor_writes_late_is_not_found_by_the_next_run_at_its_path(tmp_path: Path) -> None:
    (run := tmp_path / "run").mkdir()
    pid = process.spawn(["sleep", "60"], run, tmp_path / "log")
    supervisor = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    started = procstat.start_time(supervisor)
    assert started is not None
    os.kill(supervisor, signal.SIGSTOP)
    try:
        os.kill(pid, signal.SIGKILL)
        shutil.rmtree(run)
        run.mkdir()
    finally:
        os.kill(supervisor, signal.SIGCONT)
    assert process.ended(supervisor, started, 60)
    assert list(run.iterdir()) == []


def test_program_inherits_no_descriptor_even_when_ours_are_high(tmp_path: Path) -> None:
    spare = [os.open("/dev/null", os.O_RDONLY) for _ in range(20)]
    pid = process.spawn(["sleep", "60"], tmp_path, tmp_path / "log")
    started = procstat.start_time(pid)
    assert started is not None
    try:
        assert process.supervised(tmp_path)
        deadline = time.monotonic() + 60
        while Path(f"/proc/{pid}/comm").read_text() != "sleep\n":  # until then it is the shell that becomes it
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert sorted(os.listdir(f"/proc/{pid}/fd")) == ["0", "1", "2"]
        assert os.readlink(f"/proc/{pid}/cwd") == "/"
        assert os.getsid(pid) != os.getsid(0)
    finally:
        assert process.end(pid, started)
        for descriptor in spare:
            os.close(descriptor)
    assert process.exit_status(tmp_path, 10) is not None
    deadline = time.monotonic() + 60
    while process.supervised(tmp_path):  # the shell ends after it has written that down
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_reused_process_id_is_not_ours(tmp_path: Path) -> None:
    started = procstat.start_time(os.getpid())
    assert started is not None
    assert procstat.runs(os.getpid(), started)
    assert not procstat.runs(os.getpid(), started - 1)


def shell(name: str, run: Path, script: str) -> process.Helper:
    """A helper that is a script; ``$1`` is its socket."""
    socket_path = run / f"{name}.sock"
    return process.Helper(name, ["sh", "-c", script, name, str(socket_path)], socket_path)


LISTEN = (
    "import socket, sys, time; s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); "
    "open(sys.argv[1] + '.pid', 'w').write(str(__import__('os').getpid())); "
    "time.sleep(0.3); s.listen(); time.sleep(60)"
)


def test_helpers_are_there_before_the_program_and_end_with_it(tmp_path: Path) -> None:
    helper = shell("one", tmp_path, f'exec {sys.executable} -c "{LISTEN}" "$1"')
    pid = process.spawn(["sleep", "60"], tmp_path, tmp_path / "log", helpers=[helper])
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(helper.socket))  # it listens
    started = procstat.start_time(pid)
    assert started is not None
    deadline = time.monotonic() + 60
    while not (mark := helper.socket.with_name("one.sock.pid")).exists() or not mark.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert procstat.start_time(int(mark.read_text())) is not None
    assert process.end(pid, started)
    assert process.exit_status(tmp_path, 10) is not None
    assert procstat.start_time(int(mark.read_text())) is None


def test_a_helper_is_waited_for_though_another_one_accepts_that_was_at_its_path(tmp_path: Path) -> None:
    helper = shell("one", tmp_path, f'exec {sys.executable} -c "{LISTEN}" "$1"')
    with socket.socket(socket.AF_UNIX) as last:
        last.bind(str(helper.socket))
        last.listen()
        helper.socket.unlink()
        pid = process.spawn(["sleep", "60"], tmp_path, tmp_path / "log", helpers=[helper])
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(helper.socket))
    started = procstat.start_time(pid)
    assert started is not None
    assert process.end(pid, started)
    assert process.exit_status(tmp_path, 10) is not None


def test_a_helper_is_not_ready_because_the_last_one_at_its_path_accepts_still(tmp_path: Path) -> None:
    path = tmp_path / "helper.sock"
    with socket.socket(socket.AF_UNIX) as last, socket.socket(socket.AF_UNIX) as client:
        last.bind(str(path))
        assert not process.is_listening(path)
        last.listen()
        client.connect(str(path))
        with last.accept()[0]:
            assert process.is_listening(path)
            path.unlink()
            with socket.socket(socket.AF_UNIX) as helper:
                helper.bind(str(path))
                assert not process.is_listening(path)
                helper.listen()
                assert process.is_listening(path)


def test_a_helper_may_have_any_name(tmp_path: Path) -> None:
    program = tmp_path / "a (b) c\nd"  # what the kernel calls the process, too
    program.write_text(f"#!{sys.executable}\n{LISTEN}")
    program.chmod(0o755)
    helper = process.Helper("one", [str(program), str(tmp_path / "one.sock")], tmp_path / "one.sock")
    pid = process.spawn(["sleep", "60"], tmp_path, tmp_path / "log", helpers=[helper])
    started = procstat.start_time(pid)
    assert started is not None
    served_by = int(helper.socket.with_name("one.sock.pid").read_text())
    assert Path(f"/proc/{served_by}/comm").read_text() == f"{program.name}\n"
    assert process.end(pid, started)
    assert process.exit_status(tmp_path, 10) is not None
    assert procstat.start_time(served_by) is None


def test_a_helper_that_fails_is_told_with_its_words_and_the_program_is_not_started(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("of an earlier run\n")
    with pytest.raises(process.HelperFailed, match="two did not come up: no such thing"):
        process.spawn(
            ["touch", str(tmp_path / "started")], tmp_path, tmp_path / "log",
            helpers=[shell("two", tmp_path, "echo no such thing >&2; exit 3")],
        )  # fmt: skip
    with pytest.raises(process.HelperFailed, match="three did not come up: it said nothing"):
        process.spawn(
            ["touch", str(tmp_path / "started")], tmp_path, tmp_path / "log",
            helpers=[shell("three", tmp_path, "exit 0")],
        )  # fmt: skip
    assert not (tmp_path / "started").exists()

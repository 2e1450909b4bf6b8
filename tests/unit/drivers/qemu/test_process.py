"""The supervisor: what it tells of a program's end, and what it does not let through."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from hostel.drivers.qemu import process


def test_exit_status_and_signal_are_recorded(tmp_path: Path) -> None:
    process.spawn(["sh", "-c", "exit 7"], tmp_path, tmp_path / "log")
    assert process.exit_status(tmp_path, 10) == 7
    (again := tmp_path / "again").mkdir()  # as every run has a directory of its own
    pid = process.spawn(["sleep", "60"], again, tmp_path / "log")
    os.kill(pid, signal.SIGKILL)
    assert process.describe(process.exit_status(again, 10)) == "QEMU was killed by SIGKILL"


def test_program_inherits_no_descriptor_even_when_ours_are_high(tmp_path: Path) -> None:
    spare = [os.open("/dev/null", os.O_RDONLY) for _ in range(20)]
    pid = process.spawn(["sleep", "60"], tmp_path, tmp_path / "log")
    started = process.start_time(pid)
    assert started is not None
    try:
        assert process.supervised(tmp_path)
        deadline = time.monotonic() + 10
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
    assert not process.supervised(tmp_path)


def test_reused_process_id_is_not_ours(tmp_path: Path) -> None:
    started = process.start_time(os.getpid())
    assert started is not None
    assert process.runs(os.getpid(), started)
    assert not process.runs(os.getpid(), started - 1)

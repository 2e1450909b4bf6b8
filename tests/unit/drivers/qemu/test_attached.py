"""Programs that serve a device which came into a running machine end with it, however soon that is."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hostel.drivers import procstat
from hostel.drivers.qemu.helper import attached
from hostel.drivers.qemu.process import Helper, HelperFailed

# Serves nobody, on a socket of its own, until it is ended.
_PROGRAM = """
import signal, socket, sys, time
s = socket.socket(socket.AF_UNIX)
s.bind(sys.argv[1])
time.sleep(float(sys.argv[2]))
s.listen()
signal.pause()
"""


def is_running(marker: str) -> bool:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if marker.encode() in path.read_bytes():
                return True
        except OSError:
            continue
    return False


def wait_for_end(marker: str) -> None:
    deadline = time.monotonic() + 20
    while is_running(marker):
        assert time.monotonic() < deadline, "it runs on"
        time.sleep(0.05)


def process(machine: subprocess.Popen[bytes]) -> tuple[int, int]:
    started = procstat.start_time(machine.pid)
    assert started is not None
    return machine.pid, started


def test_program_ends_with_a_machine_that_is_gone_at_once(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    path = run / "pr"
    with (tmp_path / "log").open("ab") as output, subprocess.Popen(["sleep", "60"]) as machine:
        helper = Helper("helper", [sys.executable, "-c", _PROGRAM, str(path), "0"], path)
        taken = attached.start(helper, tmp_path / "log", output.fileno(), beside=process(machine))
        taken.touch()
        machine.kill()
        machine.wait(20)
        shutil.rmtree(run)
    wait_for_end(str(path))


@pytest.mark.parametrize("name", ["sleep", "a (b) c", ") Z 1 2 (", "a\nb) S"])
def test_program_stays_as_long_as_the_machine_whatever_its_name_is(tmp_path: Path, name: str) -> None:
    path, program = tmp_path / "pr", tmp_path / name
    program.write_text(f"#!{sys.executable}\nimport time; time.sleep(60)")
    program.chmod(0o755)
    helper = Helper("helper", [sys.executable, "-c", _PROGRAM, str(path), "0"], path)
    with (tmp_path / "log").open("ab") as output, subprocess.Popen([program]) as machine:
        try:
            attached.start(helper, tmp_path / "log", output.fileno(), beside=process(machine)).touch()
            time.sleep(1.5)  # it is looked at several times
            assert is_running(str(path))
        finally:
            machine.kill()
        wait_for_end(str(path))  # though its parent has not asked how the machine ended


def test_program_ends_where_another_process_has_the_machine_s_number(tmp_path: Path) -> None:
    path = tmp_path / "pr"
    helper = Helper("helper", [sys.executable, "-c", _PROGRAM, str(path), "0"], path)
    with (tmp_path / "log").open("ab") as output, subprocess.Popen(["sleep", "60"]) as other:
        try:
            pid, started = process(other)
            with contextlib.suppress(HelperFailed):  # it may have ended before it was found ready
                attached.start(helper, tmp_path / "log", output.fileno(), beside=(pid, started - 1)).touch()
            wait_for_end(str(path))
            assert other.poll() is None
        finally:
            other.kill()


def test_a_program_is_ready_when_it_listens(tmp_path: Path) -> None:
    path = tmp_path / "pr"
    with (tmp_path / "log").open("ab") as output, subprocess.Popen(["sleep", "60"]) as machine:
        helper = Helper("helper", [sys.executable, "-c", _PROGRAM, str(path), "0.5"], path)
        try:
            attached.start(helper, tmp_path / "log", output.fileno(), beside=process(machine))
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(path))  # it was refused while the program was there and did not listen yet
        finally:
            machine.kill()

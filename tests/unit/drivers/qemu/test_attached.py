"""Programs that serve a device which came into a running machine end with it, however soon that is."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

from hostel.drivers.qemu.helper import attached
from hostel.drivers.qemu.process import Helper

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


def test_program_ends_with_a_machine_that_is_gone_at_once(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    path = run / "pr"
    with (tmp_path / "log").open("ab") as output, subprocess.Popen(["sleep", "60"]) as machine:
        helper = Helper("helper", [sys.executable, "-c", _PROGRAM, str(path), "0"], path)
        taken = attached.start(helper, tmp_path / "log", output.fileno(), beside=machine.pid)
        taken.touch()
        machine.kill()
        machine.wait(20)
        shutil.rmtree(run)
    deadline = time.monotonic() + 60
    while is_running(str(path)):
        assert time.monotonic() < deadline, (tmp_path / "log").read_text()
        time.sleep(0.05)


def test_a_program_is_ready_when_it_listens(tmp_path: Path) -> None:
    path = tmp_path / "pr"
    with (tmp_path / "log").open("ab") as output, subprocess.Popen(["sleep", "60"]) as machine:
        helper = Helper("helper", [sys.executable, "-c", _PROGRAM, str(path), "0.5"], path)
        try:
            attached.start(helper, tmp_path / "log", output.fileno(), beside=machine.pid)
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(path))  # it was refused while the program was there and did not listen yet
        finally:
            machine.kill()

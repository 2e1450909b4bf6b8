"""Programs that serve a device which came into a running machine end with it, however soon that is."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

from hostel.drivers.qemu.helper import attached
from hostel.drivers.qemu.process import Helper

# Serves nobody, on a socket of its own, until it is ended.
_PROGRAM = "import signal, socket, sys; s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); signal.pause()"


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
    socket = run / "pr"
    with (tmp_path / "log").open("ab") as output, subprocess.Popen(["sleep", "60"]) as machine:
        helper = Helper("helper", [sys.executable, "-c", _PROGRAM, str(socket)], socket)
        taken = attached.start(helper, tmp_path / "log", output.fileno(), beside=machine.pid)
        taken.touch()
        machine.kill()
        machine.wait(20)
        shutil.rmtree(run)
    deadline = time.monotonic() + 60
    while is_running(str(socket)):
        assert time.monotonic() < deadline, (tmp_path / "log").read_text()
        time.sleep(0.05)

"""The process that listens to one machine for as long as that runs."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

from hostel.drivers.store import Directories, is_locked

PROGRAM = "import sys; from hostel.drivers.qemu.keeper import main; main(sys.argv[1:])"
SECONDS = 30  # it looks each five


def test_keeper_ends_with_its_run_though_a_later_one_has_a_keeper_at_the_same_path(tmp_path: Path) -> None:
    (run := tmp_path / "run").mkdir()
    directories = Directories.under(tmp_path / "home")
    words = [sys.executable, "-P", "-c", PROGRAM, "guest", str(run), *map(str, directories)]
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as keeper:
        try:
            deadline = time.monotonic() + SECONDS
            while not is_locked(run / "keeper"):
                assert time.monotonic() < deadline
                time.sleep(0.01)
            shutil.rmtree(run)
            run.mkdir()
            (run / "keeper").touch()
            assert keeper.wait(SECONDS) == 0
        finally:
            keeper.kill()

"""Where machines are kept."""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
from itertools import count
from pathlib import Path

from hostel.drivers.qemu.machines import Machines
from hostel.drivers.store import Directories


def test_run_begins_though_something_of_the_last_one_still_writes_into_its_directory() -> None:
    """As its supervisor does, which stands in there."""
    with tempfile.TemporaryDirectory() as home:  # its name is short enough for the run to be in there
        machines = Machines(Directories.under(Path(home)))
        for _ in range(50):
            last = os.open(machines.run_directory("guest"), os.O_RDONLY | os.O_DIRECTORY)
            is_over = threading.Event()
            writer = threading.Thread(target=_write, args=(last, is_over))
            writer.start()
            try:
                assert list(machines.run_directory("guest").iterdir()) == []
            finally:
                is_over.set()
                writer.join(60)
                os.close(last)


def _write(directory: int, is_over: threading.Event) -> None:
    with contextlib.suppress(FileNotFoundError):  # the directory is gone
        for number in count():
            os.close(os.open(f"exit{number % 16}", os.O_WRONLY | os.O_CREAT, 0o600, dir_fd=directory))
            if is_over.is_set():
                return

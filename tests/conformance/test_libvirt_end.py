"""A program that uses hostel.libvirt, as it ends."""

from __future__ import annotations

import subprocess
import sys

from support import hosteld


def test_program_that_leaves_a_connection_open_ends() -> None:
    with hosteld.process() as daemon:
        code = f"import hostel.libvirt as libvirt\nc = libvirt.open({daemon.uri()!r})\nprint(c.getType())"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "TEST\n", "")

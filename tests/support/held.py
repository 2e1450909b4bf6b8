"""A program that not even SIGKILL ends, as far as its parent is told: as where the kernel cannot end it yet."""

from __future__ import annotations

import sys
from pathlib import Path

# Who traces a process is told of its end first, and its parent only after that: as where the kernel cannot end it yet.
_HELD = """
import ctypes, os, pathlib, signal, sys, time
libc = ctypes.CDLL(None, use_errno=True)
libc.prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4
libc.ptrace.argtypes = [ctypes.c_long] * 4
libc.prctl(0x59616D61, 2**64 - 1, 0, 0, 0)  # PR_SET_PTRACER, any
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork():
    while True:
        signal.pause()
seized = libc.ptrace(0x4206, os.getppid(), 0, 0) == 0  # PTRACE_SEIZE
os.write(1, b"+" if seized else b"-")
deadline = time.monotonic() + 30
while not os.path.exists(sys.argv[1]) and time.monotonic() < deadline:
    time.sleep(0.02)
"""


def write_held(command: Path, release: Path) -> None:
    """Write the program as ``command``; it writes ``+`` once nobody can end it, until the file ``release`` is there.

    Where this user may not trace a process it writes ``-``, and can be ended as others.
    """
    script = command.with_suffix(".py")
    script.write_text(_HELD)
    command.write_text(f"#!/bin/sh\nexec '{sys.executable}' '{script}' '{release}'\n")
    command.chmod(0o755)

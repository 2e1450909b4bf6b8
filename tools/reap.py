#!/usr/bin/env python3
"""Run a program, and bury those of its descendants whose parents have ended.

    tools/reap.py PROGRAM [ARGUMENT...]

What detaches itself (QEMU, daemons) is a child of process 1 from then on, and stays a zombie until that one asks for
it. Some take seconds, or never do, and whoever waits for such a process to be gone, as libvirtd does, waits as long.
Here it is done at once. Ends as the program does.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from types import FrameType

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


def main(command: list[str]) -> int:
    """Run the command; its exit status, or 128 and the signal that ended it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    program: subprocess.Popen[bytes] | None = None
    early: list[int] = []

    def pass_on(number: int, _frame: FrameType | None) -> None:
        if program is None:
            early.append(number)
        else:
            os.kill(program.pid, number)  # not waited for before the loop ends, so the number is still its own

    # Before the program begins, which is told to end by whoever sees that it has. A handler is not inherited.
    signal.signal(signal.SIGINT, lambda _number, _frame: None)  # a terminal sends it to the program too
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, pass_on)
    program = subprocess.Popen(command)
    for asked in early:
        os.kill(program.pid, asked)
    while True:
        pid, status = os.wait()
        if pid == program.pid:
            for number in (signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

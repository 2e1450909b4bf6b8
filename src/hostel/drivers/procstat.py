"""What the kernel says of a process that is known by its number: ``/proc/PID/stat``, proc(5)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, NamedTuple

_TICK: Final = 1_000_000_000 // os.sysconf("SC_CLK_TCK")  # nanoseconds


class ProcessStat(NamedTuple):
    """What is known of a process, or of a thread.

    Attributes:
        state: a letter, as ps(1) has it.
        user: nanoseconds that it has run.
        system: nanoseconds that the host has run for it.
        started: when it was started, in clock ticks since boot.
        cpu: the CPU that it was last on.
    """

    state: str
    user: int
    system: int
    started: int
    cpu: int


def read(pid: int, thread: int | None = None) -> ProcessStat:
    """What is known of a process as a whole, or of one of its threads.

    Raises:
        OSError: there is none.
    """
    path = f"/proc/{pid}/stat" if thread is None else f"/proc/{pid}/task/{thread}/stat"
    # The second field is its name in parentheses, which may have blanks and parentheses itself.
    fields = Path(path).read_text(errors="replace").rpartition(")")[2].split()
    return ProcessStat(fields[0], int(fields[11]) * _TICK, int(fields[12]) * _TICK, int(fields[19]), int(fields[36]))


def start_time(pid: int) -> int | None:
    """When a process was started, in clock ticks since boot; None where there is none, or only its number is left."""
    try:
        found = read(pid)
    except OSError:
        return None
    return None if found.state in "ZX" else found.started


def runs(pid: int, started: int) -> bool:
    """Whether this very process still runs: the number may have been given to another since."""
    return start_time(pid) == started


def cpu_times(pid: int) -> tuple[int, int] | None:
    """CPU time used so far, in nanoseconds, by a process and by the host for it; None where there is none."""
    try:
        found = read(pid)
    except OSError:
        return None
    return found.user, found.system

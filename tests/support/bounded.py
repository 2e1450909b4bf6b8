"""Running code on hostile input in a child process that has little memory, little time and small files."""

from __future__ import annotations

import os
import pickle
import resource
import select
import signal
import sys
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
MIB = 1 << 20


def bounded(call: Callable[[], T], *, memory: int = 192 * MIB, seconds: float = 60, file_size: int = 1 << 30) -> T:
    """Call in a forked child and return what it returned (picklable).

    Args:
        call: what to run.
        memory: bytes that it may allocate beyond what the process has now.
        seconds: after these it is killed.
        file_size: bytes that a file may grow to.

    Raises:
        AssertionError: it raised, ran too long or was killed.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        _run(call, writing, memory, file_size)
    os.close(writing)
    try:
        answer = _collect(reading, time.monotonic() + seconds)
    finally:
        os.close(reading)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    assert answer is not None, f"not done after {seconds} seconds"
    assert answer, f"the child died: {os.waitstatus_to_exitcode(status)}"
    good, value = pickle.loads(answer)
    assert good, value
    result: T = value
    return result


def _run(call: Callable[[], object], writing: int, memory: int, file_size: int) -> None:
    code = 1
    try:
        with open("/proc/self/statm") as stream:
            present = int(stream.read().split()[0]) * os.sysconf("SC_PAGESIZE")
        resource.setrlimit(resource.RLIMIT_AS, (present + memory, present + memory))
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        try:
            answer = pickle.dumps((True, call()))
        except BaseException:
            import traceback

            answer = pickle.dumps((False, traceback.format_exc()))
        with os.fdopen(writing, "wb") as stream:
            stream.write(answer)
        code = 0
    finally:
        sys.stderr.flush()
        os._exit(code)


def _collect(reading: int, deadline: float) -> bytes | None:
    """All that the child says; None where it says nothing in time."""
    answer = b""
    while (left := deadline - time.monotonic()) > 0:
        if not select.select([reading], [], [], left)[0]:
            break
        part = os.read(reading, 1 << 16)
        if not part:
            return answer
        answer += part
    return None

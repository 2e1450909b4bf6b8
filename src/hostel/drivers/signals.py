"""Signals for processes that are known by a number, which is another process's once they are gone."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable
from typing import Final

_MISSING: Final = (errno.ENOSYS, errno.EPERM)  # before Linux 5.3, and where a filter of system calls does not know it
_NO_PROCESS: Final = (errno.ENOENT, errno.EINVAL)  # but a thread of one; the latter until Linux 6.15, and for 0


def send(pid: int, number: int, is_it: Callable[[], bool]) -> bool:
    """Send a signal to the process that has a number, if that is it; whether it was.

    What is looked at gets the signal, or nothing does: also where it ends meanwhile, and the number is given away.

    Raises:
        OSError: it is not ours to send one to.
    """
    try:
        process = _opened(pid)
        try:
            if not is_it():
                return False
            if process is None:
                os.kill(pid, number)
            else:
                signal.pidfd_send_signal(process, number)
        finally:
            if process is not None:
                os.close(process)
    except ProcessLookupError:
        return False
    return True


def _opened(pid: int) -> int | None:
    """A descriptor of a process; None where the kernel has none.

    Raises:
        ProcessLookupError: there is no process of this number.
    """
    try:
        return os.pidfd_open(pid)
    except OSError as error:
        if error.errno in _MISSING:
            return None
        if error.errno in _NO_PROCESS:
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH)) from error
        raise

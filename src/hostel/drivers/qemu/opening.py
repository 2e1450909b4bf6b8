"""Opening files that somebody has named, in which nobody is waited for: a pipe's other end may never come."""

from __future__ import annotations

import errno
import os
import stat
import time
from pathlib import Path
from typing import Final

_LEASE_SECONDS: Final = 60.0  # the host takes a lease away sooner (``/proc/sys/fs/lease-break-time``)
_POLL: Final = 0.05  # seconds


def open_named(path: str | Path, flags: int, mode: int = 0o600) -> int:
    """A descriptor of a file or device, as open(2) gives it; also an ``opener`` for :func:`open`.

    Raises:
        OSError: the host refused, or it is a named pipe.
    """
    try:
        descriptor = _open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK, mode)
    except OSError as error:
        if error.errno == errno.ENXIO and stat.S_ISFIFO(os.stat(path).st_mode):  # which nobody reads
            raise _no_file(path) from error
        raise
    if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _no_file(path)
    os.set_blocking(descriptor, True)  # whoever is given it expects that
    return descriptor


def _open(path: str | Path, flags: int, mode: int) -> int:
    """Open; who has a lease on the file is told to let go of it, and waited for."""
    deadline = time.monotonic() + _LEASE_SECONDS
    while True:
        try:
            return os.open(path, flags, mode)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(_POLL)


def _no_file(path: str | Path) -> OSError:
    return OSError(errno.ESPIPE, "It is a pipe, and no file", str(path))

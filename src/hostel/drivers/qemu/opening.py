"""Opening files that somebody has named, in which nobody is waited for: a pipe's other end may never come."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path


def open_named(path: str | Path, flags: int, mode: int = 0o600) -> int:
    """A descriptor of a file or device, as open(2) gives it; also an ``opener`` for :func:`open`.

    Raises:
        OSError: the host refused, or it is a named pipe.
    """
    try:
        descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK, mode)
    except OSError as error:
        if error.errno == errno.ENXIO and stat.S_ISFIFO(os.stat(path).st_mode):  # which nobody reads
            raise _no_file(path) from error
        raise
    if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _no_file(path)
    return descriptor


def _no_file(path: str | Path) -> OSError:
    return OSError(errno.ESPIPE, "It is a pipe, and no file", str(path))

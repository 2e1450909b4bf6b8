"""A file with a process id, locked for as long as the process lives."""

from __future__ import annotations

import contextlib
import fcntl
import os

from hostel.cause import sentence
from hostel.cause.holder import find_holders
from hostel.cli.qemu.failure import Failure


def write(path: str) -> int:
    """Write our process id into a file.

    Returns:
        The file's descriptor, which holds the lock.

    Raises:
        Failure: it cannot be written, or another process holds it; the text is QEMU's.
    """
    while (fd := _lock(path)) is None:
        pass
    try:
        os.ftruncate(fd, 0)
        os.write(fd, f"{os.getpid()}\n".encode())
    except OSError as error:
        os.close(fd)
        raise Failure(f"Failed to write pid file '{path}': {sentence(error)}") from None
    return fd


def _lock(path: str) -> int | None:
    """A descriptor that holds the file's lock; None where whoever had it before has removed it meanwhile."""
    try:
        fd = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Failure(f"Could not create '{path}': {sentence(error)}") from None
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        holders = ", ".join(find_holders(path))
        who = f"; it is that of {holders}" if holders else ""
        raise Failure(f"Cannot lock pid file '{path}': {error.strerror}{who}") from None
    with contextlib.suppress(FileNotFoundError):
        if os.path.samestat(os.fstat(fd), os.stat(path)):
            return fd
    os.close(fd)
    return None

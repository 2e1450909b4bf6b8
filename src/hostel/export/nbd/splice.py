"""Large reads without copying: pages of the file go through a pipe into the socket.

The pipe is filled before the reply begins. So what the disk cannot read is an error of the one request, and not the
end of the connection that it would be if the file were sent straight to the socket.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
from typing import Final, Self

from hostel.units import KiB

CAPACITY: Final = 256 * KiB  # bytes at once, if they begin on a page
_PIPE_SIZE: Final = 2 * CAPACITY


class Splice:
    """A pipe between one file and one socket; empty between calls."""

    def __init__(self, file: int, sock: socket.socket, readable: int, writable: int) -> None:
        self._file = file
        self._socket = sock
        self._readable = readable
        self._writable = writable
        self._held = 0

    @classmethod
    def open(cls, file: int, sock: socket.socket) -> Self | None:
        """Make the pipe; None where there is no room for one, which costs speed and nothing else."""
        if not hasattr(os, "splice"):
            return None
        try:
            readable, writable = os.pipe2(os.O_CLOEXEC)
        except OSError:
            return None
        with contextlib.suppress(OSError):
            fcntl.fcntl(writable, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
        return cls(file, sock, readable, writable)

    def fill(self, offset: int, length: int) -> int:
        """Take bytes from the file, up to what fits; 0 at its end, or where the file cannot be spliced.

        Raises:
            OSError: they cannot be read.
        """
        try:
            self._held = os.splice(self._file, self._writable, length, offset_src=offset)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
        return self._held

    def drain(self) -> None:
        """Send what :meth:`fill` has taken.

        Raises:
            OSError: the connection broke.
        """
        while self._held:
            self._held -= os.splice(self._readable, self._socket.fileno(), self._held)

    def drop(self) -> None:
        """Forget what :meth:`fill` has taken."""
        while self._held:
            self._held -= len(os.read(self._readable, self._held))

    def close(self) -> None:
        """Release the pipe."""
        os.close(self._readable)
        os.close(self._writable)

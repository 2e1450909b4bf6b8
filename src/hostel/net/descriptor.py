"""A descriptor that several threads use, and any of them may close."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Iterator


class Descriptor:
    """Closed when it is said, or once the last who uses it has left it: until then nobody else gets its number.

    Args:
        fd: open; this object's from now on.
        others: closed with it.

    Attributes:
        is_closed: nobody is let at it any more; who uses it should end.
    """

    def __init__(self, fd: int, *others: int) -> None:
        self.is_closed = False
        self._fd = fd
        self._others = others
        self._users = 0
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def use(self) -> Iterator[int]:
        """The number, good until the block is left.

        Raises:
            OSError: EBADF: it is closed.
        """
        with self._lock:
            if self.is_closed:
                raise OSError(errno.EBADF, os.strerror(errno.EBADF))
            self._users += 1
        try:
            yield self._fd
        finally:
            with self._lock:
                self._users -= 1
                is_last = self.is_closed and not self._users
            if is_last:
                self._release()

    def close(self) -> None:
        """Close it; twice is once."""
        with self._lock:
            if self.is_closed:
                return
            self.is_closed = True
            is_last = not self._users
        if is_last:
            self._release()

    def _release(self) -> None:
        with contextlib.ExitStack() as stack:
            for fd in (self._fd, *self._others):
                stack.callback(os.close, fd)

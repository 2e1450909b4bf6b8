"""Waking a thread that waits for descriptors.

What wakes it is a descriptor too, and whoever wakes is often late: a thread that ends, a signal that comes while
everything is taken down. Its number may be another file's by then, into which eight bytes would be written.
"""

from __future__ import annotations

import contextlib
import os
import threading


class Waker:
    """Readable for ``poll`` and the like from :meth:`wake` on until :meth:`clear`.

    Any number of threads may wait for it; closing it wakes nobody.
    """

    def __init__(self) -> None:
        # A signal handler may come while its thread holds the lock.
        self._lock = threading.RLock()
        self._fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def fileno(self) -> int:
        """The descriptor, -1 once it is closed."""
        return self._fd

    def wake(self) -> None:
        """Wake who waits; once it is closed, do nothing. For any thread, and for a signal handler."""
        with self._lock, contextlib.suppress(BlockingIOError):  # it is readable already
            if self._fd >= 0:
                os.eventfd_write(self._fd, 1)

    def clear(self) -> None:
        """Be no longer readable; for who was woken."""
        with self._lock, contextlib.suppress(BlockingIOError):
            if self._fd >= 0:
                os.eventfd_read(self._fd)

    def close(self) -> None:
        """Release the descriptor, once nobody waits for it any more; it happens too when nobody knows this any more."""
        with self._lock:
            fd, self._fd = self._fd, -1
            if fd >= 0:
                os.close(fd)

    def __del__(self) -> None:
        self.close()

"""Waking a thread that waits for descriptors.

What wakes it is a descriptor too, and whoever wakes is often late: a thread that ends, a signal that comes while
everything is taken down. Its number may be another file's by then, into which would be written.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from typing import Final

_FULL: Final = 65536  # bytes that a pipe holds


class Waker:
    """Readable for ``poll`` and the like from :meth:`wake` on until :meth:`clear`.

    Any number of threads may wait for it; closing it wakes nobody.
    """

    def __init__(self) -> None:
        # A signal handler may come while its thread holds the lock.
        self._lock = threading.RLock()
        self._fd = self._end = -1
        # Python writes a byte for a signal, for which an eventfd would have no room.
        self._fd, self._end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def fileno(self) -> int:
        """The descriptor, -1 once it is closed."""
        return self._fd

    def wake(self) -> None:
        """Wake who waits; once it is closed, do nothing. For any thread, and for a signal handler."""
        with self._lock, contextlib.suppress(BlockingIOError):  # it is readable already
            if self._end >= 0:
                os.write(self._end, b"\0")

    def clear(self) -> None:
        """Be no longer readable; for who was woken."""
        with self._lock, contextlib.suppress(BlockingIOError):
            if self._fd >= 0:
                os.read(self._fd, _FULL)

    @contextlib.contextmanager
    def woken_by_signals(self) -> Iterator[None]:
        """Wake for signals that have a handler, too, in the thread that runs these; in another one do nothing.

        A handler runs between two steps of Python. Of a signal that comes when the last step before a wait is done, and
        the wait has not begun, it would run when that is over, which may be never.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.set_wakeup_fd(self._end, warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)

    def close(self) -> None:
        """Release the descriptor, once nobody waits for it any more; it happens too when nobody knows this any more."""
        with self._lock:
            both, self._fd, self._end = (self._fd, self._end), -1, -1
            for fd in both:
                if fd >= 0:
                    os.close(fd)

    def __del__(self) -> None:
        self.close()

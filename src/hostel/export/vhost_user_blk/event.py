"""What the front end is told something by: a descriptor of its own, usually an eventfd."""

from __future__ import annotations

import contextlib
import os
from typing import Final

_ONE: Final = (1).to_bytes(8, "little")


class Event:
    """An event that one thread tells, while another may give it another descriptor.

    It has one number from its first descriptor on, behind which other files are put. So a number that is about to be
    written to is never free meanwhile, and never an image's.

    Attributes:
        is_set: whether there is somebody to be told.
    """

    __slots__ = ("_fd", "is_set")

    def __init__(self) -> None:
        self._fd = -1
        self.is_set = False

    def put(self, fd: int) -> None:
        """Tell through this descriptor from now on, which is the event's then; through none where it is -1."""
        if fd < 0 and not self.is_set:
            return
        self.is_set = fd >= 0 and self._fd >= 0  # with one after the other, nothing is missed in between
        if self._fd < 0:
            self._fd = fd
        else:
            other = fd if fd >= 0 else os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.dup2(other, self._fd, inheritable=False)
            finally:
                os.close(other)
        self.is_set = fd >= 0

    def tell(self) -> None:
        """Tell it, where there is anybody; who has not heard of the last time yet hears of both at once."""
        if self.is_set:
            with contextlib.suppress(BlockingIOError):
                os.write(self._fd, _ONE)

    def close(self) -> None:
        """Release it, once nobody tells it any more; it happens too when nobody knows this any more."""
        fd, self._fd, self.is_set = self._fd, -1, False
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        self.close()

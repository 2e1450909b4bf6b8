"""A guest's pseudo terminal as a stream; one at a time unless forced."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import termios
import time
import tty
from pathlib import Path
from typing import Final

from hostel.errors import ErrorCode, ErrorDomain, VirtError

_WRITE_SECONDS: Final = 30.0


class PtyStream:
    """An open pseudo terminal; holds a lock file for as long as it is attached."""

    def __init__(self, path: str, lock: Path, *, force: bool) -> None:
        """Attach.

        Raises:
            VirtError: somebody else is attached and ``force`` is false, or the terminal cannot be opened.
        """
        self._lock = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not force:
                    message = "operation failed: Active console session exists for this domain"
                    raise VirtError(ErrorCode.OPERATION_FAILED, message, domain=ErrorDomain.QEMU) from None
            try:
                self._terminal = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError as error:
                message = f"cannot open console '{path}': {error.strerror}"
                raise VirtError(ErrorCode.SYSTEM_ERROR, message, domain=ErrorDomain.QEMU) from error
        except BaseException:
            os.close(self._lock)
            raise
        with contextlib.suppress(termios.error):
            tty.setraw(self._terminal)

    def read(self, length: int, timeout: float) -> bytes | None:
        """Read up to ``length`` bytes; ``b""`` at the end, None when nothing came in ``timeout`` seconds."""
        ready, _, _ = select.select([self._terminal], [], [], timeout)
        if not ready:
            return None
        try:
            return os.read(self._terminal, length)
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno == errno.EIO:
                return b""
            raise

    def write(self, data: bytes) -> None:
        """Write all of ``data``.

        Raises:
            TimeoutError: the guest took nothing for 30 seconds.
        """
        deadline = time.monotonic() + _WRITE_SECONDS
        while data:
            _, ready, _ = select.select([], [self._terminal], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise TimeoutError(errno.ETIMEDOUT, "the guest does not read its console")
            data = data[os.write(self._terminal, data) :]

    def close(self) -> None:
        """Detach; may be called twice."""
        if self._terminal >= 0:
            os.close(self._terminal)
            os.close(self._lock)
            self._terminal = self._lock = -1

"""Going to the background: the one who was called returns when the server listens, with what it had to say."""

from __future__ import annotations

import os
import sys
from typing import Final

_READY: Final = b"\0"


class Background:
    """The server's side: a process of its own session whose errors still go to the one who was called."""

    def __init__(self, status: int) -> None:
        self._status = status

    def ready(self) -> None:
        """Let the one who was called return successfully; what is said from here on is said to nobody."""
        sys.stderr.flush()
        os.dup2(1, 2)
        os.write(self._status, _READY)
        os.close(self._status)


def fork() -> Background | int:
    """Fork; the server gets a :class:`Background`, and the one who was called its exit code, once that is known."""
    sys.stdout.flush()
    sys.stderr.flush()
    errors, errors_end = os.pipe()
    status, status_end = os.pipe()
    if os.fork():
        os.close(errors_end)
        os.close(status_end)
        while text := os.read(errors, 4096):
            sys.stderr.buffer.write(text)
            sys.stderr.buffer.flush()
        return 0 if os.read(status, 1) == _READY else 1
    os.close(errors)
    os.close(status)
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.dup2(errors_end, 2)
    os.close(null)
    os.close(errors_end)
    return Background(status_end)

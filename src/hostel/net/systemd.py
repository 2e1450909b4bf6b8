"""Sockets that whoever started us has opened: systemd's protocol, ``sd_listen_fds(3)``."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from typing import Final

_FIRST: Final = 3  # the first descriptor handed over


def count(environment: Mapping[str, str]) -> int:
    """How many sockets were handed to this process; 0 where none were."""
    try:
        if int(environment["LISTEN_PID"]) != os.getpid():
            return 0
        return max(0, int(environment["LISTEN_FDS"]))
    except (KeyError, ValueError):
        return 0


def listeners(number: int) -> list[socket.socket]:
    """Take the sockets.

    Raises:
        OSError: one is no socket.
    """
    taken = []
    for fd in range(_FIRST, _FIRST + number):
        os.set_inheritable(fd, False)
        taken.append(socket.socket(fileno=fd))
    return taken

"""Sockets that whoever started us has opened, and that we are told the numbers of."""

from __future__ import annotations

import errno
import fcntl
import os
import socket


def take(number: int) -> socket.socket:
    """Take an inherited socket, which is ours from then on.

    What this process has opened itself, or taken before, is somebody's here already: with two owners, one would go on
    with a number that the other has closed, and that is another file's by then. All of it is marked not to be
    inherited, which what we were started with cannot be.

    Raises:
        OSError: the number is no such socket's; it stays open.
    """
    try:
        flags = fcntl.fcntl(number, fcntl.F_GETFD)
    except OverflowError:
        flags = fcntl.FD_CLOEXEC
    if flags & fcntl.FD_CLOEXEC:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    taken = socket.socket(fileno=number)
    os.set_inheritable(number, False)
    return taken


def give_back(taken: socket.socket) -> None:
    """Leave a socket open that was taken, and is of no use."""
    os.set_inheritable(taken.detach(), True)

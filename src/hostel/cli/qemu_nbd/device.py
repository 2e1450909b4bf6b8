"""The kernel's NBD devices: what ``-c`` and ``-d`` are about."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from typing import Final

from hostel.cli.img.arguments import Failure

# linux/nbd.h
_CLEAR_SOCKET: Final = 0xAB04
_DISCONNECT: Final = 0xAB08


def disconnect(path: str) -> None:
    """Let go of the server that a device is connected to; one that is connected to none stays so.

    Raises:
        Failure: it cannot be opened, or is no NBD device.
    """
    with _opened(path, f"Cannot open {path}") as fd:
        for request in (_CLEAR_SOCKET, _DISCONNECT):
            try:
                fcntl.ioctl(fd, request)
            except OSError as error:
                if error.errno in (errno.ENOTTY, errno.EPERM, errno.EACCES):
                    raise Failure(f"Cannot disconnect {path}: {error.strerror}") from None


def refuse_connection(path: str) -> None:
    """Say why a device is not connected.

    Raises:
        Failure: always.
    """
    with _opened(path, f"Failed to open {path}"):
        raise Failure(
            "--connect needs the kernel's NBD client, which is not driven from here: serve the image, and use "
            "nbd-client"
        )


@contextlib.contextmanager
def _opened(path: str, failure: str) -> Iterator[int]:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise Failure(f"{failure}: {error.strerror}") from None
    try:
        yield fd
    finally:
        os.close(fd)

"""Copy on write of btrfs, which images fragment by: turned off for a directory or a new file (``virFileSetCOW``)."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
from typing import Final

from hostel.drivers.fault import system_fault
from hostel.errors import ErrorDomain

_BTRFS: Final = 0x9123683E  # its magic, as statfs tells it
_GET_FLAGS: Final = 0x80086601  # linux/fs.h
_SET_FLAGS: Final = 0x40086602
_NO_COW: Final = 0x00800000
_STATUS_LENGTH: Final = 256  # of struct statfs, and more


def set_cow(path: str, state: bool | None, *, shown: str = "") -> None:
    """Say whether what is made in a directory, or a file that is still empty, is copied on write.

    Args:
        path: the directory or file.
        state: None: not, where the file system can do without.
        shown: the file's name in errors, where it is another.

    Raises:
        VirtError: ``SYSTEM_ERROR``: something is asked for, and the file system cannot.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            if _kind(descriptor) == _BTRFS:
                _set(descriptor, on=state is True)
            elif state is not None:
                error = OSError(errno.ENOSYS, "")
                raise system_fault(
                    error, f"unable to control COW flag on '{shown or path}', not btrfs", ErrorDomain.STORAGE
                )
        finally:
            os.close(descriptor)
    except OSError as error:
        if state is not None:
            raise system_fault(error, f"unable control COW flag on '{shown or path}'", ErrorDomain.STORAGE) from error


def _set(descriptor: int, *, on: bool) -> None:
    (flags,) = struct.unpack("=l", fcntl.ioctl(descriptor, _GET_FLAGS, bytes(4)))
    wanted = flags & ~_NO_COW if on else flags | _NO_COW
    fcntl.ioctl(descriptor, _SET_FLAGS, struct.pack("=l", wanted))


def _kind(descriptor: int) -> int:
    """The magic of a file's file system."""
    buffer = ctypes.create_string_buffer(_STATUS_LENGTH)
    library = ctypes.CDLL(None, use_errno=True)
    if library.fstatfs(descriptor, buffer):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return ctypes.c_long.from_buffer(buffer).value & 0xFFFFFFFF

"""What a file system is asked for a new file, so that an image fragments less."""

from __future__ import annotations

import contextlib
import fcntl
import struct
from typing import Final

# Linux's ioctls for a file's flags and extended attributes, and struct fsxattr.
_GET_FLAGS: Final = 0x80086601
_SET_FLAGS: Final = 0x40086602
_NO_COPY_ON_WRITE: Final = 0x00800000
_GET_ATTRIBUTES: Final = 0x801C581F
_SET_ATTRIBUTES: Final = 0x401C5820
_ATTRIBUTES: Final = "=IIIII8s"
_EXTENT_SIZE: Final = 0x00000800


def set_hints(fd: int, *, no_copy_on_write: bool, extent_size: int) -> None:
    """Ask the file system for what makes an image fragment less; most have neither."""
    if no_copy_on_write:
        with contextlib.suppress(OSError):
            (flags,) = struct.unpack("=l", fcntl.ioctl(fd, _GET_FLAGS, bytes(4)))
            fcntl.ioctl(fd, _SET_FLAGS, struct.pack("=l", flags | _NO_COPY_ON_WRITE))
    with contextlib.suppress(OSError):
        flags, _, *rest = struct.unpack(_ATTRIBUTES, fcntl.ioctl(fd, _GET_ATTRIBUTES, bytes(28)))
        fcntl.ioctl(fd, _SET_ATTRIBUTES, struct.pack(_ATTRIBUTES, flags | _EXTENT_SIZE, extent_size, *rest))

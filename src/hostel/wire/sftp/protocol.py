"""The numbers and shapes of SFTP version 3 that files are opened, read and written with (sections 3 to 7)."""

from __future__ import annotations

import struct
from enum import IntEnum, IntFlag
from typing import Final

VERSION: Final = 3
MAX_PACKET: Final = 256 * 1024  # bytes, of what no server goes beyond; the specification asks for 34,000
FSYNC: Final = b"fsync@openssh.com"  # an extension: PROTOCOL of OpenSSH, section 4.3

NUMBER: Final = struct.Struct(">I")
LONG: Final = struct.Struct(">Q")


class Kind(IntEnum):
    """What a packet is."""

    INIT = 1
    VERSION = 2
    OPEN = 3
    CLOSE = 4
    READ = 5
    WRITE = 6
    FSTAT = 8
    FSETSTAT = 10
    STATUS = 101
    HANDLE = 102
    DATA = 103
    ATTRS = 105
    EXTENDED = 200


class Code(IntEnum):
    """How a request went; a later version's may be none of them."""

    OK = 0
    EOF = 1
    NO_SUCH_FILE = 2
    PERMISSION_DENIED = 3
    FAILURE = 4
    BAD_MESSAGE = 5
    NO_CONNECTION = 6
    CONNECTION_LOST = 7
    OP_UNSUPPORTED = 8


class OpenFlag(IntFlag):
    """What a file is opened for."""

    READ = 1
    WRITE = 2
    APPEND = 4
    CREAT = 8
    TRUNC = 16
    EXCL = 32


class AttributeFlag(IntFlag):
    """Which attributes follow."""

    SIZE = 1
    UIDGID = 2
    PERMISSIONS = 4
    ACMODTIME = 8


def string(data: bytes) -> bytes:
    """Bytes with their number before them."""
    return NUMBER.pack(len(data)) + data


def attributes(*, size: int | None = None, permissions: int | None = None) -> bytes:
    """A file's attributes, those that are told: its size in bytes, and who may do what."""
    flags, values = 0, b""
    if size is not None:
        flags |= AttributeFlag.SIZE
        values += LONG.pack(size)
    if permissions is not None:
        flags |= AttributeFlag.PERMISSIONS
        values += NUMBER.pack(permissions)
    return NUMBER.pack(flags) + values

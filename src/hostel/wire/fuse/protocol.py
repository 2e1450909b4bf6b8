"""FUSE's messages: a request of the kernel is a header and a body by its kind, and so is an answer."""

from __future__ import annotations

import enum
import struct
from typing import Final

from hostel.codec.record import Record, i32, u16, u32, u64
from hostel.errors import RemoteProtocolError

MAJOR: Final = 7
MINOR: Final = 31  # the newest that is spoken here
OLDEST: Final = 28  # from here on requests may have more pages than 32
ROOT: Final = 1  # the number of the only file
MAX_TRANSFER: Final = 1 << 20  # bytes of one read or write
_PAGES: Final = MAX_TRANSFER // 4096


class Opcode(enum.IntEnum):
    """What the kernel asks for."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    FSYNC = 20
    FLUSH = 25
    INIT = 26
    INTERRUPT = 36
    DESTROY = 38
    BATCH_FORGET = 42
    FALLOCATE = 43
    LSEEK = 46


# What gets no answer.
SILENT: Final = frozenset({Opcode.FORGET, Opcode.BATCH_FORGET, Opcode.INTERRUPT, Opcode.DESTROY})


class InitFlag(enum.IntFlag):
    """What both sides can."""

    ASYNC_READ = 1 << 0
    BIG_WRITES = 1 << 5
    AUTO_INVAL_DATA = 1 << 12
    ASYNC_DIO = 1 << 15
    MAX_PAGES = 1 << 22


class Set(enum.IntFlag):
    """Which attributes SETATTR sets."""

    MODE = 1 << 0
    UID = 1 << 1
    GID = 1 << 2
    SIZE = 1 << 3
    HANDLE = 1 << 6
    LOCK_OWNER = 1 << 9
    KILL_SUID_GID = 1 << 11


class RequestHeader(Record, endian="little"):
    """What begins every request; ``length`` counts it and what follows, in bytes."""

    length: u32
    opcode: u32
    unique: u64
    node: u64
    uid: u32
    gid: u32
    pid: u32
    padding: u32


class ReplyHeader(Record, endian="little"):
    """What begins every answer; ``error`` is a negative errno, or 0."""

    length: u32
    error: i32
    unique: u64


class Init(Record, endian="little"):
    """The kernel's first words."""

    major: u32
    minor: u32
    max_readahead: u32
    flags: u32


class InitReply(Record, endian="little"):
    """Ours."""

    major: u32
    minor: u32
    max_readahead: u32
    flags: u32
    max_background: u16
    congestion_threshold: u16
    max_write: u32
    time_granularity: u32
    max_pages: u16
    map_alignment: u16
    flags2: u32
    unused0: u64
    unused1: u64
    unused2: u64
    unused3: u32


class AttributesReply(Record, endian="little"):
    """The file's attributes; times in seconds, ``valid`` for so long."""

    valid: u64
    valid_nsec: u32
    dummy: u32
    inode: u64
    size: u64
    blocks: u64
    atime: u64
    mtime: u64
    ctime: u64
    atime_nsec: u32
    mtime_nsec: u32
    ctime_nsec: u32
    mode: u32
    nlink: u32
    uid: u32
    gid: u32
    rdev: u32
    blksize: u32
    flags: u32


class SetAttributes(Record, endian="little"):
    """New attributes, of which ``valid`` (:class:`Set`) says which count."""

    valid: u32
    padding: u32
    handle: u64
    size: u64
    lock_owner: u64
    atime: u64
    mtime: u64
    ctime: u64
    atime_nsec: u32
    mtime_nsec: u32
    ctime_nsec: u32
    mode: u32
    unused4: u32
    uid: u32
    gid: u32
    unused5: u32


class OpenReply(Record, endian="little"):
    """A handle, of which none is needed."""

    handle: u64
    flags: u32
    padding: u32


class Transfer(Record, endian="little"):
    """A read, or a write whose data follows; bytes."""

    handle: u64
    offset: u64
    size: u32
    flags: u32
    lock_owner: u64
    open_flags: u32
    padding: u32


class WriteReply(Record, endian="little"):
    """How many bytes were written."""

    size: u32
    padding: u32


class Fallocate(Record, endian="little"):
    """A range in bytes, and ``fallocate(2)``'s mode."""

    handle: u64
    offset: u64
    length: u64
    mode: u32
    padding: u32


class Seek(Record, endian="little"):
    """``lseek(2)`` for data or a hole."""

    handle: u64
    offset: u64
    whence: u32
    padding: u32


class StatfsReply(Record, endian="little"):
    """``statfs(2)``, in blocks of ``bsize`` bytes."""

    blocks: u64
    bfree: u64
    bavail: u64
    files: u64
    ffree: u64
    bsize: u32
    namelen: u32
    frsize: u32
    padding: u32
    spare0: u64
    spare1: u64
    spare2: u64


_OFFSET: Final = struct.Struct("<Q")


def head(unique: int, length: int) -> bytes:
    """What comes before an answer's body of ``length`` bytes."""
    return ReplyHeader(length=ReplyHeader.SIZE + length, error=0, unique=unique).pack()


def failure(unique: int, code: int) -> bytes:
    """An answer that is an errno."""
    return ReplyHeader(length=ReplyHeader.SIZE, error=-code, unique=unique).pack()


def offset(value: int) -> bytes:
    """The body that answers a seek."""
    return _OFFSET.pack(value)


def greet(init: Init) -> bytes:
    """The body that answers INIT.

    Raises:
        RemoteProtocolError: the kernel speaks an older version.
    """
    if (init.major, init.minor) < (MAJOR, OLDEST):
        raise RemoteProtocolError(f"the kernel speaks FUSE {init.major}.{init.minor}, and {MAJOR}.{OLDEST} is needed")
    wanted = (
        InitFlag.ASYNC_READ | InitFlag.BIG_WRITES | InitFlag.AUTO_INVAL_DATA | InitFlag.ASYNC_DIO | InitFlag.MAX_PAGES
    )
    return InitReply(
        major=MAJOR,
        minor=MINOR,
        max_readahead=init.max_readahead,
        flags=init.flags & wanted,
        max_background=16,
        congestion_threshold=12,
        max_write=MAX_TRANSFER,
        time_granularity=1,
        max_pages=_PAGES,
        map_alignment=0,
        flags2=0,
        unused0=0,
        unused1=0,
        unused2=0,
        unused3=0,
    ).pack()

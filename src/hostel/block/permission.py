"""Permissions on a file, and the byte-range locks that make other processes respect them.

QEMU's ``file`` driver takes open-file-description locks: a shared lock on byte ``100 + bit`` for each permission it
uses, and on byte ``200 + bit`` for each it does not share (``block/file-posix.c``). Ours and QEMU's thereby refuse each
other's writers.
"""

from __future__ import annotations

import contextlib
import enum
import fcntl
import os
import struct

from hostel.errors import ImageLocked

_PERMISSION_BASE = 100
_UNSHARED_BASE = 200


class Permission(enum.IntFlag):
    """``BLK_PERM_*``."""

    NONE = 0
    CONSISTENT_READ = 1
    WRITE = 2
    WRITE_UNCHANGED = 4
    RESIZE = 8
    ALL = 15


# By their bits: plain numbers, since an operation on an enum's member takes longer than a lock.
_NAMES = {
    permission.bit_length() - 1: name
    for permission, name in (
        (Permission.CONSISTENT_READ, "consistent read"),
        (Permission.WRITE, "write"),
        (Permission.WRITE_UNCHANGED, "write unchanged"),
        (Permission.RESIZE, "resize"),
    )
}


def lock(fd: int, path: str, used: Permission, shared: Permission, *, former: int | None = None) -> None:
    """Lock an open file for ``used`` permissions, sharing ``shared`` with others; the locks end with ``fd``.

    ``former`` is the same file as we have had it open until now. Its locks exclude us as they do others, and are given
    up, though not before ours say to others that the file is in use.

    Raises:
        ImageLocked: another process uses what we do not share, or does not share what we use.
    """
    uses, keeps = int(used), int(Permission.ALL) & ~int(shared)
    try:
        _lock_bytes(fd, _PERMISSION_BASE, uses)
        _lock_bytes(fd, _UNSHARED_BASE, keeps)
    except OSError as error:
        raise _locked(path, f"Failed to lock byte range of '{path}': {os.strerror(error.errno or 0)}") from None
    if former is not None:
        unlock(former)
    for bit, name in _NAMES.items():
        if uses >> bit & 1 and _held(fd, _UNSHARED_BASE + bit):
            raise _locked(path, f'Failed to get "{name}" lock')
        if keeps >> bit & 1 and _held(fd, _PERMISSION_BASE + bit):
            raise _locked(path, f'Failed to get shared "{name}" lock')


def unlock(fd: int) -> None:
    """Give up all locks that were taken through an open file."""
    whole = struct.pack("hhqqi4x", fcntl.F_UNLCK, os.SEEK_SET, _PERMISSION_BASE, 2 * _PERMISSION_BASE, 0)
    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, whole)


def is_used(path: str) -> bool:
    """Whether anybody has a file open as an image; nobody can tell where the file system has no locks.

    Raises:
        OSError: it cannot be opened.
    """
    places = [base + bit for base in (_PERMISSION_BASE, _UNSHARED_BASE) for bit in _NAMES]
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        with contextlib.suppress(OSError):
            return any(_held(fd, place) for place in places)
        return False
    finally:
        os.close(fd)


def _flock(kind: int, start: int) -> bytes:
    # struct flock on 64-bit Linux: l_type, l_whence, l_start, l_len, l_pid.
    return struct.pack("hhqqi4x", kind, os.SEEK_SET, start, 1, 0)


def _lock_bytes(fd: int, base: int, permissions: int) -> None:
    for bit in _NAMES:
        if permissions >> bit & 1:
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _flock(fcntl.F_RDLCK, base + bit))


def _held(fd: int, start: int) -> bool:
    answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _flock(fcntl.F_WRLCK, start))
    kind: int = struct.unpack_from("h", answer)[0]
    return kind != fcntl.F_UNLCK


def _locked(path: str, message: str) -> ImageLocked:
    from hostel.cause.holder import lock_hint

    return ImageLocked(message, hint=f"Is another process using the image [{path}]?\n{lock_hint(path)}")

"""libnfs, as far as a disk needs it: one file of one export."""

from __future__ import annotations

import ctypes
import errno
import functools
import os
from typing import Any, Final, NamedTuple, NoReturn

from hostel.block.protocols import shared_library
from hostel.errors import BlockError
from hostel.units import MiB

# Later versions pass the arguments of reads and writes in another order.
_SONAMES: Final = ("libnfs.so.14", "libnfs.so.13")
_TIMEOUT: Final = 60_000  # milliseconds for one call
_RECONNECTIONS: Final = 3
_MODE: Final = 0o600
_AT_ONCE: Final = MiB  # bytes of a call, where libnfs knows no limit: with version 4
_pointer = ctypes.c_void_p


class _Stat(ctypes.Structure):
    """``struct nfs_stat_64``."""

    _fields_ = tuple(
        (name, ctypes.c_uint64)
        for name in (
            *("dev", "ino", "mode", "nlink", "uid", "gid", "rdev", "size", "blksize", "blocks"),
            *("atime", "mtime", "ctime", "atime_nsec", "mtime_nsec", "ctime_nsec", "used"),
        )
    )


class FileStatus(NamedTuple):
    """A file's size, and what it occupies on the server; bytes."""

    size: int
    allocated: int


_SIGNATURES: Final[dict[str, tuple[Any, ...]]] = {
    # name: result, arguments
    "nfs_init_context": (_pointer,),
    "nfs_destroy_context": (None, _pointer),
    "nfs_get_error": (ctypes.c_char_p, _pointer),
    "nfs_get_readmax": (ctypes.c_uint64, _pointer),
    "nfs_get_writemax": (ctypes.c_uint64, _pointer),
    "nfs_set_timeout": (None, _pointer, ctypes.c_int),
    "nfs_set_autoreconnect": (None, _pointer, ctypes.c_int),
    "nfs_set_version": (ctypes.c_int, _pointer, ctypes.c_int),
    "nfs_set_uid": (None, _pointer, ctypes.c_int),
    "nfs_set_gid": (None, _pointer, ctypes.c_int),
    "nfs_set_tcp_syncnt": (None, _pointer, ctypes.c_int),
    "nfs_set_readahead": (None, _pointer, ctypes.c_uint32),
    "nfs_set_pagecache": (None, _pointer, ctypes.c_uint32),
    "nfs_set_pagecache_ttl": (None, _pointer, ctypes.c_uint32),
    "nfs_set_debug": (None, _pointer, ctypes.c_int),
    "nfs_mount": (ctypes.c_int, _pointer, ctypes.c_char_p, ctypes.c_char_p),
    "nfs_umount": (ctypes.c_int, _pointer),
    "nfs_open": (ctypes.c_int, _pointer, ctypes.c_char_p, ctypes.c_int, ctypes.POINTER(_pointer)),
    "nfs_creat": (ctypes.c_int, _pointer, ctypes.c_char_p, ctypes.c_int, ctypes.POINTER(_pointer)),
    "nfs_close": (ctypes.c_int, _pointer, _pointer),
    "nfs_fstat64": (ctypes.c_int, _pointer, _pointer, ctypes.POINTER(_Stat)),
    "nfs_pread": (ctypes.c_int, _pointer, _pointer, ctypes.c_uint64, ctypes.c_uint64, _pointer),
    "nfs_pwrite": (ctypes.c_int, _pointer, _pointer, ctypes.c_uint64, ctypes.c_uint64, _pointer),
    "nfs_fsync": (ctypes.c_int, _pointer, _pointer),
    "nfs_ftruncate": (ctypes.c_int, _pointer, _pointer, ctypes.c_uint64),
}


@functools.cache
def _library() -> ctypes.CDLL:
    return shared_library.load(
        "nfs", _SONAMES, _SIGNATURES, "Install the package libnfs13 (libnfs14 on newer systems)."
    )


class Session:
    """A connection to one export and one file in it. One thread at a time.

    Args:
        settings: values for libnfs by the names of its setters, such as ``uid``.
    """

    def __init__(self, settings: dict[str, int]) -> None:
        self._nfs = _library()
        self._context = self._nfs.nfs_init_context()
        if not self._context:
            raise BlockError("Failed to init NFS context", errno=errno.ENOMEM)
        self._file: Any = None
        self._mounted = False
        for name, value in {"timeout": _TIMEOUT, "autoreconnect": _RECONNECTIONS, **settings}.items():
            getattr(self._nfs, f"nfs_set_{name}")(self._context, value)

    def mount(self, host: str, folder: str) -> None:
        """Connect.

        Raises:
            BlockError: it failed; the text is QEMU's.
        """
        self._require(self._nfs.nfs_mount(self._context, host.encode(), folder.encode()), "Failed to mount nfs share: ")
        self._mounted = True

    def open(self, path: str, *, writable: bool) -> None:
        """Open a file of the export.

        Raises:
            BlockError: it failed; the text is QEMU's.
        """
        handle = _pointer()
        flags = os.O_RDWR if writable else os.O_RDONLY
        code = self._nfs.nfs_open(self._context, os.fsencode(path), flags, ctypes.byref(handle))
        self._require(code, "Failed to open file : ")
        self._file = handle

    def create(self, path: str) -> None:
        """Create a file of the export, or empty it, and open it for writing.

        Raises:
            BlockError: it failed; the text is QEMU's.
        """
        handle = _pointer()
        code = self._nfs.nfs_creat(self._context, os.fsencode(path), _MODE, ctypes.byref(handle))
        self._require(code, "Failed to create file: ")
        self._file = handle

    def status(self) -> FileStatus:
        """Ask for the file's size.

        Raises:
            BlockError: it failed; the text is QEMU's.
        """
        status = _Stat()
        code = self._nfs.nfs_fstat64(self._context, self._file, ctypes.byref(status))
        self._require(code, "Failed to fstat file: ")
        return FileStatus(status.size, status.blocks * 512)

    def read(self, offset: int, buf: memoryview) -> int:
        """Read as much as the server gives at once; 0 at the file's end."""
        count = min(len(buf), self._nfs.nfs_get_readmax(self._context) or _AT_ONCE)
        place = (ctypes.c_char * count).from_buffer(buf)
        done: int = self._nfs.nfs_pread(self._context, self._file, offset, count, ctypes.addressof(place))
        self._require(done, "NFS Error: ")
        if done > count:
            raise BlockError("NFS Error: the server sends more than it was asked for", errno=errno.EIO)
        return done

    def write(self, offset: int, data: memoryview) -> int:
        """Write as much as the server takes at once, but some."""
        count = min(len(data), self._nfs.nfs_get_writemax(self._context) or _AT_ONCE)
        place = (
            ctypes.c_char_p(data[:count].tobytes())
            if data.readonly
            else ctypes.cast((ctypes.c_char * count).from_buffer(data), ctypes.c_char_p)
        )
        done: int = self._nfs.nfs_pwrite(self._context, self._file, offset, count, place)
        self._require(done, "NFS Error: ")
        if not 0 < done <= count:
            raise BlockError("NFS Error: the server does not take what is written", errno=errno.EIO)
        return done

    def sync(self) -> None:
        """Have the server store what was written."""
        self._require(self._nfs.nfs_fsync(self._context, self._file), "NFS Error: ")

    def truncate(self, size: int) -> None:
        """Set the file's size in bytes.

        Raises:
            BlockError: it failed; the text is QEMU's.
        """
        code = self._nfs.nfs_ftruncate(self._context, self._file, size)
        if code < 0:
            raise BlockError(f"Failed to truncate file: {os.strerror(-code)}", errno=-code)

    def close(self) -> None:
        """Close the file and disconnect."""
        if self._file is not None:
            self._nfs.nfs_close(self._context, self._file)
            self._file = None
        if self._mounted:
            self._nfs.nfs_umount(self._context)
            self._mounted = False
        if self._context:
            self._nfs.nfs_destroy_context(self._context)
            self._context = None

    def _require(self, code: int, doing: str) -> None:
        if code < 0:
            self._fail(code, doing)

    def _fail(self, code: int, doing: str) -> NoReturn:
        said = self._nfs.nfs_get_error(self._context) or os.strerror(-code).encode()
        raise BlockError(f"{doing}{said.decode(errors='replace')}", errno=-code)

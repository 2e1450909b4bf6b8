"""libgfapi, as far as a disk needs it: one file of one volume."""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import threading
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from hostel.block.protocols import shared_library
from hostel.errors import BlockError
from hostel.units import MiB

_MODE: Final = 0o600
_AT_ONCE: Final = 64 * MiB  # bytes of a call with data; some versions fail with a GiB
_pointer = ctypes.c_void_p
_text = ctypes.c_char_p
_int = ctypes.c_int
_off = ctypes.c_int64
_size = ctypes.c_size_t
_ssize = ctypes.c_ssize_t
# Reads, writes and syncs tell of the file before and after, for whoever wants to know.
_status = ctypes.c_void_p

_SIGNATURES: Final[dict[str, tuple[Any, ...]]] = {
    # name: result, arguments; as of version 6
    "glfs_new": (_pointer, _text),
    "glfs_set_volfile_server": (_int, _pointer, _text, _text, _int),
    "glfs_set_logging": (_int, _pointer, _text, _int),
    "glfs_set_xlator_option": (_int, _pointer, _text, _text, _text),
    "glfs_init": (_int, _pointer),
    "glfs_fini": (_int, _pointer),
    "glfs_open": (_pointer, _pointer, _text, _int),
    "glfs_creat": (_pointer, _pointer, _text, _int, ctypes.c_uint),
    "glfs_close": (_int, _pointer),
    "glfs_pread": (_ssize, _pointer, _pointer, _size, _off, _int, _status),
    "glfs_pwrite": (_ssize, _pointer, _pointer, _size, _off, _int, _status, _status),
    "glfs_fsync": (_int, _pointer, _status, _status),
    "glfs_ftruncate": (_int, _pointer, _off, _status, _status),
    "glfs_fallocate": (_int, _pointer, _int, _off, _size),
    "glfs_zerofill": (_int, _pointer, _off, _off),
    "glfs_discard": (_int, _pointer, _off, _size),
    "glfs_lseek": (_off, _pointer, _off, _int),
    "glfs_fstat": (_int, _pointer, _pointer),
}
_STATUS_LENGTH: Final = 144  # of struct stat, on the machines with 64 bits
_BLOCKS: Final = 64  # where it has st_blocks


class Server(NamedTuple):
    """Where a volume's description is to be had.

    Attributes:
        transport: ``tcp`` or ``unix``.
        host: or the path of a socket.
        port: 0 with a socket.
    """

    transport: str
    host: str
    port: int


class Log(NamedTuple):
    """What the library tells of what it does: up to ``level`` (0 to 9), into a file; ``-`` is standard error."""

    path: str
    level: int


@functools.cache
def _library() -> ctypes.CDLL:
    return shared_library.load("gluster", ("libgfapi.so.0",), _SIGNATURES, "Install the package libgfapi0.")


class VolumeFile:
    """A file of a volume, with a connection of its own. Any number of threads.

    Args:
        volume: its name.
        servers: any of which can describe it.
        log: see :class:`Log`.

    Raises:
        BlockError: the servers cannot be reached, or do not know the volume.
    """

    def __init__(self, volume: str, servers: Sequence[Server], log: Log) -> None:
        self._lib = _library()
        self._file: Any = None
        self._written = False
        self._volume = self._lib.glfs_new(os.fsencode(volume))
        if not self._volume:
            raise BlockError(f"no Gluster volume can be called '{volume}'", errno=errno.EINVAL)
        try:
            for transport, host, port in servers:
                self._require(
                    self._lib.glfs_set_volfile_server(self._volume, transport.encode(), os.fsencode(host), port)
                )
            self._require(self._lib.glfs_set_logging(self._volume, os.fsencode(log.path), log.level))
            ctypes.set_errno(0)
            if self._lib.glfs_init(self._volume):
                # It does not always say why.
                code = ctypes.get_errno() or errno.EINVAL
                raise BlockError(os.strerror(code), errno=code)
            # Else what could not be synced is forgotten, and a sync that succeeds later means nothing.
            self._require(
                self._lib.glfs_set_xlator_option(
                    self._volume, b"*-write-behind", b"resync-failed-syncs-after-fsync", b"on"
                )
            )
        except BaseException:
            self.close()
            raise

    def open(self, path: str, *, writable: bool) -> None:
        """Open a file.

        Raises:
            BlockError: it failed.
        """
        self._file = self._lib.glfs_open(self._volume, os.fsencode(path), os.O_RDWR if writable else os.O_RDONLY)
        self._require(0 if self._file else -1)

    def create(self, path: str) -> None:
        """Create a file, or empty it, and open it for writing.

        Raises:
            BlockError: it failed.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC
        self._file = self._lib.glfs_creat(self._volume, os.fsencode(path), flags, _MODE)
        self._require(0 if self._file else -1)

    def size(self) -> int:
        """The file's size in bytes."""
        return self._require(self._lib.glfs_lseek(self._file, 0, os.SEEK_END))

    def allocated(self) -> int:
        """Bytes that the file occupies."""
        status = ctypes.create_string_buffer(_STATUS_LENGTH)
        self._require(self._lib.glfs_fstat(self._file, status))
        return ctypes.c_int64.from_buffer(status, _BLOCKS).value * 512

    def seek(self, offset: int, whence: int) -> int | None:
        """The next data or hole at or behind an offset; None where there is none.

        Raises:
            BlockError: it is not known.
        """
        found: int = self._lib.glfs_lseek(self._file, offset, whence)
        if found < 0 and ctypes.get_errno() == errno.ENXIO:
            return None
        return self._require(found)

    def read(self, offset: int, buf: memoryview) -> int:
        """Read some; 0 at the file's end."""
        part = buf[:_AT_ONCE]
        return self._require(
            self._lib.glfs_pread(self._file, shared_library.memory(part), len(part), offset, 0, None), "read"
        )

    def write(self, offset: int, data: memoryview) -> int:
        """Write some."""
        self._written = True
        part = data[:_AT_ONCE]
        memory = shared_library.memory(part)
        done = self._require(self._lib.glfs_pwrite(self._file, memory, len(part), offset, 0, None, None), "write")
        if not 0 < done <= len(part):
            raise BlockError("Gluster does not take what is written", errno=errno.EIO)
        return done

    def zerofill(self, offset: int, length: int) -> None:
        """Make a range zeroes, which grows the file where it lies beyond its end."""
        self._written = True
        self._require(self._lib.glfs_zerofill(self._file, offset, length), "zero")

    def discard(self, offset: int, length: int) -> None:
        """Give a range's space back; it reads as zeroes then."""
        self._written = True
        self._require(self._lib.glfs_discard(self._file, offset, length), "discard")

    def allocate(self, offset: int, length: int) -> None:
        """Reserve space, and grow the file where it lies beyond its end."""
        self._require(self._lib.glfs_fallocate(self._file, 0, offset, length), "Could not preallocate data", bare=True)

    def truncate(self, size: int) -> None:
        """Set the file's size in bytes."""
        self._written = True
        self._require(self._lib.glfs_ftruncate(self._file, size, None, None), "Could not resize file", bare=True)

    def sync(self) -> None:
        """Have the servers store what was written."""
        self._require(self._lib.glfs_fsync(self._file, None, None), "flush")
        self._written = False

    def close(self) -> None:
        """Close the file and disconnect.

        Raises:
            BlockError: what was written could not be stored.
        """
        try:
            # Closing does not wait for writes that are under way.
            if self._file and self._written:
                self.sync()
        finally:
            file, self._file = self._file, None
            if file:
                self._lib.glfs_close(file)
            volume, self._volume = self._volume, None
            if volume:
                # It waits for ten seconds for what does not come: nobody else should.
                threading.Thread(target=self._lib.glfs_fini, args=(volume,), daemon=True).start()

    def _require(self, code: int, doing: str = "", *, bare: bool = False) -> int:
        if code >= 0:
            return code
        reason = ctypes.get_errno() or errno.EIO
        text = os.strerror(reason)
        if doing:
            text = f"{doing}: {text}" if bare else f"Gluster failed to {doing}: {text}"
        raise BlockError(text, errno=reason)

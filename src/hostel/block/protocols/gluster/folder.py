"""The folders of a volume: what is in them, and removing it."""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import stat
from typing import Any, Final, NamedTuple

from hostel.block.protocols import shared_library
from hostel.block.protocols.gluster.library import VolumeFile
from hostel.errors import BlockError

_pointer = ctypes.c_void_p
_text = ctypes.c_char_p
_int = ctypes.c_int
_SIGNATURES: Final[dict[str, tuple[Any, ...]]] = {
    # name: result, arguments
    "glfs_opendir": (_pointer, _pointer, _text),
    "glfs_readdir": (_pointer, _pointer),
    "glfs_closedir": (_int, _pointer),
    "glfs_stat": (_int, _pointer, _text, _pointer),
    "glfs_statvfs": (_int, _pointer, _text, _pointer),
    "glfs_unlink": (_int, _pointer, _text),
    "glfs_rmdir": (_int, _pointer, _text),
}
_NAME: Final = 19  # where struct dirent has the name, on the machines with 64 bits
_NAME_LENGTH: Final = 256
_STATUS_LENGTH: Final = 256  # of struct stat and of struct statvfs, and more
# Where struct stat has mode, owner and group: its first members are not in the same order everywhere.
_WHO: Final = 24 if platform.machine() == "x86_64" else 16


class Status(NamedTuple):
    """A file as it is; sizes in bytes, times in nanoseconds since 1970."""

    mode: int
    owner: int
    group: int
    size: int
    allocated: int
    times: tuple[int, int, int]


@functools.cache
def _library() -> ctypes.CDLL:
    return shared_library.load("gluster", ("libgfapi.so.0",), _SIGNATURES, "Install the package libgfapi0.")


class VolumeFolder(VolumeFile):
    """A volume whose files are managed, with a connection of its own."""

    def names(self, path: str) -> list[str]:
        """What is in a folder, but for itself and the one above.

        Raises:
            BlockError: it cannot be read.
        """
        folder = _library().glfs_opendir(self._volume, os.fsencode(path))
        if not folder:
            raise _failure()
        found: list[str] = []
        try:
            while True:
                ctypes.set_errno(0)
                entry = _library().glfs_readdir(folder)
                if not entry:
                    if ctypes.get_errno():
                        raise _failure()
                    return [name for name in found if name not in (".", "..")]
                found.append(os.fsdecode(ctypes.string_at(entry + _NAME, _NAME_LENGTH).partition(b"\0")[0]))
        finally:
            _library().glfs_closedir(folder)

    def status(self, path: str) -> Status:
        """A file, or what a link leads to.

        Raises:
            BlockError: there is none (``ENOENT``, ``ELOOP``).
        """
        buffer = ctypes.create_string_buffer(_STATUS_LENGTH)
        _require(_library().glfs_stat(self._volume, os.fsencode(path), buffer))
        mode, owner, group = (ctypes.c_uint32.from_buffer(buffer, _WHO + 4 * n).value for n in range(3))
        number = (ctypes.c_int64 * (_STATUS_LENGTH // 8)).from_buffer(buffer)
        times = (number[9] * 10**9 + number[10], number[11] * 10**9 + number[12], number[13] * 10**9 + number[14])
        return Status(mode, owner, group, number[6], number[8] * 512, times)

    def room(self, path: str) -> tuple[int, int]:
        """Bytes that the file system of a folder has, and those that are free."""
        buffer = ctypes.create_string_buffer(_STATUS_LENGTH)
        _require(_library().glfs_statvfs(self._volume, os.fsencode(path), buffer))
        number = (ctypes.c_uint64 * (_STATUS_LENGTH // 8)).from_buffer(buffer)
        return number[1] * number[2], number[1] * number[3]

    def unlink(self, path: str) -> None:
        """Remove a file."""
        _require(_library().glfs_unlink(self._volume, os.fsencode(path)))

    def rmdir(self, path: str) -> None:
        """Remove an empty folder."""
        _require(_library().glfs_rmdir(self._volume, os.fsencode(path)))

    def bytes_at(self, path: str, offset: int, length: int) -> bytes:
        """What a file has there, as far as it goes."""
        self.open(path, writable=False)
        try:
            buffer = bytearray(length)
            done = self.read(offset, memoryview(buffer))
            return bytes(buffer[:done])
        finally:
            file, self._file = self._file, None
            self._lib.glfs_close(file)


def is_folder(status: Status) -> bool:
    """Whether a status is a folder's."""
    return stat.S_ISDIR(status.mode)


def _require(code: int) -> None:
    if code < 0:
        raise _failure()


def _failure() -> BlockError:
    code = ctypes.get_errno()
    return BlockError(os.strerror(code), errno=code)

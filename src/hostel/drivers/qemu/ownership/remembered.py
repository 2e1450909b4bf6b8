"""What a file was before machines had it, kept with the file, and how many have it (``security_util.c``).

Names and values of the extended attributes are libvirt's: a file that both daemons give away is counted once.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple, Protocol

_PREFIX: Final = "trusted.libvirt.security."
_UNSUPPORTED: Final = (errno.ENOSYS, errno.ENOTSUP, errno.EPERM, errno.EACCES, errno.EROFS)
_LOCK: Final = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, 1, 1, 0)  # the byte that libvirt locks
_LOCK_SECONDS: Final = 10.0
_LOCK_POLL: Final = 0.01
_SAME_BOOT: Final = 10  # seconds that computed times of one boot may be apart
_BOOT_TIME: Final = 2  # the type of an entry (utmp(5))
_UTMP: Final = struct.Struct("hi32s4s32s256shhiii36s")


class Mark(Protocol):
    """What one security driver writes on files, as text: whose they are, or a context."""

    @property
    def model(self) -> str:
        """The driver's name, which is in those of the attributes."""

    def read(self, path: str) -> str | None:
        """That of a file; None where it has none.

        Raises:
            OSError: the host refused.
        """

    def write(self, path: str, value: str) -> None:
        """Write it on a file.

        Raises:
            OSError: the host refused.
        """

    def normal(self, value: str) -> str:
        """A value in the form that :meth:`read` gives.

        Raises:
            ValueError: it is none.
        """

    def usual(self, path: str, mode: int) -> str | None:
        """That of a file which nobody remembers anything of; None where that cannot be told.

        Args:
            path: the file.
            mode: its type and permissions.
        """

    def passes(self, error: OSError) -> bool:
        """Whether a refusal does not keep a machine from trying: QEMU says what it cannot open."""

    def clash(self, path: str) -> str:
        """What is said of a file that another machine has otherwise."""

    def refusal(self, path: str, value: str) -> str:
        """What is said of a file that it cannot be written on."""


class Kept(NamedTuple):
    """What a file's attributes say.

    Attributes:
        value: what was written on it before.
        users: how many machines have it now.
    """

    value: str
    users: int


class OpenFile:
    """One file of the host, whatever becomes of its name meanwhile.

    Args:
        path: where it is.
        mark: what is written on it.

    Raises:
        OSError: it is not there.
    """

    def __init__(self, path: str, mark: Mark) -> None:
        self.path = path
        self._mark = mark
        self._descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        self._name = f"/proc/self/fd/{self._descriptor}"

    def __enter__(self) -> OpenFile:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    @property
    def mode(self) -> int:
        """Its type and permissions."""
        return os.fstat(self._descriptor).st_mode

    @property
    def value(self) -> str | None:
        """What is written on it."""
        return self._mark.read(self._name)

    @property
    def usual(self) -> str | None:
        """What is written on such a file by default."""
        return self._mark.usual(self.path, self.mode)

    def give(self, value: str) -> None:
        """Change what is written on it.

        Raises:
            OSError: the host refused.
        """
        if self.value != value:
            self._mark.write(self._name, value)

    @contextlib.contextmanager
    def locked(self) -> Iterator[bool]:
        """Hold it against whoever else changes attributes; gives False where a file of this kind takes no lock.

        Raises:
            OSError: somebody else has held it for too long (``EAGAIN``), or the host refused.
        """
        if not (stat.S_ISREG(self.mode) or stat.S_ISBLK(self.mode)):
            yield False
            return
        try:
            descriptor = os.open(self._name, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM, errno.ETXTBSY, errno.EBUSY):
                raise
            yield False  # read only, or on a server that takes root for nobody
            return
        try:
            deadline = time.monotonic() + _LOCK_SECONDS
            while True:
                try:
                    fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _LOCK)
                    break
                except OSError as error:
                    if error.errno not in (errno.EAGAIN, errno.EACCES):
                        break  # a file system without locks
                    if time.monotonic() >= deadline:
                        raise OSError(errno.EAGAIN, "unable to lock it for metadata change", self.path) from error
                    time.sleep(_LOCK_POLL)
            yield True
        finally:
            os.close(descriptor)

    def kept(self, *, of_any_boot: bool = False) -> Kept | None:
        """What is remembered of it; None where that is nothing.

        Args:
            of_any_boot: whether what is from an earlier boot counts; else nobody has it any more.
        """
        try:
            value = self._mark.normal(os.getxattr(self._name, self._attribute("")).decode().rstrip("\0"))
            count = int(os.getxattr(self._name, self._attribute("ref_")))
        except (OSError, ValueError):
            return None
        try:
            stamp = int(os.getxattr(self._name, self._attribute("timestamp_")))
        except (OSError, ValueError):
            stamp = 0
        return Kept(value, count if of_any_boot or abs(stamp - boot_time()) <= _SAME_BOOT else 0)

    def keep(self, kept: Kept | None) -> bool:
        """Remember that, or nothing any more; False where the file system keeps no such thing.

        Raises:
            OSError: the host refused for another reason.
        """
        try:
            if kept is None:
                for prefix in ("ref_", "", "timestamp_"):
                    _remove(self._name, self._attribute(prefix))
                return True
            if kept.users == 1:
                os.setxattr(self._name, self._attribute(""), kept.value.encode())
                os.setxattr(self._name, self._attribute("timestamp_"), str(boot_time()).encode())
            # Last: without it there is nothing.
            os.setxattr(self._name, self._attribute("ref_"), str(kept.users).encode())
        except OSError as error:
            if error.errno in _UNSUPPORTED:
                return False
            raise
        return True

    def _attribute(self, prefix: str) -> str:
        return f"{_PREFIX}{prefix}{self._mark.model}"


def _remove(path: str, name: str) -> None:
    try:
        os.removexattr(path, name)
    except OSError as error:
        if error.errno != errno.ENODATA:
            raise


def boot_time() -> int:
    """When the host was started, in seconds since 1970, as libvirt has it (``virHostGetBootTime``)."""
    with contextlib.suppress(OSError):
        data = Path("/var/run/utmp").read_bytes()
        for fields in _UTMP.iter_unpack(data[: len(data) - len(data) % _UTMP.size]):
            if fields[0] == _BOOT_TIME and fields[9]:
                return int(fields[9])
    return round(int(time.time()) - float(Path("/proc/uptime").read_text().split()[0]))

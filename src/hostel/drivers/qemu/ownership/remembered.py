"""Whose a file was, kept with the file, and how many machines it is given to (``security_util.c``).

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
from typing import Final, NamedTuple

from hostel.drivers.qemu.ownership.user import Owner

_OWNER: Final = "trusted.libvirt.security.dac"
_COUNT: Final = "trusted.libvirt.security.ref_dac"
_BOOT: Final = "trusted.libvirt.security.timestamp_dac"
_UNSUPPORTED: Final = (errno.ENOSYS, errno.ENOTSUP, errno.EPERM, errno.EACCES, errno.EROFS)
_LOCK: Final = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, 1, 1, 0)  # the byte that libvirt locks
_LOCK_SECONDS: Final = 10.0
_LOCK_POLL: Final = 0.01
_SAME_BOOT: Final = 10  # seconds that computed times of one boot may be apart
_BOOT_TIME: Final = 2  # the type of an entry (utmp(5))
_UTMP: Final = struct.Struct("hi32s4s32s256shhiii36s")


class Kept(NamedTuple):
    """What a file's attributes say.

    Attributes:
        owner: whose it was.
        users: how many machines have it now.
    """

    owner: Owner
    users: int


class OpenFile:
    """One file of the host, whatever becomes of its name meanwhile.

    Raises:
        OSError: it is not there.
    """

    def __init__(self, path: str) -> None:
        self.path = path
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
    def owner(self) -> Owner:
        """Whose it is."""
        status = os.fstat(self._descriptor)
        return Owner(status.st_uid, status.st_gid)

    def give(self, owner: Owner) -> None:
        """Change its owner.

        Raises:
            OSError: the host refused.
        """
        if self.owner != owner:
            os.chown(self._name, owner.uid, owner.gid)

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
            owner = _read_owner(os.getxattr(self._name, _OWNER))
            count = int(os.getxattr(self._name, _COUNT))
        except (OSError, ValueError):
            return None
        try:
            stamp = int(os.getxattr(self._name, _BOOT))
        except (OSError, ValueError):
            stamp = 0
        return Kept(owner, count if of_any_boot or abs(stamp - boot_time()) <= _SAME_BOOT else 0)

    def keep(self, kept: Kept | None) -> bool:
        """Remember that, or nothing any more; False where the file system keeps no such thing.

        Raises:
            OSError: the host refused for another reason.
        """
        try:
            if kept is None:
                for name in (_COUNT, _OWNER, _BOOT):
                    _remove(self._name, name)
                return True
            if kept.users == 1:
                os.setxattr(self._name, _OWNER, kept.owner.label.encode())
                os.setxattr(self._name, _BOOT, str(boot_time()).encode())
            os.setxattr(self._name, _COUNT, str(kept.users).encode())  # last: without it there is nothing
        except OSError as error:
            if error.errno in _UNSUPPORTED:
                return False
            raise
        return True


def _remove(path: str, name: str) -> None:
    try:
        os.removexattr(path, name)
    except OSError as error:
        if error.errno != errno.ENODATA:
            raise


def _read_owner(value: bytes) -> Owner:
    user, _, group = value.decode("ascii").partition(":")
    return Owner(int(user.removeprefix("+")), int(group.removeprefix("+")))


def boot_time() -> int:
    """When the host was started, in seconds since 1970, as libvirt has it (``virHostGetBootTime``)."""
    with contextlib.suppress(OSError):
        data = Path("/var/run/utmp").read_bytes()
        for fields in _UTMP.iter_unpack(data[: len(data) - len(data) % _UTMP.size]):
            if fields[0] == _BOOT_TIME and fields[9]:
                return int(fields[9])
    return round(int(time.time()) - float(Path("/proc/uptime").read_text().split()[0]))

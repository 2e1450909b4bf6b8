"""Protocols ``host_device``, ``host_cdrom`` and ``host_floppy``: block devices of this host.

A device has a size of its own, so that nothing beyond its end is read or written and it is never resized. What Linux
offers for it are ioctls: ``include/uapi/linux/fs.h`` and ``cdrom.h``.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import struct
from collections.abc import Iterator
from typing import Final, Self

from hostel.block.driver import OpenMode, Supports
from hostel.block.extent import Extent, Status
from hostel.block.powers import Preallocation
from hostel.block.protocols.file import CREATING, FileDriver
from hostel.block.protocols.file_space import UNSUPPORTED
from hostel.errors import BlockError, UnsupportedFeature
from hostel.units import SECTOR

_PUNCH_HOLE: Final = 2 | 1  # keeping the size
_IS_READ_ONLY: Final = 0x125E  # BLKROGET
_BLOCK_SIZE: Final = 0x1268  # BLKSSZGET
_DISCARD: Final = 0x1277  # BLKDISCARD
_ZERO_OUT: Final = 0x127F  # BLKZEROOUT
_DRIVE_STATUS: Final = 0x5326  # CDROM_DRIVE_STATUS
_CURRENT_SLOT: Final = 2**31 - 1
_DISC_OK: Final = 4
_FLOPPY_MAJOR: Final = 2


class HostDeviceDriver(FileDriver):
    """A block device, or a character device that can be read as one."""

    name = "host_device"
    supports = Supports.WRITE | Supports.ZEROES | Supports.DISCARD | Supports.ENDS
    starts_as_zeroes = False
    _creating = False

    def __init__(self, fd: int, path: str, *, no_flush: bool, direct: bool = False, locking: bool = True) -> None:
        super().__init__(fd, path, no_flush=no_flush, direct=direct, locking=locking)
        self._is_block = stat.S_ISBLK(os.fstat(fd).st_mode)
        self._can_zero_out = self._is_block

    @classmethod
    def open(cls, path: str, mode: OpenMode) -> Self:
        """Open a device.

        Raises:
            BlockError: it cannot be opened, is none, or cannot be written.
        """
        driver = super().open(path, mode)
        try:
            if not mode.read_only and driver.is_read_only:
                raise BlockError(
                    f"The device is not writable: {os.strerror(errno.EACCES)}",
                    errno=errno.EACCES,
                    hint=f"'{path}' can be opened for reading only.",
                )
            driver._require_medium()
        except BaseException:
            driver.close()
            raise
        return driver

    @classmethod
    def create(cls, path: str, mode: OpenMode, *, emptied: bool = True) -> Self:
        """Open a device in which an image is laid out, once nobody else is found to use it; it keeps what it holds.

        Raises:
            BlockError: it cannot be opened, or written.
            ImageLocked: another process uses it.
        """
        driver = cls.open(path, mode)
        try:
            driver.lock(*CREATING)
        except BaseException:
            driver.close()
            raise
        driver._creating = True
        return driver

    @classmethod
    def _require(cls, path: str, kind: int) -> None:
        if not (stat.S_ISBLK(kind) or stat.S_ISCHR(kind)):
            raise BlockError(
                f"'{cls.name}' driver requires '{path}' to be either a character or block device", errno=errno.EINVAL
            )

    def _require_medium(self) -> None:
        """Refuse a drive without a medium, where that can be told."""

    @property
    def is_read_only(self) -> bool:
        """Whether the host says that the device cannot be written."""
        return self._is_block and bool(self._number(_IS_READ_ONLY))

    @property
    def block_size(self) -> int:
        """Bytes of a logical block."""
        return (self._number(_BLOCK_SIZE) if self._is_block else 0) or 512

    @property
    def length(self) -> int:
        """The device's size in bytes; a character device has none."""
        try:
            return self._lseek(0, os.SEEK_END)
        except OSError:
            return 0

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """All data: a device does not say which blocks are in use."""
        yield Extent(offset, length, Status.DATA | Status.ALLOCATED, offset)

    def write_zeroes(self, offset: int, length: int, *, unmap: bool) -> None:
        """Zero a range by asking the device, or else by writing."""
        if unmap and self._can_punch:
            self._can_punch = self._try_fallocate(_PUNCH_HOLE, offset, length)
            if self._can_punch:
                return
        whole = not (offset | length) % self.block_size
        if whole and self._can_zero_out:
            self._can_zero_out = self._range(_ZERO_OUT, offset, length)
            if self._can_zero_out:
                return
        self._write_zeroes_out(offset, length)

    def zeroes_fast(self, offset: int, length: int, *, unmap: bool) -> bool:
        """Whether the device zeroes, as far as is known."""
        return self._can_zero_out or (unmap and self._can_punch)

    def discard(self, offset: int, length: int) -> None:
        """Tell the device that whole blocks are not needed."""
        size = self.block_size
        first, end = -(-offset // size) * size, (offset + length) // size * size
        if first < end and self._is_block and self._can_punch:
            self._can_punch = self._range(_DISCARD, first, end - first)
            self.discarded.count(end - first if self._can_punch else 0)

    def resize(self, size: int, preallocation: Preallocation = Preallocation.OFF) -> None:
        """Refuse: a device has the size it has. An image may be laid out in more room than it needs.

        Raises:
            UnsupportedFeature: always, but for that (ENOSPC where it is too small).
            BlockError: it is too small for the image, or preallocation was asked for.
        """
        if preallocation is not Preallocation.OFF:
            raise BlockError(
                f"Preallocation mode '{preallocation.value}' unsupported for this non-regular file", errno=errno.ENOTSUP
            )
        if not self._creating and size != self.length:
            code = errno.ENOSPC if size > self.length else errno.ENOTSUP
            raise UnsupportedFeature("Cannot resize device files", errno=code)
        if size > self.length:
            raise BlockError(
                "Cannot grow device files", errno=errno.EINVAL, hint=f"'{self._path}' has {self.length} bytes."
            )
        if self._creating:
            # What was there must not be taken for the new image.
            self.write_zeroes(0, min(SECTOR, self.length), unmap=False)

    def preallocate(self, offset: int, length: int) -> None:
        """Nothing: a device has all its blocks."""

    def _number(self, request: int) -> int:
        with contextlib.suppress(OSError):
            (value,) = struct.unpack("i", fcntl.ioctl(self._fd, request, bytes(4)))
            return int(value)
        return 0

    def _range(self, request: int, offset: int, length: int) -> bool:
        """An ioctl on a range of bytes; False where the device does not know it."""
        try:
            with self.changing(offset, length):
                fcntl.ioctl(self._fd, request, struct.pack("QQ", offset, length))
        except OSError as error:
            if error.errno in UNSUPPORTED:
                return False
            raise OSError(error.errno, error.strerror, self._path) from None
        return True

    def _try_fallocate(self, mode: int, offset: int, length: int) -> bool:
        return self._is_block and self._fallocate(mode, offset, length)


class HostCdromDriver(HostDeviceDriver):
    """An optical drive."""

    name = "host_cdrom"

    def _require_medium(self) -> None:
        if not self.has_medium:
            raise BlockError("No medium found", errno=errno.ENOMEDIUM)

    @property
    def has_medium(self) -> bool:
        """Whether a disc is in the drive; what is no drive is taken for a disc that is always there."""
        try:
            return fcntl.ioctl(self._fd, _DRIVE_STATUS, _CURRENT_SLOT) == _DISC_OK
        except OSError:
            return True


class HostFloppyDriver(HostDeviceDriver):
    """A floppy disk drive."""

    name = "host_floppy"

    def _require_medium(self) -> None:
        # A drive without a disk opens without waiting for one, and cannot be read.
        if self._is_block and os.major(os.fstat(self._fd).st_rdev) == _FLOPPY_MAJOR:
            try:
                os.pread(self._fd, 512, 0)
            except OSError as error:
                raise BlockError("No medium found", errno=errno.ENOMEDIUM) from error


_DRIVERS: Final[dict[str, type[HostDeviceDriver]]] = {
    driver.name: driver for driver in (HostDeviceDriver, HostCdromDriver, HostFloppyDriver)
}


def driver_for(path: str, name: str) -> type[HostDeviceDriver]:
    """The driver of a name; where there is none, the one that a device is for."""
    if name:
        return _DRIVERS[name]
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return HostDeviceDriver
    try:
        fcntl.ioctl(fd, _DRIVE_STATUS, _CURRENT_SLOT)
    except OSError:
        return HostDeviceDriver
    else:
        return HostCdromDriver
    finally:
        os.close(fd)

"""The kernel's NBD client, ``/dev/nbdN``: given a connection it makes a disk of an export (``linux/nbd.h``).

A disk that is let go of keeps nothing that was written to it and is still in the host's page cache, and the kernel does
not say so. So what is there is written out first.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import socket
import threading
import time
from collections.abc import Callable
from typing import Final

from hostel.errors import BlockError
from hostel.net.descriptor import Descriptor
from hostel.units import INT64_MAX
from hostel.wire.nbd.client import Export

_SECTOR: Final = 512  # bytes
_SET_SOCKET, _SET_BLOCK_SIZE, _RUN, _CLEAR_SOCKET, _CLEAR_QUEUE = 0xAB00, 0xAB01, 0xAB03, 0xAB04, 0xAB05
_SET_BLOCKS, _DISCONNECT, _SET_FLAGS = 0xAB07, 0xAB08, 0xAB0A
_READ_PARTITIONS: Final = 0x125F  # BLKRRPART
_START_SECONDS, _STEP = 10.0, 0.01
_FLAGS: Final = 0xFFFF  # those of the export that the kernel is told of
_IOCTL: Final = ctypes.CDLL(None, use_errno=True).ioctl
_IOCTL.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong)  # fcntl.ioctl takes 32 bits: too few for 1 TiB


class KernelClient:
    """An open device of the kernel's client.

    Args:
        path: such as ``/dev/nbd0``.

    Raises:
        OSError: there is none, or it may not be opened for writing.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        # Who waits for the disk does so beside the one who is the disk, and may come when that has ended.
        self._device = Descriptor(os.open(path, os.O_RDWR | os.O_CLOEXEC))

    def attach(self, connection: socket.socket, export: Export) -> None:
        """Give it a connection whose handshake is done, without structured replies.

        Raises:
            BlockError: with QEMU's text; the kernel refused, as it does where the device has a connection.
        """
        block = max(_SECTOR, export.minimum)
        blocks = export.size // block
        if blocks > INT64_MAX:
            raise BlockError(f"Export size {export.size} too large for 32-bit kernel", errno=errno.E2BIG)
        for request, value, failure in (
            (_SET_SOCKET, connection.fileno(), "Failed to set NBD socket"),
            (_SET_BLOCK_SIZE, block, "Failed setting NBD block size"),
            (_SET_BLOCKS, blocks, "Failed setting size (in blocks)"),
            (_SET_FLAGS, export.flags & _FLAGS, "Failed setting flags"),
        ):
            try:
                self._ask(request, value)
            except OSError as error:
                if request != _SET_SOCKET:
                    self._clear()
                raise BlockError(failure, errno=error.errno, hint=self._why(error)) from None

    def run(self, started: Callable[[], None]) -> None:
        """Be the disk until it is disconnected, or the connection ends.

        Args:
            started: called, in another thread, when the disk and its partitions are there.

        Raises:
            OSError: the kernel refused.
        """
        threading.Thread(target=self._wait_for_disk, args=(started,), daemon=True).start()
        try:
            self._ask(_RUN)
        except BrokenPipeError:  # it was disconnected
            pass
        finally:
            self._clear()

    def flush(self) -> None:
        """Write out what the page cache has of the disk, where there is one.

        Raises:
            OSError: some of it cannot be written.
        """
        if self._is_connected():
            with self._device.use() as device:
                os.fsync(device)

    def disconnect(self) -> None:
        """End the connection that the device has, whoever made it; where it has none nothing is done.

        Raises:
            OSError: it is no device of the kernel's client, or we may not.
        """
        for request in (_CLEAR_QUEUE, _DISCONNECT, _CLEAR_SOCKET):
            try:
                self._ask(request)
            except OSError as error:
                if error.errno in (errno.ENOTTY, errno.EPERM, errno.EACCES):
                    raise

    def close(self) -> None:
        """Close the device, which goes on being the disk."""
        self._device.close()

    def _clear(self) -> None:
        self._attempt(_CLEAR_QUEUE)
        self._attempt(_CLEAR_SOCKET)

    def _wait_for_disk(self, started: Callable[[], None]) -> None:
        deadline = time.monotonic() + _START_SECONDS
        try:
            while not self._is_connected() and time.monotonic() < deadline:
                time.sleep(_STEP)
        except OSError:
            return  # it was closed: there will be no disk
        self._attempt(_READ_PARTITIONS)
        started()

    def _is_connected(self) -> bool:
        with self._device.use() as device:
            number = os.fstat(device).st_rdev
        return os.path.exists(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}/pid")  # of whose connection it is

    def _attempt(self, request: int) -> None:
        with contextlib.suppress(OSError):  # nothing was there to be ended, or no partitions can be
            self._ask(request)

    def _ask(self, request: int, value: int = 0) -> None:
        with self._device.use() as device:
            number = ctypes.get_errno() if _IOCTL(device, request, value) < 0 else 0
        if number:
            raise OSError(number, os.strerror(number), self.path)

    def _why(self, error: OSError) -> str:
        if error.errno in (errno.EBUSY, errno.EINVAL):
            return f"'{self.path}' may be connected already: qemu-nbd -d {self.path} ends that."
        if error.errno == errno.ENOTTY:
            return f"'{self.path}' is no device of the kernel's NBD client."
        return f"The kernel says: {error.strerror}."

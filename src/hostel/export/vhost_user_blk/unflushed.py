"""Whether the guest has written what no flush made durable, kept where our own end does not reach: with the front end.

An image may hold back what leads to data until it is flushed. Where our process is killed, that is gone, and whoever
serves the guest next would flush and say that all is well. The front end keeps a buffer for its back ends (vhost-user's
``INFLIGHT_SHMFD``), meant for a log of requests under way. We need none, since requests end in their order; behind the
log, which stays empty, there is a page of ours that says how the disk was left.
"""

from __future__ import annotations

import os
import struct
import threading
from typing import Final

from hostel.errors import NetworkError, RemoteProtocolError
from hostel.wire.vhost_user.message import Inflight

_PAGE: Final = 4096
_HEADER, _DESCRIPTOR, _ALIGNMENT = 16, 16, 64  # bytes of a queue's part of the log, and of its entries
_MAX_QUEUE: Final = 32768  # entries
_STATE: Final = struct.Struct("<8s16sB")  # magic, who wrote it, state
_MAGIC: Final = b"HOSTELUF"
_CLEAN, _UNFLUSHED, _LOST = 0, 1, 2


def create(queues: int, size: int) -> tuple[int, Inflight]:
    """Make a new buffer for so many queues of so many entries; its descriptor, and what is said of it.

    Raises:
        RemoteProtocolError: no queue is so large.
        NetworkError: there is no memory for it.
    """
    if not 0 < size <= _MAX_QUEUE:
        raise RemoteProtocolError(f"a log is wanted for queues of {size} entries")
    length = -(-(_HEADER + size * _DESCRIPTOR) // _ALIGNMENT) * _ALIGNMENT * queues
    length = -(-length // _PAGE) * _PAGE + _PAGE
    try:
        fd = os.memfd_create("vhost-user-blk-unflushed", os.MFD_CLOEXEC)
        os.ftruncate(fd, length)
    except OSError as error:
        raise NetworkError(f"a log of {length} bytes cannot be made: {error.strerror}") from None
    return fd, Inflight(mmap_size=length, mmap_offset=0, num_queues=queues, queue_size=size)


class Unflushed:
    """What is known of the writes that no flush has covered; used by the threads of all queues.

    Attributes:
        lost: what a back end before us held back went with it: no flush can promise anything any more.
    """

    def __init__(self) -> None:
        self.lost = False
        self._me = os.urandom(16)
        self._lock = threading.Lock()
        self._written = self._durable = 0
        self._is_marked = False
        self._fd = -1
        self._place = 0

    def keep(self, fd: int, described: Inflight) -> bool:
        """Keep the state in a buffer of the front end's, whose descriptor becomes ours; whether writes are found lost.

        Raises:
            RemoteProtocolError: the buffer is not in its file.
        """
        place = described.mmap_offset + described.mmap_size - _PAGE
        try:
            if described.mmap_size < _PAGE or os.fstat(fd).st_size < place + _PAGE:
                raise RemoteProtocolError(f"a log of {described.mmap_size} bytes is not in its file")
            magic, who, state = _STATE.unpack(os.pread(fd, _STATE.size, place))
        except BaseException:
            os.close(fd)
            raise
        with self._lock:
            self._forget()
            self._fd, self._place = fd, place
            if magic != _MAGIC:
                state = _CLEAN
            self.lost = state == _LOST or (state == _UNFLUSHED and who != self._me)
            # A guest that resets the disk gives a new buffer, and what it has written before is held back still.
            self._is_marked = self.is_owed and not self.lost
            self._mark(_LOST if self.lost else _UNFLUSHED if self._is_marked else _CLEAN)
        return self.lost

    def wrote(self) -> None:
        """A write was done, and the guest shall hear of it."""
        with self._lock:
            self._written += 1
            if self._fd >= 0 and not self._is_marked and not self.lost:
                self._mark(_UNFLUSHED)
                self._is_marked = True

    @property
    def written(self) -> int:
        """How many writes were done: what a flush that begins now covers."""
        return self._written

    def flushed(self, written: int) -> None:
        """A flush has covered so many writes."""
        with self._lock:
            self._durable = max(self._durable, written)
            if not self.is_owed and self._is_marked:
                self._mark(_CLEAN)
                self._is_marked = False

    @property
    def is_owed(self) -> bool:
        """Whether there are writes that no flush has covered."""
        return self._durable != self._written

    def forget(self) -> None:
        """Let the buffer go: its front end has gone, or starts anew."""
        with self._lock:
            self._forget()

    def _forget(self) -> None:
        fd, self._fd, self._is_marked, self.lost = self._fd, -1, False, False
        if fd >= 0:
            os.close(fd)  # which the front end's file system may fail: the number is free even so

    def _mark(self, state: int) -> None:
        if self._fd >= 0:
            # Not mapped: a front end that cuts the file off would end us.
            os.pwrite(self._fd, _STATE.pack(_MAGIC, self._me, state), self._place)

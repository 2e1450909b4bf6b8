"""Requests to an open file of this host, those that go past its node and past the host's cache among them."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Callable
from typing import Final, NoReturn

from hostel.block.driver import BlockDriver
from hostel.block.gate import BYPASS, Gate
from hostel.block.interruption import breaks_in
from hostel.block.lasting import LastingSync
from hostel.block.protocols.direct import DirectFile, probe_alignment
from hostel.errors import BlockError

_END_TIMEOUT: Final = 60.0  # seconds for requests that go past the node when a file is closed


class FileRequests(BlockDriver):
    """Reads, writes and syncs a file."""

    def __init__(self, fd: int, path: str, *, no_flush: bool, direct: bool) -> None:
        super().__init__()
        self._fd = fd  # -1 once it is closed: the number is soon another file's
        self._path = path
        self._no_flush = no_flush
        self.is_direct = direct
        self._direct: DirectFile | None = None
        self._starting = threading.RLock()  # a signal handler may come here again
        self._seeking = threading.RLock()
        self._past: Gate | None = None
        self._sync = LastingSync()

    @property
    def identity(self) -> tuple[int, int]:
        """The host's device and inode numbers: two names of one file have the same identity."""
        status = os.fstat(self._fd)
        return status.st_dev, status.st_ino

    @property
    def length(self) -> int:
        """The file's size in bytes."""
        return os.fstat(self._fd).st_size

    def fileno(self) -> int:
        """The descriptor, to be used as :class:`hostel.block.gate.Bypass` says; -1 once it is closed."""
        return self._fd

    @property
    def past(self) -> Gate:
        """The gate of those who read and write the file past its node."""
        with self._seeking:
            self._past = self._past or Gate()
            return self._past

    def pread(self, offset: int, buf: memoryview) -> None:
        """Fill ``buf``; what lies beyond the end reads as zeroes."""
        try:
            if self.is_direct:
                done = self._direct_file().pread(offset, buf)
                buf[done:] = bytes(len(buf) - done)
                return
            done = os.preadv(self._fd, [buf], offset)
            while done < len(buf):
                more = os.preadv(self._fd, [buf[done:]], offset + done)
                if not more:
                    buf[done:] = bytes(len(buf) - done)
                    return
                done += more
        except OSError as error:
            self._fail(error)

    def pwrite(self, offset: int, data: memoryview) -> None:
        """Write all of ``data``."""
        try:
            if self.is_direct:
                self._direct_file().pwrite(offset, data)
                return
            done = os.pwrite(self._fd, data, offset)
            while done < len(data):
                done += os.pwrite(self._fd, data[done:], offset + done)
        except OSError as error:
            self._fail(error)

    def _direct_file(self) -> DirectFile:
        # Not before the first transfer: a file that was just made may tell its alignment only once it has its size.
        with self._starting:  # there must be one only: it keeps the writers of one block apart
            if self._direct is None:
                self._direct = DirectFile(self._fd, probe_alignment(self._fd, self._path))
            return self._direct

    def flush(self) -> None:
        """Sync the file's data."""
        if not self._no_flush:
            self._sync(lambda: self._store(os.fdatasync))

    def _store(self, sync: Callable[[int], None]) -> None:
        try:
            sync(self._fd)
        except OSError as error:
            self._fail(error)

    @property
    def alignment(self) -> int:
        """Bytes that requests to the file are aligned to: 1, but for direct input and output."""
        return self._direct_file().alignment if self.is_direct else 1

    def _forget(self) -> int:
        """The descriptor, which nobody uses any more, to be closed by the caller.

        The node keeps its requests out meanwhile; who goes past the node, or looks for holes, is kept out here.
        """
        with self._seeking:
            fd, self._fd = self._fd, -1
            past = self._past
        try:
            if past is not None and not past.close(_END_TIMEOUT):
                raise BlockError(f"Requests to '{self._path}' do not come to an end; it stays open", errno=errno.EBUSY)
        except BaseException:
            self._fd = fd
            raise
        BYPASS.changed()  # also for who has the number, and has not asked for the gate yet
        if past is not None:
            past.open()
        self._direct = None
        return fd

    def _lseek(self, offset: int, whence: int) -> int:
        """``lseek(2)``, which may be asked for beside the node, and would move in another file once it is closed."""
        with self._seeking:
            return os.lseek(self._fd, offset, whence)

    def changing(self, offset: int, length: int) -> contextlib.AbstractContextManager[None]:
        """To be held while the host changes a range in other ways than by a write: see :class:`DirectFile`."""
        return self._direct_file().changing(offset, length) if self.is_direct else contextlib.nullcontext()

    def _fail(self, error: OSError) -> NoReturn:
        if breaks_in(error):  # of a signal handler, not of the host
            raise error
        raise OSError(error.errno, error.strerror, self._path) from None

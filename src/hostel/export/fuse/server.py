"""Serving a mounted file: threads that take requests from the kernel and answer them."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import threading
from collections.abc import Callable
from typing import Final

from hostel.errors import NetworkError, RemoteProtocolError
from hostel.export.fuse.file import ExportedFile, Failed
from hostel.export.fuse.mount import mount, unmount
from hostel.net.waker import Waker
from hostel.units import KiB
from hostel.wire.fuse import protocol
from hostel.wire.fuse.protocol import RequestHeader

_THREADS: Final = 2
_ROOM: Final = protocol.MAX_TRANSFER + 64 * KiB  # bytes of the longest request
_END_TIMEOUT: Final = 60.0  # seconds for requests under way to end


class FuseServer:
    """A file that is mounted and served until it is closed.

    Args:
        path: the regular file in whose place it is.
        file: what it holds.
        allow_other: users other than ours may use it.
        report: told in one line what went wrong.

    Raises:
        BlockError: it cannot be mounted.
    """

    def __init__(self, path: str, file: ExportedFile, *, allow_other: bool, report: Callable[[str], None]) -> None:
        self._path = os.path.abspath(path)
        self._file = file
        self._report = report
        self._stopping = False
        self._fd = mount(path, allow_other=allow_other)
        self._waker = Waker()
        self._threads = [threading.Thread(target=self._run, name="fuse", daemon=True) for _ in range(_THREADS)]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Unmount, let requests under way end, and serve no more.

        Raises:
            BlockError: it cannot be unmounted; nothing is served nevertheless.
            NetworkError: requests do not end.
        """
        try:
            # Unmounting writes out what programs have mapped, for which we must still serve.
            unmount(self._path)
        finally:
            self._stopping = True
            self._waker.wake()
            for thread in self._threads:
                thread.join(_END_TIMEOUT)
            if any(thread.is_alive() for thread in self._threads):
                raise NetworkError(f"requests for '{self._path}' do not end")
            os.close(self._fd)
            self._waker.close()

    def _run(self) -> None:
        try:
            self._serve()
        except OSError as error:
            self._report(f"FUSE export on '{self._path}': {error}")

    def _serve(self) -> None:
        """Answer requests until the end; several threads do, and the kernel gives each a request of its own."""
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        poll.register(self._waker, select.POLLIN)
        buffer = memoryview(bytearray(_ROOM))
        while not self._stopping:
            poll.poll()
            try:
                count = os.readv(self._fd, [buffer])
            except OSError as error:
                if error.errno in (errno.EAGAIN, errno.EINTR, errno.ENOENT):  # taken by another, or withdrawn
                    continue
                if error.errno == errno.ENODEV:
                    self._gone()
                    return
                raise
            self._answer(buffer[:count])

    def _gone(self) -> None:
        """It was unmounted: by us, or by somebody else, which is worth a word."""
        if not self._stopping:
            poll = select.poll()
            poll.register(self._waker, select.POLLIN)
            poll.poll(1000)  # the thread that unmounts says so next
        if not self._stopping:
            self._report(f"FUSE export on '{self._path}' was unmounted")

    def _answer(self, request: memoryview) -> None:
        header = RequestHeader.unpack(request)
        if header.opcode in protocol.SILENT:
            return
        parts: list[bytes | memoryview]
        try:
            body = self._file.answer(header.opcode, header.node, request[RequestHeader.SIZE : header.length])
            parts = [protocol.head(header.unique, len(body)), body]
        except Failed as failed:
            parts = [protocol.failure(header.unique, failed.code)]
        except RemoteProtocolError as error:
            self._report(f"FUSE export on '{self._path}': {error}")
            parts = [protocol.failure(header.unique, errno.EPROTO)]
        except Exception as error:
            # A mistake of ours fails the request, and must not leave the program waiting for ever.
            self._report(f"FUSE export on '{self._path}': internal error: {type(error).__name__}: {error}")
            parts = [protocol.failure(header.unique, errno.EIO)]
        with contextlib.suppress(FileNotFoundError):  # the program has given up
            os.writev(self._fd, parts)

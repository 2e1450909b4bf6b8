"""A connected byte stream, plain or inside TLS (:mod:`hostel.net.tls`)."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

Bytes = bytes | bytearray | memoryview

_MAX_PARTS: Final = 512  # of one sendmsg; Linux takes 1024


class Transport(Protocol):
    """What a connection is used through: one thread receives, and any thread sends or shuts down."""

    def recv_into(self, buffer: memoryview, /) -> int:
        """Receive what there is, waiting for at least one byte; 0 when the peer has ended."""

    def send(self, parts: Sequence[Bytes]) -> None:
        """Send all of the parts, after each other."""

    def settimeout(self, seconds: float | None) -> None:
        """Bound how long receiving and sending may wait; longer raises :class:`TimeoutError`."""

    def shutdown(self) -> None:
        """End both directions, which wakes who waits in :meth:`recv_into`."""

    def close(self) -> None:
        """Release the socket."""


class PatientTransport(Transport, Protocol):
    """One whose sender can do something else while the peer takes nothing, such as to receive.

    Attributes:
        socket: to be waited on.
    """

    socket: socket.socket

    def send(self, parts: Sequence[Bytes], blocked: Callable[[], None] | None = None) -> None:
        """Send all of the parts; ``blocked`` is called while nothing can be sent, and waits until that may change."""

    def recv_now(self, buffer: memoryview, /) -> int | None:
        """Receive what there is, without waiting; None where there is nothing, 0 when the peer has ended."""


def set_deadline(transport: Transport, deadline: float | None) -> None:
    """Let waits end at a moment of the monotonic clock, or never.

    Raises:
        TimeoutError: it is past.
    """
    if deadline is None:
        transport.settimeout(None)
        return
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
    transport.settimeout(left)


class SocketTransport:
    """A plain socket.

    Attributes:
        recv_into: the socket's own.
        passes_files: whether open files can be sent.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.recv_into = sock.recv_into
        self.passes_files = sock.family == getattr(socket, "AF_UNIX", None)

    def send(self, parts: Sequence[Bytes], blocked: Callable[[], None] | None = None) -> None:
        """Send all of the parts, in few system calls; see :class:`PatientTransport`."""
        if len(parts) == 1 and blocked is None:
            self.socket.sendall(parts[0])
            return
        flags = 0 if blocked is None else socket.MSG_DONTWAIT
        left = [memoryview(part) for part in parts if len(part)]
        while left:
            try:
                sent = self.socket.sendmsg(left[:_MAX_PARTS], (), flags)
            except BlockingIOError:
                if blocked is None:
                    raise
                blocked()
                continue
            done = 0
            while done < len(left) and sent >= len(left[done]):
                sent -= len(left[done])
                done += 1
            del left[:done]
            if sent:
                left[0] = left[0][sent:]

    def recv_now(self, buffer: memoryview, /) -> int | None:
        """See :class:`PatientTransport`."""
        try:
            return self.socket.recv_into(buffer, 0, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None

    def send_files(self, files: Sequence[int]) -> None:
        """Send open files, each with a byte of its own."""
        for file in files:
            socket.send_fds(self.socket, [b"\0"], [file])

    def settimeout(self, seconds: float | None) -> None:
        """See :class:`Transport`."""
        self.socket.settimeout(seconds)

    def shutdown(self) -> None:
        """See :class:`Transport`."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """See :class:`Transport`."""
        self.socket.close()

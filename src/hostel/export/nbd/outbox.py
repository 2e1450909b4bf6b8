"""Replies on their way to the client: gathered in one buffer, and sent with few system calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from hostel.errors import HostelError
from hostel.export.nbd.splice import Splice
from hostel.net.transport import Bytes, Transport
from hostel.units import KiB

PIECE: Final = 256 * KiB  # bytes of data that go through the buffer at once
_CAPACITY: Final = 512 * KiB
_FULL: Final = 192 * KiB  # bytes from which on replies are not held back for others


class ClientGone(HostelError):
    """A reply could not be sent. Not an :class:`OSError`: those are the disk's here, and are answered."""


class Outbox:
    """Gathers replies; nothing is sent before :meth:`flush` or a full buffer.

    Attributes:
        view: the buffer; the hot path puts replies into it itself.
        used: bytes of it that wait to be sent.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.view = memoryview(bytearray(_CAPACITY))
        self.used = 0

    def add(self, data: bytes | memoryview) -> None:
        """Append a reply, or the header of one whose data follows."""
        length = len(data)
        if length > _CAPACITY - self.used:
            self.flush()
            if length > _CAPACITY:
                self._send([data])
                return
        used = self.used
        self.view[used : used + length] = data
        self.used = used + length

    def reserve(self, length: int) -> int:
        """Make room for ``length`` bytes, at most :data:`PIECE` and a header; where in :attr:`view` they go."""
        if length > _CAPACITY - self.used:
            self.flush()
        return self.used

    def commit(self, length: int) -> None:
        """Keep ``length`` bytes that were put into the reserved room."""
        self.used += length
        if self.used >= _FULL:
            self.flush()

    def send(self, header: memoryview, data: memoryview) -> None:
        """Send what is gathered, and a header with its data, which is not copied."""
        self._send([self.view[: self.used], header, data])
        self.used = 0

    def drain(self, splice: Splice) -> None:
        """Send what is gathered, and then what ``splice`` holds."""
        self.flush()
        try:
            splice.drain()
        except OSError as error:
            raise client_gone(error) from None

    def flush(self) -> None:
        """Send what is gathered."""
        if self.used:
            self._send([self.view[: self.used]])
            self.used = 0

    def _send(self, parts: Sequence[Bytes]) -> None:
        try:
            self._transport.send(parts)
        except OSError as error:
            raise client_gone(error) from None


def client_gone(error: OSError) -> ClientGone:
    """Why a reply could not be sent."""
    return ClientGone(f"Failed to send reply: {error.strerror or error}")

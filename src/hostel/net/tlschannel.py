"""A :class:`~hostel.net.channel.Channel` inside TLS."""

from __future__ import annotations

import contextlib
import errno
import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from typing import Final

from hostel.errors import NetworkError
from hostel.net.channel import Channel
from hostel.net.reactor import Reactor
from hostel.net.tls import TlsCredentials, distinguished_name
from hostel.net.transport import Bytes
from hostel.units import KiB

_PORTION: Final = 256 * KiB  # bytes encrypted at once


class TlsChannel(Channel):
    """The server's end of a connection; nothing is received before the handshake is over and was found good.

    Args:
        reactor: see :class:`Channel`.
        sock: likewise.
        limit: likewise.
        credentials: a server's.
        welcome: called once with the name in the client's certificate; answers whether to go on.
    """

    def __init__(
        self,
        reactor: Reactor,
        sock: socket.socket,
        *,
        limit: int,
        credentials: TlsCredentials,
        welcome: Callable[[str | None], bool],
    ) -> None:
        super().__init__(reactor, sock, limit=limit)
        self._session, self._incoming, self._outgoing = credentials.session()
        self._session_lock = threading.Lock()
        self._welcome = welcome
        self._is_open = False
        self._cipher = b""  # encrypted and not sent

    def _receive(self) -> None:
        count = self.socket.recv_into(self._buffer)
        with self._session_lock:
            if count:
                self._incoming.write(self._buffer[:count])
            else:
                self._incoming.write_eof()
        try:
            if not self._is_open and not self._shake_hands():
                return
            self._deliver()
        except ssl.SSLError as error:
            with self._lock, contextlib.suppress(OSError):
                self._finish_writing()  # what went wrong is told to the peer
            reason = str(error.reason or error).lower().replace("_", " ")
            self.close(NetworkError(f"TLS: {reason}", errno=errno.EPROTO))

    def _shake_hands(self) -> bool:
        """Go on with the handshake; whether it is over."""
        try:
            with self._session_lock:
                self._session.do_handshake()
        except ssl.SSLWantReadError:
            self._answer()
            return False
        self._answer()
        if not self._welcome(distinguished_name(self._session)):
            self.close(NetworkError("the client's certificate is not allowed", errno=errno.EACCES))
            return False
        self._is_open = True
        return True

    def _answer(self) -> None:
        """Send what the session itself has to say."""
        with self._lock:
            try:
                self._finish_writing()
            except BlockingIOError:
                self._watch()

    def _deliver(self) -> None:
        while not self._is_closed:
            room = self.room()
            target = self._buffer if room is None else room
            try:
                with self._session_lock:
                    count: int = self._session.read(len(target), target)  # type: ignore[assignment]
            except ssl.SSLWantReadError:
                if self._outgoing.pending:
                    self._answer()
                return
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                count = 0
            if not count:
                self.close(None)
            elif room is None:
                self.receive(bytes(target[:count]), ())
            else:
                self.received(count)

    def _write(self, parts: Sequence[Bytes]) -> int:
        if not self._is_open:
            raise BlockingIOError
        self._finish_writing()
        portion = memoryview(parts[0])[:_PORTION]
        with self._session_lock:
            self._session.write(portion)
        with contextlib.suppress(BlockingIOError):
            self._finish_writing()
        return len(portion)

    def _finish_writing(self) -> None:
        if self._outgoing.pending:
            with self._session_lock:
                self._cipher += self._outgoing.read()
        while self._cipher:
            self._cipher = self._cipher[self.socket.send(self._cipher) :]

    def _waits(self) -> bool:
        return bool(self._cipher) or bool(self._queue)

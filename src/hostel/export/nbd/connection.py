"""A connection's life: handshake within a time, TLS where it is asked for, then the transmission phase."""

from __future__ import annotations

import contextlib
import errno
import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from hostel.errors import BlockError, NetworkError, RemoteProtocolError
from hostel.export.nbd.export import NbdExport
from hostel.export.nbd.outbox import ClientGone
from hostel.export.nbd.transmission import Transmission
from hostel.net.transport import SocketTransport, Transport, set_deadline
from hostel.units import KiB
from hostel.wire.nbd.server import Aborted, Chosen, ServerHandshake, StartTls

if TYPE_CHECKING:  # OpenSSL is loaded when TLS is wanted
    from hostel.net.authorization import Authorization
    from hostel.net.tls import TlsCredentials

HANDSHAKE_TIMEOUT: Final = 10.0  # seconds, as QEMU's
_END_TIMEOUT: Final = 60.0  # seconds for the connections of an export that is removed to end
_PORTION: Final = 4 * KiB  # bytes of options taken at once


class Security(NamedTuple):
    """What clients need to be let in.

    Attributes:
        authorization: decides by the client's certificate; None lets in all that TLS does.
    """

    credentials: TlsCredentials
    authorization: Authorization | None = None


class NbdService:
    """Serves exports to one client at a time and thread; for :class:`hostel.net.server.Server`.

    Args:
        exports: what there is, in the order in which it is listed.
        security: TLS, without which nobody is let in then.
        report: told in one line why a client was dropped.
        handshake_limit: seconds that a client's handshake may take, 0 for any number; None for QEMU's 10.
    """

    def __init__(
        self,
        exports: Sequence[NbdExport],
        *,
        security: Security | None = None,
        report: Callable[[str], None] = lambda _: None,
        handshake_limit: int | None = None,
    ) -> None:
        self._handshake_limit = HANDSHAKE_TIMEOUT if handshake_limit is None else handshake_limit
        self._exports = {export.name: export for export in exports}
        self._security = security
        self._report = report
        self._changed = threading.Condition()
        self._using: list[tuple[NbdExport, Transport]] = []  # connections in their transmission phase

    def add(self, export: NbdExport) -> None:
        """Offer one more export from now on.

        Raises:
            BlockError: there is one of its name.
        """
        with self._changed:
            if export.name in self._exports:
                raise BlockError(f"NBD server already has export named '{export.name}'", errno=errno.EEXIST)
            self._exports[export.name] = export

    def is_used(self, export: NbdExport) -> bool:
        """Whether a client uses an export."""
        with self._changed:
            return any(each is export for each, _ in self._using)

    def remove(self, export: NbdExport) -> None:
        """Offer an export no more, end the connections that use it, and wait for that.

        Raises:
            NetworkError: a connection does not end.
        """
        with self._changed:
            del self._exports[export.name]
            for each, transport in self._using:
                if each is export:
                    transport.shutdown()
            gone = self._changed.wait_for(lambda: all(each is not export for each, _ in self._using), _END_TIMEOUT)
        if not gone:
            raise NetworkError(f"a connection did not end within {_END_TIMEOUT:.0f} seconds", errno=errno.EBUSY)

    def serve(self, sock: socket.socket) -> bool:
        """Serve a client to its end, and close the socket.

        Returns:
            Whether the client got as far as using an export.
        """
        connection = _Connection(SocketTransport(sock), sock)
        try:
            chosen, data = self._negotiate(connection)
        except (RemoteProtocolError, OSError) as error:
            self._report(f"option negotiation failed: {_describe(error, self._handshake_limit)}")
            connection.transport.close()
            return False
        try:
            if chosen is None:
                return False
            self._transmit(connection.transport, chosen, data)
        except (RemoteProtocolError, ClientGone, OSError) as error:
            self._report(f"Disconnect client, due to: {_describe(error, self._handshake_limit)}")
        except Exception as error:
            # A mistake of ours must not take the other clients with it.
            self._report(f"Disconnect client, due to: internal error: {type(error).__name__}: {error}")
        finally:
            connection.transport.close()
        return chosen is not None

    def _transmit(self, transport: Transport, chosen: Chosen, data: bytes) -> None:
        with self._changed:
            export = self._exports.get(chosen.offer.name)
            if export is None:
                raise NetworkError(f"export '{chosen.offer.name}' has gone", errno=errno.ENOENT)
            user = (export, transport)
            self._using.append(user)
        try:
            Transmission(transport, export, chosen, data, alone=lambda: len(self._using) == 1).run()
        finally:
            with self._changed:
                self._using = [each for each in self._using if each is not user]
                self._changed.notify_all()

    def _negotiate(self, connection: _Connection) -> tuple[Chosen | None, bytes]:
        """Shake hands; None where the client only looked, and what it sent beyond the handshake."""
        limit = self._handshake_limit
        deadline = time.monotonic() + limit if limit else None
        machine = ServerHandshake(
            lambda: [export.offer() for export in list(self._exports.values())], tls=self._security is not None
        )
        buffer = memoryview(bytearray(_PORTION))
        try:
            while True:
                connection.transport.send(machine.outgoing())
                set_deadline(connection.transport, deadline)
                count = _receive(connection.transport, machine, buffer)
                if not count:
                    machine.receive_eof()
                for event in machine.receive(buffer[:count]):
                    match event:
                        case StartTls():
                            connection.transport.send(machine.outgoing())
                            self._start_tls(connection, deadline)
                            machine.started_tls()
                        case Chosen():
                            connection.transport.send(machine.outgoing())
                            connection.transport.settimeout(None)
                            return event, machine.rest()
                        case Aborted():
                            with contextlib.suppress(OSError):  # it need not wait for the answer
                                connection.transport.send(machine.outgoing())
                            return None, b""
        except RemoteProtocolError:
            connection.transport.send(machine.outgoing())
            raise

    def _start_tls(self, connection: _Connection, deadline: float | None) -> None:
        security = self._security
        if security is None:
            raise AssertionError("TLS was agreed on without credentials")
        transport = security.credentials.wrap(connection.socket, deadline=deadline)
        connection.transport = transport
        if security.authorization is not None:
            name = transport.peer_name()
            if name is None or not security.authorization.allows(name):
                transport.abort()
                raise NetworkError(f"TLS x509 authz check for {name} is denied")


def _receive(transport: Transport, machine: ServerHandshake, buffer: memoryview) -> int:
    try:
        return transport.recv_into(buffer)
    except TimeoutError:
        raise
    except OSError as error:
        raise NetworkError(f"Failed to read {machine.stream.wanted}: {error.strerror}", errno=error.errno) from None


class _Connection:
    """A socket, and what is spoken on it at this moment."""

    def __init__(self, transport: Transport, sock: socket.socket) -> None:
        self.transport = transport
        self.socket = sock


def _describe(error: Exception, limit: float) -> str:
    if isinstance(error, TimeoutError):
        return f"no handshake within {limit:.0f} seconds"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error)

"""A connection to a server, on which any number of threads have requests under way.

There is no thread that receives for all: one of those who wait does it for everybody, and hands the task on when its
own reply has come. So a single thread's request costs no switch between threads. A server may take nothing more before
its replies are taken: whoever cannot send receives too, where nobody else does.
"""

from __future__ import annotations

import select
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

from hostel.block.interruption import breaks_in
from hostel.errors import HostelError, NetworkError, RemoteProtocolError
from hostel.net import address as addresses
from hostel.net.address import Address
from hostel.net.transport import Bytes, PatientTransport, SocketTransport, Transport, set_deadline
from hostel.units import KiB
from hostel.wire.nbd.client import ClientHandshake, Connected, Listed, StartTls
from hostel.wire.nbd.protocol import Command, CommandFlag
from hostel.wire.nbd.reply import Reply, ReplyReader
from hostel.wire.nbd.request import format_request

if TYPE_CHECKING:  # OpenSSL is loaded when TLS is wanted
    from hostel.net.tls import TlsCredentials

TIMEOUT: Final = 30.0  # seconds to connect, and again to shake hands
_PORTION: Final = 4 * KiB  # bytes of the handshake taken at once
_BLOCKED: Final = 10  # milliseconds after which a sender looks whether somebody receives
_SETTLED: Final = 30.0  # seconds for the one who receives to notice that the connection is lost
_GLANCE: Final = 1.0  # seconds after which the one who waits looks for himself


class ConnectionLost(HostelError):
    """The server is gone, or cannot be trusted to be understood any more; what was asked may or may not be done.

    Nothing more is received into the buffers of those to whom this is raised.
    """


class Security(NamedTuple):
    """TLS, as a client wants it.

    Attributes:
        hostname: whose certificate is expected; None where nobody's name is known, which only a peer that is not
            verified gets by with.
    """

    credentials: TlsCredentials
    hostname: str | None


def negotiate(
    address: Address, handshake: ClientHandshake, security: Security | None
) -> tuple[PatientTransport, Connected | Listed]:
    """Connect, shake hands, and start TLS where that is wanted.

    Raises:
        NetworkError: the server cannot be reached, or is not who it should be.
        RemoteProtocolError: it refused, or broke the protocol.
    """
    sock = addresses.connect(address, TIMEOUT)
    transport: PatientTransport = SocketTransport(sock)
    deadline = time.monotonic() + TIMEOUT
    buffer = memoryview(bytearray(_PORTION))
    try:
        while True:
            set_deadline(transport, deadline)
            count = _exchange(transport, handshake, buffer)
            if not count:
                handshake.receive_eof()
            for event in handshake.receive(buffer[:count]):
                if not isinstance(event, StartTls):
                    transport.send(handshake.outgoing())
                    transport.settimeout(None)
                    return transport, event
                if security is None:
                    raise AssertionError("TLS was asked for without credentials")
                transport = security.credentials.wrap(sock, hostname=security.hostname, deadline=deadline)
                handshake.started_tls()
    except TimeoutError:
        transport.close()
        if time.monotonic() < deadline:  # it is a signal handler's
            raise
        raise NetworkError(f"'{address}' does not finish the NBD handshake within {TIMEOUT:.0f} seconds") from None
    except (OSError, HostelError):
        _say_goodbye(transport, handshake)
        raise


def _exchange(transport: Transport, handshake: ClientHandshake, buffer: memoryview) -> int:
    """Send what is to be said, and receive the answer or a part of it; the errors are in QEMU's words."""
    what = f"Failed to read {handshake.stream.wanted}"
    try:
        transport.send(handshake.outgoing())
        return transport.recv_into(buffer)
    except TimeoutError:
        raise
    except NetworkError as error:
        raise NetworkError(f"{what}: {error.message}", errno=error.errno) from None
    except OSError as error:
        raise NetworkError(f"{what}: Unable to read from socket: {error.strerror}", errno=error.errno) from None


def _say_goodbye(transport: Transport, handshake: ClientHandshake) -> None:
    try:
        transport.send(handshake.outgoing())
    except OSError:
        pass
    finally:
        transport.close()


class Connection:
    """Requests and their replies.

    Args:
        transport: after the handshake.
        connected: what was negotiated.
        data: what the server sent already.
    """

    def __init__(self, transport: PatientTransport, connected: Connected, data: bytes) -> None:
        self._transport = transport
        self._extended = connected.extended
        self._reader = ReplyReader(
            structured=connected.structured,
            extended=connected.extended,
            contexts=tuple(number for number, _ in connected.export.contexts),
        )
        self._early = data
        self._mutex = threading.RLock()  # taken by itself: Condition's own way in may be interrupted in between
        self._changed = threading.Condition(self._mutex)
        self._sending = threading.Lock()
        self._replies: dict[int, Reply] = {}
        self._receiving = False
        self._next_cookie = 1
        self._failure = ""

    def start(
        self,
        command: Command,
        offset: int,
        length: int,
        *,
        flags: CommandFlag = CommandFlag.NONE,
        payload: Bytes = b"",
        target: memoryview | None = None,
    ) -> int:
        """Send a request; its cookie, for :meth:`finish`, which must be called.

        Raises:
            ConnectionLost: it cannot be sent.
        """
        with self._mutex:
            if self._failure:
                raise self._lost()
            cookie = self._next_cookie
            self._next_cookie += 1
            self._reader.expect(cookie, command, offset, length, target)
        header = format_request(command, cookie, offset, length, flags, extended=self._extended)
        try:
            with self._sending:
                self._transport.send([header, payload] if payload else [header], self._make_way)
        except OSError as error:
            if breaks_in(error):
                raise
            self._lose(f"Failed to send a request: {error.strerror or error}")
            with self._mutex:
                raise self._lost() from None
        return cookie

    def _make_way(self) -> None:
        """Wait a moment until the server takes more, and receive meanwhile where nobody does.

        Raises:
            ConnectionLost: it is lost.
        """
        mine = False
        try:
            with self._mutex:
                if self._failure:
                    raise self._lost()
                mine, self._receiving = not self._receiving, True
            poll = select.poll()
            try:
                poll.register(self._transport.socket, select.POLLOUT | (select.POLLIN if mine else 0))
            except ValueError:  # another thread has lost the connection, and has another one by now
                raise self._lose("the connection is closed") from None
            poll.poll(_BLOCKED)
            if mine:
                self._receive(self._transport.recv_now)
        finally:
            if mine:
                self._receiving = False
                self._tell()

    def finish(self, cookie: int) -> Reply:
        """Wait for a request's reply.

        Raises:
            ConnectionLost: it will not come.
        """
        mine = False
        try:
            with self._mutex:
                while True:
                    reply = self._replies.pop(cookie, None)
                    if reply is not None:
                        return reply
                    if self._failure:
                        raise self._lost()
                    if not self._receiving:
                        mine = self._receiving = True
                        break
                    self._changed.wait(_GLANCE)
            return self._receive_until(cookie)
        finally:
            if mine:
                self._receiving = False
                self._tell()

    def _tell(self) -> None:
        with self._mutex:
            self._changed.notify_all()

    def _receive_until(self, cookie: int) -> Reply:
        """Receive for everybody, until our own reply is there."""
        receive, replies = self._transport.recv_into, self._replies
        while True:
            if self._receive(receive):
                with self._mutex:
                    found = replies.pop(cookie, None)
                    if replies:
                        self._changed.notify_all()
                if found is not None:
                    return found

    def _receive(self, receive: Callable[[memoryview], int | None]) -> bool:
        """Receive once, and keep the replies that have come; whether there were any.

        Raises:
            ConnectionLost: the server is gone, or not understood.
        """
        reader = self._reader
        try:
            if self._early:
                replies, self._early = reader.receive(self._early), b""
            else:
                count = receive(reader.room())
                if count is None:
                    return False
                if not count:
                    reader.receive_eof()
                    raise self._lose("the server closed the connection")
                replies = reader.received(count)
            if not replies:
                return False
            with self._mutex:
                self._replies.update((reply.cookie, reply) for reply in replies)
            return True
        except OSError as error:
            if breaks_in(error):
                raise
            raise self._lose(error.strerror or str(error)) from None
        except RemoteProtocolError as error:
            raise self._lose(str(error)) from None

    def _lose(self, reason: str) -> ConnectionLost:
        with self._mutex:
            if not self._failure:
                self._failure = reason
            self._changed.notify_all()
        self._transport.shutdown()
        return ConnectionLost(self._failure)

    def break_off(self) -> None:
        """Give the connection up, in the middle of a request that an interruption came into.

        A request may be sent in part, a reply understood in part; and what comes later would be put into memory that
        its owner has for something else by then.
        """
        self._lose("interrupted")
        with self._mutex:
            self._lost()

    def _lost(self) -> ConnectionLost:
        """What is raised to others than the one who receives, once that one has stopped: with the lock held."""
        self._changed.wait_for(lambda: not self._receiving, _SETTLED)
        return ConnectionLost(self._failure)

    def close(self) -> None:
        """Tell the server that we go, and go."""
        with self._mutex:
            lost, self._failure = self._failure, self._failure or "the connection is closed"
        if not lost and self._sending.acquire(blocking=False):  # else nothing can be said behind a part of a request
            try:
                self._transport.send([format_request(Command.DISC, 0, 0, 0, extended=self._extended)])
            except OSError:
                pass
            finally:
                self._sending.release()
        self._transport.close()

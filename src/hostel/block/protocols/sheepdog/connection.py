"""A connection to a server of a Sheepdog cluster, for one thread at a time."""

from __future__ import annotations

import errno
import os
import time
from typing import Final

from hostel.errors import BlockError, NetworkError, RemoteProtocolError
from hostel.net import address as addresses
from hostel.net.address import Address
from hostel.net.transport import SocketTransport, set_deadline
from hostel.wire.sheepdog import protocol
from hostel.wire.sheepdog.client import Reply, Request, SheepdogClient
from hostel.wire.sheepdog.protocol import SERVERS_VERSION, VERSION, Flag, ObjectRequest, Op, Result, VdiRequest

_CONNECTING: Final = 30.0  # seconds
TIMEOUT: Final = 60.0  # seconds for an answer


class Connection:
    """Requests, and the answers to them.

    Raises:
        BlockError: the server cannot be reached.
    """

    def __init__(self, server: Address, *, timeout: float = TIMEOUT) -> None:
        self._server = server
        self._timeout = timeout
        self._client = SheepdogClient()
        self._failure = ""
        try:
            sock = addresses.connect(server, _CONNECTING)
        except NetworkError as error:
            raise BlockError(error.message, errno=error.errno) from None
        self._transport = SocketTransport(sock)

    def object(
        self,
        op: Op,
        oid: int,
        offset: int,
        *,
        flags: Flag = Flag.NONE,
        cow_oid: int = 0,
        copies: int = 0,
        payload: bytes | bytearray | memoryview = b"",
        target: memoryview | None = None,
    ) -> Reply:
        """Ask for something about an object; what the answer means is the caller's to see.

        Raises:
            BlockError: there is no answer.
        """
        request = ObjectRequest(
            version=VERSION,
            op=op,
            flags=flags,
            epoch=0,
            id=0,
            data_length=0,
            oid=oid,
            cow_oid=cow_oid,
            copies=copies,
            copy_policy=0,
            ec_index=0,
            reserved=0,
            target_epoch=0,
            offset=offset,
            padding=0,
        )
        return self._call(request, payload, target)

    def vdi(
        self,
        op: Op,
        *,
        payload: bytes = b"",
        size: int = 0,
        base_id: int = 0,
        copies: int = 0,
        copy_policy: int = 0,
        object_bits: int = 0,
        snapshot_id: int = 0,
        target: memoryview | None = None,
    ) -> Reply:
        """Ask for something about a disk, or about the cluster.

        Raises:
            BlockError: there is no answer.
        """
        request = VdiRequest(
            version=SERVERS_VERSION if op is Op.READ_DELETED_VDIS else VERSION,
            op=op,
            flags=0,
            epoch=0,
            id=0,
            data_length=0,
            size=size,
            base_id=base_id,
            copies=copies,
            copy_policy=copy_policy,
            store_policy=0,
            object_bits=object_bits,
            snapshot_id=snapshot_id,
            lock_type=0,
            padding=0,
        )
        return self._call(request, payload, target)

    def _call(self, request: Request, payload: bytes | bytearray | memoryview, target: memoryview | None) -> Reply:
        if self._failure:
            raise self._lost()
        self._client.ask(request, payload, target)
        deadline = time.monotonic() + self._timeout
        client = self._client
        try:
            set_deadline(self._transport, deadline)
            self._transport.send(client.outgoing())
            received = 0
            while True:
                set_deadline(self._transport, deadline)
                count = self._transport.recv_into(client.stream.room())
                if not count and received:
                    client.receive_eof()
                if not count:
                    raise RemoteProtocolError("the server closed the connection")
                received += count
                client.stream.received(count)
                client.advance()
                if replies := client.take_events():
                    return replies[0]
        except TimeoutError:
            self._failure = f"no answer to {Op(request.op).name} within {self._timeout:.0f} seconds"
        except OSError as error:
            self._failure = os.strerror(error.errno) if error.errno else str(error)
        except RemoteProtocolError as error:
            self._failure = str(error)
        except KeyboardInterrupt:
            self._failure = "interrupted"  # who knows what was sent
            raise
        raise self._lost()

    def _lost(self) -> BlockError:
        return BlockError(f"the connection to '{self._server}' was lost: {self._failure}", errno=errno.EIO)

    @property
    def is_lost(self) -> bool:
        """Whether nothing more can be asked."""
        return bool(self._failure)

    def close(self) -> None:
        """Disconnect."""
        self._transport.close()


def failed(reply: Reply, what: str) -> BlockError:
    """The error that a reply stands for."""
    return BlockError(f"{what}{protocol.result_text(reply.result)}", errno=protocol.result_errno(reply.result))


def require(reply: Reply, what: str) -> Reply:
    """See that a request was done.

    Raises:
        BlockError: it was not.
    """
    if reply.result != Result.SUCCESS:
        raise failed(reply, what)
    return reply

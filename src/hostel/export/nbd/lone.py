"""Clients that wait for each reply before they send the next request: how long that takes is all that they see.

Most of it is spent on waking up, theirs and ours. So the next request is looked for where the last one came soon, and a
small one that arrives by itself is answered here, with as few steps as there can be; see ``docs/nbd.md``.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from typing import Final

from hostel.block.gate import BYPASS
from hostel.block.host_file import HostFile
from hostel.export.nbd.outbox import Outbox, client_gone
from hostel.units import KiB
from hostel.wire.nbd.protocol import Command
from hostel.wire.nbd.request import ReplyFormat, RequestReader

SMALL: Final = 64 * KiB  # bytes up to which a request is answered on the short way
_LOOK: Final = 50e-6  # seconds for which a request is looked out for before sleeping
_LIVELY: Final = 100e-6  # seconds; a client whose last request came sooner is expected to send another soon
_READ, _WRITE = int(Command.READ), int(Command.WRITE)  # plain numbers: an enum's member takes longer to compare


class LoneRequests:
    """Receives for a connection, and answers small reads and writes of a file that come one at a time.

    Args:
        sock: the connection.
        reader: what is received goes there, but for what is answered here.
        outbox: where replies are made; it is empty here.
        format: how they look.
        size: bytes of the export.
        alone: whether no other connection needs the processor.
    """

    def __init__(
        self,
        sock: socket.socket,
        reader: RequestReader,
        outbox: Outbox,
        format: ReplyFormat,
        size: int,
        alone: Callable[[], bool],
    ) -> None:
        self._socket = sock
        self._reader = reader
        self._view = outbox.view
        self._format = format
        self._size = size
        self._alone = alone
        self._lively = False
        self._top = 0  # up to where the nodes know that they were written
        self._expect(0)

    def _expect(self, length: int) -> None:
        """Be ready for reads of so many bytes."""
        self._length, end = length, self._format.read_header + length
        self._data, self._reply = (self._view[self._format.read_header : end],), self._view[:end]

    def receive(self, file: HostFile | None, generation: int, nowait: int) -> int:
        """Receive what is not answered here.

        Args:
            file: where the export lies as it is, if it does.
            generation: of the graph, when that was found out.
            nowait: the flag with which a read does not wait for the disk, or 0.

        Returns:
            Bytes that were put into the reader's room; 0 when the peer has ended.

        Raises:
            ClientGone: a reply could not be sent.
        """
        room = self._reader.room()
        self._top = 0
        while True:
            count = self._look(room) if self._alone() else self._socket.recv_into(room)
            if file is None or not self._answer(file, generation, nowait, count):
                return count

    def _look(self, room: memoryview) -> int:
        """Receive. Where the last request came soon, look for the next one for a moment: being woken takes longer."""
        receive, clock = self._socket.recv_into, time.perf_counter
        start = clock()
        while self._lively and clock() - start < _LOOK:
            try:
                return receive(room, 0, socket.MSG_DONTWAIT)
            except BlockingIOError:
                pass
        count = receive(room)
        self._lively = clock() - start < _LIVELY
        return count

    def _answer(self, file: HostFile, generation: int, nowait: int, count: int) -> bool:
        """Answer what was received, if it is one small read or write that meets no difficulty."""
        request = self._reader.lone(count)
        if request is None:
            return False
        kind, flags, cookie, offset, length, payload = request
        if flags or kind > _WRITE or offset + length > self._size or not 0 < length <= SMALL:
            return False
        gate, view, me = file.gate, self._view, threading.get_ident()
        gate.come(me)  # as a with statement does, without its calls
        try:
            if gate.holder or generation != BYPASS.generation:
                return False
            if kind == _READ:
                if length != self._length:
                    self._expect(length)
                if os.preadv(file.fd, self._data, file.start + offset, nowait) != length:
                    return False
            elif offset < file.guarded or os.pwrite(file.fd, payload, file.start + offset) != length:
                return False
            elif offset + length > self._top:
                self._top = offset + length
                file.wrote(self._top)
        except OSError:
            return False  # whoever answers instead meets it too, and says so
        finally:
            gate.go(me)
            if gate.holder:
                gate.left()
        if kind == _READ:
            self._format.put_data(view, 0, cookie, offset, offset, length)
            reply = self._reply
        else:
            reply = view[: self._format.put_done(view, 0, cookie, offset)]
        try:
            self._socket.sendall(reply)
        except OSError as error:
            raise client_gone(error) from None
        return True

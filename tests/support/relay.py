"""A socket between one client and our daemon, which tells what the client was answered."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

from hostel.wire.rpc.packet import HEADER, Status, Type

_PATIENCE = 60.0  # seconds


class Relay:
    """Passes on what a client and a daemon say to each other, but for descriptors."""

    def __init__(self, path: Path, daemon: Path) -> None:
        self._daemon = daemon
        self._answered: set[tuple[int, int]] = set()
        self._news = threading.Condition()
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(path))
        self._server.listen(1)
        self._ends: list[socket.socket] = []

    def wait_for_answer(self, program: int, procedure: int) -> None:
        """Wait until a call was carried out."""
        with self._news:
            done = self._news.wait_for(lambda: (program, procedure) in self._answered, _PATIENCE)
        assert done, f"procedure {procedure} was not answered"

    def serve(self) -> None:
        """Serve the client that comes, until it goes."""
        with contextlib.suppress(OSError):  # it is closed before anybody came
            client, _ = self._server.accept()
            daemon = socket.socket(socket.AF_UNIX)
            self._ends += [client, daemon]
            daemon.connect(str(self._daemon))
            asking = threading.Thread(target=self._pass_on, args=(client, daemon), daemon=True)
            asking.start()
            self._pass_on(daemon, client)
            asking.join(_PATIENCE)

    def close(self) -> None:
        """Hang up."""
        for end in (self._server, *self._ends):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        rest = b""
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                sink.sendall(data)
                rest = self._note(rest + data)
            sink.shutdown(socket.SHUT_WR)

    def _note(self, data: bytes) -> bytes:
        """Note the calls that these messages answer; what is left of the data is the beginning of another."""
        while len(data) >= HEADER.size:
            length, program, _, procedure, kind, _, status = HEADER.unpack_from(data)
            if len(data) < length:
                break
            if (kind, status) == (Type.REPLY, Status.OK):
                with self._news:
                    self._answered.add((program, procedure))
                    self._news.notify_all()
            data = data[length:]
        return data


@contextlib.contextmanager
def relayed(path: Path, daemon: Path) -> Iterator[Relay]:
    """Listen on a socket for one client of a daemon's."""
    relay = Relay(path, daemon)
    thread = threading.Thread(target=relay.serve, daemon=True)
    thread.start()
    try:
        yield relay
    finally:
        relay.close()
        thread.join(_PATIENCE)

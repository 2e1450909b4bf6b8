"""Reading from a socket as much as is expected."""

from __future__ import annotations

import socket


def receive(connection: socket.socket, size: int) -> bytes:
    """The next ``size`` bytes.

    Raises:
        EOFError: the other side sends no more.
    """
    data = b""
    while len(data) < size:
        part = connection.recv(size - len(data))
        if not part:
            raise EOFError(f"the server went away after {len(data)} of {size} bytes")
        data += part
    return data

"""A client of SPICE, as far as the password (the protocol's "link" stage)."""

from __future__ import annotations

import socket
import struct
from typing import Final

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from support.receiving import receive

OK: Final = 0
NEED_SECURED: Final = 5  # SPICE_LINK_ERR_NEED_SECURED
DENIED: Final = 7  # SPICE_LINK_ERR_PERMISSION_DENIED
_MAGIC: Final = b"REDQ"
_MAIN: Final = 1  # SPICE_CHANNEL_MAIN
_KEY: Final = 162  # bytes of a public key, DER


def _greet(connection: socket.socket) -> bytes:
    """Ask for the main channel; returns the server's reply."""
    message = struct.pack("<IBBIII", 0, _MAIN, 0, 0, 0, 18)
    connection.sendall(_MAGIC + struct.pack("<III", 2, 2, len(message)) + message)
    magic, _, _, size = struct.unpack("<4sIII", receive(connection, 16))
    assert magic == _MAGIC
    return receive(connection, size)


def refusal(connection: socket.socket) -> int:
    """What the server says to who asks for the main channel, before any password."""
    return int(struct.unpack_from("<I", _greet(connection))[0])


def link(connection: socket.socket, password: str = "") -> int:
    """Open the main channel with a password; returns what the server says to it.

    Raises:
        EOFError: the server does not speak SPICE.
    """
    reply = _greet(connection)
    assert struct.unpack_from("<I", reply)[0] == OK
    key = serialization.load_der_public_key(reply[4 : 4 + _KEY])
    assert isinstance(key, rsa.RSAPublicKey)
    oaep = padding.OAEP(padding.MGF1(hashes.SHA1()), hashes.SHA1(), None)
    connection.sendall(key.encrypt(password.encode() + b"\0", oaep))
    return int(struct.unpack("<I", receive(connection, 4))[0])

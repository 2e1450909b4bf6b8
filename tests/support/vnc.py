"""A client of VNC, as far as it is let in: RFB 3.8's security types, and VeNCrypt's over TLS."""

from __future__ import annotations

import socket
import ssl
import struct
from typing import Final, NamedTuple

from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher, modes

from support.receiving import receive

NONE: Final = 1
PASSWORD: Final = 2
VENCRYPT: Final = 19
SASL: Final = 20
X509_NONE: Final = 260
X509_PASSWORD: Final = 261
X509_SASL: Final = 264


class Offer(NamedTuple):
    """How a server lets clients in: its security types, and VeNCrypt's."""

    types: list[int]
    subtypes: list[int]


def offered(connection: socket.socket) -> Offer:
    """Begin, and hear how one may get in; VeNCrypt is entered where it is offered."""
    assert receive(connection, 12) == b"RFB 003.008\n"
    connection.sendall(b"RFB 003.008\n")
    types = [*receive(connection, receive(connection, 1)[0])]
    if VENCRYPT not in types:
        return Offer(types, [])
    connection.sendall(bytes([VENCRYPT]))
    assert receive(connection, 2) == b"\0\2"
    connection.sendall(b"\0\2")
    assert receive(connection, 1) == b"\0"
    count = receive(connection, 1)[0]
    return Offer(types, [*struct.unpack(f">{count}I", receive(connection, 4 * count))])


def encrypted(connection: socket.socket, subtype: int, context: ssl.SSLContext) -> ssl.SSLSocket:
    """Choose one of VeNCrypt's ways; what is said from here on is encrypted.

    Raises:
        ssl.SSLError: one does not trust the other.
    """
    connection.sendall(struct.pack(">I", subtype))
    assert receive(connection, 1) == b"\1"
    return context.wrap_socket(connection, server_hostname="localhost")


def is_let_in(connection: socket.socket, password: str | None = None) -> bool:
    """Whether the server lets one in, with a password where it asks for one."""
    if password is not None:
        # VNC's bits of a key are the other way round.
        key = bytes(int(f"{byte:08b}"[::-1], 2) for byte in password.encode()[:8].ljust(8, b"\0"))
        challenge = receive(connection, 16)
        connection.sendall(Cipher(TripleDES(key * 3), modes.ECB()).encryptor().update(challenge))
    return receive(connection, 4) == b"\0\0\0\0"


def enter(connection: socket.socket, password: str) -> bool:
    """Get in with a password, without encryption."""
    assert offered(connection).types == [PASSWORD]
    connection.sendall(bytes([PASSWORD]))
    return is_let_in(connection, password)

"""SCRAM-SHA-256 (RFC 5802, RFC 7677), both sides, without channel binding."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from typing import Final, NamedTuple

from hostel.errors import RemoteProtocolError

MECHANISM: Final = "SCRAM-SHA-256"
ITERATIONS: Final = 15_000
_MOST_ITERATIONS: Final = 1_000_000  # a server that wants more wants our time
_NONCE: Final = 18  # bytes
_NO_BINDING: Final = "n,,"


class Verifier(NamedTuple):
    """What a server keeps in place of a password."""

    iterations: int
    salt: bytes
    stored_key: bytes
    server_key: bytes

    @classmethod
    def of(cls, password: str, *, salt: bytes | None = None, iterations: int = ITERATIONS) -> Verifier:
        """The verifier of a password."""
        salt = secrets.token_bytes(16) if salt is None else salt
        salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, iterations)
        return cls(iterations, salt, hashlib.sha256(_mac(salted, b"Client Key")).digest(), _mac(salted, b"Server Key"))

    def __str__(self) -> str:
        """The form of RFC 5803: ``SCRAM-SHA-256$ITERATIONS:SALT$STOREDKEY:SERVERKEY``."""
        salt, stored, server = (base64.b64encode(part).decode() for part in self[1:])
        return f"{MECHANISM}${self.iterations}:{salt}${stored}:{server}"

    @classmethod
    def parse(cls, text: str) -> Verifier:
        """Read that form.

        Raises:
            ValueError: it is another.
        """
        mechanism, first, second = text.split("$")
        iterations, _, salt = first.partition(":")
        stored, _, server = second.partition(":")
        if mechanism != MECHANISM:
            raise ValueError(f"'{mechanism}' is not {MECHANISM}")
        parts = [base64.b64decode(part, validate=True) for part in (salt, stored, server)]
        if len(parts[1]) != 32 or len(parts[2]) != 32 or int(iterations) < 1:
            raise ValueError("the keys of SCRAM-SHA-256 have 32 bytes")
        return cls(int(iterations), *parts)


class ScramServer:
    """One attempt of a client to prove who it is.

    Args:
        verifiers: by user.
        seed: secret, and the same for all attempts: what a user is answered that does not exist must not change.

    Attributes:
        user: who has proved to be it; empty before that.
    """

    def __init__(self, verifiers: dict[str, Verifier], seed: bytes) -> None:
        self.user = ""
        self._verifiers = verifiers
        self._seed = seed
        self._claimed = ""
        self._first = ""
        self._nonce = ""

    def start(self, message: bytes) -> bytes:
        """Answer the client's first message.

        Raises:
            RemoteProtocolError: it is none.
        """
        text = _decoded(message)
        if not text.startswith("n,"):
            raise RemoteProtocolError("SCRAM: channel binding is not supported")
        _, _, bare = text.split(",", 2) if text.count(",") >= 2 else ("", "", "")
        fields = _fields(bare)
        if "n" not in fields or "r" not in fields or not fields["r"]:
            raise RemoteProtocolError("SCRAM: the first message has a name and a nonce")
        self._claimed = fields["n"].replace("=2C", ",").replace("=3D", "=")
        self._nonce = fields["r"] + base64.b64encode(secrets.token_bytes(_NONCE)).decode()
        verifier = self._verifier()
        answer = f"r={self._nonce},s={base64.b64encode(verifier.salt).decode()},i={verifier.iterations}"
        self._first = f"{bare},{answer}"
        return answer.encode()

    def finish(self, message: bytes) -> bytes | None:
        """Answer the client's proof; None where it proves nothing.

        Raises:
            RemoteProtocolError: it is none.
        """
        text = _decoded(message)
        without, _, proof = text.rpartition(",p=")
        fields = _fields(without)
        if fields.get("r") != self._nonce or fields.get("c") != base64.b64encode(_NO_BINDING.encode()).decode():
            raise RemoteProtocolError("SCRAM: the proof is of another exchange")
        try:
            given = base64.b64decode(proof, validate=True)
        except ValueError:
            raise RemoteProtocolError("SCRAM: the proof is no base64") from None
        verifier = self._verifier()
        whole = f"{self._first},{without}".encode()
        key = _xor(given.ljust(32, b"\0")[:32], _mac(verifier.stored_key, whole))
        good = hmac.compare_digest(hashlib.sha256(key).digest(), verifier.stored_key) and len(given) == 32
        if not good or self._claimed not in self._verifiers:
            return None
        self.user = self._claimed
        return b"v=" + base64.b64encode(_mac(verifier.server_key, whole))

    def _verifier(self) -> Verifier:
        known = self._verifiers.get(self._claimed)
        if known is not None:
            return known
        made_up = _mac(self._seed, self._claimed.encode())
        return Verifier(ITERATIONS, made_up[:16], made_up, made_up)


class ScramClient:
    """The client's side of one attempt."""

    def __init__(self, user: str, password: str) -> None:
        self._password = password
        self._nonce = base64.b64encode(secrets.token_bytes(_NONCE)).decode()
        self._bare = f"n={user.replace('=', '=3D').replace(',', '=2C')},r={self._nonce}"
        self._signature = b""

    def start(self) -> bytes:
        """The first message."""
        return (_NO_BINDING + self._bare).encode()

    def prove(self, message: bytes) -> bytes:
        """The proof, by the server's answer.

        Raises:
            RemoteProtocolError: the answer is none.
        """
        text = _decoded(message)
        fields = _fields(text)
        try:
            nonce, salt, iterations = fields["r"], base64.b64decode(fields["s"], validate=True), int(fields["i"])
        except (KeyError, ValueError):
            raise RemoteProtocolError("SCRAM: the server's answer has a nonce, a salt and a count") from None
        if not nonce.startswith(self._nonce) or not 1 <= iterations <= _MOST_ITERATIONS:
            raise RemoteProtocolError("SCRAM: the server's answer is of another exchange, or wants too much")
        salted = hashlib.pbkdf2_hmac("sha256", self._password.encode(), salt, iterations)
        without = f"c={base64.b64encode(_NO_BINDING.encode()).decode()},r={nonce}"
        whole = f"{self._bare},{text},{without}".encode()
        key = _mac(salted, b"Client Key")
        proof = _xor(key, _mac(hashlib.sha256(key).digest(), whole))
        self._signature = _mac(_mac(salted, b"Server Key"), whole)
        return f"{without},p={base64.b64encode(proof).decode()}".encode()

    def verify(self, message: bytes) -> bool:
        """Whether the server knows the password, too."""
        expected = b"v=" + base64.b64encode(self._signature)
        return bool(self._signature) and hmac.compare_digest(message, expected)


def _mac(key: bytes, data: bytes) -> bytes:
    return hmac.digest(key, data, "sha256")


def _xor(one: bytes, other: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(one, other, strict=True))


def _decoded(message: bytes) -> str:
    try:
        return message.decode()
    except UnicodeDecodeError:
        raise RemoteProtocolError("SCRAM: a message is no UTF-8") from None


def _fields(text: str) -> dict[str, str]:
    return {part[0]: part[2:] for part in text.split(",") if part[1:2] == "="}

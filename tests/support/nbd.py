"""NBD in tests: a client that writes every byte itself, servers in threads, and certificates."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from hostel.block import graph
from hostel.block.node import BlockNode
from hostel.export.nbd.connection import NbdService, Security
from hostel.export.nbd.export import NbdExport
from hostel.net.address import UnixAddress, listen
from hostel.net.server import Server
from hostel.wire.nbd import protocol
from hostel.wire.nbd.protocol import Command, CommandFlag, HandshakeFlag, Option
from hostel.wire.nbd.request import format_request

MIB = 1 << 20
TIMEOUT = 20.0  # seconds for anything that a test waits for

FLAGS = struct.pack(">I", HandshakeFlag.FIXED_NEWSTYLE | HandshakeFlag.NO_ZEROES)


def option(number: int, data: bytes = b"") -> bytes:
    """An option as a client sends it."""
    return protocol.OPTION.pack(protocol.OPTION_MAGIC, number, len(data)) + data


def answer(number: int, kind: int, data: bytes = b"") -> bytes:
    """An answer to an option as a server sends it."""
    return protocol.OPTION_REPLY.pack(protocol.OPTION_REPLY_MAGIC, number, kind, len(data)) + data


def text(value: str) -> bytes:
    """A string with its length before it."""
    return struct.pack(">I", len(value.encode())) + value.encode()


def go(name: str = "", *requests: int) -> bytes:
    """The data of GO and INFO."""
    return text(name) + struct.pack(f">H{len(requests)}H", len(requests), *requests)


def queries(name: str, *wanted: str) -> bytes:
    """The data of LIST_META_CONTEXT and SET_META_CONTEXT."""
    return text(name) + struct.pack(">I", len(wanted)) + b"".join(map(text, wanted))


class Peer:
    """A client over a socket, one byte string at a time."""

    def __init__(self, path: Path | str) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(TIMEOUT)
        self.socket.connect(str(path))

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def receive(self, length: int) -> bytes:
        data = bytearray()
        while len(data) < length:
            part = self.socket.recv(length - len(data))
            assert part, f"the server ended after {len(data)} of {length} bytes"
            data += part
        return bytes(data)

    def ended(self) -> bool:
        """Whether the server has closed the connection; waits for something to happen."""
        try:
            return self.socket.recv(1) == b""
        except ConnectionResetError:
            return True

    def greet(self) -> None:
        magic, kind, flags = protocol.GREETING.unpack(self.receive(18))
        assert (magic, kind, flags) == (protocol.GREETING_MAGIC, protocol.OPTION_MAGIC, 3)
        self.send(FLAGS)

    def ask(self, number: int, data: bytes = b"") -> list[tuple[int, bytes]]:
        """Send an option; its answers up to the last."""
        self.send(option(number, data))
        answers = []
        while True:
            magic, answered, kind, length = protocol.OPTION_REPLY.unpack(self.receive(20))
            assert (magic, answered) == (protocol.OPTION_REPLY_MAGIC, number)
            answers.append((kind, self.receive(length)))
            if kind == protocol.Answer.ACK or kind & protocol.ANSWER_IS_ERROR:
                return answers

    def use(self, name: str = "", *, structured: bool = False, contexts: Sequence[str] = ()) -> None:
        """Go through the handshake to the transmission phase."""
        self.greet()
        if structured:
            assert self.ask(Option.STRUCTURED_REPLY)[-1][0] == protocol.Answer.ACK
        if contexts:
            assert self.ask(Option.SET_META_CONTEXT, queries(name, *contexts))[-1][0] == protocol.Answer.ACK
        assert self.ask(Option.GO, go(name))[-1][0] == protocol.Answer.ACK

    def request(
        self, command: int, offset: int = 0, length: int = 0, *, flags: int = 0, payload: bytes = b"", cookie: int = 7
    ) -> None:
        self.send(request(command, offset, length, flags=flags, payload=payload, cookie=cookie))

    def simple(self, length: int = 0, cookie: int = 7) -> tuple[int, bytes]:
        """A simple reply: the error, and the data of a successful read."""
        magic, error, answered = protocol.SIMPLE_REPLY.unpack(self.receive(16))
        assert (magic, answered) == (protocol.SIMPLE_REPLY_MAGIC, cookie)
        return error, b"" if error else self.receive(length)

    def chunks(self, cookie: int = 7) -> list[tuple[int, bytes]]:
        """The chunks of a structured reply: types and payloads."""
        found = []
        while True:
            magic, flags, kind, answered, length = protocol.STRUCTURED_REPLY.unpack(self.receive(20))
            assert (magic, answered) == (protocol.STRUCTURED_REPLY_MAGIC, cookie)
            found.append((kind, self.receive(length)))
            if flags & protocol.CHUNK_DONE:
                return found


def request(
    command: int, offset: int = 0, length: int = 0, *, flags: int = 0, payload: bytes = b"", cookie: int = 7
) -> bytes:
    """A request with its payload."""
    if command in list(Command):
        return format_request(Command(command), cookie, offset, length, CommandFlag(flags)) + payload
    return protocol.REQUEST.pack(protocol.REQUEST_MAGIC, flags, command, cookie, offset, length) + payload


class Serving(NamedTuple):
    """A server that runs.

    Attributes:
        log: what it reported.
    """

    path: Path
    server: Server
    thread: threading.Thread
    log: list[str]

    @property
    def uri(self) -> str:
        return f"nbd+unix:///?socket={self.path}"


@contextlib.contextmanager
def serving(
    folder: Path,
    *exports: NbdExport,
    limit: int = 0,
    once: bool = False,
    security: Security | None = None,
    handshake_limit: int | None = None,
) -> Iterator[Serving]:
    """Serve exports on a Unix socket, in a thread, until the block ends."""
    path = folder / "nbd.sock"
    log: list[str] = []
    service = NbdService(exports, security=security, report=log.append, handshake_limit=handshake_limit)
    server = Server(listen(UnixAddress(str(path)), 16), service.serve, limit=limit, once=once)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield Serving(path, server, thread, log)
    finally:
        server.stop()
        thread.join(TIMEOUT)
        assert not thread.is_alive()


@contextlib.contextmanager
def raw_disk(folder: Path, content: bytes, *, length: int = 0, name: str = "disk.raw") -> Iterator[BlockNode]:
    """A raw image with some content and a hole from there to ``length`` bytes, open for writing."""
    path = folder / name
    path.write_bytes(content)
    os.truncate(path, max(length, len(content)))
    with graph.open(str(path), "raw", read_only=False) as node:
        yield node


@contextlib.contextmanager
def played(folder: Path, play: Callable[[socket.socket], None]) -> Iterator[Path]:
    """A server whose every connection ``play`` is in charge of; what it raises fails the test."""
    path = folder / "played.sock"
    failures: list[BaseException] = []
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def run() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            connection.settimeout(TIMEOUT)
            with connection:
                try:
                    play(connection)
                except (BrokenPipeError, ConnectionResetError):
                    continue  # the client has had enough
                except BaseException as error:
                    failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield path
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(TIMEOUT)
    assert not failures, failures


class Certificates:
    """An authority, and directories as QEMU's ``tls-creds-x509`` wants them, made by ``openssl``."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self.folder = folder
        self._key, self._certificate = folder / f"{name}-key.pem", folder / f"{name}.pem"
        _openssl(
            *("req", "-x509", "-nodes", "-days", "30", "-subj", f"/CN={name}", *_NEW_KEY),
            *("-keyout", self._key, "-out", self._certificate),
            *("-addext", "keyUsage=critical,keyCertSign,cRLSign"),
        )

    def make(self, name: str, *, server: bool, subject: str = "/CN=somebody", days: int = 30) -> Path:
        """A directory for one side; a server's certificate is for localhost and 127.0.0.1."""
        folder = self.folder / name
        folder.mkdir()
        side = "server" if server else "client"
        extensions = folder / "extensions"
        extensions.write_text(
            "basicConstraints=critical,CA:FALSE\n"
            "keyUsage=critical,digitalSignature\n"
            f"extendedKeyUsage={side}Auth\n" + ("subjectAltName=IP:127.0.0.1,DNS:localhost\n" if server else "")
        )
        wish = folder / "wish.csr"
        _openssl("req", "-nodes", "-subj", subject, *_NEW_KEY, "-keyout", folder / f"{side}-key.pem", "-out", wish)
        _openssl(
            *("x509", "-req", "-in", wish, "-CA", self._certificate, "-CAkey", self._key, "-CAcreateserial"),
            *("-days", days, "-extfile", extensions, "-out", folder / f"{side}-cert.pem"),
        )
        (folder / "ca-cert.pem").write_bytes(self._certificate.read_bytes())
        return folder

    def only_authority(self, name: str) -> Path:
        """A directory for a client that shows no certificate."""
        folder = self.folder / name
        folder.mkdir()
        (folder / "ca-cert.pem").write_bytes(self._certificate.read_bytes())
        return folder


_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")


def _openssl(*words: object) -> None:
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True, timeout=TIMEOUT)

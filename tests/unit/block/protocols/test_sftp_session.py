"""What a session makes of servers that do what they may, and of those that do what they may not."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from hostel.block.protocols.ssh.session import Sftp
from hostel.errors import BlockError

Reply = Callable[[int, int, bytes], bytes]  # of a request's type, its number and what follows


def answer(kind: int, body: bytes) -> bytes:
    return struct.pack(">IB", 1 + len(body), kind) + body


def status(id: int, code: int, text: bytes = b"") -> bytes:
    return answer(101, struct.pack(">III", id, code, len(text)) + text + bytes(4))


def serve(server: socket.socket, reply: Reply) -> None:
    with server, server.makefile("rb") as stream:
        while head := stream.read(5):
            length, kind = struct.unpack(">IB", head)
            body = stream.read(length - 1)
            if kind == 1:
                server.sendall(answer(2, struct.pack(">I", 3)))
            else:
                server.sendall(reply(kind, int.from_bytes(body[:4]), body[4:]))


@contextmanager
def session(reply: Reply) -> Iterator[Sftp]:
    ours, theirs = socket.socketpair()
    ours.settimeout(5)
    thread = threading.Thread(target=serve, args=(theirs, reply))
    thread.start()
    channel: Any = ours
    try:
        yield Sftp(channel)
    finally:
        ours.close()
        thread.join(10)
    assert not thread.is_alive()


def test_what_was_read_short_is_asked_for_again() -> None:
    content = bytes(range(256)) * 1024

    def reply(kind: int, id: int, body: bytes) -> bytes:
        offset, length = struct.unpack(">QI", body[-12:])
        data = content[offset : offset + min(length, 5000)]
        return answer(103, struct.pack(">II", id, len(data)) + data)

    buffer = bytearray(200_000)
    with session(reply) as sftp:
        sftp.read(b"h", 1000, memoryview(buffer))
    assert buffer == content[1000:201_000]


def test_a_file_that_has_become_shorter_is_told_of() -> None:
    with session(lambda kind, id, body: status(id, 1)) as sftp, pytest.raises(BlockError, match="shorter than it was"):
        sftp.read(b"h", 0, memoryview(bytearray(10)))


@pytest.mark.parametrize("bad", [0, 17, 63, 99])
def test_a_part_that_cannot_be_written_is_told_of_and_the_session_goes_on(bad: int) -> None:
    written = 0

    def reply(kind: int, id: int, body: bytes) -> bytes:
        nonlocal written
        written += 1
        return status(id, 4 if written == bad + 1 else 0, b"Failure")

    with session(reply) as sftp:
        with pytest.raises(BlockError, match="Failure"):
            sftp.write(b"h", 0, memoryview(bytes(100 * 32768)))
        written = 1000
        sftp.write(b"h", 0, memoryview(bytes(32768)))


def test_a_session_that_broke_stays_broken() -> None:
    with session(lambda kind, id, body: status(id + 1, 0)) as sftp:
        for _ in range(2):
            with pytest.raises(BlockError, match="was not asked"):
                sftp.sync(b"h")


def test_a_server_that_is_silent_is_told_of() -> None:
    with session(lambda kind, id, body: b"") as sftp:
        channel: Any = sftp._channel
        channel.settimeout(0.1)
        with pytest.raises(BlockError, match="does not answer"):
            sftp.close(b"h")

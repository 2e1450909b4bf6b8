"""A client that does nothing but keep a number of NBD requests under way, and counts the replies."""

from __future__ import annotations

import random
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path

from support.nbd import Peer, request

_PREPARED = 64 << 20  # bytes of requests made before the clock runs


def rate(
    path: Path,
    *,
    write: bool,
    length: int,
    depth: int,
    sequential: bool = False,
    awake: bool = False,
    seconds: float = 0.7,
) -> float:
    """Requests a second, with ``depth`` of them under way.

    A client that sleeps until it is woken by a reply spends two thirds of a single request's time on that, whoever the
    server is; one that stays ``awake`` shows what the server takes.
    """
    with Peer(path) as peer:
        peer.use(structured=True)
        size = _size(path)
        count = max(depth, min(1 << 14, _PREPARED // (28 + (length if write else 0))))
        rng = random.Random(1)
        blocks = size // length
        payload = rng.randbytes(length) if write else b""
        one = len(request(int(write), 0, length, payload=payload))
        prepared = memoryview(
            b"".join(
                request(
                    int(write),
                    (index % blocks if sequential else rng.randrange(blocks)) * length,
                    length,
                    payload=payload,
                    cookie=index,
                )
                for index in range(count)
            )
        )
        reply = 16 if write else 28 + length
        return _run(_receiver(peer.socket, awake=awake), peer.socket, prepared, one, reply, depth, seconds)


def _receiver(sock: socket.socket, *, awake: bool) -> Callable[[memoryview], int]:
    sock.settimeout(None)
    if not awake:
        return sock.recv_into

    def look(buffer: memoryview) -> int:
        while True:
            try:
                return sock.recv_into(buffer, 0, socket.MSG_DONTWAIT)
            except BlockingIOError:
                pass

    return look


def _run(
    receive: Callable[[memoryview], int],
    sock: socket.socket,
    prepared: memoryview,
    one: int,
    reply: int,
    depth: int,
    seconds: float,
) -> float:
    buffer = memoryview(bytearray(max(1 << 20, reply)))
    count, position = len(prepared) // one, 0

    def send(number: int) -> None:
        nonlocal position
        if position + number > count:
            position = 0
        sock.sendall(prepared[position * one : (position + number) * one])
        position += number

    send(depth)
    start = now = time.perf_counter()
    done = part = 0
    while now - start < seconds:
        received = receive(buffer)
        assert received, "the server ended"
        answered, part = divmod(part + received, reply)
        if answered:
            done += answered
            send(answered)
            now = time.perf_counter()
    _drain(sock, buffer, reply * depth - part)
    return done / (now - start)


def _drain(sock: socket.socket, buffer: memoryview, left: int) -> None:
    """Take the replies that are still to come, so that the server is idle when the next begins."""
    sock.settimeout(20)
    while left > 0:
        left -= sock.recv_into(buffer[: min(left, len(buffer))])
    sock.sendall(request(2))


def _size(path: Path) -> int:
    """The export's size in bytes."""
    with Peer(path) as peer:
        peer.greet()
        for kind, data in peer.ask(6, struct.pack(">IH", 0, 0)):
            if kind == 3 and data[:2] == b"\0\0":
                return int(struct.unpack(">Q", data[2:10])[0])
    raise AssertionError("the server tells no size")

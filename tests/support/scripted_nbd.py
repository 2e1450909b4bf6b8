"""NBD servers of which a test says each answer, and a client's node on them."""

from __future__ import annotations

import socket
import struct
from pathlib import Path

from hostel.block import graph
from hostel.block.blockdev import from_options
from hostel.block.node import BlockNode
from hostel.wire.nbd import protocol
from hostel.wire.nbd.protocol import Answer, Command, Info, Option
from hostel.wire.nbd.request import ReplyFormat, RequestReader
from support.nbd import answer


class Scripted:
    """A server in bytes: its handshake, and what it answers to each request."""

    def __init__(
        self,
        size: int,
        flags: int,
        *,
        structured: bool = False,
        blocks: tuple[int, int, int] | None = None,
        contexts: bool = False,
    ) -> None:
        self.size = size
        self.flags = flags | 1
        self.structured = structured
        self.blocks = blocks
        self.contexts = contexts
        self.disk = bytearray(size)
        self.requests: list[tuple[int, ...]] = []
        self.format = ReplyFormat(structured=structured)

    def __call__(self, sock: socket.socket) -> None:
        self.shake_hands(sock)
        reader = RequestReader()
        while data := sock.recv(1 << 20):
            for found in reader.receive(data):
                if found[0] == Command.DISC:
                    return
                self.requests.append(found[:5])
                self.serve(sock, *found)

    def shake_hands(self, sock: socket.socket) -> None:
        sock.sendall(protocol.GREETING.pack(protocol.GREETING_MAGIC, protocol.OPTION_MAGIC, 3))
        sock.recv(4, socket.MSG_WAITALL)
        while True:
            _, number, length = protocol.OPTION.unpack(sock.recv(16, socket.MSG_WAITALL))
            sock.recv(length, socket.MSG_WAITALL)
            if number == Option.GO:
                if self.blocks is not None:
                    sock.sendall(answer(number, Answer.INFO, struct.pack(">HIII", Info.BLOCK_SIZE, *self.blocks)))
                info = struct.pack(">HQH", Info.EXPORT, self.size, self.flags)
                sock.sendall(answer(number, Answer.INFO, info) + answer(number, Answer.ACK))
                return
            if number == Option.STRUCTURED_REPLY and self.structured:
                sock.sendall(answer(number, Answer.ACK))
            elif number == Option.SET_META_CONTEXT and self.contexts:
                context = answer(number, Answer.META_CONTEXT, struct.pack(">I", 5) + b"base:allocation")
                sock.sendall(context + answer(number, Answer.ACK))
            else:
                sock.sendall(answer(number, Answer.ERR_UNSUP))

    def serve(
        self, sock: socket.socket, kind: int, flags: int, cookie: int, offset: int, length: int, payload: memoryview
    ) -> None:
        if kind == Command.READ:
            header = memoryview(bytearray(self.format.read_header))
            self.format.put_data(header, 0, cookie, offset, offset, length)
            sock.sendall(bytes(header) + self.disk[offset : offset + length])
            return
        if kind == Command.WRITE:
            self.disk[offset : offset + length] = payload
        elif kind == Command.WRITE_ZEROES:
            self.disk[offset : offset + length] = bytes(length)
        sock.sendall(self.format.done(cookie, offset))


def opened(path: Path, *, read_only: bool = False, options: str = "") -> BlockNode:
    """Open what the server at a socket has, with options of the driver as ``,key=value``."""
    given = dict(item.split("=") for item in f"driver=nbd,path={path}{options}".split(","))
    return graph.open(from_options(given), read_only=read_only)

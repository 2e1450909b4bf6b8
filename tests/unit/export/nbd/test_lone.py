"""Requests that a client sends one at a time, answered on the shortest way, beside the same sent all at once."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hostel.block.node import BlockNode
from hostel.block.rewiring import redirect
from hostel.export.nbd.export import NbdExport
from hostel.wire.nbd import protocol
from support import nbd
from support.nbd import MIB, Peer, request, serving

READ, WRITE = 0, 1
FUA = 1
LENGTHS = [0, 1, 512, 4096, 4097, 65536, 65537, 200_000]


def requests(seed: int) -> list[bytes]:
    """Reads and writes of all lengths, within the disk, over its end and behind it; and commands that do not exist."""
    rng = random.Random(seed)
    found = []
    for cookie in range(150):
        length, offset = rng.choice(LENGTHS), rng.choice([rng.randrange(MIB), 0, MIB - 4096, MIB, 1 << 40])
        kind = rng.choice([READ, READ, WRITE, WRITE, 99])
        payload = rng.randbytes(length) if kind == WRITE else b""
        flags = rng.choice([0, 0, 0, FUA, 1 << 9])
        found.append(request(kind, offset, length, flags=flags, payload=payload, cookie=cookie))
    return found


@contextmanager
def disk(folder: Path) -> Iterator[BlockNode]:
    folder.mkdir()
    with nbd.raw_disk(folder, random.Random(5).randbytes(MIB)) as node:
        yield node


def reply(peer: Peer) -> bytes:
    """All bytes of the next reply, simple or structured."""
    said = b""
    while True:
        said += peer.receive(4)
        if struct.unpack(">I", said[-4:])[0] == protocol.SIMPLE_REPLY_MAGIC:
            return said + peer.receive(12)
        head = peer.receive(16)
        flags, length = struct.unpack(">H10xI", head)
        said += head + peer.receive(length)
        if flags & protocol.CHUNK_DONE:
            return said


@pytest.mark.parametrize("writable", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_are_answered_as_those_that_come_together(tmp_path: Path, seed: int, writable: bool) -> None:
    contents, told = [], []
    for way in ("alone", "together"):
        folder = tmp_path / way
        with (
            disk(folder) as node,
            serving(folder, NbdExport(node, writable=writable)) as served,
            Peer(served.path) as peer,
        ):
            peer.use(structured=True)
            asked = requests(seed)
            if way == "together":
                asked = [b"".join(asked[start : start + 10]) for start in range(0, len(asked), 10)]
            said = []
            for data in asked:
                peer.send(data)
                said += [reply(peer) for _ in range(1 if way == "alone" else 10)]
            told.append(said)
        contents.append((folder / "disk.raw").read_bytes())
    assert told[0] == told[1]
    assert contents[0] == contents[1]


def test_the_graph_is_asked_anew_once_it_has_changed(tmp_path: Path) -> None:
    with (
        disk(tmp_path / "one") as node,
        disk(tmp_path / "two") as other,
        serving(tmp_path, NbdExport(node)) as served,
        Peer(served.path) as peer,
    ):
        peer.use()
        peer.request(WRITE, 0, 6, payload=b"before")
        assert peer.simple() == (0, b"")
        former = redirect(node, other)
        peer.request(WRITE, 0, 6, payload=b"after!")
        assert peer.simple() == (0, b"")
        assert former.read(0, 6) == b"before"
        assert other.read(0, 6) == b"after!"

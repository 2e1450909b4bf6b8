"""Serving over NBD: every command with a client that writes each byte itself."""

from __future__ import annotations

import errno
import os
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostel.block import graph
from hostel.block.bitmap import DirtyBitmap
from hostel.block.driver import CACHE_MODES
from hostel.block.node import BlockNode
from hostel.export.nbd import connection
from hostel.export.nbd.export import NbdExport
from hostel.img import create
from hostel.wire.nbd import protocol
from hostel.wire.nbd.protocol import Chunk, Command, CommandFlag, ExportFlag, Option
from hostel.wire.nbd.request import format_request
from support.nbd import FLAGS, MIB, Peer, go, option, queries, raw_disk, request, serving

CONTENT = os.urandom(MIB) + bytes(MIB) + os.urandom(MIB + 100)
SIZE = len(CONTENT) // 512 * 512 + 512  # in whole sectors


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[BlockNode]:
    with raw_disk(tmp_path, CONTENT) as node:
        yield node


@pytest.fixture(params=["file", "node"])
def export(disk: BlockNode, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> NbdExport:
    """The same disk, served past the nodes and through them."""
    if request.param == "node":
        monkeypatch.setattr(NbdExport, "host_file", lambda _: None)
    return NbdExport(disk, shared=True)


def content(disk: BlockNode) -> bytes:
    return Path(disk.filename).read_bytes()


# ---- reading


@pytest.mark.parametrize(
    ("offset", "length"),
    [(0, 512), (100, 1), (0, 65536), (1000, 65537), (5, 300_000), (0, SIZE), (SIZE - 412, 412), (MIB - 7, MIB + 14)],
)
def test_read(tmp_path: Path, export: NbdExport, offset: int, length: int) -> None:
    expected = (CONTENT + bytes(512))[offset : offset + length]
    with serving(tmp_path, export) as server:
        with Peer(server.path) as peer:
            peer.use()
            peer.request(Command.READ, offset, length)
            assert peer.simple(length) == (0, expected)
        with Peer(server.path) as peer:
            peer.use(structured=True)
            for flags in (CommandFlag.NONE, CommandFlag.DF):
                peer.request(Command.READ, offset, length, flags=flags)
                found = bytearray(b"?" * length)
                chunks = peer.chunks()
                for kind, payload in chunks:
                    (at,) = struct.unpack_from(">Q", payload)
                    if kind == Chunk.OFFSET_HOLE:
                        payload = payload[:8] + bytes(struct.unpack_from(">I", payload, 8)[0])
                    found[at - offset : at - offset + len(payload) - 8] = payload[8:]
                assert found == expected
                assert flags == CommandFlag.NONE or [kind for kind, _ in chunks] == [Chunk.OFFSET_DATA]


def test_holes_are_named_in_large_reads(tmp_path: Path) -> None:
    with raw_disk(tmp_path, b"", length=4 * MIB) as disk:
        disk.pwrite(2 * MIB, b"x" * MIB)
        with serving(tmp_path, NbdExport(disk)) as server, Peer(server.path) as peer:
            peer.use(structured=True)
            peer.request(Command.READ, 0, 4 * MIB)
            chunks = peer.chunks()
            assert chunks[0] == (Chunk.OFFSET_HOLE, struct.pack(">QI", 0, 2 * MIB))
            assert chunks[-1] == (Chunk.OFFSET_HOLE, struct.pack(">QI", 3 * MIB, MIB))
            assert b"".join(payload[8:] for _, payload in chunks[1:-1]) == b"x" * MIB


def test_many_requests_in_one_portion_are_all_answered_in_order(tmp_path: Path, export: NbdExport) -> None:
    count, length = 500, 4096
    with serving(tmp_path, export) as server, Peer(server.path) as peer:
        peer.use()
        peer.send(b"".join(request(Command.READ, index * 100, length, cookie=index) for index in range(count)))
        for index in range(count):
            assert peer.simple(length, cookie=index) == (0, CONTENT[index * 100 : index * 100 + length])


def test_requests_that_come_byte_by_byte(tmp_path: Path, export: NbdExport) -> None:
    with serving(tmp_path, export) as server, Peer(server.path) as peer:
        for part in FLAGS + option(Option.GO, go()) + request(Command.READ, 0, 16):
            peer.send(bytes([part]))
        peer.receive(18)
        while not (header := peer.receive(20)).endswith(struct.pack(">II", protocol.Answer.ACK, 0)):
            peer.receive(struct.unpack(">I", header[16:])[0])
        assert peer.simple(16) == (0, CONTENT[:16])


def test_a_file_that_was_cut_off_is_an_error_and_not_zeroes(tmp_path: Path, export: NbdExport, disk: BlockNode) -> None:
    with serving(tmp_path, export) as server, Peer(server.path) as peer:
        peer.use()
        os.truncate(disk.filename, 5000)
        peer.request(Command.READ, 4096, 1024)
        assert peer.simple(1024) == (0, CONTENT[4096:5000] + bytes(120))
        for length in (4096, 200_000):
            peer.request(Command.READ, 4096, length)
            assert peer.simple(length) == (errno.EINVAL, b"")


class SlowDisk:
    """``preadv`` and ``posix_fadvise`` of a disk: what was not asked for before is not there for who does not wait."""

    def __init__(self) -> None:
        self._real = os.preadv
        self.cached: set[int] = set()
        self.under_way: set[int] = set()
        self.most = 0

    def advise(self, fd: int, offset: int, length: int, advice: int) -> None:
        self.under_way.add(offset)
        self.most = max(self.most, len(self.under_way))

    def preadv(self, fd: int, buffers: list[memoryview], offset: int, flags: int = 0) -> int:
        if offset not in self.cached and flags:
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        self.under_way.discard(offset)
        self.cached.add(offset)
        return self._real(fd, buffers, offset)


@pytest.mark.parametrize("length", [4096, 100_000])
def test_a_disk_that_must_be_waited_for_gets_many_reads_at_a_time(
    tmp_path: Path, disk: BlockNode, monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    slow = SlowDisk()
    monkeypatch.setattr(os, "preadv", slow.preadv)
    monkeypatch.setattr(os, "posix_fadvise", slow.advise)
    monkeypatch.delattr(os, "splice", raising=False)
    slow.cached.add(50_000)
    count = 100
    with serving(tmp_path, NbdExport(disk)) as server, Peer(server.path) as peer:
        peer.use()
        stream = b"".join(request(Command.READ, index * 10_000, length, cookie=index) for index in range(count))
        peer.send(stream + request(Command.DISC))
        found = {}
        for _ in range(count):
            magic, code, cookie = protocol.SIMPLE_REPLY.unpack(peer.receive(16))
            assert (magic, code) == (protocol.SIMPLE_REPLY_MAGIC, 0)
            found[cookie] = peer.receive(length)
        assert peer.ended()
    assert found == {index: CONTENT[index * 10_000 : index * 10_000 + length] for index in range(count)}
    assert next(iter(found)) == 5, "what is there waits for nothing"
    assert slow.most > 50
    assert not slow.under_way


# ---- writing


@pytest.mark.parametrize("structured", [False, True])
@pytest.mark.parametrize(
    ("offset", "length"), [(0, 512), (777, 1), (0, 65536), (1000, 70_000), (0, SIZE), (5, 2 * MIB)]
)
def test_write(tmp_path: Path, export: NbdExport, disk: BlockNode, offset: int, length: int, structured: bool) -> None:
    data = os.urandom(length)
    with serving(tmp_path, export) as server, Peer(server.path) as peer:
        peer.use(structured=structured)
        peer.request(Command.WRITE, offset, length, payload=data)
        assert peer.simple() == (0, b"")
    expected = bytearray(CONTENT + bytes(SIZE - len(CONTENT)))
    expected[offset : offset + length] = data
    assert content(disk).ljust(SIZE, b"\0") == expected


def test_write_with_fua_is_synced_before_it_is_answered(
    tmp_path: Path, export: NbdExport, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = []
    monkeypatch.setattr(os, "fdatasync", lambda fd: synced.append(fd))
    with serving(tmp_path, export) as server, Peer(server.path) as peer:
        peer.use()
        peer.request(Command.WRITE, 0, 3, payload=b"abc")
        assert peer.simple() == (0, b"")
        assert not synced
        for command in (Command.WRITE, Command.WRITE_ZEROES, Command.TRIM):
            peer.request(command, 0, 3, payload=b"abc" if command is Command.WRITE else b"", flags=CommandFlag.FUA)
            assert peer.simple() == (0, b"")
            assert len(synced) == 1
            synced.clear()
        peer.request(Command.FLUSH)
        assert peer.simple() == (0, b"")
        assert len(synced) == 1


def test_each_write_is_synced_in_writethrough_mode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = []
    (tmp_path / "disk").write_bytes(CONTENT)
    with graph.open(str(tmp_path / "disk"), "raw", read_only=False, cache=CACHE_MODES["writethrough"]) as node:
        monkeypatch.setattr(os, "fdatasync", lambda fd: synced.append(fd))
        with serving(tmp_path, NbdExport(node)) as server, Peer(server.path) as peer:
            peer.use()
            peer.request(Command.WRITE, 0, 3, payload=b"abc")
            assert peer.simple() == (0, b"")
            assert synced


def test_zeroes_make_holes_unless_that_is_forbidden(tmp_path: Path, disk: BlockNode) -> None:
    for unmap, flags, shrinks in ((True, 0, True), (True, CommandFlag.NO_HOLE, False), (False, 0, False)):
        disk.pwrite(0, CONTENT[:MIB])
        before = os.stat(disk.filename).st_blocks
        disk.discards = unmap
        with serving(tmp_path, NbdExport(disk)) as server, Peer(server.path) as peer:
            peer.use()
            peer.request(Command.WRITE_ZEROES, 0, MIB, flags=flags)
            assert peer.simple() == (0, b"")
        assert content(disk)[:MIB] == bytes(MIB)
        assert (os.stat(disk.filename).st_blocks < before) is shrinks


def test_fast_zeroes_are_refused_where_they_would_be_slow(
    tmp_path: Path, export: NbdExport, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(tmp_path, export) as server, Peer(server.path) as peer:
        peer.use()
        peer.request(Command.WRITE_ZEROES, 0, MIB, flags=CommandFlag.FAST_ZERO)
        assert peer.simple()[0] in (0, errno.ENOTSUP)
        monkeypatch.setattr(BlockNode, "zeroes_fast", lambda *_, **__: False)
        peer.request(Command.WRITE_ZEROES, 0, MIB, flags=CommandFlag.FAST_ZERO)
        assert peer.simple()[0] == errno.ENOTSUP


def test_trim_gives_space_back_only_where_that_was_asked_for(tmp_path: Path, disk: BlockNode) -> None:
    before = os.stat(disk.filename).st_blocks
    for unmap, shrinks in ((False, False), (True, True)):
        disk.discards = unmap
        with serving(tmp_path, NbdExport(disk)) as server, Peer(server.path) as peer:
            peer.use()
            peer.request(Command.TRIM, 0, MIB)
            assert peer.simple() == (0, b"")
        assert (os.stat(disk.filename).st_blocks < before) is shrinks
        assert (content(disk)[:MIB] == bytes(MIB)) is shrinks


def test_written_zeroes_are_detected(tmp_path: Path, disk: BlockNode) -> None:
    before = os.stat(disk.filename).st_blocks
    disk.detect_zeroes = "unmap"
    with serving(tmp_path, NbdExport(disk)) as server, Peer(server.path) as peer:
        peer.use()
        peer.request(Command.WRITE, 0, MIB, payload=bytes(MIB - 1) + b"x")
        assert peer.simple() == (0, b"")
        assert os.stat(disk.filename).st_blocks >= before
        peer.request(Command.WRITE, 0, MIB, payload=bytes(MIB))
        assert peer.simple() == (0, b"")
    assert os.stat(disk.filename).st_blocks < before
    assert content(disk)[: 2 * MIB] == bytes(2 * MIB)


def test_a_guessed_raw_image_is_not_disguised(tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(bytes(MIB))
    with (
        graph.open(str(tmp_path / "disk"), read_only=False) as node,
        serving(tmp_path, NbdExport(node)) as server,
        Peer(server.path) as peer,
    ):
        assert NbdExport(node).offer().minimum == 512
        peer.use()
        peer.request(Command.WRITE, 0, 512, payload=b"QFI\xfb\0\0\0\3" + bytes(504))
        assert peer.simple()[0] == errno.EPERM
        peer.request(Command.WRITE, 0, 512, payload=b"x" * 512)
        assert peer.simple() == (0, b"")


def test_cache_is_answered(tmp_path: Path, export: NbdExport) -> None:
    with serving(tmp_path, export) as server, Peer(server.path) as peer:
        peer.use()
        peer.request(Command.CACHE, 5, SIZE - 5)
        assert peer.simple() == (0, b"")


# ---- block status


def test_block_status_names_data_holes_and_the_files_end(tmp_path: Path) -> None:
    with raw_disk(tmp_path, b"", length=3 * MIB + 100) as disk:
        disk.pwrite(MIB, b"x" * MIB)
        disk.pwrite(3 * MIB, b"y" * 100)
        with serving(tmp_path, NbdExport(disk)) as server, Peer(server.path) as peer:
            peer.use(structured=True, contexts=["base:allocation"])
            peer.request(Command.BLOCK_STATUS, 0, disk.length)
            expected = [(MIB, 3), (MIB, 0), (MIB, 3), (100, 0), (412, 3)]
            assert peer.chunks() == [(Chunk.BLOCK_STATUS, struct.pack(">11I", 0, *sum(expected, ())))]
            peer.request(Command.BLOCK_STATUS, MIB + 5, 2 * MIB, flags=CommandFlag.REQ_ONE)
            assert peer.chunks() == [(Chunk.BLOCK_STATUS, struct.pack(">3I", 0, MIB - 5, 0))]


def test_depth_and_bitmaps_are_contexts_of_their_own(tmp_path: Path) -> None:
    base, top = str(tmp_path / "base"), str(tmp_path / "top")
    create.create(create.plan(base, "qcow2", 4 * MIB))
    create.create(create.plan(top, "qcow2", backing=base, backing_format="qcow2"))
    with graph.open(base, "qcow2", read_only=False) as node:
        node.pwrite(0, b"x" * 2 * MIB)
    bitmap = DirtyBitmap(4 * MIB, 65536)
    bitmap.mark(3 * MIB, 1)
    with graph.open(top, "qcow2", read_only=False) as node:
        node.pwrite(MIB, b"y" * 2 * MIB)
        export = NbdExport(node, allocation_depth=True, bitmaps={"b0": bitmap})
        contexts = ["base:allocation", "qemu:allocation-depth", "qemu:dirty-bitmap:b0"]
        assert export.offer().contexts == tuple(contexts)
        with serving(tmp_path, export) as server, Peer(server.path) as peer:
            peer.use(structured=True, contexts=contexts)
            peer.request(Command.BLOCK_STATUS, 0, 4 * MIB)
            assert [struct.unpack(f">{len(payload) // 4}I", payload) for _, payload in peer.chunks()] == [
                (0, 3 * MIB, 0, MIB, 3),
                (1, MIB, 2, 2 * MIB, 1, MIB, 0),
                (2, 3 * MIB, 0, 65536, 1, MIB - 65536, 0),
            ]


def test_block_status_has_at_most_as_many_extents_as_a_reply_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "MAX_STATUS", 3)
    with raw_disk(tmp_path, b"", length=MIB) as disk:
        for offset in range(0, MIB, 65536):
            disk.pwrite(offset, b"x")
        with serving(tmp_path, NbdExport(disk)) as server, Peer(server.path) as peer:
            peer.use(structured=True, contexts=["base:allocation"])
            peer.request(Command.BLOCK_STATUS, 0, MIB)
            ((_, payload),) = peer.chunks()
            assert len(payload) == 4 + 3 * 8


def test_block_status_of_the_longest_range_there_is(tmp_path: Path) -> None:
    # CVE-2025-47711: a server that counted such a reply wrongly fell over it.
    with (
        raw_disk(tmp_path, b"", length=8 << 30) as disk,
        serving(tmp_path, NbdExport(disk)) as server,
        Peer(server.path) as peer,
    ):
        peer.use(structured=True, contexts=["base:allocation"])
        for offset in (0, (8 << 30) - 2**32 + 1):
            peer.request(Command.BLOCK_STATUS, offset, 2**32 - 1)
            ((_, payload),) = peer.chunks()
            assert payload == struct.pack(">III", 0, 2**32 - 1, 3)
        peer.request(Command.BLOCK_STATUS, (8 << 30) - 2**32 + 2, 2**32 - 1)
        ((kind, _),) = peer.chunks()
        assert kind == Chunk.ERROR


# ---- refusals


@pytest.mark.parametrize("structured", [False, True])
@pytest.mark.parametrize(
    ("command", "offset", "length", "flags", "code"),
    [
        (Command.READ, SIZE, 1, 0, errno.EINVAL),
        (Command.READ, 2**64 - 1, 2, 0, errno.EINVAL),
        (Command.READ, 0, 33 * MIB, 0, errno.EINVAL),
        (Command.READ, 0, 1, CommandFlag.NO_HOLE, errno.EINVAL),
        (Command.WRITE_ZEROES, SIZE - 1, 2, 0, errno.ENOSPC),
        (Command.TRIM, 0, SIZE + 1, 0, errno.EINVAL),
        (Command.TRIM, 0, 1, CommandFlag.REQ_ONE, errno.EINVAL),
        (Command.BLOCK_STATUS, 0, 512, 0, errno.EINVAL),
        (Command.BLOCK_STATUS, 0, 0, 0, errno.EINVAL),
        (Command.CACHE, 1, SIZE, 0, errno.EINVAL),
        (Command.FLUSH, 0, 0, CommandFlag.DF, errno.EINVAL),
        (8, 0, 0, 0, errno.EINVAL),
        (65535, 0, 0, 0, errno.EINVAL),
    ],
)
def test_a_wrong_request_is_refused_and_the_client_may_go_on(
    tmp_path: Path, export: NbdExport, command: int, offset: int, length: int, flags: int, code: int, structured: bool
) -> None:
    with serving(tmp_path, export) as server, Peer(server.path) as peer:
        peer.use(structured=structured)
        peer.request(command, offset, length, flags=flags)
        if structured:
            ((kind, payload),) = peer.chunks()
            assert (kind, struct.unpack_from(">I", payload)) == (Chunk.ERROR, (code,))
            assert payload[6:]
        else:
            assert peer.simple() == (code, b"")
        peer.request(Command.FLUSH)
        assert peer.simple() == (0, b"")


def test_extended_headers_carry_every_command(tmp_path: Path, export: NbdExport, disk: BlockNode) -> None:
    disk.resize(8 << 30)
    head = protocol.EXTENDED_REPLY

    def ask(
        command: Command, offset: int, length: int, flags: int = 0, payload: bytes = b""
    ) -> list[tuple[int, bytes]]:
        wish = format_request(command, 9, offset, length, CommandFlag(flags), extended=True)
        peer.send(wish + payload)
        found = []
        while True:
            magic, done, kind, cookie, at, size = head.unpack(peer.receive(head.size))
            assert (magic, cookie, at) == (protocol.EXTENDED_REPLY_MAGIC, 9, offset)
            found.append((kind, peer.receive(size)))
            if done:
                return found

    with serving(tmp_path, export) as server, Peer(server.path) as peer:
        peer.greet()
        assert peer.ask(Option.EXTENDED_HEADERS)[0][0] == protocol.Answer.ACK
        peer.ask(Option.SET_META_CONTEXT, queries("", "base:allocation"))
        peer.ask(Option.GO, go())
        assert ask(Command.WRITE, 5, 3, payload=b"abc") == [(Chunk.NONE, b"")]
        assert ask(Command.WRITE, 8, 3, flags=CommandFlag.FUA, payload=b"def") == [(Chunk.NONE, b"")]
        assert ask(Command.READ, 5, 6) == [(Chunk.OFFSET_DATA, struct.pack(">Q", 5) + b"abcdef")]
        assert ask(Command.WRITE_ZEROES, 4 << 30, 4 << 30) == [(Chunk.NONE, b"")]
        ((kind, payload),) = ask(Command.BLOCK_STATUS, 4 * MIB, (8 << 30) - 4 * MIB)
        assert payload == struct.pack(">IIQQ", 0, 1, (8 << 30) - 4 * MIB, 3)
        ((kind, payload),) = ask(Command.READ, 0, 1 << 40)
        assert kind == Chunk.ERROR
        ((kind, payload),) = ask(Command.READ, 0, 4, flags=CommandFlag.PAYLOAD_LEN, payload=b"what")
        assert (kind, struct.unpack_from(">I", payload)) == (Chunk.ERROR, (errno.EINVAL,))
        assert ask(Command.FLUSH, 0, 0) == [(Chunk.NONE, b"")]


def test_a_write_beyond_the_end_is_refused_after_its_payload(
    tmp_path: Path, export: NbdExport, disk: BlockNode
) -> None:
    with serving(tmp_path, export) as server, Peer(server.path) as peer:
        peer.use()
        peer.request(Command.WRITE, SIZE - 2, 3, payload=b"abc")
        assert peer.simple() == (errno.ENOSPC, b"")
        peer.request(Command.READ, 0, 4)
        assert peer.simple(4) == (0, CONTENT[:4])
    assert content(disk) == CONTENT


@pytest.mark.parametrize("command", [Command.WRITE, Command.WRITE_ZEROES, Command.TRIM])
def test_nothing_is_written_to_a_read_only_export(tmp_path: Path, disk: BlockNode, command: Command) -> None:
    export = NbdExport(disk, writable=False)
    flags = export.offer().flags
    assert flags & ExportFlag.READ_ONLY
    assert not flags & (ExportFlag.SEND_TRIM | ExportFlag.SEND_WRITE_ZEROES)
    with serving(tmp_path, export) as server, Peer(server.path) as peer:
        peer.use()
        peer.request(command, 0, 3, payload=b"abc" if command is Command.WRITE else b"")
        assert peer.simple() == (errno.EPERM, b"")
    assert content(disk) == CONTENT


def test_errors_of_the_disk_are_answered_with_their_place(
    tmp_path: Path, disk: BlockNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.preadv

    def failing(fd: int, buffers: list[memoryview], offset: int, *flags: int) -> int:
        if offset >= 600_000:
            raise OSError(errno.EIO, "Input/output error")
        return real(fd, buffers, offset, *flags)

    monkeypatch.setattr(os, "preadv", failing)
    monkeypatch.delattr(os, "splice", raising=False)
    with serving(tmp_path, NbdExport(disk)) as server:
        with Peer(server.path) as peer:
            peer.use()
            for length in (4096, 300_000):
                peer.request(Command.READ, 600_000, length)
                assert peer.simple() == (errno.EIO, b"")
        with Peer(server.path) as peer:
            peer.use(structured=True)
            peer.request(Command.READ, 100, MIB)
            *data, (kind, payload) = peer.chunks()
            code, size = struct.unpack_from(">IH", payload)
            (place,) = struct.unpack_from(">Q", payload, 6 + size)
            assert (kind, code) == (Chunk.ERROR_OFFSET, errno.EIO)
            assert place == 100 + sum(len(part) - 8 for _, part in data)
            peer.request(Command.READ, 0, 10)
            assert peer.chunks()[0][1][8:] == CONTENT[:10]


def test_a_full_disk_is_answered_as_such(tmp_path: Path, export: NbdExport, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with serving(tmp_path, export) as server, Peer(server.path) as peer:
        peer.use()
        peer.request(Command.WRITE, 0, 3, payload=b"abc")
        assert peer.simple() == (errno.ENOSPC, b"")


# ---- connections


def test_broken_clients_are_dropped_with_a_word_and_others_served(tmp_path: Path, export: NbdExport) -> None:
    with serving(tmp_path, export) as server, Peer(server.path) as good:
        good.use()
        for data, word in (
            (b"GET / HTTP/1.1\r\n", "option negotiation failed: Unknown client flags"),
            (FLAGS + b"x" * 16, "option negotiation failed: Bad magic received"),
            (FLAGS + option(Option.GO, go()) + bytes(28), "Disconnect client, due to: invalid magic"),
            (
                FLAGS + option(Option.GO, go()) + request(Command.WRITE, 0, 33 * MIB),
                "Disconnect client, due to: len (34603008) is larger than max len",
            ),
        ):
            with Peer(server.path) as peer:
                peer.send(data)
                while not peer.ended():
                    pass
            assert any(line.startswith(word) for line in server.log), server.log
        good.request(Command.READ, 0, 4)
        assert good.simple(4) == (0, CONTENT[:4])


def test_a_handshake_has_its_time(tmp_path: Path, export: NbdExport, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HANDSHAKE_TIMEOUT", 0.3)
    with serving(tmp_path, export) as server, Peer(server.path) as quiet, Peer(server.path) as slow:
        start = time.monotonic()
        quiet.receive(18)
        assert quiet.ended()
        assert time.monotonic() - start < 5
        slow.receive(18)
        with pytest.raises((BrokenPipeError, AssertionError, ConnectionResetError)):
            for part in FLAGS + option(Option.LIST) * 100:
                slow.send(bytes([part]))
                time.sleep(0.02)
        assert "option negotiation failed: no handshake within" in server.log[0]


def test_a_client_may_be_idle_as_long_as_it_likes(
    tmp_path: Path, export: NbdExport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "HANDSHAKE_TIMEOUT", 1.0)
    with serving(tmp_path, export) as server, Peer(server.path) as peer:
        peer.use()
        time.sleep(1.1)
        peer.request(Command.READ, 0, 4)
        assert peer.simple(4) == (0, CONTENT[:4])


def test_disconnect_ends_the_connection_without_a_word(tmp_path: Path, export: NbdExport) -> None:
    with serving(tmp_path, export, once=True) as server:
        with Peer(server.path) as peer:
            peer.use()
            peer.send(request(Command.READ, 0, 4) + request(Command.DISC) + request(Command.READ, 0, 4))
            assert peer.simple(4) == (0, CONTENT[:4])
            assert peer.ended()
        server.thread.join(20)
        assert not server.thread.is_alive()
        assert not server.log


def test_a_client_that_does_not_read_its_replies_does_not_stop_the_server(tmp_path: Path, export: NbdExport) -> None:
    with serving(tmp_path, export) as server, Peer(server.path) as peer:
        peer.use()
        peer.send(request(Command.READ, 0, 2 * MIB) * 20)
        server.server.stop()
        server.thread.join(20)
        assert not server.thread.is_alive()


def test_exports_are_listed_and_chosen_by_name(tmp_path: Path, disk: BlockNode) -> None:
    with raw_disk(tmp_path, b"other" * 1000, name="other.raw") as other:
        exports = (NbdExport(disk, "a"), NbdExport(other, "b", description="the other"))
        with serving(tmp_path, *exports) as server, Peer(server.path) as peer:
            peer.greet()
            assert [data for kind, data in peer.ask(Option.LIST) if kind == protocol.Answer.SERVER] == [
                b"\0\0\0\1a",
                b"\0\0\0\1bthe other",
            ]
            peer.ask(Option.GO, go("b"))
            peer.request(Command.READ, 0, 5)
            assert peer.simple(5) == (0, b"other")


def test_a_resized_image_has_its_new_size_for_new_clients(tmp_path: Path, export: NbdExport, disk: BlockNode) -> None:
    with serving(tmp_path, export) as server, Peer(server.path) as old:
        old.use()
        disk.resize(8 * MIB)
        old.request(Command.READ, 4 * MIB, 1)
        assert old.simple()[0] == errno.EINVAL
        with Peer(server.path) as peer:
            peer.use()
            peer.request(Command.READ, 8 * MIB - 1, 1)
            assert peer.simple(1) == (0, b"\0")

"""The NBD client driver: names, options, and servers of every kind."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostel.block import graph, objects
from hostel.block.blockdev import from_json, from_options
from hostel.block.driver import CACHE_MODES
from hostel.block.extent import Extent, Status
from hostel.block.node import BlockNode
from hostel.block.options import OptionError
from hostel.block.powers import Emptying
from hostel.block.protocols.nbd import address
from hostel.block.protocols.nbd import driver as nbd
from hostel.block.protocols.nbd.connection import Connection, ConnectionLost
from hostel.errors import BlockError, NoSpace
from hostel.export.nbd.export import NbdExport
from hostel.img import convert, create
from hostel.wire.nbd import protocol
from hostel.wire.nbd.client import Connected, Export
from hostel.wire.nbd.protocol import Answer, Chunk, Command, ExportFlag, Info, Option
from hostel.wire.nbd.request import ReplyFormat, RequestReader
from support.nbd import MIB, answer, played, raw_disk, serving

CONTENT = os.urandom(3 * MIB + 700)
SIZE = -(-len(CONTENT) // 512) * 512


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    with raw_disk(tmp_path, CONTENT) as disk, serving(tmp_path, NbdExport(disk, "disk", shared=True)) as server:
        disk.discards = False
        yield f"nbd+unix:///disk?socket={server.path}"


# ---- names and options


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("nbd:host:10809", {"server.type": "inet", "server.host": "host", "server.port": "10809"}),
        ("nbd:host:1:exportname=a:b", {"server.host": "host", "server.port": "1", "export": "a:b"}),
        ("nbd:[::1]:1", {"server.host": "::1", "server.port": "1"}),
        ("nbd:host:1,ipv4=on", {"server.host": "host", "server.port": "1"}),
        ("nbd:unix:/a/b", {"server.type": "unix", "server.path": "/a/b"}),
        ("nbd:unix:/a:exportname=x", {"server.type": "unix", "server.path": "/a", "export": "x"}),
        ("nbd://host", {"server.type": "inet", "server.host": "host", "server.port": "10809"}),
        ("nbd+tcp://[::1]:7/a%20b/c", {"server.host": "::1", "server.port": "7", "export": "a b/c"}),
        ("nbd+unix:///x?socket=/a%20b", {"server.type": "unix", "server.path": "/a b", "export": "x"}),
        ("nbd+unix://?socket=/a", {"server.type": "unix", "server.path": "/a"}),
        ("nbds://host/x?tls-certificates=/d", {"server.host": "host", "export": "x", "tls-certificates": "/d"}),
    ],
)
def test_names_stand_for_options(name: str, options: dict[str, str]) -> None:
    found = address.parse_filename(name)
    assert options.items() <= found.items()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nbd:host", "error parsing address 'host'"),
        ("nbd:host:", "error parsing address 'host:'"),
        ("nbd:[::1", r"error parsing address '\[::1'"),
        ("nbd:", "NBD server address missing"),
        ("nbd://", "No valid URL specified"),
        ("nbd://host?x=y", "No valid URL specified"),
        ("nbd://host:port", "No valid URL specified"),
        ("nbd://host?socket=/x", "No valid URL specified"),
        ("nbd+unix:///x", "No valid URL specified"),
        ("nbd+unix://host/x?socket=/a", "No valid URL specified"),
        ("nbd+unix:///x?socket=/a&socket=/b", "No valid URL specified"),
        ("nbds://host", "TLS needs certificates: 'nbds://host' names none"),
    ],
)
def test_wrong_names_are_refused_in_qemus_words(name: str, message: str) -> None:
    with pytest.raises(BlockError, match=message):
        graph.open(name, "raw")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("", "NBD server address missing"),
        ("port=1", "NBD server address missing"),
        ("host=h,path=p", "path and host may not be used at the same time"),
        ("path=p,port=1", "port may not be used without host"),
        ("path=p,server.type=unix", "Cannot use 'server' and path/host/port at the same time"),
        ("server.type=unix", "Parameter 'path' is missing"),
        ("server.type=inet,server.host=h", "Parameter 'port' is missing"),
        ("server.path=p", "Parameter 'type' is missing"),
        ("server.type=foo", "Parameter 'type' does not accept value 'foo'"),
        ("server.type=vsock", "'vsock' are not supported"),
        ("path=p,server.foo=1", "Parameter 'foo' is unexpected"),
        ("path=p,foo=1", "doesn't support the option 'foo'"),
        ("path=p,reconnect-delay=x", "Parameter 'reconnect-delay' expects a number"),
        ("path=p,tls-creds=x", "No TLS credentials with id 'x'"),
        ("path=p,export=" + "x" * 5000, "export name too long"),
    ],
)
def test_wrong_options_are_refused_in_qemus_words(options: str, message: str) -> None:
    given = dict(item.split("=") for item in f"driver=nbd,{options}".rstrip(",").split(","))
    with pytest.raises(BlockError, match=message):
        graph.open(from_options(given))


def test_objects_that_are_no_credentials_are_refused() -> None:
    objects.clear()
    objects.add("s", objects.Secret(b"x"))
    with pytest.raises(BlockError, match="is not TLS credentials"):
        graph.open(from_options({"driver": "nbd", "path": "p", "tls-creds": "s"}))
    objects.clear()


def test_options_beside_a_name_are_refused() -> None:
    with pytest.raises(OptionError, match="'export' cannot be used with a file name"):
        from_options({"driver": "nbd", "filename": "nbd://host/x", "export": "y"})


# ---- reading and writing


def test_read_and_write_what_the_server_has(tmp_path: Path, served: str) -> None:
    rng = random.Random(3)
    expected = bytearray(CONTENT.ljust(SIZE, b"\0"))
    with graph.open(served, "raw", read_only=False) as node:
        assert node.length == SIZE
        assert node.filename == served
        for _ in range(60):
            offset = rng.randrange(SIZE)
            length = min(rng.choice((1, 511, 4096, 70_000, MIB)), SIZE - offset)
            if rng.random() < 0.5:
                assert node.read(offset, length) == expected[offset : offset + length]
            else:
                data = rng.randbytes(length)
                node.pwrite(offset, data)
                expected[offset : offset + length] = data
        node.write_zeroes(100, MIB, unmap=True)
        expected[100 : 100 + MIB] = bytes(MIB)
        node.discard(0, 50)
        node.flush()
        assert node.read(0, SIZE) == expected
    assert (tmp_path / "disk.raw").read_bytes().ljust(SIZE, b"\0") == expected


def test_threads_share_a_connection(served: str) -> None:
    failures: list[object] = []

    def work(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(50):
            offset, length = rng.randrange(MIB), rng.choice((1, 5000, 300_000))
            if node.read(offset, length) != CONTENT[offset : offset + length]:
                failures.append((offset, length))

    with graph.open(served, "raw") as node:
        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    assert not failures


def test_extents_are_the_servers(tmp_path: Path) -> None:
    with raw_disk(tmp_path, b"", length=4 * MIB) as disk:
        disk.pwrite(MIB, b"x" * MIB)
        with serving(tmp_path, NbdExport(disk)) as server, graph.open(server.uri, "raw") as node:
            hole, data = Status.ZERO | Status.ALLOCATED, Status.DATA | Status.ALLOCATED
            assert list(node.extents(5, 3 * MIB)) == [
                Extent(5, MIB - 5, hole, 5),
                Extent(MIB, MIB, data, MIB),
                Extent(2 * MIB, MIB + 5, hole, 2 * MIB),
            ]


def test_a_protocol_alone_has_no_format_above_it(served: str) -> None:
    tree = {"driver": "nbd", "server": {"type": "unix", "path": served[24:]}, "export": "disk"}
    with graph.open(from_json(f"json:{json.dumps(tree)}")) as node:
        assert (node.format, node.length) == ("nbd", SIZE)
        with pytest.raises(BlockError, match="outside"):
            node.read(SIZE, 1)


def test_qcow2_lies_on_a_server_and_does_not_grow_beyond_it(tmp_path: Path) -> None:
    with raw_disk(tmp_path, bytes(2 * MIB)) as disk, serving(tmp_path, NbdExport(disk)) as server:
        create.create(create.plan(server.uri, "qcow2", 64 * MIB))
        with graph.open(server.uri, "qcow2", read_only=False) as node:
            node.pwrite(40 * MIB, b"hello")
        with graph.open(server.uri) as node:
            assert node.format == "qcow2"
            assert node.read(40 * MIB, 5) == b"hello"
        with graph.open(server.uri, "qcow2", read_only=False) as node, pytest.raises(NoSpace, match="cannot grow"):
            node.pwrite(0, b"x" * 3 * MIB)


def test_qcow2_shrinks_and_is_emptied_on_a_server_that_keeps_its_size(tmp_path: Path) -> None:
    with raw_disk(tmp_path, bytes(4 * MIB)) as disk, serving(tmp_path, NbdExport(disk)) as server:
        create.create(create.plan(server.uri, "qcow2", 2 * MIB))
        with graph.open(server.uri, "qcow2", read_only=False) as node:
            node.pwrite(0, b"x" * 2 * MIB)
            node.resize(MIB)
            assert node.read(0, node.length) == b"x" * MIB
            assert isinstance(node.driver, Emptying)
            node.driver.make_empty()
        with graph.open(server.uri, "qcow2") as node:
            assert node.read(0, node.length) == bytes(MIB)


def test_a_server_is_not_resized(served: str) -> None:
    with graph.open(served, "raw", read_only=False) as node:
        node.resize(SIZE)
        for size in (SIZE - 512, SIZE + 512):
            with pytest.raises(BlockError, match="Cannot resize NBD nodes"):
                node.resize(size)


def test_an_image_is_created_in_what_a_server_has(tmp_path: Path, served: str) -> None:
    with pytest.raises(BlockError, match="Cannot grow NBD nodes"):
        create.create(create.plan(served, "raw", SIZE + 512))
    assert (tmp_path / "disk.raw").read_bytes() == CONTENT
    create.create(create.plan(served, "raw", MIB))
    assert (tmp_path / "disk.raw").read_bytes() == bytes(512) + CONTENT[512:]
    with pytest.raises(BlockError, match="Protocol driver 'nbd' does not support image creation, and opening"):
        create.create(create.plan("nbd:unix:/nonexistent", "raw", MIB))


def test_convert_to_a_server_writes_the_zeroes_too(tmp_path: Path, served: str) -> None:
    (tmp_path / "source").write_bytes(bytes(MIB) + b"x" * 512 + bytes(MIB))
    with graph.open(str(tmp_path / "source"), "raw") as source:
        convert.convert([source], convert.plan_target([source], served, "raw"))
    expected = (tmp_path / "source").read_bytes()
    assert (tmp_path / "disk.raw").read_bytes()[: len(expected)] == expected


def test_a_relative_backing_name_leads_nowhere_from_a_server(tmp_path: Path) -> None:
    create.create(
        create.plan(str(tmp_path / "top"), "qcow2", MIB, backing="base", backing_format="raw", open_backing=False)
    )
    with (
        graph.open(str(tmp_path / "top"), "raw") as disk,
        serving(tmp_path, NbdExport(disk)) as server,
        pytest.raises(BlockError, match="has no directory"),
    ):
        graph.open(server.uri, "qcow2")


def test_a_read_only_export_is_not_opened_for_writing(tmp_path: Path) -> None:
    with raw_disk(tmp_path, CONTENT) as disk, serving(tmp_path, NbdExport(disk, writable=False)) as server:
        graph.open(server.uri, "raw").close()
        with pytest.raises(BlockError, match="NBD export is read-only") as caught:
            graph.open(server.uri, "raw", read_only=False)
        assert caught.value.errno == errno.EACCES


def test_refusals_say_what_the_server_said(served: str) -> None:
    with pytest.raises(BlockError, match="Requested export not available") as caught:
        graph.open(served.replace("/disk?", "/other?"), "raw")
    assert caught.value.hint == "server reported: export 'other' not present"


# ---- servers that do less, or other things than they should


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
    given = dict(item.split("=") for item in f"driver=nbd,path={path}{options}".split(","))
    return graph.open(from_options(given), read_only=read_only)


def test_a_server_that_can_only_read_and_write_is_enough(tmp_path: Path) -> None:
    script = Scripted(4 * MIB, 0)
    with played(tmp_path, script) as path, opened(path) as node:
        node.pwrite(0, b"x" * 3 * MIB)
        node.write_zeroes(MIB, MIB, unmap=True)
        node.discard(0, MIB)
        node.flush()
        assert node.read(0, 3 * MIB) == b"x" * MIB + bytes(MIB) + b"x" * MIB
        assert [extent.status for extent in node.extents()] == [Status.DATA | Status.ALLOCATED]
    assert {kind for kind, *_ in script.requests} == {Command.READ, Command.WRITE}


def test_requests_keep_to_the_servers_blocks(tmp_path: Path) -> None:
    flags = ExportFlag.SEND_WRITE_ZEROES | ExportFlag.SEND_TRIM
    script = Scripted(MIB, flags, blocks=(4096, 4096, 8192))
    with played(tmp_path, script) as path, opened(path) as node:
        node.pwrite(5, b"x" * 20_000)
        assert node.read(0, 20_010) == bytes(5) + b"x" * 20_000 + bytes(5)
        node.write_zeroes(100, 12_000)
        node.discard(100, 12_000)
        node.discard(100, 200)
        assert node.read(0, 101) == bytes(5) + b"x" * 95 + bytes(1)
    for kind, _, _, offset, length in script.requests:
        assert offset % 4096 == length % 4096 == 0
        assert kind not in (Command.READ, Command.WRITE) or length <= 8192
    assert (Command.TRIM, 4096, 4096) in [(kind, offset, length) for kind, _, _, offset, length in script.requests]


@pytest.mark.parametrize("zero", [True, False])
def test_a_write_to_a_part_of_a_block_does_not_undo_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zero: bool
) -> None:
    has_read, has_written = threading.Event(), threading.Event()
    read = nbd.NbdDriver._read

    def slowly(self: nbd.NbdDriver, offset: int, buf: memoryview) -> None:
        read(self, offset, buf)
        has_read.set()
        has_written.wait(0.2)  # who may write now does; who must wait for us is not waited for

    script = Scripted(MIB, ExportFlag.SEND_WRITE_ZEROES, blocks=(4096, 4096, 8192))
    script.disk[:4096] = b"o" * 4096
    with played(tmp_path, script) as path, opened(path) as node:
        monkeypatch.setattr(nbd.NbdDriver, "_read", slowly)
        first = threading.Thread(target=node.pwrite, args=(0, b"a" * 512))
        first.start()
        assert has_read.wait(10)
        if zero:
            node.write_zeroes(0, 4096)
        else:
            node.pwrite(0, b"b" * 4096)
        has_written.set()
        first.join(10)
        assert node.read(512, 3584) == (b"\0" if zero else b"b") * 3584


def test_a_size_that_is_no_whole_sector_reads_on_in_zeroes(tmp_path: Path) -> None:
    script = Scripted(1000, 0, structured=True, contexts=True)
    script.disk[:] = b"x" * 1000
    with played(tmp_path, script) as path, opened(path) as node:
        assert node.length == 1024
        assert node.read(0, 1024) == b"x" * 1000 + bytes(24)
        with pytest.raises(NoSpace):
            node.pwrite(1000, b"y")


@pytest.mark.parametrize("context", [True, False])
def test_a_hole_that_may_hold_anything_must_be_read(tmp_path: Path, context: bool) -> None:
    class Holes(Scripted):
        def serve(self, sock: socket.socket, kind: int, flags: int, cookie: int, *rest: object) -> None:
            offset = rest[0]
            extents = [(512, 1), (512, 3), (512, 2), (512, 0)]
            sock.sendall(self.format.status(cookie, offset, 5, extents, last=True))

    options = ",x-dirty-bitmap=base:allocation" if context else ""
    script = Holes(2048, 0, structured=True, contexts=True)
    with played(tmp_path, script) as path, opened(path, options=options) as node:
        found = [extent.status & ~Status.ALLOCATED for extent in node.extents()]
    data = Status.DATA
    assert found == [Status.UNALLOCATED if context else data, Status.ZERO, Status.ZERO | data, data]


@pytest.mark.parametrize("size", [1, 100, 5000])
def test_a_status_of_parts_of_blocks_tells_of_whole_ones_at_most(tmp_path: Path, size: int) -> None:
    class Fine(Scripted):
        def serve(self, sock: socket.socket, kind: int, flags: int, cookie: int, *rest: object) -> None:
            if len(self.requests) > 4:
                sock.shutdown(socket.SHUT_RDWR)
                return
            sock.sendall(self.format.status(cookie, rest[0], 5, [(size, 3)], last=True))

    script = Fine(16384, 0, structured=True, contexts=True, blocks=(4096, 4096, 8192))
    with played(tmp_path, script) as path, opened(path) as node:
        found = [extent.status for extent in node.extents(512, 8192)]
    assert found == [Status.ALLOCATED | (Status.ZERO if size > 4096 else Status.DATA)]


class Deaf(Scripted):
    """Goes away instead of answering, ``times`` times."""

    def __init__(self, size: int, flags: int, times: int, *, after: int = 0) -> None:
        super().__init__(size, flags)
        self.times = times
        self.after = after

    def serve(self, sock: socket.socket, *found: object) -> None:  # type: ignore[override]
        if self.times and len(self.requests) > self.after:
            self.times -= 1
            sock.shutdown(socket.SHUT_RDWR)
            return
        super().serve(sock, *found)  # type: ignore[arg-type]


def test_a_lost_server_is_an_error_of_all_that_follows(tmp_path: Path) -> None:
    with played(tmp_path, Deaf(MIB, 0, 1)) as path, opened(path) as node:
        for _ in range(2):
            with pytest.raises(BlockError, match=r"the connection to .* was lost: the server closed") as caught:
                node.read(0, 512)
            assert caught.value.errno == errno.EIO


def test_a_lost_server_is_waited_for_where_that_is_wanted(tmp_path: Path) -> None:
    script = Deaf(4 * MIB, 0, 2)
    with played(tmp_path, script) as path, opened(path, options=",reconnect-delay=10") as node:
        node.pwrite(0, b"x" * 3 * MIB)
        assert node.read(0, 3 * MIB) == b"x" * 3 * MIB
    assert not script.times


def test_writes_that_a_lost_server_may_have_forgotten_are_an_error_of_the_flush(tmp_path: Path) -> None:
    script = Deaf(MIB, ExportFlag.SEND_FLUSH, 1, after=2)
    with played(tmp_path, script) as path, opened(path, options=",reconnect-delay=10") as node:
        node.pwrite(0, b"x")
        node.read(0, 1)
        node.read(0, 1)  # on a new connection
        for _ in range(2):
            with pytest.raises(BlockError, match="writes that were not flushed"):
                node.flush()
            node.pwrite(0, b"y")


def test_a_write_that_is_done_again_is_not_lost(tmp_path: Path) -> None:
    script = Deaf(MIB, ExportFlag.SEND_FLUSH, 1, after=2)
    with played(tmp_path, script) as path, opened(path, options=",reconnect-delay=10") as node:
        node.pwrite(0, b"x" * 512)
        node.flush()
        node.pwrite(512, b"y" * 512)  # the server goes away meanwhile
        assert not script.times
        node.flush()
        assert node.read(0, 1024) == b"x" * 512 + b"y" * 512


def test_a_flush_that_loses_the_server_does_not_succeed_on_the_next(tmp_path: Path) -> None:
    script = Deaf(MIB, ExportFlag.SEND_FLUSH, 1, after=2)
    with played(tmp_path, script) as path, opened(path, options=",reconnect-delay=10") as node:
        node.pwrite(0, b"x")
        with pytest.raises(BlockError, match="writes that were not flushed"):
            node.flush()


def test_nothing_is_received_for_those_who_know_that_the_connection_is_lost(tmp_path: Path) -> None:
    """A buffer may hold something else by then."""

    class Halved:
        """A server that still sends, and takes nothing any more."""

        def __init__(self) -> None:
            self.waits, self.ended = threading.Event(), threading.Event()
            self.refuses, self.received = False, False

        def recv_into(self, buffer: memoryview, /) -> int:
            self.waits.set()
            assert self.ended.wait(20)
            time.sleep(0.1)
            self.received = True
            return 0

        def send(self, parts: object) -> None:
            if self.refuses:
                raise BrokenPipeError(errno.EPIPE, "Broken pipe")

        def settimeout(self, seconds: float | None) -> None:
            pass

        def shutdown(self) -> None:
            self.ended.set()

        def close(self) -> None:
            pass

    server = Halved()
    connection = Connection(server, Connected(Export(""), structured=False, extended=False), b"")
    first = connection.start(Command.READ, 0, 512, target=memoryview(bytearray(512)))

    def wait() -> None:
        with contextlib.suppress(ConnectionLost):
            connection.finish(first)

    others = threading.Thread(target=wait)
    others.start()
    assert server.waits.wait(20)
    server.refuses = True
    with pytest.raises(ConnectionLost, match="Failed to send"):
        connection.start(Command.READ, 0, 512, target=memoryview(bytearray(512)))
    assert server.received
    others.join(20)


def test_a_server_that_comes_back_as_another_is_refused(tmp_path: Path) -> None:
    class Shrinking(Deaf):
        def shake_hands(self, sock: socket.socket) -> None:
            super().shake_hands(sock)
            self.size //= 2

    with (
        played(tmp_path, Shrinking(MIB, 0, 1)) as path,
        opened(path, options=",reconnect-delay=1") as node,
        pytest.raises(BlockError, match="came back with another size"),
    ):
        node.read(0, 512)


def test_a_server_that_is_not_there_yet_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "played.sock"
    seen = threading.Event()

    def later() -> None:
        time.sleep(0.3)
        with played(tmp_path, Scripted(MIB, 0)):
            seen.wait(20)

    thread = threading.Thread(target=later)
    thread.start()
    try:
        with opened(path, options=",open-timeout=10") as node:
            assert node.length == MIB
    finally:
        seen.set()
        thread.join(20)
    with pytest.raises(BlockError, match="Failed to connect"):
        opened(path, options=",open-timeout=0")


def test_a_server_that_says_nothing_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hostel.block.protocols.nbd.connection.TIMEOUT", 0.2)
    with (
        played(tmp_path, lambda sock: time.sleep(1)) as path,
        pytest.raises(BlockError, match="does not finish the NBD handshake"),
    ):
        opened(path)


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EPERM])
def test_errors_of_the_server_keep_their_number_and_the_connection(tmp_path: Path, code: int) -> None:
    class Failing(Scripted):
        def serve(self, sock: socket.socket, kind: int, *found: object) -> None:  # type: ignore[override]
            if kind == Command.WRITE:
                sock.sendall(self.format.error(found[1], found[2], code, "because"))  # type: ignore[arg-type]
            else:
                super().serve(sock, kind, *found)  # type: ignore[arg-type]

    with played(tmp_path, Failing(8 * MIB, 0, structured=True)) as path, opened(path) as node:
        with pytest.raises(BlockError, match="failed to write: because") as caught:
            node.pwrite(0, b"x" * 6 * MIB)
        assert caught.value.errno == code
        assert node.read(0, 4) == bytes(4)


def test_a_server_that_answers_something_else_is_not_believed(tmp_path: Path) -> None:
    class Lying(Scripted):
        def serve(self, sock: socket.socket, kind: int, flags: int, cookie: int, *found: object) -> None:  # type: ignore[override]
            sock.sendall(self.format.chunk(Chunk.OFFSET_DATA, cookie, 0, struct.pack(">Q", 1 << 40) + b"x"))

    with played(tmp_path, Lying(MIB, 0, structured=True)) as path, opened(path) as node:
        for _ in range(2):
            with pytest.raises(BlockError, match="chunk exceeding requested region"):
                node.read(0, 512)


def test_nothing_is_flushed_in_unsafe_mode(tmp_path: Path) -> None:
    script = Scripted(MIB, ExportFlag.SEND_FLUSH)
    with played(tmp_path, script) as path:
        with graph.open(from_options({"driver": "nbd", "path": str(path)}), read_only=False) as node:
            node.flush()
        with graph.open(
            from_options({"driver": "nbd", "path": str(path)}), read_only=False, cache=CACHE_MODES["unsafe"]
        ) as node:
            node.flush()
    assert [kind for kind, *_ in script.requests] == [Command.FLUSH]


def test_the_driver_is_registered_under_its_name() -> None:
    assert nbd.NbdDriver.name == "nbd"

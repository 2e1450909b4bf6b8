"""The NBD client driver on servers that do less, or other things than they should."""

from __future__ import annotations

import errno
import socket
import struct
import threading
from pathlib import Path
from typing import Any

import pytest

from hostel.block import graph
from hostel.block.blockdev import from_options
from hostel.block.driver import CACHE_MODES
from hostel.block.extent import Status
from hostel.block.protocols.nbd import driver as nbd
from hostel.errors import BlockError, NoSpace
from hostel.wire.nbd.protocol import Chunk, Command, ExportFlag
from support.nbd import MIB, played
from support.scripted_nbd import Scripted, opened


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
        def serve(self, sock: socket.socket, kind: int, flags: int, cookie: int, *rest: Any) -> None:
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
        def serve(self, sock: socket.socket, kind: int, flags: int, cookie: int, *rest: Any) -> None:
            if len(self.requests) > 4:
                sock.shutdown(socket.SHUT_RDWR)
                return
            sock.sendall(self.format.status(cookie, rest[0], 5, [(size, 3)], last=True))

    script = Fine(16384, 0, structured=True, contexts=True, blocks=(4096, 4096, 8192))
    with played(tmp_path, script) as path, opened(path) as node:
        found = [extent.status for extent in node.extents(512, 8192)]
    assert found == [Status.ALLOCATED | (Status.ZERO if size > 4096 else Status.DATA)]


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EPERM])
def test_errors_of_the_server_keep_their_number_and_the_connection(tmp_path: Path, code: int) -> None:
    class Failing(Scripted):
        def serve(self, sock: socket.socket, kind: int, *found: Any) -> None:
            if kind == Command.WRITE:
                sock.sendall(self.format.error(found[1], found[2], code, "because"))
            else:
                super().serve(sock, kind, *found)

    with played(tmp_path, Failing(8 * MIB, 0, structured=True)) as path, opened(path) as node:
        with pytest.raises(BlockError, match="failed to write: because") as caught:
            node.pwrite(0, b"x" * 6 * MIB)
        assert caught.value.errno == code
        assert node.read(0, 4) == bytes(4)


def test_a_server_that_answers_something_else_is_not_believed(tmp_path: Path) -> None:
    class Lying(Scripted):
        def serve(self, sock: socket.socket, kind: int, flags: int, cookie: int, *found: Any) -> None:
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

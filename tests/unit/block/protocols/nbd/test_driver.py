"""The NBD client driver on a server of our own: reading, writing, creating and converting."""

from __future__ import annotations

import errno
import json
import os
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostel.block import graph
from hostel.block.blockdev import from_json
from hostel.block.extent import Extent, Status
from hostel.block.powers import Emptying
from hostel.errors import BlockError, NoSpace
from hostel.export.nbd.export import NbdExport
from hostel.img import convert, create
from support.nbd import MIB, raw_disk, serving

CONTENT = os.urandom(3 * MIB + 700)
SIZE = -(-len(CONTENT) // 512) * 512


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    with raw_disk(tmp_path, CONTENT) as disk, serving(tmp_path, NbdExport(disk, "disk", shared=True)) as server:
        disk.discards = False
        yield f"nbd+unix:///disk?socket={server.path}"


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

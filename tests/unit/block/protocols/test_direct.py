"""Input and output past the page cache: unaligned requests, the file's end, and writers side by side."""

from __future__ import annotations

import os
import random
import threading
from mmap import mmap
from pathlib import Path

import pytest

from hostel.block import blockdev, graph
from hostel.block.driver import CACHE_MODES
from hostel.block.node import BlockNode
from hostel.block.powers import Preallocation
from hostel.block.protocols.direct import DirectFile, probe_alignment
from hostel.errors import BlockError

SIZE = 1 << 20


def open_direct(path: Path, *, read_only: bool = False) -> BlockNode:
    try:
        return graph.open(str(path), "raw", read_only=read_only, cache=CACHE_MODES["none"])
    except BlockError as error:
        if "does not support O_DIRECT" in str(error):
            pytest.skip("the file system of the temporary folder has no O_DIRECT")
        raise


def test_unaligned_requests_do_what_aligned_ones_do(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    content = bytearray(random.Random(3).randbytes(SIZE))
    path.write_bytes(content)
    choose = random.Random(4)
    with open_direct(path) as node:
        for _ in range(300):
            offset = choose.randrange(SIZE)
            length = choose.choice([1, 511, 512, 513, 4096, 5000, 70_000])
            length = min(length, SIZE - offset)
            if choose.random() < 0.5:
                data = choose.randbytes(length)
                node.pwrite(offset, data)
                content[offset : offset + length] = data
            else:
                assert node.read(offset, length) == content[offset : offset + length]
    assert path.read_bytes() == content


def test_aligned_requests_from_aligned_memory(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_bytes(bytes(SIZE))
    with open_direct(path) as node, mmap(-1, 65536) as memory:
        memory[:] = b"x" * 65536
        node.pwrite(65536, memoryview(memory))
        with mmap(-1, 65536) as other:
            node.pread(65536, memoryview(other))
            assert other[:] == memory[:]
    assert path.read_bytes()[65536 : 2 * 65536] == b"x" * 65536


@pytest.mark.parametrize("length", [1, 512, 1000, 70_001])
def test_what_is_beyond_the_end_of_a_file_reads_as_zeroes(tmp_path: Path, length: int) -> None:
    path = tmp_path / "disk"
    path.write_bytes(b"y" * length)
    with open_direct(path, read_only=True) as node:
        whole = -(-length // 512) * 512
        assert node.length == whole
        assert node.read(0, whole) == b"y" * length + bytes(whole - length)


def test_writing_into_the_last_part_of_a_block_keeps_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_bytes(b"z" * 1100)
    with open_direct(path) as node:
        node.pwrite(1098, b"ab")
    assert path.read_bytes()[:1100] == b"z" * 1098 + b"ab"
    assert not path.read_bytes()[1100:].strip(b"\0")


def test_writers_of_one_block_do_not_undo_each_other(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_bytes(bytes(SIZE))
    with open_direct(path) as node:

        def write(number: int) -> None:
            for block in range(64):
                node.pwrite(block * 4096 + number * 100, bytes([number + 1]) * 100)

        threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    expected = b"".join(bytes([number + 1]) * 100 for number in range(8)).ljust(4096, b"\0") * 64
    assert path.read_bytes()[: 64 * 4096] == expected


def test_zeroes_discards_and_sizes_work_as_ever(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_bytes(b"q" * SIZE)
    with open_direct(path) as node:
        node.write_zeroes(1000, 5000)
        node.discard(65536, 65536)
        node.resize(SIZE + 512)
        assert node.length == SIZE + 512
        assert node.read(0, 8192) == b"q" * 1000 + bytes(5000) + b"q" * 2192
        node.flush()


def test_the_alignment_is_found_by_reading(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_bytes(bytes(SIZE))
    fd = os.open(path, os.O_RDWR)
    try:
        # Without O_DIRECT any length can be read, which says nothing: the largest is taken.
        assert probe_alignment(fd, str(path)) == 4096
        DirectFile(fd, 4096).pwrite(5, memoryview(b"five"))
    finally:
        os.close(fd)
    assert path.read_bytes()[:16] == bytes(5) + b"five" + bytes(7)


def test_a_qcow2_image_is_written_and_read_directly(tmp_path: Path) -> None:
    from support.qcow2 import create_file

    path = tmp_path / "disk.qcow2"
    create_file(path, SIZE)
    data = random.Random(5).randbytes(100_000)
    options = {"driver": "qcow2", "cache.direct": "on", "file.driver": "file", "file.filename": str(path)}
    try:
        node = graph.open(blockdev.from_options(options), read_only=False)
    except BlockError:
        pytest.skip("the file system of the temporary folder has no O_DIRECT")
    with node:
        assert node.file is not None
        assert node.file.cache.direct
        node.pwrite(777, data)
        assert node.read(777, len(data)) == data
    with graph.open(str(path)) as node:
        assert node.read(777, len(data)) == data


def test_native_aio_needs_direct_input_and_output(tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(bytes(512))
    options = {"driver": "raw", "file.filename": str(tmp_path / "disk"), "file.aio": "native"}
    with pytest.raises(BlockError, match=r"^aio=native was specified, but it requires cache\.direct=on"):
        graph.open(blockdev.from_options(options))


@pytest.mark.parametrize("act", ["zero", "unmap", "discard"])
def test_zeroes_are_not_undone_by_who_writes_into_the_same_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, act: str
) -> None:
    path = tmp_path / "disk"
    path.write_bytes(b"o" * SIZE)
    half = 256  # bytes: less than any block
    has_read, has_acted = threading.Event(), threading.Event()

    def read_block(self: DirectFile, offset: int, block: memoryview) -> None:
        found = self._read_blocks(offset, block)
        block[found:] = bytes(len(block) - found)
        has_read.set()
        has_acted.wait(0.2)  # who may act now does; who must wait for us is not waited for

    monkeypatch.setattr(DirectFile, "_read_block", read_block)
    with open_direct(path) as node:
        writer = threading.Thread(target=node.pwrite, args=(0, b"n" * half))
        writer.start()
        assert has_read.wait(10)
        if act == "discard":
            node.discard(half, half)
            reads_as = bytes(node.read(half, half))
        else:
            node.write_zeroes(half, half, unmap=act == "unmap")
            reads_as = bytes(half)
        has_acted.set()
        writer.join(10)
        assert not writer.is_alive()
        assert node.read(0, half) == b"n" * half
        assert node.read(half, half) == reads_as
    assert path.read_bytes()[2 * half :] == b"o" * (SIZE - 2 * half)


def test_a_file_that_is_written_out_has_its_size_in_the_end(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.touch()  # nothing tells the size of its blocks yet: the largest is taken
    with open_direct(path) as node:
        node.resize(SIZE + 1536, Preallocation.FULL)
        assert node.length == path.stat().st_size == SIZE + 1536
        assert path.stat().st_blocks * 512 >= SIZE + 1536

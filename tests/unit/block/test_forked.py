"""What a forked child can do with its parent's images."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from hostel.block import graph
from hostel.block import node as node_module
from hostel.block.protocols.file import FileDriver
from hostel.errors import BlockError, ImageLocked
from hostel.export.nbd.export import NbdExport
from support.image import assert_clean, content, qemu_img
from support.nbd import raw_disk, serving

MIB = 1 << 20


def in_child(work: Callable[[], object]) -> str:
    """Work in a forked child that ends as one does; what it raised, or returned."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        try:
            said = repr(work())
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(writing, said.encode())
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as stream:
        said = stream.read().decode()
    os.waitpid(child, 0)
    return said


def refusal(name: str | Path) -> str:
    return f"BlockError: '{name}' was opened by process {os.getpid()}, of which this one is a fork; open it here"


def test_image_with_tables_is_the_parents_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", path, "8M")
    with graph.open(str(path), "qcow2", read_only=False) as node:
        node.pwrite(0, b"\x01" * 65536)
        assert in_child(lambda: node.pwrite(MIB, b"\x02" * 65536)) == refusal(path)
        assert in_child(lambda: node.read(0, 1)) == refusal(path)
        assert in_child(node.flush) == refusal(path)
        assert in_child(node.close) == "None"
        with pytest.raises(ImageLocked):  # closing it in the child has not ended the parent's lock
            graph.open(str(path), "qcow2")
        node.pwrite(2 * MIB, b"\x03" * 65536)
    assert_clean(path, "qcow2")
    data = content(path, "qcow2")
    assert [data[offset] for offset in (0, MIB, 2 * MIB)] == [1, 0, 3]


def test_context_of_the_parent_may_be_left_in_the_child(tmp_path: Path) -> None:
    path = tmp_path / "x.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", path, "8M")
    with graph.open(str(path), "qcow2", read_only=False) as node:
        node.pwrite(0, b"\x01" * 65536)

        def leave() -> None:
            with node:
                pass

        assert in_child(leave) == "None"
        before = path.read_bytes()
        assert in_child(leave) == "None"
        assert path.read_bytes() == before
    assert content(path, "qcow2")[:1] == b"\x01"


def test_files_that_are_read_and_raw_ones_are_shared(tmp_path: Path) -> None:
    path, raw = tmp_path / "x.qcow2", tmp_path / "x.raw"
    qemu_img("create", "-q", "-f", "qcow2", path, "8M")
    qemu_img("create", "-q", "-f", "raw", raw, "8M")
    with graph.open(str(path), "qcow2", read_only=False) as node:
        node.pwrite(MIB, b"\x02" * 65536)
    with graph.open(str(path), "qcow2") as node:

        def read() -> bytes:
            with node:
                return bytes(node.read(MIB, 2))

        assert in_child(read) == r"b'\x02\x02'"
        with pytest.raises(ImageLocked):
            graph.open(str(path), "qcow2", read_only=False)
    with graph.open(str(raw), "raw", read_only=False) as node:

        def write() -> None:
            with node:
                node.pwrite(MIB, b"\x05" * 512)
                node.flush()

        assert in_child(write) == "None"
        assert node.read(MIB, 1) == b"\x05"
        with pytest.raises(ImageLocked):
            graph.open(str(raw), "raw", read_only=False)


def test_connection_is_the_parents_alone(tmp_path: Path) -> None:
    with (
        raw_disk(tmp_path, b"disk") as disk,
        serving(tmp_path, NbdExport(disk)) as served,
        graph.open(served.uri, "raw") as node,
    ):
        assert in_child(lambda: node.read(0, 4)) == refusal(node.filename)
        assert in_child(node.close) == "None"
        assert node.read(0, 4) == b"disk"


def test_fork_in_the_middle_of_a_request_leaves_the_child_nothing_of_it(tmp_path: Path) -> None:
    path, other = tmp_path / "x.qcow2", tmp_path / "y.qcow2"
    for each in (path, other):
        qemu_img("create", "-q", "-f", "qcow2", each, "8M")
    with graph.open(str(path), "qcow2") as read, graph.open(str(other), "qcow2", read_only=False) as written:
        with read.lock():  # as a signal handler does that forks
            assert in_child(lambda: read.read(0, 1)) == refusal(path)
            assert in_child(lambda: written.read(0, 1)) == refusal(other)
        assert in_child(lambda: bytes(read.read(0, 1))) == r"b'\x00'"


@pytest.mark.parametrize("held", ["users", "seeking", "gate"])
def test_child_waits_for_no_lock_of_a_thread_that_it_has_not(tmp_path: Path, held: str) -> None:
    raw = tmp_path / "x.raw"
    qemu_img("create", "-q", "-f", "raw", raw, "8M")
    with graph.open(str(raw), "raw", read_only=False) as node:
        assert node.file is not None and isinstance(node.file.driver, FileDriver)
        lock = {
            "users": node_module._counting,
            "seeking": node.file.driver._seeking,
            "gate": node.file._lock._mutex,  # type: ignore[union-attr]
        }[held]
        extents = len(list(node.extents()))
        ready, done = threading.Event(), threading.Event()

        def hold() -> None:
            with lock:
                ready.set()
                done.wait(60)

        other = threading.Thread(target=hold)
        other.start()
        try:
            ready.wait(60)

            def work() -> int:
                signal.alarm(30)  # where it waits for ever
                with node.share():
                    return len(list(node.extents()))

            assert in_child(work) == str(extents)
        finally:
            done.set()
            other.join()


def test_refusal_is_an_error_of_the_block_layer(tmp_path: Path) -> None:
    path = tmp_path / "x.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", path, "8M")
    with graph.open(str(path), "qcow2", read_only=False) as node:
        node.disown("not ours")
        with pytest.raises(BlockError, match="not ours"):
            node.pwrite(0, b"x")

"""Named nodes: references, who uses what, and what one user forbids another."""

from __future__ import annotations

import errno
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostel.block import node as node_module
from hostel.block.nodes import NodeTable
from hostel.block.permission import Permission
from hostel.block.uses import Use
from hostel.errors import BlockError
from hostel.img import create
from hostel.units import MiB

READER = Use("an unnamed block device", "root", Permission.CONSISTENT_READ)
WRITER = READER._replace(used=Permission.CONSISTENT_READ | Permission.WRITE)


@pytest.fixture
def table() -> Iterator[NodeTable]:
    nodes = NodeTable()
    yield nodes
    nodes.close()
    assert not nodes


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.raw").write_bytes(b"raw " * 1024)
    create.create(create.plan("a.qcow2", "qcow2", MiB))
    create.create(create.plan("top.qcow2", "qcow2", MiB, backing="a.qcow2", backing_format="qcow2"))
    return tmp_path


def file(name: str, node: str, **more: object) -> dict[str, object]:
    return {"driver": "file", "node-name": node, "filename": name, **more}


@pytest.mark.usefixtures("folder")
def test_a_use_that_has_ended_is_not_ended_again_in_the_place_of_another_one(table: NodeTable) -> None:
    node = table.add(file("a.raw", "f"))
    uses = [READER._replace(), READER._replace()]
    for use in uses:
        table.hold(node, use)
    table.release(node, uses[0])
    table.release(node, uses[0])
    assert table.uses(node) == [READER]
    table.release(node, uses[1])
    assert not table.uses(node)


@pytest.mark.usefixtures("folder")
class TestGraph:
    def test_a_child_may_be_an_open_node(self, table: NodeTable) -> None:
        table.add(file("a.raw", "f"))
        raw = table.add({"driver": "raw", "node-name": "r", "file": "f"})
        assert raw.file is table["f"]
        assert raw.read(0, 4) == b"raw "
        assert list(table) == ["f", "r"]

    def test_a_chain_may_be_put_together_from_nodes(self, table: NodeTable) -> None:
        create.create(create.plan("more.qcow2", "qcow2", MiB, backing="top.qcow2", backing_format="qcow2"))
        below: str | None = None
        for name in ("a", "top", "more"):
            image = {"driver": "qcow2", "node-name": name, "file": file(f"{name}.qcow2", f"{name}-file")}
            table.add({**image, "backing": below})
            below = name
        assert list(table["more"].chain()) == [table["more"], table["top"], table["a"]]
        for name in ("more", "top", "a"):
            table.remove(name)
        assert not table

    def test_a_shared_node_lives_as_long_as_one_uses_it(self, table: NodeTable) -> None:
        table.add(file("a.raw", "f"))
        for name in ("one", "two"):
            table.add({"driver": "raw", "node-name": name, "file": "f", "read-only": True})
        with pytest.raises(BlockError, match=r"^Block device f is in use$"):
            table.remove("f")
        table.remove("one")
        assert table["two"].read(0, 4) == b"raw "
        table.remove("two")
        table.remove("f")

    def test_children_are_named_too_and_go_with_their_parent(self, table: NodeTable) -> None:
        table.add({"driver": "qcow2", "node-name": "q", "file": file("a.qcow2", "f")})
        assert list(table) == ["f", "q"]
        with pytest.raises(BlockError, match=r"^Node f is not owned by the monitor$"):
            table.remove("f")
        table.remove("q")
        assert not table

    def test_a_backing_file_gets_a_name_or_has_one(self, table: NodeTable) -> None:
        table.add({"driver": "qcow2", "node-name": "top", "file": file("top.qcow2", "tf")})
        assert [name for name in table if name.startswith("#block")]
        table.remove("top")
        table.add({"driver": "qcow2", "node-name": "base", "file": file("a.qcow2", "bf"), "read-only": True})
        top = table.add({"driver": "qcow2", "node-name": "top", "file": file("top.qcow2", "tf"), "backing": "base"})
        assert top.backing is table["base"]

    def test_a_filter_may_stand_on_an_open_node(self, table: NodeTable) -> None:
        table.add({"driver": "raw", "node-name": "r", "file": file("a.raw", "f")})
        assert table.add({"driver": "copy-on-read", "node-name": "c", "file": "r"}).read(0, 4) == b"raw "

    def test_what_is_read_only_below_cannot_be_written_above(self, table: NodeTable) -> None:
        table.add(file("a.raw", "f", **{"read-only": True}))
        with pytest.raises(BlockError, match="Block node is read-only"):
            table.add({"driver": "qcow2", "node-name": "q", "file": "f"})
        assert list(table) == ["f"]
        # What passes its bytes on writes only when somebody writes to it.
        node = table.add({"driver": "raw", "node-name": "r", "file": "f"})
        with pytest.raises(BlockError, match="Block node is read-only"):
            table.hold(node, WRITER)
        table.hold(node, READER)

    def test_a_file_that_cannot_be_written_is_read_where_that_was_allowed(self, table: NodeTable, folder: Path) -> None:
        options = {"driver": "raw", "node-name": "r", "auto-read-only": True, "file": file("a.raw", "f")}
        assert not table.add(options).read_only
        table.remove("r")
        assert table.add({**options, "read-only": True}).read_only

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"node-name": "x"}, "Parameter 'driver' is missing"),
            ({"driver": "nosuch", "node-name": "x"}, "Parameter 'driver' does not accept value 'nosuch'"),
            ({"driver": "file", "node-name": "x"}, "Parameter 'filename' is missing"),
            ({"driver": "raw", "node-name": "x"}, "Parameter 'file' is missing"),
            (file("a.raw", ""), "'node-name' must be specified for the root node"),
            (file("a.raw", "7"), "Invalid node-name: '7'"),
            (file("a.raw", "x", foo=1), "Parameter 'foo' is unexpected"),
            (file("a.raw", "x", **{"read-only": "on"}), "Invalid parameter type for 'read-only', expected: boolean"),
            ({"driver": "raw", "node-name": "x", "file": "y"}, "Cannot find device='y' nor node-name='y'"),
            ({"driver": "raw", "node-name": "x", "file": {"driver": "file"}}, "Parameter 'file.filename' is missing"),
            (file("nosuch", "x"), "Could not open 'nosuch': No such file or directory"),
            ({"driver": "qcow2", "node-name": "x", "file": file("a.raw", "f")}, "Image is not in qcow2 format"),
        ],
    )
    def test_a_mistake_is_told_in_qemus_words_and_leaves_nothing(
        self, table: NodeTable, options: dict[str, object], message: str
    ) -> None:
        with pytest.raises(BlockError) as caught:
            table.add(options)
        assert str(caught.value) == message
        assert not table

    def test_a_name_is_given_once(self, table: NodeTable) -> None:
        table.add(file("a.raw", "f"))
        for options in (file("a.raw", "f"), {"driver": "raw", "node-name": "r", "file": file("a.raw", "f")}):
            with pytest.raises(BlockError, match="Duplicate nodes with node-name='f'"):
                table.add(options)
        assert list(table) == ["f"]

    def test_space_is_given_back_only_where_that_was_asked_for(self, table: NodeTable) -> None:
        table.add(file("a.raw", "f"))
        keeps = table.add({"driver": "raw", "node-name": "keeps", "file": "f"})
        keeps.discard(0, 4096)
        assert keeps.read(0, 4) == b"raw "
        gives = table.add({"driver": "raw", "node-name": "gives", "discard": "unmap", "file": file("top.qcow2", "g")})
        gives.discard(0, 65536)
        assert gives.read(0, 4096) == bytes(4096)


@pytest.mark.usefixtures("folder")
class TestPermissions:
    def test_a_format_that_writes_lets_nobody_else_write_its_file(self, table: NodeTable) -> None:
        table.add({"driver": "qcow2", "node-name": "q", "file": file("a.qcow2", "f")})
        table.hold(table["f"], READER)
        with pytest.raises(BlockError) as caught:
            table.hold(table["f"], WRITER)
        assert str(caught.value) == (
            "Permission conflict on node 'f': permissions 'write' are both required by an unnamed block device "
            "(uses node 'f' as 'root' child) and unshared by node 'q' (uses node 'f' as 'file' child)."
        )
        table.release(table["f"], READER)

    def test_what_a_raw_node_is_used_for_its_file_is_used_for(self, table: NodeTable) -> None:
        table.add({"driver": "raw", "node-name": "r", "file": file("a.raw", "f")})
        selfish = WRITER._replace(shared=Permission.CONSISTENT_READ)
        table.hold(table["r"], selfish)
        with pytest.raises(BlockError, match="permissions 'write' are both required by"):
            table.hold(table["f"], WRITER)
        table.release(table["r"], selfish)
        table.hold(table["f"], WRITER)
        table.release(table["f"], WRITER)

    def test_a_backing_file_may_be_written_only_where_its_overlay_may_change(self, table: NodeTable) -> None:
        table.add({"driver": "qcow2", "node-name": "base", "file": file("a.qcow2", "bf")})
        table.add({"driver": "qcow2", "node-name": "top", "file": file("top.qcow2", "tf"), "backing": "base"})
        stable = READER._replace(shared=Permission.CONSISTENT_READ)
        table.hold(table["top"], stable)
        with pytest.raises(BlockError, match="unshared by node 'top'"):
            table.hold(table["base"], WRITER)
        table.release(table["top"], stable)

    def test_a_node_that_is_used_stays(self, table: NodeTable) -> None:
        table.add(file("a.raw", "f"))
        table.hold(table["f"], READER)
        with pytest.raises(BlockError, match="Node f is in use"):
            table.remove("f")
        table.release(table["f"], READER)
        table.remove("f")

    def test_a_file_that_another_process_writes_is_not_used(self, table: NodeTable) -> None:
        other = NodeTable()
        other.add({"driver": "raw", "node-name": "r", "file": file("a.raw", "f")})
        table.add(file("a.raw", "f"))
        with pytest.raises(BlockError, match='Failed to get "write" lock'):
            table.hold(table["f"], WRITER)
        other.close()
        table.hold(table["f"], WRITER)
        table.release(table["f"], WRITER)


@pytest.mark.usefixtures("folder")
def test_jobs_take_nodes_out_while_others_are_taken_in(table: NodeTable) -> None:
    for number in range(50):
        table.add(file("a.raw", f"f{number}"))
    ended, failures = threading.Event(), list[Exception]()

    def end_jobs() -> None:
        try:
            while not ended.is_set():
                table.permissions(table["f0"])
                table.forget_closed()
        except Exception as error:
            failures.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    thread = threading.Thread(target=end_jobs)
    thread.start()
    try:
        for _ in range(200):
            node = table.add(file("a.raw", "new"))
            table.hold(node, READER)
            assert table["new"] is node
            assert table.uses(node) == [READER]
            table.release(node, READER)
            table.remove("new")
    finally:
        sys.setswitchinterval(interval)
        ended.set()
        thread.join(20)
    assert failures == []


@pytest.mark.usefixtures("folder")
def test_a_node_that_stays_open_since_requests_do_not_end_can_be_removed_later(
    table: NodeTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_module, "DRAIN_TIMEOUT", 0.05)
    node = table.add(file("a.raw", "f"))
    reached, go, preadv = threading.Event(), threading.Event(), os.preadv

    def held(fd: int, buffers: list[memoryview], offset: int) -> int:
        reached.set()
        go.wait(10)
        return preadv(fd, buffers, offset)

    monkeypatch.setattr(os, "preadv", held)
    reader = threading.Thread(target=node.read, args=(0, 4), daemon=True)
    reader.start()
    assert reached.wait(10)
    with pytest.raises(BlockError, match=r"it stays open$") as caught:
        table.remove("f")
    assert caught.value.errno == errno.EBUSY
    go.set()
    reader.join(10)
    assert table["f"].read(0, 4) == b"raw "
    table.remove("f")
    assert not table

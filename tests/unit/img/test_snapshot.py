"""Internal snapshots of an image."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from hostel.block import graph
from hostel.errors import BlockError, ReadOnly, UnsupportedFeature
from hostel.img import snapshot
from hostel.img.create import create, plan


@pytest.fixture
def image(tmp_path: Path) -> str:
    """An image with the snapshots ``old`` (of ones, 1 MiB) and ``new`` (of twos, 2 MiB), and threes now."""
    path = str(tmp_path / "a")
    create(plan(path, "qcow2", 1 << 20))
    with graph.open(path, read_only=False) as node:
        node.pwrite(0, b"1" * 512)
        snapshot.create(node, "old")
        node.resize(2 << 20)
        node.pwrite(0, b"2" * 512)
        snapshot.create(node, "new")
        node.pwrite(0, b"3" * 512)
    return path


def test_the_present_state_is_left_and_come_back_to(image: str) -> None:
    with graph.open(image, read_only=False) as node:
        snapshot.apply(node, "old")
        assert (bytes(node.read(0, 2)), node.length) == (b"11", 1 << 20)
        snapshot.apply(node, "2")  # an id
        assert (bytes(node.read(0, 2)), node.length) == (b"22", 2 << 20)


@pytest.mark.parametrize(("wanted", "data", "length"), [("old", b"11", 1 << 20), ("2", b"22", 2 << 20)])
def test_a_snapshot_can_be_read_and_nothing_changes(image: str, wanted: str, data: bytes, length: int) -> None:
    before = Path(image).read_bytes()
    with graph.open(image) as node:
        snapshot.load_by_id_or_name(node, wanted)
        assert (bytes(node.read(0, 2)), node.length) == (data, length)
    assert Path(image).read_bytes() == before


def test_id_and_name_must_both_fit(image: str) -> None:
    with graph.open(image) as node:
        snapshot.load(node, "1", "old")
        with pytest.raises(BlockError, match="Can't find snapshot"):
            snapshot.load(node, "1", "new")


def test_a_snapshot_is_not_shown_where_it_could_be_written_to(image: str) -> None:
    with graph.open(image, read_only=False) as node, pytest.raises(ReadOnly):
        snapshot.load(node, "1", None)


def test_only_names_say_what_is_dropped(image: str) -> None:
    with graph.open(image, read_only=False) as node:
        with pytest.raises(BlockError, match="snapshot not found") as caught:
            snapshot.delete(node, "1")
        assert caught.value.errno == errno.ENOENT
        snapshot.delete(node, "old")
        assert [each.name for each in snapshot.snapshots(node)] == ["new"]


def test_long_names_are_cut_as_qemu_cuts_them(tmp_path: Path) -> None:
    path = str(tmp_path / "a")
    create(plan(path, "qcow2", 1 << 20))
    with graph.open(path, read_only=False) as node:
        snapshot.create(node, "ö" * 200)
        (found,) = snapshot.snapshots(node)
    assert found.name.encode(errors="surrogateescape") == ("ö" * 200).encode()[:255]


def test_raw_images_have_no_snapshots(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(bytes(512))
    with graph.open(str(path), "raw", read_only=False) as node:
        assert snapshot.snapshots(node) == []
        for action in (snapshot.create, snapshot.apply, snapshot.load_by_id_or_name):
            with pytest.raises(UnsupportedFeature):
                action(node, "x")


def test_a_name_ends_where_it_has_a_nul(image: str) -> None:
    data = Path(image).read_bytes()
    Path(image).write_bytes(data.replace(b"2new", b"2n\0w"))
    with graph.open(image) as node:
        assert [each.name for each in snapshot.snapshots(node)] == ["old", "n"]

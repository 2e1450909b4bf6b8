"""Persistent dirty bitmaps: made, dropped, and their bits changed."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from hostel.block import graph
from hostel.block.node import BlockNode
from hostel.block.powers import BitmapStore
from hostel.errors import BlockError, UnsupportedFeature
from hostel.img import bitmap
from hostel.img.create import create, plan

SIZE = 1 << 20


@pytest.fixture
def image(tmp_path: Path) -> str:
    """An image with the bitmaps ``a``, which records, and ``b``, which does not."""
    path = str(tmp_path / "image")
    create(plan(path, "qcow2", SIZE))
    with graph.open(path, read_only=False) as node:
        bitmap.add(node, "a", 65536)
        bitmap.add(node, "b", 4096)
        bitmap.disable(node, "b")
    return path


def dirty(path: str, name: str) -> int:
    """How many bits of a bitmap are set."""
    with graph.open(path) as node:
        return store(node).bitmap(name).count


def store(node: BlockNode) -> BitmapStore:
    """The node's driver."""
    assert isinstance(node.driver, BitmapStore)
    return node.driver


def write(path: str, offset: int) -> None:
    """Write something that bitmaps may record."""
    with graph.open(path, read_only=False) as node:
        node.pwrite(offset, b"x" * 512)


def test_only_enabled_bitmaps_record(image: str) -> None:
    write(image, 0)
    assert (dirty(image, "a"), dirty(image, "b")) == (1, 0)
    with graph.open(image, read_only=False) as node:
        bitmap.enable(node, "b")
        bitmap.disable(node, "a")
    write(image, 65536)
    assert (dirty(image, "a"), dirty(image, "b")) == (1, 1)


def test_a_cleared_bitmap_says_nothing_was_written(image: str) -> None:
    write(image, 0)
    with graph.open(image, read_only=False) as node:
        bitmap.clear(node, "a")
    assert dirty(image, "a") == 0


def test_bitmaps_of_other_granularities_merge(image: str) -> None:
    write(image, 65536)
    with graph.open(image, read_only=False) as node:
        bitmap.merge(node, "b", node, "a")
    assert dirty(image, "b") == 16


def test_a_bitmap_of_another_image_merges(image: str, tmp_path: Path) -> None:
    other = str(tmp_path / "other")
    create(plan(other, "qcow2", SIZE))
    with graph.open(other, read_only=False) as node:
        bitmap.add(node, "x")
    write(other, 0)
    with graph.open(image, read_only=False) as node, graph.open(other) as source:
        bitmap.merge(node, "b", source, "x")
    assert (dirty(image, "b"), dirty(image, "a")) == (16, 0)


def test_images_of_different_sizes_do_not_merge(image: str, tmp_path: Path) -> None:
    other = str(tmp_path / "other")
    create(plan(other, "qcow2", 2 * SIZE))
    with graph.open(other, read_only=False) as source, graph.open(image, read_only=False) as node:
        bitmap.add(source, "x")
        message = rf"destination size is {SIZE}, source size is {2 * SIZE}\) and can't be merged"
        with pytest.raises(BlockError, match=message):
            bitmap.merge(node, "b", source, "x")


@pytest.mark.parametrize("action", bitmap.ACTIONS)
def test_a_bitmap_that_is_not_there_is_named(image: str, action: str) -> None:
    before = Path(image).read_bytes()
    with (
        graph.open(image, read_only=False) as node,
        pytest.raises(BlockError, match=r"^Dirty bitmap 'c' not found$") as caught,
    ):
        bitmap.ACTIONS[action](node, "c")
    assert caught.value.errno == errno.ENOENT
    assert Path(image).read_bytes() == before


def test_of_two_that_are_missing_the_target_is_named(image: str) -> None:
    with graph.open(image, read_only=False) as node:
        with pytest.raises(BlockError, match="'c' not found"):
            bitmap.merge(node, "c", node, "d")
        with pytest.raises(BlockError, match="'d' not found"):
            bitmap.merge(node, "a", node, "d")


@pytest.mark.parametrize(
    ("name", "granularity", "message"),
    [
        ("", None, "^Bitmap name cannot be empty$"),
        ("a", None, "^Bitmap already exists: a$"),
        ("c", 256, "^Granularity must be power of 2 and at least 512$"),
        ("c", 3072, "^Granularity must be power of 2 and at least 512$"),
        ("c", 1 << 32, "Granularity exceeds maximum"),
        ("c" * 1024, None, "persistent in .*: Name length exceeds maximum"),
    ],
)
def test_a_bitmap_that_cannot_be_kept_changes_nothing(
    image: str, name: str, granularity: int | None, message: str
) -> None:
    before = Path(image).read_bytes()
    with graph.open(image, read_only=False) as node, pytest.raises(BlockError, match=message):
        bitmap.add(node, name, granularity)
    assert Path(image).read_bytes() == before


def test_raw_images_have_no_bitmaps(tmp_path: Path) -> None:
    path = tmp_path / "raw"
    path.write_bytes(bytes(SIZE))
    with graph.open(str(path), "raw", read_only=False) as node:
        with pytest.raises(UnsupportedFeature, match="Can't store persistent bitmaps to"):
            bitmap.add(node, "a")
        with pytest.raises(BlockError, match="Dirty bitmap 'a' not found"):
            bitmap.remove(node, "a")

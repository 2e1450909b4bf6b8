"""Resizing images."""

from __future__ import annotations

from pathlib import Path

import pytest

from hostel.block import graph
from hostel.block.powers import Preallocation
from hostel.errors import BlockError, OutOfRange, ReadOnly
from hostel.img.create import create, plan
from hostel.img.resize import resize


@pytest.mark.parametrize("format", ["raw", "qcow2"])
def test_what_was_cut_off_does_not_come_back(tmp_path: Path, format: str) -> None:
    path = str(tmp_path / "a")
    create(plan(path, format, 1 << 20))
    with graph.open(path, format, read_only=False) as node:
        node.pwrite(0, b"x" * (1 << 20))
        resize(node, 100 * 512)
        resize(node, 1 << 20)
        assert bytes(node.read(0, 1 << 20)) == (b"x" * 100 * 512).ljust(1 << 20, b"\0")


def test_sizes_that_cannot_be_leave_the_image_alone(tmp_path: Path) -> None:
    path = tmp_path / "a"
    create(plan(str(path), "qcow2", 1 << 20))
    before = path.read_bytes()
    with graph.open(str(path), read_only=False) as node:
        with pytest.raises(OutOfRange):
            resize(node, 1 << 63)
        with pytest.raises(BlockError, match="multiple of 512"):
            resize(node, 513)
        with pytest.raises(BlockError, match="File too large"):
            resize(node, 1 << 60)
        with pytest.raises(BlockError, match="Preallocation can't be used for shrinking"):
            resize(node, 512, Preallocation.FULL)
    assert path.read_bytes() == before


def test_an_image_open_for_reading_keeps_its_size(tmp_path: Path) -> None:
    path = str(tmp_path / "a")
    create(plan(path, "raw", 512))
    with graph.open(path, "raw") as node, pytest.raises(ReadOnly):
        resize(node, 1024)

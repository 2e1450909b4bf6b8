"""New images for copies and snapshots."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostel.block import graph
from hostel.drivers.qemu.block.chain import Image
from hostel.drivers.qemu.block.create import create_image, create_over
from hostel.errors import VirtError
from hostel.model.domain.devices.source import DiskSource, SourceType
from hostel.units import MiB


@pytest.fixture(autouse=True)
def open_to_all() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def image(path: Path, format: str) -> Image:
    return Image(1, SourceType.FILE, DiskSource(file=str(path)), format, None)


@pytest.mark.parametrize("format", ["raw", "qcow2"])
def test_new_image_is_its_owners_alone(tmp_path: Path, format: str) -> None:
    path = tmp_path / "new"
    create_image(image(path, format), MiB)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with graph.open(str(path), format, read_only=True) as node:
        assert node.length == MiB


def test_overlay_is_too_whoever_may_read_what_is_below(tmp_path: Path) -> None:
    create_image(image(tmp_path / "base", "qcow2"), MiB)
    (tmp_path / "base").chmod(0o644)
    create_over(image(tmp_path / "base", "qcow2"), image(tmp_path / "over", "qcow2"))
    assert stat.S_IMODE((tmp_path / "over").stat().st_mode) == 0o600


def test_file_that_was_there_keeps_its_permissions(tmp_path: Path) -> None:
    (tmp_path / "there").touch(0o640)
    create_image(image(tmp_path / "there", "qcow2"), MiB)
    assert stat.S_IMODE((tmp_path / "there").stat().st_mode) == 0o640


def test_nothing_is_left_of_an_image_that_cannot_be_made(tmp_path: Path) -> None:
    below = image(tmp_path / "below", "qcow2")
    wanted = (
        (image(tmp_path / "no/folder", "qcow2"), MiB, None),
        (image(tmp_path / "too large", "qcow2"), 2**62, None),
        (image(tmp_path / "has no backing file", "raw"), MiB, below),
    )
    for new, size, backing in wanted:
        with pytest.raises(VirtError, match="cannot create image"):
            create_image(new, size, backing=backing)
    assert list(tmp_path.iterdir()) == []

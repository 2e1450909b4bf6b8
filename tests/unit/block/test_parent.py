"""Parents of differencing images: names of another system, and files found by what they call themselves."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hostel.block import graph, parent
from hostel.block.driver import Reference
from hostel.block.formats.vdi import DIFFERENCING, Header
from hostel.errors import CorruptImage
from hostel.img.info import info
from support.images import make


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("base.vhd", "base.vhd"),
        (".\\base.vhd", "base.vhd"),
        ("..\\disks\\base.vhd", "../disks/base.vhd"),
        ("C:\\disks\\base.vhd", "base.vhd"),
        ("C:base.vhd", "base.vhd"),
        ("\\\\server\\share\\base.vhd", "base.vhd"),
        ("\\\\?\\Volume{1}\\base.vhd", "base.vhd"),
        ("/Users/me/base.vhd", "base.vhd"),
        ("", ""),
    ],
)
def test_a_path_of_windows_is_followed_where_it_is_relative(name: str, expected: str) -> None:
    assert parent.from_windows(name) == expected


def unique_id(path: Path) -> str:
    with graph.open(str(path), "vdi", no_backing=True) as node:
        return node.driver.unique_id


@pytest.fixture
def top(tmp_path: Path) -> Path:
    """A difference, in a folder of its own, from an image in the one above it."""
    (tmp_path / "Snapshots").mkdir()
    base, path = tmp_path / "base.vdi", tmp_path / "Snapshots" / "top.vdi"
    for each in (base, path, tmp_path / "other.vdi", tmp_path / "Snapshots" / "another.vdi"):
        make(each, 1 << 20, format="vdi")
    data = path.read_bytes()
    of_base = Header.unpack(base.read_bytes()).uuid_image
    path.write_bytes(Header.unpack(data).replace(image_type=DIFFERENCING, uuid_parent=of_base).pack() + data[512:])
    return path


def test_a_parent_is_found_beside_or_above(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = top.parents[1] / "base.vdi"
    reference = Reference("backing", "gone", "vdi", unique_id=unique_id(base))
    found = parent.find(reference, str(top))
    assert found is not None
    assert os.path.samefile(found, base)
    monkeypatch.chdir(top.parent)
    assert parent.find(reference, "top.vdi") == "../base.vdi"
    assert parent.find(reference._replace(unique_id="nobody"), "top.vdi") is None
    assert parent.find(reference._replace(format="qcow2"), "top.vdi") is None


def test_info_says_where_the_parent_is(top: Path) -> None:
    with graph.open(str(top), "vdi", no_backing=True, no_io=True) as node:
        place = info(node).full_backing
    assert place is not None
    assert os.path.samefile(place, top.parents[1] / "base.vdi")


def test_a_file_that_is_no_image_is_passed_over(top: Path) -> None:
    base = top.parents[1] / "base.vdi"
    wanted = unique_id(base)
    (top.parent / "a.vdi").write_bytes(b"nothing")
    (top.parent / "b.vdi").symlink_to("nowhere")
    (top.parent / "c.vdi").mkdir()
    assert parent.find(Reference("backing", "gone", "vdi", unique_id=wanted), str(top)) is not None
    base.unlink()
    assert parent.find(Reference("backing", "gone", "vdi", unique_id=wanted), str(top)) is None


def test_another_image_in_the_parents_place_is_refused(top: Path) -> None:
    other = top.parents[1] / "other.vdi"
    with graph.open(str(other), "vdi") as node, pytest.raises(CorruptImage, match="is not the image that 'top' was"):
        parent.require(Reference("backing", "x", "vdi", unique_id="somebody"), "top", node)

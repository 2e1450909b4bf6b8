"""VMware disks with a parent: what shows through, and what can be none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hostel.block import graph, notice
from hostel.block.options import given_options
from hostel.errors import BlockError, ImageLocked, InvalidImage
from hostel.img import commit, convert, create
from support import images
from support.bounded import MIB
from support.vmdk import GRAIN, SECTOR, descriptor, make, opened, refusal, write_files


def overlay(folder: Path, size: int = 10 * GRAIN) -> tuple[Path, Path, bytearray]:
    base, over = folder / "base.vmdk", folder / "over.vmdk"
    make(base, 8 * GRAIN + SECTOR)
    disk = bytearray(size)
    pieces = {GRAIN + 5: b"b" * (3 * GRAIN), 8 * GRAIN: b"e" * SECTOR}
    images.write(base, "vmdk", pieces)
    make(over, size, "zeroed_grain=on", backing=Path("base.vmdk"))
    images.apply(disk, pieces)
    return base, over, disk


def test_an_overlay_shows_its_parent_and_keeps_what_is_written(tmp_path: Path) -> None:
    base, over, disk = overlay(tmp_path)
    before = base.read_bytes()
    assert images.content(over, "vmdk") == disk
    pieces: dict[int, bytes | int] = {2 * GRAIN + 100: b"o" * 100, 3 * GRAIN: GRAIN, 8 * GRAIN + 10: b"p"}
    images.write(over, "vmdk", pieces)
    images.apply(disk, pieces)
    assert images.content(over, "vmdk") == disk
    assert base.read_bytes() == before
    with opened(over) as node:
        assert node.backing is not None
        (reference,) = node.driver.references()
        assert (reference.child, reference.filename, reference.format) == ("backing", "base.vmdk", "vmdk")


def test_an_overlay_whose_parent_has_changed_shows_nothing_of_it(tmp_path: Path) -> None:
    base, over, _ = overlay(tmp_path)
    images.write(over, "vmdk", {0: b"o" * GRAIN})
    images.write(base, "vmdk", {0: b"x"})
    with opened(over) as node:
        assert node.read(0, GRAIN) == b"o" * GRAIN
        for attempt in (lambda: node.read(GRAIN, 1), lambda: list(node.extents())):
            with pytest.raises(InvalidImage) as caught:
                attempt()
            assert caught.value.errno == 22
            assert "base.vmdk' has changed" in str(caught.value.hint)
    for length in (1, GRAIN):
        with opened(over, read_only=False) as node, pytest.raises(InvalidImage):
            node.pwrite(2 * GRAIN, b"n" * length)


def test_an_overlay_whose_parent_has_changed_can_be_committed_which_is_told(tmp_path: Path) -> None:
    """A commit that was cut off leaves such a one, and must be done again."""
    base, over, disk = overlay(tmp_path, 8 * GRAIN + SECTOR)
    images.write(over, "vmdk", {0: b"o" * GRAIN})
    disk[:GRAIN] = b"o" * GRAIN
    images.write(base, "vmdk", {0: b"x"})
    told: list[str] = []
    with notice.listening(told.append), graph.open(str(over), "vmdk", read_only=False, writable_backing=1) as node:
        commit.commit(node, 1)
        with pytest.raises(InvalidImage):
            list(node.extents())
    assert [each for each in told if "has changed" in each and str(over) in each] == told
    assert len(told) == 1
    assert images.content(base, "vmdk") == disk


def test_a_disk_that_is_its_own_parent_is_refused(tmp_path: Path) -> None:
    write_files(tmp_path, {"x": bytes(4096)})
    for name, hint in (("a", "a"), ("b", "c"), ("c", "b")):
        (tmp_path / name).write_text(descriptor("vmfs", 'RW 8 VMFS "x"', hint=hint))
    for name in "ab":
        assert "creates an infinite loop" in refusal(tmp_path / name)


def test_a_parent_of_another_format_has_no_content_id(tmp_path: Path) -> None:
    images.make(tmp_path / "base", MIB)
    make(tmp_path / "other.vmdk", MIB)
    _, over, _ = overlay(tmp_path)
    described = {
        "driver": "vmdk",
        "file": {"driver": "file", "filename": str(over)},
        "backing": {"driver": "qcow2", "file": {"driver": "file", "filename": str(tmp_path / "base")}},
    }
    with graph.open("json:" + json.dumps(described)) as node, pytest.raises(InvalidImage):
        node.read(0, 1)


def test_a_parent_must_be_a_vmdk(tmp_path: Path) -> None:
    images.make(tmp_path / "base", MIB)
    with pytest.raises(BlockError, match="Invalid backing file format: qcow2"):
        plan = create.plan(str(tmp_path / "o"), "vmdk", MIB, backing=str(tmp_path / "base"), open_backing=False,
                           given=given_options("backing_fmt=vmdk"))  # fmt: skip
        create.create(plan._replace(given={k: v for k, v in plan.given.items() if k != "backing_fmt"}))
    make(tmp_path / "b.vmdk", MIB)
    for options, message in (
        ("subformat=monolithicFlat", "Flat image can't have backing file"),
        ("backing_fmt=raw", "backing_file must be a vmdk image"),
    ):
        with pytest.raises(BlockError, match=message):
            plan = create.plan(
                str(tmp_path / "o"), "vmdk", MIB, backing=str(tmp_path / "b.vmdk"), open_backing=False,
                given=given_options(options if "fmt" in options else f"{options},backing_fmt=vmdk"),
            )  # fmt: skip
            create.create(plan)
    assert not (tmp_path / "o").exists()


def test_a_new_disk_is_not_made_in_the_place_of_what_its_parent_lies_in(tmp_path: Path) -> None:
    make(tmp_path / "b.vmdk", MIB, "subformat=twoGbMaxExtentSparse")
    make(tmp_path / "o-s001.vmdk", MIB)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(BlockError, match="same filename as the backing file"):
        make(tmp_path / "b-s001.vmdk", MIB, backing=tmp_path / "b.vmdk")
    with pytest.raises(BlockError, match="cannot become a part of the image"):
        make(tmp_path / "o.vmdk", MIB, "subformat=twoGbMaxExtentSparse", backing=tmp_path / "o-s001.vmdk")
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("share", [False, True])
def test_a_copy_is_not_made_in_the_place_of_its_source(tmp_path: Path, share: bool) -> None:
    source = tmp_path / "d-flat.vmdk"
    source.write_bytes(b"s" * MIB)
    with graph.open(str(source), "raw", force_share=share) as node:
        given = given_options("subformat=monolithicFlat")
        plan = convert.plan_target([node], str(tmp_path / "d.vmdk"), "vmdk", given=given)
        with pytest.raises(ImageLocked):
            convert.convert([node], plan)
    make(tmp_path / "e.vmdk", MIB, "subformat=monolithicFlat")
    with graph.open(str(tmp_path / "e.vmdk"), "vmdk", force_share=share) as node:
        plan = convert.plan_target([node], str(tmp_path / "e-flat.vmdk"), "raw")
        with pytest.raises(ImageLocked):
            convert.convert([node], plan)
    assert source.read_bytes() == b"s" * MIB
    assert (tmp_path / "e-flat.vmdk").stat().st_size == MIB
    assert not (tmp_path / "d.vmdk").exists()

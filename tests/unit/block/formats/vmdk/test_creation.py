"""New VMware disks of every subformat: their files, their options, and what is left of one that fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from hostel.block import graph
from hostel.block.extent import Status
from hostel.block.formats.vmdk.driver import VmdkDriver
from hostel.block.options import given_options
from hostel.block.powers import Repair
from hostel.errors import BlockError, InvalidImage
from hostel.img import convert, create
from support import images
from support.bounded import MIB
from support.vmdk import GRAIN, SECTOR, SUBFORMATS, make, opened


@pytest.mark.parametrize("subformat", SUBFORMATS)
@pytest.mark.parametrize("size", [0, SECTOR, GRAIN - SECTOR, 5 * GRAIN + SECTOR, (1 << 31) + 3 * SECTOR])
def test_a_fresh_disk_reads_as_zeroes_and_is_sound(tmp_path: Path, subformat: str, size: int) -> None:
    path = tmp_path / "d.vmdk"
    if not size and subformat.startswith(("twoGb", "monolithicFlat")):
        with pytest.raises(InvalidImage, match="has no extents"):
            make(path, size, f"subformat={subformat}")
        return
    make(path, size, f"subformat={subformat}")
    with graph.open(str(path), "vmdk", check=True) as node:
        assert node.length == size
        assert all(extent.status & Status.ZERO or not extent.status for extent in node.extents()) or "Flat" in subformat
        end = max(0, size - 3 * SECTOR)
        assert not any(node.read(end, size - end))
        lines: list[str] = []
        result = node.driver.check(Repair.NOTHING, lines.append)  # type: ignore[attr-defined]
        assert (result.corruptions, lines) == (0, [])


def test_a_split_disk_lies_in_files_of_two_gib(tmp_path: Path) -> None:
    make(tmp_path / "a.b.vmdk", (5 << 30) + SECTOR, "subformat=twoGbMaxExtentFlat")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "a.b-f001.vmdk", "a.b-f002.vmdk", "a.b-f003.vmdk", "a.b.vmdk"
    ]  # fmt: skip
    assert (tmp_path / "a.b-f003.vmdk").stat().st_size == (1 << 30) + SECTOR
    make(tmp_path / "noext", 1 << 20, "subformat=twoGbMaxExtentSparse")
    assert (tmp_path / "noext-s001").exists()
    make(tmp_path / "flat", 1 << 20, "subformat=monolithicFlat")
    assert (tmp_path / "flat-flat").stat().st_size == 1 << 20


@pytest.mark.parametrize("subformat", SUBFORMATS)
def test_a_name_that_looks_like_a_protocol_is_a_path_where_it_was_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, subformat: str
) -> None:
    monkeypatch.chdir(tmp_path)
    create.create(create.plan("file:image:d.vmdk", "vmdk", MIB, given=given_options(f"subformat={subformat}")))
    with graph.open("./image:d.vmdk", "vmdk") as node:
        assert node.length == MIB
    assert len(list(tmp_path.iterdir())) == (1 if subformat in ("monolithicSparse", "streamOptimized") else 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("subformat=foo", "invalid parameter value: foo"),
        ("adapter_type=foo", "invalid parameter value: foo"),
        ("compat6=on,hwversion=5", "compat6 cannot be enabled with hwversion set"),
        ("subformat=monolithicFlat,zeroed_grain=on", "Flat image can't enable zeroed grain"),
        ('hwversion=a"b', "has a character that a VMDK descriptor cannot hold"),
        (f"toolsversion={'1' * 20000}", "Could not write description"),
    ],
)
def test_options_that_make_no_sense_leave_nothing_behind(tmp_path: Path, options: str, message: str) -> None:
    with pytest.raises(BlockError, match=message):
        make(tmp_path / "d.vmdk", MIB, options)
    assert not list(tmp_path.iterdir())


def test_a_failure_takes_away_the_extents_that_were_made(tmp_path: Path) -> None:
    (tmp_path / "d-f002.vmdk").mkdir()
    with pytest.raises(BlockError):
        make(tmp_path / "d.vmdk", 5 << 30, "subformat=twoGbMaxExtentFlat")
    assert [path.name for path in tmp_path.iterdir()] == ["d-f002.vmdk"]


def test_a_failed_copy_takes_away_all_of_its_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "raw").write_bytes(b"x" * MIB)

    def fail(*arguments: object) -> None:
        raise BlockError("no more", errno=28)

    with graph.open(str(tmp_path / "raw"), "raw") as node:
        given = given_options("subformat=monolithicFlat")
        plan = convert.plan_target([node], str(tmp_path / "d.vmdk"), "vmdk", given=given)
        monkeypatch.setattr(VmdkDriver, "pwrite", fail)
        with pytest.raises(BlockError, match="No space left"):
            convert.convert([node], plan)
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


def test_too_large_a_disk_is_refused_before_a_file_is_made(tmp_path: Path) -> None:
    with pytest.raises(BlockError, match="The image size is too large for file format 'vmdk'"):
        make(tmp_path / "d.vmdk", 1 << 62)
    assert not list(tmp_path.iterdir())
    make(tmp_path / "d.vmdk", 1 << 50)
    images.write(tmp_path / "d.vmdk", "vmdk", {(1 << 50) - SECTOR: b"e" * SECTOR})
    with opened(tmp_path / "d.vmdk") as node:
        assert node.read((1 << 50) - 1024, 1024) == bytes(SECTOR) + b"e" * SECTOR


def test_hardware_and_tools_versions_are_recorded(tmp_path: Path) -> None:
    make(tmp_path / "a.vmdk", MIB, "compat6=on,toolsversion=9,adapter_type=buslogic,subformat=monolithicFlat")
    text = (tmp_path / "a.vmdk").read_text()
    for wanted in ('virtualHWVersion = "6"', 'toolsVersion = "9"', 'adapterType = "buslogic"', 'heads = "255"'):
        assert wanted in text

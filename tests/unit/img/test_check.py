"""Checking images."""

from __future__ import annotations

from pathlib import Path

import pytest

from hostel.block import graph
from hostel.block.powers import Repair
from hostel.errors import UnsupportedFeature
from hostel.img.check import check, to_json
from hostel.img.create import create, plan


def leaking(tmp_path: Path) -> str:
    """An image in which cluster 8 counts as used, and is not."""
    path = tmp_path / "a"
    create(plan(str(path), "qcow2", 1 << 20))
    with path.open("r+b") as file:
        file.truncate(10 * 65536)
        file.seek(2 * 65536 + 2 * 8)
        file.write(b"\x00\x01")
    return str(path)


def test_findings_are_reported_and_counted(tmp_path: Path) -> None:
    lines: list[str] = []
    with graph.open(leaking(tmp_path), check=True) as node:
        found = check(node, Repair.NOTHING, lines.append)
        told = to_json(found, "a", node.format)
    assert lines == ["Leaked cluster 8 refcount=1 reference=0"]
    assert told == {
        "filename": "a",
        "format": "qcow2",
        "check-errors": 0,
        "image-end-offset": 9 * 65536,
        "leaks": 1,
        "total-clusters": 16,
    }


def test_after_a_repair_it_is_checked_again(tmp_path: Path) -> None:
    told: list[str] = []
    with graph.open(leaking(tmp_path), read_only=False, check=True) as node:
        found = check(node, Repair.ALL, lambda line: None, told.append)
    assert (found.leaks_fixed, found.corruptions_fixed, found.result.leaks) == (1, 0, 0)
    assert told[0].startswith("The following inconsistencies were found and repaired:\n\n    1 leaked clusters\n")


def test_a_format_without_checks_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(bytes(512))
    with graph.open(str(path), "raw", check=True) as node, pytest.raises(UnsupportedFeature, match="support checks"):
        check(node, Repair.NOTHING, lambda line: None)

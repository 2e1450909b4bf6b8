"""What is known of an image."""

from __future__ import annotations

from pathlib import Path

from hostel.block import graph
from hostel.block.options import given_options
from hostel.img.create import create, plan
from hostel.img.info import info
from hostel.img.snapshot import create as create_snapshot


def test_a_raw_image_has_little_to_tell(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(bytes(4096))
    with graph.open(str(path), "raw") as node:
        assert info(node).to_json() == {
            "filename": str(path),
            "format": "raw",
            "dirty-flag": False,
            "actual-size": path.stat().st_blocks * 512,
            "virtual-size": 4096,
        }


def test_the_backing_file_is_named_and_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "a"
    create(plan(str(path), "qcow2", 1 << 20, backing="missing", backing_format="raw", open_backing=False))
    with graph.open(str(path), no_backing=True, no_io=True) as node:
        found = info(node)
    assert (found.backing, found.full_backing, found.backing_format) == ("missing", str(tmp_path / "missing"), "raw")


def test_snapshots_are_told_with_seconds_and_nanoseconds(tmp_path: Path) -> None:
    path = tmp_path / "a"
    create(plan(str(path), "qcow2", 1 << 20, given=given_options("cluster_size=512")))
    with graph.open(str(path), read_only=False) as node:
        create_snapshot(node, "first")
        (told,) = info(node).to_json()["snapshots"]
    assert told.pop("date-sec") > 0
    assert 0 <= told.pop("date-nsec") < 10**9
    assert told == {"id": "1", "name": "first", "vm-state-size": 0, "vm-clock-sec": 0, "vm-clock-nsec": 0, "icount": 0}

"""Maps of images."""

from __future__ import annotations

from pathlib import Path

from hostel.block import graph
from hostel.block.blockdev import from_options
from hostel.img.create import create, plan
from hostel.img.map import MapEntry, map

CLUSTER = 65536


def overlay(tmp_path: Path) -> str:
    """A qcow2 image of 4 clusters with one cluster of data, on a raw one of 2 that has data in its first."""
    base, top = tmp_path / "base", tmp_path / "top"
    with base.open("wb") as file:
        file.write(b"x" * CLUSTER)
        file.truncate(2 * CLUSTER)
    create(plan(str(top), "qcow2", 4 * CLUSTER, backing="base", backing_format="raw"))
    with graph.open(str(top), read_only=False) as node:
        node.pwrite(CLUSTER, b"y" * CLUSTER)
    return str(top)


def test_each_range_says_which_layer_decides_it(tmp_path: Path) -> None:
    with graph.open(overlay(tmp_path)) as node:
        found = list(map(node, 0, node.length))
    base, top = str(tmp_path / "base"), str(tmp_path / "top")
    assert [(entry.start, entry.depth, entry.present, entry.zero, entry.data, entry.filename) for entry in found] == [
        (0, 1, True, False, True, base),
        (CLUSTER, 0, True, False, True, top),
        # Beyond the end of the shorter backing file nobody decides anything.
        (2 * CLUSTER, 0, False, True, False, None),
    ]
    assert found[0].offset == 0
    assert found[-1].end == 4 * CLUSTER


def test_a_part_is_mapped_without_the_rest(tmp_path: Path) -> None:
    with graph.open(overlay(tmp_path)) as node:
        found = list(map(node, CLUSTER // 2, CLUSTER + 512))
        assert list(map(node, CLUSTER, CLUSTER)) == []
    assert [(entry.start, entry.length, entry.depth) for entry in found] == [
        (CLUSTER // 2, CLUSTER // 2, 1),
        (CLUSTER, 512, 0),
    ]


def test_a_raw_image_on_an_overlay_says_which_file_has_what(tmp_path: Path) -> None:
    top, base = overlay(tmp_path), str(tmp_path / "base")
    options = {"driver": "raw", "offset": "512", "file.driver": "qcow2", "file.file.filename": top}
    with graph.open(from_options(options)) as node:
        found = [(entry.start, entry.length, entry.offset, entry.filename) for entry in map(node, 0, node.length)]
        offset = found[1][2]
        assert found[:2] == [(0, CLUSTER - 512, 512, base), (CLUSTER - 512, CLUSTER, offset, top)]
        content = bytes(node.read(0, 2 * CLUSTER - 512))
    assert content == b"x" * (CLUSTER - 512) + b"y" * CLUSTER
    assert offset
    with open(top, "rb") as file:
        file.seek(offset)
        assert file.read(CLUSTER) == b"y" * CLUSTER


def test_entries_join_where_the_file_continues() -> None:
    first = MapEntry(0, 512, 0, True, False, True, 1024, "a")
    following = MapEntry(512, 512, 0, True, False, True, 1536, "a")
    assert first.joins(following)
    assert first.extended(following) == MapEntry(0, 1024, 0, True, False, True, 1024, "a")
    for other in ({"offset": 2048}, {"offset": None}, {"filename": "b"}, {"depth": 1}, {"zero": True}):
        assert not first.joins(following._replace(**other))
    assert first._replace(offset=None).joins(following._replace(offset=None))

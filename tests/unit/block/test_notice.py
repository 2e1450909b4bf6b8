"""What the block layer notices while it works."""

from __future__ import annotations

from pathlib import Path

import pytest

from hostel.block import graph, notice
from hostel.block.formats.qcow2.layout import Header
from hostel.errors import CorruptImage
from support.qcow2 import create_file


def test_only_those_who_listen_hear_it() -> None:
    heard: list[str] = []
    notice.tell("before")
    with notice.listening(heard.append):
        notice.tell("meanwhile")
    notice.tell("afterwards")
    assert heard == ["meanwhile"]


def damaged(path: Path) -> str:
    """An image whose one L2 table lies at an impossible place."""
    create_file(path, 1 << 20)
    with graph.open(str(path), "qcow2", read_only=False) as node:
        node.pwrite(0, b"x")
    with path.open("r+b") as stream:
        stream.seek(Header.OFFSET["l1_table_offset"])
        table = int.from_bytes(stream.read(8), "big")
        stream.seek(table)
        stream.write((1 << 63 | 0x40200).to_bytes(8, "big"))
    return str(path)


@pytest.mark.parametrize(("read_only", "words"), [(True, "Image is corrupt: "), (False, "Marking image as corrupt: ")])
def test_an_image_found_corrupt_is_told_of_once(tmp_path: Path, read_only: bool, words: str) -> None:
    heard: list[str] = []
    with (
        graph.open(damaged(tmp_path / "a"), "qcow2", read_only=read_only) as node,
        notice.listening(heard.append),
    ):
        for _ in range(3):
            with pytest.raises(CorruptImage):
                node.read(0, 1)
    assert len(heard) == 1
    assert heard[0].startswith(f"qcow2: {words}L2 table offset 0x40200 unaligned (L1 index: 0); further")
    assert heard[0].endswith("corruption events will be suppressed")


def test_what_opening_repairs_is_told_of(tmp_path: Path) -> None:
    path = tmp_path / "a"
    create_file(path, 1 << 20)
    with path.open("r+b") as stream:
        stream.seek(Header.OFFSET["incompatible_features"])
        stream.write((1).to_bytes(8, "big"))
        stream.truncate(1 << 20)
        stream.seek(Header.OFFSET["refcount_table_offset"])
        table = int.from_bytes(stream.read(8), "big")
        stream.seek(table)
        block = int.from_bytes(stream.read(8), "big")
        stream.seek(block + 2 * 7)
        stream.write(b"\0\1")
    heard: list[str] = []
    with notice.listening(heard.append), graph.open(str(path), "qcow2", read_only=False):
        pass
    assert "Leaked cluster 7 refcount=1 reference=0" in heard

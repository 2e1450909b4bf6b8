"""The format cloop: reading, and images that are refused."""

from __future__ import annotations

import random
import struct
import zlib
from pathlib import Path

import pytest

from hostel.block import graph
from hostel.block.formats import cloop as format_module
from hostel.block.probe import detect
from hostel.errors import CorruptImage, InvalidImage, ReadOnly
from support.old_images import cloop

CONTENT = random.Random(1).randbytes(6000) + bytes(10 * 4096 - 6000)


def write(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    return str(path)


def test_blocks_are_decompressed(tmp_path: Path) -> None:
    with graph.open(write(tmp_path / "a", cloop(CONTENT))) as node:
        assert (node.format, node.length) == ("cloop", len(CONTENT))
        assert node.read(0, len(CONTENT)) == CONTENT


@pytest.mark.parametrize(("offset", "length"), [(0, 1), (4095, 2), (5000, 9000), (len(CONTENT) - 1, 1)])
def test_any_range_can_be_read(tmp_path: Path, offset: int, length: int) -> None:
    with graph.open(write(tmp_path / "a", cloop(CONTENT)), "cloop") as node:
        assert node.read(offset, length) == CONTENT[offset : offset + length]


def test_blocks_of_several_pages_of_offsets_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(format_module, "_PAGE", 3)
    with graph.open(write(tmp_path / "a", cloop(CONTENT)), "cloop") as node:
        assert node.read(0, len(CONTENT)) == CONTENT


def test_it_cannot_be_opened_for_writing(tmp_path: Path) -> None:
    with pytest.raises(ReadOnly, match=r"^Image is read-only$"):
        graph.open(write(tmp_path / "a", cloop(CONTENT)), "cloop", read_only=False)


def test_another_script_is_not_taken_for_one() -> None:
    image = cloop(CONTENT)
    assert detect(image[:512], "a") == "cloop"
    assert detect(image[:512].replace(b"mount", b"mound"), "a") == "raw"


def poked(offset: int, *values: int) -> bytes:
    image = bytearray(cloop(CONTENT))
    struct.pack_into(f">{len(values)}I", image, offset, *values)
    return bytes(image)


HOSTILE = {
    "nothing": (b"", "block_size cannot be zero"),
    "blocks of nothing": (poked(128, 0), "block_size cannot be zero"),
    "blocks of odd length": (poked(128, 4095), "block_size 4095 must be a multiple of 512"),
    "blocks of gigabytes": (poked(128, 1 << 30), "block_size 1073741824 must be 64 MB or less"),
    "too many blocks": (poked(132, 0xFFFFFFFF), "n_blocks 4294967295 must be 536870911 or less"),
    "offsets of gigabytes": (poked(132, 0x10000000), "image requires too many offsets, try increasing block size"),
    "offsets beyond the end": (poked(132, 100000), "The offsets of the blocks lie beyond the end of the file"),
    "offsets that go back": (poked(136 + 16, 0, 5), "offsets not monotonically increasing at index 2"),
    "a block of terabytes": (poked(136 + 80, 1 << 16, 0), "invalid compressed block size at index 10"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_image_is_refused(tmp_path: Path, case: str) -> None:
    data, message = HOSTILE[case]
    with pytest.raises(InvalidImage, match=message):
        graph.open(write(tmp_path / "a", data), "cloop")


def one_block(payload: bytes) -> bytes:
    image = bytearray(cloop(bytes(4096)))[: 136 + 16]
    struct.pack_into(">QQ", image, 136, 152, 152 + len(payload))
    return bytes(image) + payload


BROKEN = {
    "no stream": (one_block(b"x" * 100), "Block 0 at 0x98 cannot be decompressed"),
    "a stream that is too short": (one_block(zlib.compress(bytes(100))), "has not the length of a block"),
    "a stream cut off": (cloop(CONTENT)[:1000], "Block 0 lies beyond the end of the file"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_block_cannot_be_read(tmp_path: Path, case: str) -> None:
    data, message = BROKEN[case]
    with (
        graph.open(write(tmp_path / "a", data), "cloop") as node,
        pytest.raises(CorruptImage, match=message),
    ):
        node.read(0, 512)


def test_a_bomb_cannot_be_read(tmp_path: Path) -> None:
    bomb = one_block(zlib.compress(bytes(1 << 26)))
    with (
        graph.open(write(tmp_path / "a", bomb), "cloop") as node,
        pytest.raises(CorruptImage, match="has not the length of a block"),
    ):
        node.read(0, 512)

"""The format bochs: reading, and images that are refused."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from hostel.block import graph
from hostel.block.probe import detect
from hostel.errors import BlockError, InvalidImage, ReadOnly
from support.old_images import bochs

SIZE = 5 * 4096 + 512
CONTENT = {0: b"a" * 512, 7: b"b" * 512, 8: b"c" * 512, 23: b"d" * 512, 40: b"e" * 512}


def expected() -> bytes:
    data = bytearray(SIZE)
    for number, sector in CONTENT.items():
        data[number * 512 : number * 512 + 512] = sector
    return bytes(data)


def write(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    return str(path)


@pytest.mark.parametrize("version", [0x00010000, 0x00020000])
def test_written_sectors_are_data_and_others_zeroes(tmp_path: Path, version: int) -> None:
    path = write(tmp_path / "a", bochs(CONTENT, SIZE, version=version))
    with graph.open(path) as node:
        assert (node.format, node.length) == ("bochs", SIZE)
        assert node.read(0, SIZE) == expected()


@pytest.mark.parametrize(("offset", "length"), [(1, 1), (511, 2), (3000, 9000), (4095, 2), (SIZE - 1, 1)])
def test_any_range_can_be_read(tmp_path: Path, offset: int, length: int) -> None:
    path = write(tmp_path / "a", bochs(CONTENT, SIZE))
    with graph.open(path, "bochs") as node:
        assert node.read(offset, length) == expected()[offset : offset + length]


def test_it_cannot_be_opened_for_writing(tmp_path: Path) -> None:
    path = write(tmp_path / "a", bochs(CONTENT, SIZE))
    with pytest.raises(ReadOnly, match=r"^Image is read-only$"):
        graph.open(path, "bochs", read_only=False)


def test_an_image_of_another_kind_is_not_taken_for_one() -> None:
    image = bochs(CONTENT, SIZE)
    assert detect(image[:512], "a") == "bochs"
    assert detect(image[:48] + b"Volatile".ljust(16, b"\0") + image[64:512], "a") == "raw"
    assert detect(image[:64] + bytes(4) + image[68:512], "a") == "raw"


def poked(offset: int, *values: int) -> bytes:
    image = bytearray(bochs(CONTENT, SIZE))
    struct.pack_into(f"<{len(values)}I", image, offset, *values)
    return bytes(image)


HOSTILE = {
    "no image": (b"x" * 4096, "Image not in Bochs format"),
    "a header cut off": (bochs(CONTENT, SIZE)[:60], "Image not in Bochs format"),
    "a catalog of gigabytes": (poked(72, 0xFFFFFFFF), "Catalog size is too large"),
    "a catalog beyond the end": (poked(68, 0xFFFFFE00), "The catalog lies beyond the end of the file"),
    "a catalog for a smaller disk": (poked(72, 1), "Catalog size is too small for this disk size"),
    "a disk of exabytes": (poked(88, 0, 0x7FFFFFFF), "Catalog size is too small for this disk size"),
    "extents of nothing": (poked(80, 0), "Extent size must be at least 512"),
    "extents of odd length": (poked(80, 4095), "Extent size 4095 is not a power of two"),
    "extents of gigabytes": (poked(80, 1 << 30), "Extent size 1073741824 is too large"),
    "no bitmap": (poked(76, 0), "Bitmap size 0 is too small for this extent size"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_image_is_refused(tmp_path: Path, case: str) -> None:
    data, message = HOSTILE[case]
    with pytest.raises(InvalidImage, match=message):
        graph.open(write(tmp_path / "a", data), "bochs")


def test_an_extent_beyond_the_end_cannot_be_read_and_the_others_can(tmp_path: Path) -> None:
    path = write(tmp_path / "a", poked(512 + 4, 0x7FFFFFFF))
    with graph.open(path, "bochs") as node:
        assert node.read(0, 4096) == expected()[:4096]
        with pytest.raises(BlockError, match="lies beyond the end of the file"):
            node.read(4096, 1)

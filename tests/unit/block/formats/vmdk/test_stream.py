"""streamOptimized disks: whole grains each once, compressed, with markers and a footer."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from hostel.block import graph
from hostel.block.extent import Status
from hostel.block.options import given_options
from hostel.errors import BlockError, CorruptImage, InvalidImage
from hostel.img import convert
from support import images, vmdk
from support.bounded import MIB
from support.memory import MemoryDriver
from support.vmdk import GRAIN, SECTOR, attach, patched


def stream(size: int, *grains: tuple[int, bytes]) -> MemoryDriver:
    driver = MemoryDriver(vmdk.create(size, {"subformat": "streamOptimized"}))
    with attach(driver) as node:
        for offset, data in grains:
            node.pwrite(offset, data)
    return driver


def test_a_stream_takes_whole_grains_each_once() -> None:
    rng = random.Random("stream")
    first, last = rng.randbytes(GRAIN), b"z" * 1000 + bytes(3 * SECTOR)
    size = 5 * GRAIN + len(last) - len(last) % SECTOR
    last = last[: size - 5 * GRAIN]
    driver = stream(size, (3 * GRAIN, first + bytes(GRAIN)), (5 * GRAIN, last))
    assert len(driver.data) % SECTOR == 0
    with attach(driver) as node:
        assert node.read(0, size) == bytes(3 * GRAIN) + first + bytes(GRAIN) + last
        assert [each.status for each in node.extents(3 * GRAIN, GRAIN)] == [
            Status.DATA | Status.ALLOCATED | Status.COMPRESSED
        ]
        before = bytes(driver.data)
        with pytest.raises(BlockError) as caught:
            node.pwrite(3 * GRAIN, first)
        assert (caught.value.errno, str(caught.value)) == (
            5,
            "Could not write to allocated cluster for streamOptimized",
        )
        for offset, length in ((0, SECTOR), (SECTOR, GRAIN), (GRAIN, GRAIN + 1)):
            with pytest.raises(BlockError) as caught:
                node.pwrite(offset, bytes(length))
            assert caught.value.errno == 22
        assert len(driver.data) == len(before)


def test_a_write_that_is_refused_leaves_a_stream_as_it_is() -> None:
    driver = stream(MIB, (0, b"s" * GRAIN))
    before = bytes(driver.data)
    with attach(driver) as node:
        for offset, length in ((0, GRAIN), (GRAIN, 1), (0, 2 * GRAIN)):
            with pytest.raises(BlockError):
                node.pwrite(offset, bytes(length))
            with pytest.raises(BlockError):
                node.write_zeroes(offset, length)
    assert driver.data == before


def test_a_disk_of_no_bytes_is_copied_to_a_stream(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    with graph.open(str(tmp_path / "empty"), "raw") as node:
        given = given_options("subformat=streamOptimized")
        convert.convert([node], convert.plan_target([node], str(tmp_path / "d.vmdk"), "vmdk", given=given))
    assert images.content(tmp_path / "d.vmdk", "vmdk") == b""


def test_grains_have_markers_and_checksums() -> None:
    driver = stream(MIB, (2 * GRAIN, b"m" * GRAIN))
    place = struct.unpack_from("<Q", driver.data, 64)[0] * SECTOR
    sector, size = struct.unpack_from("<QI", driver.data, place)
    assert sector == 2 * GRAIN // SECTOR
    assert zlib.decompress(driver.data[place + 12 : place + 12 + size]) == b"m" * GRAIN


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda data, at: struct.pack_into("<I", data, at + 8, 0), "its marker says 0 bytes"),
        (lambda data, at: struct.pack_into("<I", data, at + 8, 1 << 31), "its marker says"),
        (lambda data, at: data.__setitem__(slice(at + 20, at + 24), b"\xff" * 4), "is broken"),
        (lambda data, at: data.__delitem__(slice(at + 30, None)), "its marker says"),
        (lambda data, at: data.__delitem__(slice(at, None)), "lies beyond the file's end"),
    ],
)
def test_a_broken_grain_is_told(damage: Callable[[bytearray, int], None], why: str) -> None:
    driver = stream(MIB, (0, random.Random(1).randbytes(GRAIN // 2) + bytes(GRAIN // 2)))
    damage(driver.data, struct.unpack_from("<Q", driver.data, 64)[0] * SECTOR)
    with attach(driver, read_only=True) as node:
        with pytest.raises(CorruptImage, match=why):
            node.read(0, 10)
        assert not any(node.read(GRAIN, GRAIN))


def test_a_grain_that_holds_too_much_is_told_in_little_memory() -> None:
    driver = stream(MIB, (0, b"x" * GRAIN))
    place = struct.unpack_from("<Q", driver.data, 64)[0] * SECTOR
    bomb = zlib.compress(bytes(64 << 20), 9)
    driver.data[place + 8 :] = struct.pack("<I", len(bomb)) + bomb
    with attach(driver, read_only=True) as node, pytest.raises(CorruptImage, match="holds more than 65536 bytes"):
        node.read(0, 10)


def with_footer(data: bytes, **changes: int) -> bytes:
    """The disk as a program leaves it that writes without going back: the header that counts at the end."""
    header = patched(data[:SECTOR], 56, "Q", 2**64 - 1)
    marker = struct.pack("<QII", 1, changes.get("size", 0), changes.get("kind", 3)).ljust(SECTOR, b"\0")
    end = struct.pack("<QII", 0, 0, changes.get("end", 0)).ljust(SECTOR, b"\0")
    return header + data[SECTOR:] + marker + data[:SECTOR] + end


def test_the_footer_of_a_stream_counts() -> None:
    data = bytes(stream(MIB, (GRAIN, b"f" * GRAIN)).data)
    with attach(MemoryDriver(with_footer(data)), read_only=True) as node:
        assert node.read(GRAIN, GRAIN) == b"f" * GRAIN
    with pytest.raises(BlockError, match="ends in a footer must be read only"):
        attach(MemoryDriver(with_footer(data)))
    for change in ({"size": 1}, {"kind": 2}, {"end": 1}):
        with pytest.raises(InvalidImage, match="Invalid footer"):
            attach(MemoryDriver(with_footer(data, **change)), read_only=True)
    with pytest.raises(InvalidImage, match="Failed to read footer"):
        attach(MemoryDriver(patched(data[:1024], 56, "Q", 2**64 - 1)), read_only=True)

from __future__ import annotations

import errno
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostel.block import graph
from hostel.block.extent import Extent
from hostel.block.node import BlockNode
from hostel.img.compare import CompareError, Difference, compare, first_data, longer
from hostel.units import MiB
from support.images import make, write
from support.memory import Kind, MemoryDriver

SIZE = 5 * MiB


class Disk(MemoryDriver):
    """A disk of a fixed size that may have a bad sector, or bad metadata."""

    name = "disk"
    supports = MemoryDriver.supports & ~MemoryDriver.supports.GROWS

    def __init__(self, data: bytes | bytearray, bad: int | None = None, kind: Kind = Kind.READ) -> None:
        super().__init__(data)
        self.bad = bad
        self.kind = kind

    def pread(self, offset: int, buf: memoryview) -> None:
        if self.bad is not None and self.kind is Kind.READ and offset <= self.bad < offset + len(buf):
            raise OSError(errno.EIO, "Input/output error")
        super().pread(offset, buf)

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        if self.bad is not None and self.kind is Kind.ZERO:
            raise OSError(errno.EIO, "Input/output error")
        return super().extents(offset, length)


def node(data: bytes | bytearray, bad: int | None = None, kind: Kind = Kind.READ) -> BlockNode:
    return BlockNode(Disk(data, bad, kind), "disk", read_only=True)


def noise(length: int = SIZE) -> bytearray:
    return bytearray(random.Random(4).randbytes(length))


@pytest.mark.parametrize("offset", [0, 511, 512, 2 * MiB - 1, 2 * MiB, 3 * MiB + 77, SIZE - 1])
def test_difference_is_told_by_its_sector(offset: int) -> None:
    other = noise()
    other[offset] ^= 1
    assert compare(node(noise()), node(noise())) is None
    assert compare(node(noise()), node(other)) == Difference(offset // 512 * 512)


def test_first_of_many_differences_is_told_whichever_is_found_first() -> None:
    other = noise()
    for offset in range(MiB + 600, SIZE, 4096):
        other[offset] ^= 255
    for _ in range(20):
        assert compare(node(noise()), node(other)) == Difference(MiB + 512)


def test_hole_is_the_same_as_zeroes_and_not_as_data(tmp_path: Path) -> None:
    hole, full = tmp_path / "hole", tmp_path / "full"
    for path in (hole, full):
        make(path, SIZE)
    write(full, "qcow2", {0: bytes(3 * MiB)})
    with graph.open(str(hole), "qcow2") as first, graph.open(str(full), "qcow2") as second:
        assert compare(first, second) is None
        assert compare(first, second, strict=True) == Difference(0, is_status=True)
    write(full, "qcow2", {2 * MiB + 1000: b"x"})
    with graph.open(str(hole), "qcow2") as first, graph.open(str(full), "qcow2") as second:
        assert compare(first, second) == compare(second, first) == Difference(2 * MiB + 512)


def test_longer_image_is_the_same_where_it_goes_on_with_zeroes() -> None:
    short, long = noise(), noise() + bytearray(3 * MiB)
    assert compare(node(short), node(long)) is compare(node(long), node(short)) is None
    assert compare(node(short), node(long), strict=True) == Difference(SIZE, is_status=True)
    long[SIZE + 2 * MiB + 513] = 1
    assert compare(node(short), node(long)) == compare(node(long), node(short)) == Difference(SIZE + 2 * MiB + 512)
    assert longer(node(short), node(long)).length == len(long)
    assert first_data(node(long), SIZE) == Difference(SIZE + 2 * MiB + 512)


def test_image_that_ends_within_a_sector_ends_with_zeroes(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_bytes(b"x" * 1000)
    second.write_bytes(b"x" * 1000 + bytes(24))
    with graph.open(str(first), "raw") as one, graph.open(str(second), "raw") as other:
        assert compare(one, other, strict=True) is None


def test_unreadable_image_is_named() -> None:
    with pytest.raises(CompareError, match=r"^Error while reading offset 2097152 of disk: Input/output error$") as read:
        compare(node(noise()), node(noise(), bad=3 * MiB))
    assert read.value.reading
    with pytest.raises(CompareError, match=r"^Sector allocation test failed for disk$") as status:
        compare(node(noise(), bad=0, kind=Kind.ZERO), node(noise()))
    assert not status.value.reading


def test_difference_before_what_cannot_be_read_is_found() -> None:
    other = noise()
    other[100] ^= 1
    assert compare(node(noise()), node(other, bad=3 * MiB)) == Difference(0)

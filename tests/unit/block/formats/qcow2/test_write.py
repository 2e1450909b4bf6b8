"""Guest writes, zero writes and discards, and where their clusters end up."""

from __future__ import annotations

import pytest

from support import qcow2
from support.memory import MemoryDriver

CLUSTER = 4096
SIZE = 16 * CLUSTER


def test_discarding_in_version_2_never_shows_the_backing_file_again() -> None:
    driver = MemoryDriver(qcow2.create(SIZE, {"cluster_size": CLUSTER, "compat": "0.10"}))
    with qcow2.attach(driver, backing=b"b" * SIZE) as node:
        node.pwrite(0, b"o" * SIZE)
        node.discard(0, SIZE)
        assert node.read(0, SIZE) == b"o" * SIZE


@pytest.mark.parametrize(
    ("offset", "length"),
    [(0, 4 * CLUSTER), (5, 1000), (CLUSTER + 6, 3), (CLUSTER + 6, 8000), (100, 7600), (CLUSTER, CLUSTER), (12000, 900)],
)
@pytest.mark.parametrize("zeroed", [(1, 1), (0, 1), (2, 2), (0, 4), (1, 2)])
def test_neighbours_of_data_and_zeroes_are_overwritten_in_place(
    zeroed: tuple[int, int], offset: int, length: int
) -> None:
    start, count = zeroed[0] * CLUSTER, zeroed[1] * CLUSTER
    driver = MemoryDriver(qcow2.create(SIZE, {"cluster_size": CLUSTER}))
    expected = bytearray(b"\1" * 4 * CLUSTER)
    with qcow2.attach(driver) as node:
        node.pwrite(0, expected)
        before = list(node.extents(0, 4 * CLUSTER))
        node.write_zeroes(start, count)
        node.pwrite(offset, b"\2" * length)
        after = list(node.extents(0, 4 * CLUSTER))
    expected[start : start + count] = bytes(count)
    expected[offset : offset + length] = b"\2" * length
    with qcow2.attach(driver) as node:
        assert node.read(0, 4 * CLUSTER) == expected
    if length == 4 * CLUSTER:
        assert after == before

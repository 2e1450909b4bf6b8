"""Guest writes, zero writes and discards, and where their clusters end up."""

from __future__ import annotations

from pathlib import Path

import pytest

from hostel.block import creating, graph
from hostel.block.extent import Status
from hostel.block.formats.qcow2.driver import Qcow2Driver
from hostel.block.node import BlockNode
from support import qcow2
from support.memory import Kind, LoggedDriver, MemoryDriver

CLUSTER = 4096
SIZE = 16 * CLUSTER


def test_discarding_in_version_2_never_shows_the_backing_file_again() -> None:
    driver = MemoryDriver(qcow2.create(SIZE, {"cluster_size": CLUSTER, "compat": "0.10"}))
    with qcow2.attach(driver, backing=b"b" * SIZE) as node:
        node.pwrite(0, b"o" * SIZE)
        node.discard(0, SIZE)
        assert node.read(0, SIZE) == b"o" * SIZE


def opened(driver: MemoryDriver) -> BlockNode:
    return qcow2.attach(driver)


def host_of(node: BlockNode, offset: int) -> int | None:
    return next(iter(node.extents(offset, 1))).host_offset


def test_a_cluster_of_ones_own_is_written_in_place_and_a_shared_one_is_not() -> None:
    driver = MemoryDriver(qcow2.create(SIZE, {"cluster_size": CLUSTER}))
    with opened(driver) as node:
        node.pwrite(0, b"a" * CLUSTER)
        first = host_of(node, 0)
        node.pwrite(100, b"b")
        assert host_of(node, 0) == first
        qcow2.driver_of(node).snapshot_create("s", date=(0, 0))
        node.pwrite(200, b"c")
        assert host_of(node, 0) != first
        assert node.read(0, CLUSTER) == b"a" * 100 + b"b" + b"a" * 99 + b"c" + b"a" * (CLUSTER - 201)


def test_a_write_over_several_tables_takes_as_few_calls_as_there_are_tables() -> None:
    driver = LoggedDriver(qcow2.create(1 << 20, {"cluster_size": 512}))
    with opened(driver) as node:
        node.pwrite(10 * 512, b"x" * (100 * 512))
        writes = [each.length for each in driver.log if each.kind is Kind.WRITE and each.length > 512]
    assert sorted(writes) == [46 * 512, 54 * 512]


def test_what_surrounds_a_part_of_a_cluster_comes_from_the_backing_image() -> None:
    driver = MemoryDriver(qcow2.create(SIZE, {"cluster_size": CLUSTER}))
    with qcow2.attach(driver, backing=b"b" * (SIZE // 2 + 512)) as node:
        node.pwrite(SIZE // 2 + 100, b"x")
        node.pwrite(SIZE // 2 + 2 * CLUSTER, b"y")
        assert node.read(SIZE // 2, CLUSTER) == b"b" * 100 + b"x" + b"b" * 411 + bytes(CLUSTER - 512)
        assert node.read(SIZE // 2 + 2 * CLUSTER, CLUSTER) == b"y" + bytes(CLUSTER - 1)


def test_zeroes_keep_their_place_or_give_it_back() -> None:
    driver = MemoryDriver(qcow2.create(SIZE, {"cluster_size": CLUSTER}))
    with opened(driver) as node:
        node.pwrite(0, b"a" * 3 * CLUSTER)
        places = [host_of(node, index * CLUSTER) for index in range(3)]
        node.write_zeroes(0, CLUSTER)
        node.write_zeroes(CLUSTER, CLUSTER, unmap=True)
        node.discard(2 * CLUSTER, CLUSTER)
        assert [host_of(node, index * CLUSTER) for index in range(3)] == [places[0], None, None]
        assert all(extent.status & Status.ZERO for extent in node.extents(0, 3 * CLUSTER))
        assert node.read(0, 3 * CLUSTER) == bytes(3 * CLUSTER)
        node.pwrite(10, b"n")
        assert host_of(node, 0) == places[0]
        assert node.read(0, CLUSTER) == bytes(10) + b"n" + bytes(CLUSTER - 11)


def test_a_discarded_cluster_goes_back_to_the_host_once_nothing_on_disk_refers_to_it() -> None:
    driver = LoggedDriver(qcow2.create(SIZE, {"cluster_size": CLUSTER}))
    with opened(driver) as node:
        node.pwrite(0, b"a" * CLUSTER)
        node.flush()
        place = host_of(node, 0)
        start = len(driver.log)
        node.discard(0, CLUSTER)
        assert not [each for each in driver.log[start:] if each.kind is Kind.DISCARD]
        node.flush()
        kinds = [each.kind for each in driver.log[start:]]
        assert kinds.index(Kind.WRITE) < kinds.index(Kind.DISCARD)
        assert Kind.FLUSH in kinds[kinds.index(Kind.WRITE) : kinds.index(Kind.DISCARD)]
        assert (driver.log[-1].kind, driver.log[-1].offset) == (Kind.DISCARD, place)


def test_a_cluster_that_a_snapshot_needs_is_not_discarded() -> None:
    driver = LoggedDriver(qcow2.create(SIZE, {"cluster_size": CLUSTER}))
    with opened(driver) as node:
        node.pwrite(0, b"a" * CLUSTER)
        qcow2.driver_of(node).snapshot_create("s", date=(0, 0))
        start = len(driver.log)
        node.discard(0, CLUSTER)
        node.flush()
        assert not [each for each in driver.log[start:] if each.kind is Kind.DISCARD]
        qcow2.driver_of(node).snapshot_apply("s")
        assert node.read(0, CLUSTER) == b"a" * CLUSTER


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


ZERO_CLUSTER = 4096
HIDDEN = bytes(5 * ZERO_CLUSTER) + b"x" * 512 + bytes(3 * ZERO_CLUSTER - 512)  # data at the start of cluster 5


def below() -> BlockNode:
    """An image with clusters of 512 bytes that reads as :data:`HIDDEN` and says where it is zeroes."""
    driver = MemoryDriver(qcow2.create(len(HIDDEN), {"cluster_size": 512}))
    with qcow2.attach(driver) as node:
        node.pwrite(5 * ZERO_CLUSTER, b"x" * 512)
    return qcow2.attach(driver, read_only=True)


@pytest.mark.parametrize(
    ("offset", "length", "zeroed", "data"),
    [
        (0, 2048, [0], []),  # the rest reads as zeroes from below
        (1024, 1024, [0], []),
        (3 * ZERO_CLUSTER - 1024, 2048, [2, 3], []),  # two of them
        (5 * ZERO_CLUSTER + 2048, 512, [], [5]),  # the rest does not
        (5 * ZERO_CLUSTER, 512, [5], []),  # it does, but for what is zeroed now
        (4 * ZERO_CLUSTER, 2 * ZERO_CLUSTER, [4, 5], []),
        (9 * ZERO_CLUSTER + 512, 512, [9], []),  # beyond the end of what is below
    ],
)
def test_parts_of_clusters_become_zero_clusters_where_the_rest_is_zeroes(
    offset: int, length: int, zeroed: list[int], data: list[int]
) -> None:
    driver = MemoryDriver(qcow2.create(12 * ZERO_CLUSTER, {"cluster_size": ZERO_CLUSTER}))
    with qcow2.attach(driver) as node:
        node.driver.children["backing"] = below()
        expected = bytearray(node.read(0, node.length))
        node.write_zeroes(offset, length)
        expected[offset : offset + length] = bytes(length)
        assert node.read(0, node.length) == expected
        found: dict[bool, list[int]] = {True: [], False: []}
        for extent in node.driver.extents(0, node.length):
            if extent.status & Status.ALLOCATED:
                first = extent.offset // ZERO_CLUSTER
                clusters = range(first, -(-(extent.offset + extent.length) // ZERO_CLUSTER))
                found[bool(extent.status & Status.ZERO)].extend(clusters)
        assert (found[True], found[False]) == (zeroed, data)
    assert qcow2.check(driver.data)[0].leaks == 0


def test_zeroes_that_were_written_stay_when_something_is_put_below() -> None:
    driver = MemoryDriver(qcow2.create(8 * ZERO_CLUSTER, {"cluster_size": ZERO_CLUSTER}))
    with qcow2.attach(driver) as node:
        node.write_zeroes(512, 512)
        node.write_zeroes(4 * ZERO_CLUSTER, 2 * ZERO_CLUSTER)
    with qcow2.attach(driver, backing=HIDDEN[: 8 * ZERO_CLUSTER], read_only=True) as node:
        assert node.read(0, node.length) == bytes(8 * ZERO_CLUSTER)


def test_zeroes_beyond_the_end_of_what_is_below_are_kept_apart_from_it() -> None:
    driver = MemoryDriver(qcow2.create(6 * ZERO_CLUSTER, {"cluster_size": ZERO_CLUSTER}))
    below = bytes(5 * ZERO_CLUSTER) + b"x" * 512
    with qcow2.attach(driver, backing=below) as node:
        node.write_zeroes(5 * ZERO_CLUSTER + 1024, 512)
        placed = [extent for extent in node.driver.extents(0, node.length) if extent.status & Status.ALLOCATED]
        assert [(extent.offset, extent.length) for extent in placed] == [(5 * ZERO_CLUSTER, ZERO_CLUSTER)]
        assert node.read(5 * ZERO_CLUSTER, 512) == b"x" * 512


def test_zeroing_terabytes_that_are_zeroes_makes_no_tables(tmp_path: Path) -> None:
    path = tmp_path / "disk.qcow2"
    with creating.create(str(path)) as file:
        Qcow2Driver.create(file, 1 << 43, {})
    with graph.open(str(path), "qcow2", read_only=False) as node:
        node.write_zeroes(0, 1 << 43)
    assert path.stat().st_size < 1 << 20


@pytest.mark.parametrize("length", [8 << 20, 512 << 20])
def test_zeroes_of_a_whole_table_stay_when_something_is_put_below(length: int) -> None:
    driver = MemoryDriver(qcow2.create(1 << 30))
    with qcow2.attach(driver) as node:
        node.write_zeroes(0, length)
    with qcow2.attach(driver, read_only=True, backing=b"x" * (1 << 20)) as node:
        assert node.read(0, 1 << 20) == bytes(1 << 20)

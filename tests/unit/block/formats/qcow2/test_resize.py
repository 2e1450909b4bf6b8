"""Growing, shrinking and preallocating qcow2 images."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from hostel.block import graph
from hostel.block.powers import Preallocation
from hostel.errors import CorruptImage
from support import qcow2
from support.crash import crash_states
from support.memory import LoggedDriver, MemoryDriver

CLUSTER = 4096
SIZE = 60 * CLUSTER


@pytest.mark.parametrize("mode", Preallocation)
def test_space_that_is_preallocated_where_clusters_were_freed_reads_as_zeroes(mode: Preallocation) -> None:
    driver = MemoryDriver(qcow2.create(SIZE, {"cluster_size": CLUSTER}))
    with qcow2.attach(driver) as node:
        qcow2.pwrite_compressed(node, 0, b"old!" * 1024)
        node.pwrite(CLUSTER, bytes([7]) * CLUSTER)
        node.pwrite(0, bytes([8]) * CLUSTER)
        node.flush()
        node.resize(SIZE + CLUSTER, mode)
        assert node.read(SIZE, CLUSTER) == bytes(CLUSTER)
    assert qcow2.check(driver.data)[0].leaks == 0


@pytest.mark.parametrize("mode", [Preallocation.METADATA, Preallocation.FALLOC, Preallocation.FULL])
def test_a_cluster_is_inside_the_file_before_an_entry_points_to_it(mode: Preallocation) -> None:
    driver = LoggedDriver(qcow2.create(SIZE, {"cluster_size": CLUSTER}))
    before = bytes(driver.data)
    with qcow2.attach(driver) as node:
        node.resize(2 * SIZE, mode)
    for state in crash_states(before, driver.log, random.Random(0)):
        result, lines, _ = qcow2.check(state.data)
        assert qcow2.faults(result) == (0, 0), lines


def test_what_an_interrupted_shrink_left_does_not_come_back_when_the_image_grows() -> None:
    driver = LoggedDriver(qcow2.create(SIZE, {"cluster_size": 512}))
    with qcow2.attach(driver) as node:
        node.pwrite(0, b"old" * (SIZE // 3))
        node.flush()
        before, start = bytes(driver.data), len(driver.log)
        node.resize(5 * 512)
    kept = 0
    for state in crash_states(before, driver.log[start:], random.Random(0)):
        with qcow2.attach(MemoryDriver(state.data)) as node:
            if node.length == SIZE:
                continue
            kept += 1
            node.resize(SIZE)
            assert node.read(0, SIZE) == (b"old" * SIZE)[: 5 * 512] + bytes(SIZE - 5 * 512)
    assert kept > 5


def break_refcounts(data: bytearray, *, zero: bool) -> None:
    """Make the refcount block that covers the end of the file unusable, or say there that nothing is in use."""
    header = qcow2.header(data)
    entries = 8 * 512 >> header.refcount_order
    place = header.refcount_table_offset + (len(data) // 512 - 2) // entries * 8
    block = int.from_bytes(data[place : place + 8], "big")
    assert block
    if zero:
        data[block : block + 512] = bytes(512)
    else:
        data[place : place + 8] = (block + 256).to_bytes(8, "big")


@pytest.mark.parametrize("zero", [False, True], ids=["unreadable", "wrong"])
@pytest.mark.parametrize("size", [0, 512, 7 * 512, SIZE // 2])
def test_an_image_that_cannot_be_shrunk_keeps_its_size_and_its_data(size: int, zero: bool) -> None:
    driver = MemoryDriver(qcow2.create(SIZE, {"cluster_size": 512, "refcount_bits": 64}))
    with qcow2.attach(driver) as node:
        node.pwrite(0, b"old" * (SIZE // 3))
    break_refcounts(driver.data, zero=zero)
    node = qcow2.attach(driver)
    with pytest.raises(CorruptImage):
        node.resize(size)
    node.close()
    assert qcow2.header(driver.data).size == SIZE
    with qcow2.attach(driver, read_only=True) as node:
        assert node.read(0, SIZE) == (b"old" * SIZE)[:SIZE]


def test_a_broken_part_that_shrinking_does_not_need_is_no_hindrance() -> None:
    driver = MemoryDriver(qcow2.create(SIZE, {"cluster_size": 512, "refcount_bits": 64}))
    with qcow2.attach(driver) as node:
        node.pwrite(0, b"old" * (SIZE // 3))
    table = qcow2.header(driver.data).refcount_table_offset
    driver.data[table + 3 * 8 + 6] |= 1  # the fourth block lies nowhere
    with qcow2.attach(driver) as node:
        node.resize(SIZE - 512)
    assert qcow2.header(driver.data).size == SIZE - 512


def blocks(data: bytearray) -> list[bytes]:
    """The refcount blocks of an image."""
    header = qcow2.header(data)
    size = 1 << header.cluster_bits
    start = header.refcount_table_offset
    table = data[start : start + header.refcount_table_clusters * size]
    places = [int.from_bytes(table[at : at + 8], "big") for at in range(0, len(table), 8)]
    return [bytes(data[place : place + size]) for place in places if place]


@pytest.mark.parametrize("bits", [1, 16, 64])
def test_refcount_blocks_that_count_nothing_any_more_go_with_what_they_counted(bits: int) -> None:
    driver = LoggedDriver(qcow2.create(8 * SIZE, {"cluster_size": 512, "refcount_bits": bits}))
    with qcow2.attach(driver) as node:
        node.pwrite(0, b"old" * (8 * SIZE // 3))
        node.flush()
        initial, start = bytes(driver.data), len(driver.log)
        many = len(blocks(driver.data))
        node.resize(512)
    left = blocks(driver.data)
    assert 1 <= len(left) < max(many, 2)
    assert all(block.strip(b"\0") for block in left)
    assert qcow2.check(driver.data)[0].leaks == 0
    # Thousands of clusters are dropped before: only the end is of interest.
    log = driver.log[start:]
    base = MemoryDriver(initial)
    for entry in log[:-60]:
        entry.apply(base)
    for state in crash_states(bytes(base.data), log[-60:], random.Random(0)):
        result, lines, _ = qcow2.check(state.data)
        assert qcow2.faults(result) == (0, 0), lines
    with qcow2.attach(driver) as node:
        node.resize(8 * SIZE)
        node.pwrite(0, b"new" * (8 * SIZE // 3))
        assert node.read(0, 8 * SIZE) == b"new" * (8 * SIZE // 3)
    assert qcow2.check(driver.data)[0].leaks == 0


def test_space_is_reserved_only_for_what_is_new(tmp_path: Path) -> None:
    path = tmp_path / "a"
    qcow2.create_file(path, 16 << 20, {"preallocation": "metadata"})
    before = path.stat().st_blocks
    with graph.open(str(path), "qcow2", read_only=False) as node:
        node.resize(17 << 20, Preallocation.FALLOC)
    assert 1 << 20 <= (path.stat().st_blocks - before) * 512 < 2 << 20


@pytest.mark.parametrize("compressed", [False, True])
def test_shrinking_leaves_nothing_behind_the_end_for_another_tool_to_show(compressed: bool) -> None:
    driver = MemoryDriver(qcow2.create(SIZE, {"cluster_size": CLUSTER}))
    with qcow2.attach(driver) as node:
        if compressed:
            qcow2.pwrite_compressed(node, 0, b"old!" * 1024)
        else:
            node.pwrite(0, b"old!" * 1024)
        node.resize(1024)
    driver.data[24:32] = CLUSTER.to_bytes(8, "big")
    with qcow2.attach(driver, read_only=True) as node:
        assert node.read(0, CLUSTER) == b"old!" * 256 + bytes(CLUSTER - 1024)
    result, lines, _ = qcow2.check(driver.data)
    assert (lines, result.leaks) == ([], 0)


@pytest.mark.parametrize("mode", [Preallocation.METADATA, Preallocation.FALLOC, Preallocation.FULL])
@pytest.mark.parametrize("extended", [False, True])
@pytest.mark.parametrize("old", [31 << 10, 33 << 10])
def test_all_that_an_overlay_grows_by_has_a_place_and_reads_as_zeroes(
    mode: Preallocation, extended: bool, old: int
) -> None:
    backing = b"below" * (64 << 10)
    driver = MemoryDriver(qcow2.create(old, {"cluster_size": 32768, "extended_l2": extended}))
    with qcow2.attach(driver, backing=backing) as node:
        node.resize(128 << 10, mode)
        assert node.read(0, 128 << 10) == backing[:old] + bytes((128 << 10) - old)
        placed = [extent for extent in node.driver.extents(0, 128 << 10) if extent.host_offset is not None]
        first = old // 32768 * 32768
        if not extended:
            assert sum(extent.length for extent in placed) == (128 << 10) - first
    assert qcow2.faults(qcow2.check(driver.data)[0]) == (0, 0)


@pytest.mark.parametrize("what", ["empty", "shrink"])
def test_a_large_image_loses_its_data_with_no_more_syncs_than_a_small_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    def syncs(size: int) -> int:
        path = tmp_path / str(size)
        qcow2.create_file(path, size, {"preallocation": "metadata"})
        with graph.open(str(path), "qcow2", read_only=False) as node, monkeypatch.context() as patch:
            calls: list[int] = []
            patch.setattr(os, "fdatasync", calls.append)
            qcow2.driver_of(node).make_empty() if what == "empty" else node.resize(CLUSTER)
        assert qcow2.check_file(path)[0].leaks == 0
        return len(calls)

    assert syncs(16 << 30) == syncs(4 << 30)

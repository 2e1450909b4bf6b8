"""Repairing subclusters and the snapshot table."""

from __future__ import annotations

from hostel.block.formats.qcow2 import layout
from hostel.block.formats.qcow2.layout import SnapshotHeader
from hostel.block.options import Value
from hostel.block.powers import Repair
from support import qcow2
from support.memory import MemoryDriver

CLUSTER = 65536
SUBCLUSTER = CLUSTER // 32


def test_a_cluster_at_an_impossible_place_keeps_its_zeroes_and_shows_the_rest_of_what_lies_below() -> None:
    backing = b"\xff" * (2 * CLUSTER)
    driver = MemoryDriver(qcow2.create(2 * CLUSTER, {"extended_l2": True}))
    with qcow2.attach(driver, backing=backing) as node:
        node.pwrite(2 * SUBCLUSTER, b"\1" * SUBCLUSTER)
        node.write_zeroes(2 * SUBCLUSTER, SUBCLUSTER)
    l1 = qcow2.header(driver.data).l1_table_offset
    l2 = int.from_bytes(driver.data[l1 : l1 + 8], "big") & layout.OFFSET_MASK
    driver.data[l2 + 6] = 2
    result, _, repaired = qcow2.check(driver.data, Repair.ALL)
    assert (result.corruptions, result.corruptions_fixed) == (0, 1)
    with qcow2.attach(MemoryDriver(repaired), read_only=True, backing=backing) as node:
        content = bytes(node.read(0, 2 * CLUSTER))
    assert content == backing[: 2 * SUBCLUSTER] + bytes(SUBCLUSTER) + backing[3 * SUBCLUSTER :]


def with_incomplete_snapshot(options: dict[str, Value], name: str, written: int) -> MemoryDriver:
    """An image with data, and a snapshot that lacks what version 3 demands of it."""
    driver = MemoryDriver(qcow2.create(CLUSTER, options))
    with qcow2.attach(driver) as node:
        qcow2.driver_of(node).snapshot_create(name, date=(0, 0))
        node.pwrite(0, b"x" * written)
    at = qcow2.header(driver.data).snapshots_offset + SnapshotHeader.OFFSET["extra_data_size"]
    driver.data[at : at + 4] = (8).to_bytes(4, "big")
    return driver


def test_a_snapshot_table_is_repaired_without_moving_the_refcounts() -> None:
    driver = with_incomplete_snapshot({}, "kept", 5)
    before = qcow2.header(driver.data)
    result, lines, repaired = qcow2.check(driver.data, Repair.ALL)
    after = qcow2.header(repaired)
    assert lines == ["Repairing snapshot table entry 0 is incomplete"]
    assert (result.corruptions, result.corruptions_fixed, result.leaks, result.leaks_fixed) == (0, 1, 0, 0)
    assert (after.refcount_table_offset, after.nb_snapshots) == (before.refcount_table_offset, 1)
    assert after.snapshots_offset != before.snapshots_offset
    assert qcow2.check(repaired)[1] == []


def test_a_snapshot_table_is_repaired_where_the_refcount_blocks_have_no_room() -> None:
    # One block counts 64 clusters, and the table needs three neighbours.
    driver = with_incomplete_snapshot({"cluster_size": 512, "refcount_bits": 64}, "n" * 1200, 53 * 512)
    result, lines, repaired = qcow2.check(driver.data, Repair.ALL)
    assert lines[:2] == ["Repairing snapshot table entry 0 is incomplete", "Rebuilding refcount structure"]
    assert not any(line.startswith(("ERROR", "Leaked")) for line in lines)
    assert (result.corruptions, result.corruptions_fixed, result.leaks, result.leaks_fixed) == (0, 1, 0, 0)
    assert qcow2.check(repaired)[1] == []


def test_a_snapshot_table_that_claims_the_data_behind_it_gives_it_up() -> None:
    driver = MemoryDriver(qcow2.create(8 * CLUSTER))
    with qcow2.attach(driver) as node:
        qcow2.driver_of(node).snapshot_create("kept", date=(0, 0))
        node.pwrite(0, b"x" * 5 * CLUSTER)
    at = qcow2.header(driver.data).snapshots_offset + SnapshotHeader.OFFSET["extra_data_size"]
    driver.data[at : at + 4] = (1 << 20).to_bytes(4, "big")
    result, _, repaired = qcow2.check(driver.data, Repair.ALL)
    assert (result.corruptions, result.leaks) == (0, 0)
    assert qcow2.check(repaired)[1] == []
    with qcow2.attach(MemoryDriver(repaired), read_only=True) as node:
        assert node.read(0, 5 * CLUSTER) == b"x" * 5 * CLUSTER

"""Repairing images with subclusters."""

from __future__ import annotations

from hostel.block.driver import Repair
from hostel.block.formats.qcow2 import layout
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

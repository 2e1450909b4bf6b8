"""Images whose file ends before places that their tables name: nothing new is put there, to be read as what is lost."""

from __future__ import annotations

import struct

import pytest

from hostel.block.driver import OpenMode
from hostel.block.formats.qcow import Header, QcowDriver
from hostel.block.formats.vdi import VdiDriver
from hostel.block.node import BlockNode
from hostel.block.powers import Repair
from hostel.errors import CorruptImage
from support import vmdk
from support.bounded import MIB
from support.format_subjects import SUBJECTS
from support.memory import MemoryDriver, memory_node
from support.vmdk import GRAIN, attach

QCOW, QED = SUBJECTS["qcow"], SUBJECTS["qed"]
CLUSTER = 4096


def qcow() -> MemoryDriver:
    """Cluster 0, an L2 table, and cluster 1 at the end of the file."""
    driver = MemoryDriver(QCOW.create(8 * MIB, {}))
    with QCOW.attach(driver) as node:
        node.pwrite(0, b"a" * CLUSTER)
        node.pwrite(CLUSTER, b"b" * CLUSTER)
    return driver


def qed(size: int = MIB) -> MemoryDriver:
    """An L2 table, and clusters 0 and 1, whose second one is the end of the file."""
    driver = MemoryDriver(QED.create(size, {"cluster_size": CLUSTER, "table_size": 1}))
    with QED.attach(driver) as node:
        node.write_zeroes(4 * CLUSTER, CLUSTER)  # which makes the table
        node.pwrite(0, b"a" * CLUSTER + b"b" * CLUSTER)
    return driver


def refuse(node: BlockNode, offset: int, length: int) -> None:
    """What is there is read and written, and nothing new is."""
    held = node.driver.children["file"].length
    node.pwrite(0, b"new")
    assert node.read(0, 4) == b"newa"
    with pytest.raises(CorruptImage, match="cut off") as caught:
        node.pwrite(offset, b"n" * length)
    assert caught.value.hint is not None and "qemu-img" in caught.value.hint
    assert node.driver.children["file"].length == held


@pytest.mark.parametrize("cut", [CLUSTER, CLUSTER + 512])
def test_a_qcow_image_that_lacks_clusters_gets_no_new_ones(cut: int) -> None:
    driver = qcow()
    with QCOW.attach(driver) as node:
        node.pwrite(2 * CLUSTER, b"c" * CLUSTER)
    del driver.data[-cut:]
    with QCOW.attach(driver) as node:
        for offset in (3 * CLUSTER, 3 * MIB):  # the second one has no table yet
            refuse(node, offset, CLUSTER)
        with pytest.raises(CorruptImage):
            node.read(2 * CLUSTER, 1)


def test_a_qcow_image_whose_last_cluster_is_there_in_part_is_written() -> None:
    driver = qcow()
    del driver.data[-512:]
    with QCOW.attach(driver) as node:
        node.pwrite(2 * CLUSTER, b"c" * CLUSTER)
        assert node.read(CLUSTER, 2 * CLUSTER) == b"b" * (CLUSTER - 512) + bytes(512) + b"c" * CLUSTER


def test_a_qcow_image_that_lacks_a_table_gets_no_new_clusters() -> None:
    driver = qcow()
    with QCOW.attach(driver) as node:
        node.pwrite(6 * MIB, b"c" * CLUSTER)
    (table,) = struct.unpack_from(">Q", driver.data, Header.SIZE + 3 * 8)
    del driver.data[table:]
    with QCOW.attach(driver) as node:
        refuse(node, 3 * MIB, CLUSTER)


def test_a_qcow_image_that_lacks_a_part_of_a_compressed_cluster_gets_no_new_ones() -> None:
    driver = qcow()
    with QCOW.attach(driver) as node:
        assert isinstance(node.driver, QcowDriver)
        payload = node.driver.compressor()(bytes(range(256)) * 16)
        assert payload is not None
        node.driver.pwrite_compressed(2 * CLUSTER, payload)
    whole = bytes(driver.data)
    del driver.data[-1:]
    with QCOW.attach(driver) as node:
        refuse(node, 3 * CLUSTER, CLUSTER)
        assert isinstance(node.driver, QcowDriver)
        with pytest.raises(CorruptImage, match="cut off"):
            node.driver.pwrite_compressed(3 * CLUSTER, payload)
    driver = MemoryDriver(whole)
    with QCOW.attach(driver) as node:
        node.pwrite(3 * CLUSTER, b"d" * CLUSTER)
        assert node.read(2 * CLUSTER, 2 * CLUSTER) == bytes(range(256)) * 16 + b"d" * CLUSTER


def test_qcow_tables_that_lie_on_each_other_are_read_once_and_not_for_each_entry() -> None:
    driver = MemoryDriver(QCOW.create(1 << 40, {}))
    with QCOW.attach(driver) as node:
        node.pwrite(0, b"a" * CLUSTER)
    (table,) = struct.unpack_from(">Q", driver.data, Header.SIZE)
    count = 1 << 19
    struct.pack_into(f">{count}Q", driver.data, Header.SIZE, *[table] * count)
    with QCOW.attach(driver) as node:
        node.pwrite(0, b"new")
        with pytest.raises(CorruptImage, match="lie on each other"):
            node.pwrite(CLUSTER, b"n")


@pytest.mark.parametrize("cut", [512, CLUSTER])
def test_a_qed_image_that_lacks_clusters_gets_no_new_ones_before_it_is_repaired(cut: int) -> None:
    driver = qed()
    del driver.data[-cut:]
    with QED.attach(driver) as node:
        refuse(node, 2 * CLUSTER, CLUSTER)
    with QED.attach(driver, check=True) as node:
        result = node.driver.check(Repair.ALL, lambda line: None)  # type: ignore[attr-defined]
        assert (result.corruptions, result.corruptions_fixed) == (0, 1)
    with QED.attach(driver) as node:
        node.pwrite(2 * CLUSTER, b"c" * CLUSTER)
        assert node.read(0, 3 * CLUSTER) == b"new" + b"a" * (CLUSTER - 3) + bytes(CLUSTER) + b"c" * CLUSTER


def test_a_table_that_cannot_be_one_is_an_error_where_all_are_looked_at() -> None:
    for driver, attached, l1, entry in (
        (qcow(), QCOW.attach, 48, struct.pack(">Q", CLUSTER + 3)),
        (qed(8 * MIB), QED.attach, CLUSTER, struct.pack("<Q", CLUSTER + 3)),
    ):
        driver.data[l1 + 16 : l1 + 24] = entry
        with attached(driver) as node:
            node.pwrite(0, b"n" * CLUSTER)
            with pytest.raises(CorruptImage, match="L2 table offset 0x1003 is invalid"):
                node.pwrite(3 * CLUSTER, b"n" * CLUSTER)


def test_a_qed_image_that_lacks_clusters_gets_no_new_table_either() -> None:
    driver = qed(8 * MIB)
    del driver.data[-CLUSTER:]
    with QED.attach(driver) as node:
        with pytest.raises(CorruptImage, match="cut off"):
            node.pwrite(6 * MIB, b"n")
        with pytest.raises(CorruptImage, match="cut off"):
            node.write_zeroes(6 * MIB, CLUSTER)
        node.write_zeroes(8 * CLUSTER, CLUSTER)  # which needs no room


@pytest.mark.parametrize("cut", [GRAIN, GRAIN + 512])
def test_a_vmware_disk_that_lacks_grains_gets_no_new_ones(cut: int) -> None:
    driver = MemoryDriver(vmdk.create(MIB))
    with attach(driver) as node:
        node.pwrite(0, b"a" * GRAIN + b"b" * GRAIN)
    del driver.data[-cut:]
    with attach(driver) as node:
        refuse(node, 2 * GRAIN, GRAIN)
        with pytest.raises(CorruptImage):
            node.read(GRAIN, 1)


def test_a_lost_grain_is_found_among_tables_that_follow_each_other() -> None:
    driver = MemoryDriver(vmdk.create(4096 * MIB))
    with attach(driver) as node:
        node.pwrite(3072 * MIB, b"a" * GRAIN)
    del driver.data[-GRAIN:]
    with attach(driver) as node, pytest.raises(CorruptImage, match="cut off"):
        node.pwrite(0, b"n")


@pytest.mark.parametrize("entries", [64, 100])
def test_a_vmware_disk_with_grain_tables_of_less_than_a_sector_is_written(entries: int) -> None:
    driver = MemoryDriver(vmdk.patched(vmdk.create(4 * MIB), 44, "I", entries))
    with attach(driver) as node:
        node.pwrite(0, b"a" * GRAIN)
        assert node.read(0, GRAIN) == b"a" * GRAIN


def test_zeroes_in_a_vmware_stream_are_no_lost_grain() -> None:
    driver = MemoryDriver(vmdk.create(MIB, {"subformat": "streamOptimized", "zeroed_grain": True}))
    with attach(driver) as node:
        node.write_zeroes(0, GRAIN)
    with attach(driver) as node:
        node.pwrite(GRAIN, b"a" * GRAIN)
        assert node.read(0, 2 * GRAIN) == bytes(GRAIN) + b"a" * GRAIN


def test_a_vmware_disk_whose_last_grain_is_there_in_part_is_written_behind_it() -> None:
    driver = MemoryDriver(vmdk.create(MIB))
    with attach(driver) as node:
        node.pwrite(0, b"a" * GRAIN + b"b" * GRAIN)
    del driver.data[-1024:]
    with attach(driver) as node:
        node.pwrite(2 * GRAIN, b"c" * GRAIN)
        assert node.read(GRAIN, 2 * GRAIN) == b"b" * (GRAIN - 1024) + bytes(1024) + b"c" * GRAIN


@pytest.mark.parametrize("cut", [512, 1024])
def test_a_vmware_stream_that_lacks_a_part_of_a_grain_gets_no_new_ones(cut: int) -> None:
    driver = MemoryDriver(vmdk.create(MIB, {"subformat": "streamOptimized"}))
    with attach(driver) as node:
        node.pwrite(0, b"a" * GRAIN)
        node.pwrite(GRAIN, b"".join(number.to_bytes(2) for number in range(300)).ljust(GRAIN, b"b"))
    length = len(driver.data)
    del driver.data[-cut:]
    with attach(driver) as node:
        with pytest.raises(CorruptImage, match="cut off"):
            node.pwrite(2 * GRAIN, b"n" * GRAIN)
        assert node.read(0, GRAIN) == b"a" * GRAIN
    assert len(driver.data) == length - cut


def test_a_vdi_image_that_lacks_blocks_reads_none_of_them_as_zeroes() -> None:
    driver = MemoryDriver()
    VdiDriver.create(memory_node(driver), 64 * CLUSTER, {"cluster_size": CLUSTER})
    with BlockNode(VdiDriver.open(memory_node(driver), OpenMode(read_only=False)), "d", read_only=False) as node:
        node.pwrite(0, b"a" * CLUSTER + b"b" * CLUSTER + b"c" * CLUSTER)
    del driver.data[-CLUSTER - 512 :]
    with BlockNode(VdiDriver.open(memory_node(driver), OpenMode(read_only=False)), "d", read_only=False) as node:
        assert node.read(0, 2 * CLUSTER) == b"a" * CLUSTER + b"b" * (CLUSTER - 512) + bytes(512)
        for offset, length in ((2 * CLUSTER, 1), (CLUSTER, 2 * CLUSTER), (3 * CLUSTER - 1, 1)):
            with pytest.raises(CorruptImage, match="cut off"):
                node.read(offset, length)
        refuse(node, 2 * CLUSTER, CLUSTER)
        refuse(node, 3 * CLUSTER, CLUSTER)

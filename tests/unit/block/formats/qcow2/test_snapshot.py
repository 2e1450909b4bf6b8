"""Internal snapshots of images that are not sound, or too narrow for one."""

from __future__ import annotations

import errno

import pytest

from hostel.block.driver import OpenMode
from hostel.block.formats.qcow2.driver import Qcow2Driver
from hostel.block.formats.qcow2.layout import COPIED, OFFSET_MASK, Header, SnapshotHeader
from hostel.block.node import BlockNode
from hostel.block.options import Value
from hostel.block.powers import Repair
from hostel.errors import BlockError, CorruptImage, InvalidImage
from support import qcow2
from support.memory import MemoryDriver, memory_node

CLUSTER = 4096
SIZE = 100 * CLUSTER


def written(**options: int) -> MemoryDriver:
    """An image with data in its first two clusters."""
    driver = MemoryDriver(qcow2.create(SIZE, {"cluster_size": CLUSTER, **options}))
    with qcow2.attach(driver) as node:
        node.pwrite(0, b"data" * (CLUSTER // 2))
    return driver


def poke(driver: MemoryDriver, offset: int, value: int, size: int = 8) -> None:
    driver.data[offset : offset + size] = value.to_bytes(size, "big")


def l2_offset(driver: MemoryDriver) -> int:
    with qcow2.attach(driver, read_only=True) as node:
        return int(qcow2.driver_of(node)._image.l1[0]) & OFFSET_MASK


def test_a_snapshot_that_refcounts_are_too_narrow_for_moves_nothing() -> None:
    driver = written(refcount_bits=1)
    before = bytes(driver.data)
    with qcow2.attach(driver) as node, pytest.raises(BlockError) as caught:
        qcow2.driver_of(node).snapshot_create("one", date=(0, 0))
    assert caught.value.errno == errno.EINVAL
    assert bytes(driver.data) == before


@pytest.mark.parametrize(
    ("entry", "code"), [(COPIED | 0xFFFFFF << 16, errno.EAGAIN), (COPIED | OFFSET_MASK & -CLUSTER, errno.EFBIG)]
)
def test_what_no_refcount_block_counts_is_in_no_snapshot(entry: int, code: int) -> None:
    driver = written()
    poke(driver, l2_offset(driver), entry)
    before = bytes(driver.data)
    with qcow2.attach(driver) as node, pytest.raises(BlockError) as caught:
        qcow2.driver_of(node).snapshot_create("one", date=(0, 0))
    assert caught.value.errno == code
    assert bytes(driver.data) == before


def test_a_file_cut_off_before_its_snapshot_table_still_reads() -> None:
    driver = written()
    poke(driver, Header.OFFSET["snapshots_offset"], 1 << 24)
    poke(driver, Header.OFFSET["nb_snapshots"], 2, 4)
    with qcow2.attach(driver) as node:
        assert bytes(node.read(0, 8)) == b"datadata"
        for what in (
            lambda: qcow2.driver_of(node).snapshots(),
            lambda: qcow2.driver_of(node).snapshot_create("one", date=(0, 0)),
            lambda: qcow2.driver_of(node).snapshot_delete("one"),
        ):
            with pytest.raises(InvalidImage, match="snapshot table: it lies beyond the end of the file"):
                what()


@pytest.mark.parametrize("count", [5000, 0xFFFFFFFF])
def test_repairing_a_wrong_number_of_snapshots_keeps_those_that_are_there(count: int) -> None:
    driver = written()
    with qcow2.attach(driver) as node:
        for name in ("one", "two"):
            qcow2.driver_of(node).snapshot_create(name, date=(0, 0))
            node.pwrite(0, name.encode() * 1000)
    poke(driver, Header.OFFSET["nb_snapshots"], count, 4)
    with pytest.raises(InvalidImage):
        qcow2.attach(driver)
    result, lines, repaired = qcow2.check(driver.data, Repair.ALL)
    assert any("overhanging snapshots (they are not in the file)" in line for line in lines), lines
    assert (result.corruptions, result.leaks, result.check_errors) == (0, 0, 0), lines
    driver.data[:] = repaired
    with qcow2.attach(driver) as node:
        assert [each.name for each in qcow2.driver_of(node).snapshots()] == ["one", "two"]
        qcow2.driver_of(node).snapshot_apply("one")
        assert bytes(node.read(0, 8)) == b"datadata"


@pytest.mark.parametrize(
    ("field", "value"), [("id_length", 0xFFFF), ("name_length", 0xFFFF), ("extra_data_size", 0xFFFFFFFF)]
)
@pytest.mark.parametrize("index", [0, 1, 2])
def test_repairing_a_snapshot_that_reaches_beyond_the_file_keeps_it_and_all_others(
    field: str, value: int, index: int
) -> None:
    driver, names = written(), ["one", "two words", "three"]
    with qcow2.attach(driver) as node:
        for name in names:
            qcow2.driver_of(node).snapshot_create(name, date=(0, 0))
            node.pwrite(0, name.encode() * 1000)
        entry = int(qcow2.driver_of(node)._image.header.snapshots_offset)
    for _ in range(index):
        header = SnapshotHeader.unpack(driver.data[entry : entry + SnapshotHeader.SIZE])
        entry += -(-(SnapshotHeader.SIZE + header.extra_data_size + header.id_length + header.name_length) // 8) * 8
    poke(driver, entry + SnapshotHeader.OFFSET[field], value, 4 if field == "extra_data_size" else 2)
    with pytest.raises(InvalidImage, match=r"Too much extra metadata|table: it lies beyond the end of the file"):
        qcow2.attach(driver)
    result, lines, repaired = qcow2.check(driver.data, Repair.ALL)
    assert f"Repairing snapshot table entry {index}, whose end lies beyond the end of the file" in lines
    assert (result.corruptions, result.leaks, result.check_errors) == (0, 0, 0), lines
    driver.data[:] = repaired
    with qcow2.attach(driver) as node:
        assert bytes(node.read(0, 10)) == b"threethree"
        found = qcow2.driver_of(node).snapshots()
        assert len(found) == 3
        if index < 2:  # of the last one nothing says where its words end
            assert [each.name for each in found] == names
        qcow2.driver_of(node).snapshot_apply(found[1].id)
        assert bytes(node.read(0, 6)) == b"oneone"


def test_the_first_snapshot_is_kept_where_the_file_ends_within_its_entry() -> None:
    driver = written()
    with qcow2.attach(driver) as node:
        for name in ("one", "two", "three"):
            qcow2.driver_of(node).snapshot_create(name, date=(0, 0))
        entry = int(qcow2.driver_of(node)._image.header.snapshots_offset)
    del driver.data[entry + 50 :]
    _, lines, repaired = qcow2.check(driver.data, Repair.ALL)
    assert any("Discarding 2 overhanging snapshots" in line for line in lines)
    driver.data[:] = repaired
    with qcow2.attach(driver) as node:
        assert len(qcow2.driver_of(node).snapshots()) == 1


def test_a_snapshot_behind_which_no_other_one_is_found_is_left_as_it_is() -> None:
    driver = written()
    with qcow2.attach(driver) as node:
        for name in ("one", "two"):
            qcow2.driver_of(node).snapshot_create(name, date=(0, 0))
        entry = int(qcow2.driver_of(node)._image.header.snapshots_offset)
    second = entry + 72  # 40 bytes, 24 of extra data, an id of 1 and a name of 3
    assert bytes(driver.data[second + 64 : second + 68]) == b"2two"
    poke(driver, entry + SnapshotHeader.OFFSET["name_length"], 0xFFFF, 2)
    driver.data[second : second + 8] = bytes(8)  # nor does the other one's L1 table lie anywhere
    before = bytes(driver.data)
    with pytest.raises(InvalidImage, match="table: it lies beyond the end of the file"):
        qcow2.check(driver.data, Repair.ALL)
    assert bytes(driver.data) == before


@pytest.mark.parametrize(
    "options",
    [{"overlap-check.inactive-l2": True}, {"overlap-check": "all"}, {"overlap-check.template": "all"}],
)
def test_nothing_is_written_over_the_tables_of_a_snapshot_where_they_are_guarded(options: dict[str, Value]) -> None:
    driver = written()
    with qcow2.attach(driver) as node:
        qcow2.driver_of(node).snapshot_create("one", date=(0, 0))
        kept = int(qcow2.driver_of(node)._image.l1[0]) & OFFSET_MASK
        node.pwrite(0, b"more")  # the active table is another one from now on
    poke(driver, l2_offset(driver), COPIED | kept)
    mode = OpenMode(read_only=False, options=options)
    with (
        BlockNode(Qcow2Driver.open(memory_node(driver), mode), "memory", read_only=False) as node,
        pytest.raises(CorruptImage, match="overlaps with inactive L2 table"),
    ):
        node.pwrite(0, b"worse")


def test_guarding_the_tables_of_a_snapshot_stands_in_the_way_of_none() -> None:
    driver = written()
    mode = OpenMode(read_only=False, options={"overlap-check": "all"})
    with BlockNode(Qcow2Driver.open(memory_node(driver), mode), "memory", read_only=False) as node:
        for name in ("one", "two"):
            qcow2.driver_of(node).snapshot_create(name, date=(0, 0))
            node.pwrite(CLUSTER // 2, name.encode() * CLUSTER)
        qcow2.driver_of(node).snapshot_apply("one")
        qcow2.driver_of(node).snapshot_delete("one")
        node.pwrite(0, b"last")
    result, lines, _ = qcow2.check(driver.data)
    assert (lines, result.leaks) == ([], 0)


def test_tables_of_snapshots_that_cannot_be_guarded_stop_all_writing() -> None:
    driver = written()
    with qcow2.attach(driver) as node:
        qcow2.driver_of(node).snapshot_create("one", date=(0, 0))
        table = int(qcow2.driver_of(node)._image.header.snapshots_offset)
    poke(driver, table, 0x400200)
    before = bytes(driver.data)
    mode = OpenMode(read_only=False, options={"overlap-check.inactive-l2": True})
    node = BlockNode(Qcow2Driver.open(memory_node(driver), mode), "memory", read_only=False)
    with pytest.raises(InvalidImage, match="Snapshot L1 table offset invalid"):
        node.pwrite(0, b"more")
    with pytest.raises(InvalidImage, match="Failed to flush the refcount block cache: Invalid argument"):
        node.close()
    assert bytes(driver.data[: len(before)]) == before

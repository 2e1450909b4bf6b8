"""Tables of blocks: pages, what is written of them, runs; files that cannot grow."""

from __future__ import annotations

import random
from typing import Literal

import pytest

from hostel.block.driver import OpenMode
from hostel.block.formats.block_table import ABSENT, PAGE, ZEROES, BlockMap, BlockTable, Run, claim, make_room
from hostel.block.formats.vdi import VdiDriver
from hostel.block.formats.vhdx.driver import VhdxDriver
from hostel.block.formats.vpc.driver import VpcDriver
from hostel.block.node import BlockNode
from hostel.block.options import Value
from hostel.block.powers import Preallocation
from hostel.errors import NoSpace
from support.memory import MemoryDriver, memory_node

MIB = 1 << 20


ByteOrder = Literal["big", "little"]


class Fixed(MemoryDriver):
    """A disk of a size of its own, which holds whatever it held."""

    supports = MemoryDriver.supports & ~MemoryDriver.supports.GROWS


def table(
    count: int, typecode: str = "I", order: ByteOrder = "little", unit: int = 512
) -> tuple[MemoryDriver, BlockTable]:
    driver = MemoryDriver(bytes(1024) + b"\xff" * (count * (4 if typecode == "I" else 8)) + b"behind")
    return driver, BlockTable(memory_node(driver), 1024, count, typecode, order, unit)


@pytest.mark.parametrize("order", ["big", "little"])
@pytest.mark.parametrize("typecode", ["I", "Q"])
@pytest.mark.parametrize("unit", [512, 4096])
def test_what_was_changed_is_written_and_nothing_else(typecode: str, order: ByteOrder, unit: int) -> None:
    count, width = 40_000, 4 if typecode == "I" else 8
    driver, entries = table(count, typecode, order, unit)
    rng = random.Random(f"{typecode} {order}")
    expected = bytearray(driver.data)
    for index in (0, 1, 127, 128, count - 1, *rng.sample(range(count), 50)):
        value = rng.getrandbits(8 * width)
        entries[index] = value
        assert entries[index] == value
        expected[1024 + index * width : 1024 + (index + 1) * width] = value.to_bytes(width, order)
    dirty = [entries.is_dirty]
    for place, data in entries.changes():
        assert (place - 1024) % unit == 0
        driver.data[place : place + len(data)] = data
    entries.written()
    dirty.append(entries.is_dirty)
    assert dirty == [True, False]
    assert driver.data[: len(expected)] == expected
    assert not any(driver.data[len(expected) :])
    assert list(BlockTable(memory_node(driver), 1024, count, typecode, order).pages())[-1][1][-1] == entries[count - 1]


def test_pages_that_are_not_needed_are_given_up_and_changed_ones_kept() -> None:
    pages = 1200
    _, entries = table(pages * PAGE // 4)
    entries[5] = 7
    for page in range(pages):
        assert entries[page * entries.page_entries + 9] == 0xFFFFFFFF
    assert len(entries._pages) < 600
    assert entries[5] == 7


def test_equal_entries_are_counted_to_the_end_of_their_page() -> None:
    _, entries = table(40_000)
    entries[1000] = 1
    assert entries.same(0, 40_000) == 1000
    assert entries.same(0, 10) == 10
    assert entries.same(1000, 5) == 1
    assert entries.same(1001, 40_000) == entries.page_entries - 1001
    rng = random.Random(2)
    for _ in range(200):
        start, length = rng.randrange(30_000), rng.randrange(1, 3000)
        for index in (*range(start, start + length), start + length):
            entries[index] = index == start + length
        expected = min(length, entries.page_entries - start % entries.page_entries)
        assert entries.same(start, length + 5) == expected


def test_runs_are_joined_where_the_file_goes_on() -> None:
    places = {0: 5, 1: 6, 2: 9, 4: 10}
    _, entries = table(8)
    for block, place in places.items():
        entries[block] = place
    entries[6] = 0xFFFFFFFE
    special = {0xFFFFFFFF: ABSENT, 0xFFFFFFFE: ZEROES}
    found = BlockMap(entries, 100, lambda entry: special.get(entry, entry * 100))
    assert list(found.runs(50, 700)) == [
        Run(50, 150, 550),
        Run(200, 100, 900),
        Run(300, 100, ABSENT),
        Run(400, 100, 1000),
        Run(500, 100, ABSENT),
        Run(600, 100, ZEROES),
        Run(700, 50, ABSENT),
    ]


def test_entries_that_are_no_blocks_are_left_out() -> None:
    _, entries = table(12)
    for index in range(12):
        entries[index] = index
    found = BlockMap(entries, 10, lambda entry: entry * 10, chunk=3)
    assert [found.entry(block) for block in range(9)] == [0, 1, 2, 4, 5, 6, 8, 9, 10]
    assert list(found.runs(0, 90)) == [Run(0, 30, 0), Run(30, 30, 40), Run(60, 30, 80)]


# ---- files that cannot grow


def test_room_on_a_disk_is_zeroed() -> None:
    node = memory_node(Fixed(b"x" * 1000))
    make_room(node, 600, Preallocation.OFF)
    assert node.read(0, 1000) == bytes(600) + b"x" * 400
    with pytest.raises(NoSpace, match="has 1000 bytes, and the image needs 1001"):
        make_room(node, 1001, Preallocation.OFF)


def test_a_new_block_is_zeroed_but_for_what_is_written() -> None:
    node = memory_node(Fixed(b"x" * 1000))
    claim(node, 100, 200, 150, 160)
    assert node.read(0, 1000) == b"x" * 100 + bytes(50) + b"x" * 10 + bytes(40) + b"x" * 800
    with pytest.raises(NoSpace):
        claim(node, 900, 1001, 900, 1001)


@pytest.mark.parametrize(
    ("driver", "options"),
    [
        (VdiDriver, {}),
        (VdiDriver, {"static": True}),
        (VpcDriver, {"force_size": True}),
        (VpcDriver, {"force_size": True, "subformat": "fixed"}),
        (VhdxDriver, {"block_size": MIB}),
        (VhdxDriver, {"block_size": MIB, "block_state_zero": False}),
        (VhdxDriver, {"block_size": MIB, "subformat": "fixed"}),
    ],
    ids=str,
)
def test_an_image_on_a_disk_that_held_something_is_empty_and_can_be_written(
    driver: type[VdiDriver | VpcDriver | VhdxDriver], options: dict[str, Value]
) -> None:
    disk = Fixed(b"old!" * (20 * MIB // 4))
    driver.create(memory_node(disk), 6 * MIB, options)
    if driver is VpcDriver and "subformat" in options:
        disk.data[-512:] = disk.data[6 * MIB : 6 * MIB + 512]  # it is found at the end only
    with BlockNode(driver.open(memory_node(disk), OpenMode(read_only=False)), "disk", read_only=False) as node:
        assert not any(node.read(0, 6 * MIB))
        node.pwrite(3 * MIB + 100, b"new")
    with BlockNode(driver.open(memory_node(disk), OpenMode()), "disk", read_only=True) as node:
        assert node.read(0, 6 * MIB) == bytes(3 * MIB + 100) + b"new" + bytes(3 * MIB - 103)

"""Blocks of VHDX images: where they are put, what their states mean, and a check of them."""

from __future__ import annotations

import pytest

from hostel.block.extent import Status
from hostel.block.formats.vhdx.layout import BlockState
from hostel.errors import CorruptImage
from support.bounded import MIB
from support.memory import MemoryDriver
from support.reopening import check_reopened
from support.vhdx import BLOCK, FIRST, TABLE, attach, check, entries, fresh, mapped


def test_blocks_are_added_at_the_end() -> None:
    driver = MemoryDriver(fresh())
    assert entries(driver.data) == [2] * 10
    with attach(driver) as node:
        node.pwrite(5 * BLOCK + 7, b"a" * BLOCK)
        node.pwrite(0, b"b")
        assert node.read(5 * BLOCK, 10) == bytes(7) + b"aaa"
    assert [entries(driver.data)[block] for block in (5, 6, 0)] == [FIRST + at * MIB | 6 for at in range(3)]
    assert len(driver.data) == FIRST + 3 * MIB
    assert check(bytes(driver.data)) == (0, [])


def test_the_table_has_room_between_chunks() -> None:
    size = (4096 + 3) * MIB
    driver = MemoryDriver(fresh(size))
    with attach(driver) as node:
        node.pwrite(4095 * MIB, b"a" * (2 * MIB))
    found = entries(driver.data, 4100)
    assert (found[4095], found[4096], found[4097]) == (FIRST | 6, 0, FIRST + MIB | 6)
    with attach(driver, read_only=True) as node:
        assert [(each.offset, each.length) for each in node.extents() if each.status & Status.DATA] == [
            (4095 * MIB, 2 * MIB)
        ]


def test_all_states_that_mean_nothing_read_as_zeroes() -> None:
    data = mapped(fresh(), *enumerate((0, 1, 2, 3, 5)))
    with attach(MemoryDriver(data), read_only=True) as node:
        assert not any(node.read(0, 5 * BLOCK))


def test_zeroes_take_no_blocks() -> None:
    driver = MemoryDriver(fresh())
    with attach(driver) as node:
        node.pwrite(0, b"x" * BLOCK)
        node.write_zeroes(0, 10 * BLOCK, unmap=True)
        assert not any(node.read(0, 10 * BLOCK))
    assert entries(driver.data) == [FIRST | 6, *[2] * 9]


def test_a_check_finds_blocks_over_others() -> None:
    data = mapped(fresh() + bytes(2 * MIB), (0, FIRST | 6), (1, FIRST | 6), (2, TABLE | 6), (3, 1 << 40 | 6))
    assert check(data) == (
        3,
        [
            "VHDX region 2097152-3145728 overlaps with region 2097152-3145728.",
            "VHDX BAT entry 3 start offset 1099511627776 points after end of file (10485760). Image has probably "
            "been truncated.",
            "VHDX BAT entries 0 and 1 overlap, at 8388608 and 8388608",
        ],
    )


def test_it_is_opened_anew_in_its_place_with_what_was_held_back() -> None:
    with attach(MemoryDriver(fresh())) as node:
        check_reopened(node, BLOCK)


def test_a_state_that_no_driver_reads_is_found() -> None:
    """Reading fails there, so that a check must not say that all is well."""
    data = mapped(fresh(), (0, 4), (2, FIRST | BlockState.PARTIALLY_PRESENT)) + bytes(2 * MIB)
    corruptions, lines = check(data)
    assert corruptions == 2
    assert lines == [
        "VHDX BAT entry 0 is 0x4, whose state makes no sense",
        f"VHDX BAT entry 2 is 0x{FIRST | 7:x}, whose state makes no sense",
    ]
    for block in (0, 2):
        with attach(MemoryDriver(data), read_only=True) as node, pytest.raises(CorruptImage):
            node.read(block * BLOCK, 512)

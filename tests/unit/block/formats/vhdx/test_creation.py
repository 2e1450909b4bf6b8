"""New VHDX images: the sizes of their blocks, and options."""

from __future__ import annotations

import pytest

from hostel.block.formats.vhdx.create import plan
from hostel.block.formats.vhdx.driver import VhdxDriver
from hostel.block.options import Value
from hostel.errors import BlockError
from support.bounded import MIB
from support.memory import MemoryDriver
from support.vhdx import FIRST, attach, check, entries, fresh


@pytest.mark.parametrize(
    ("size", "block_size"),
    [(1 << 30, 8 * MIB), ((1 << 30) + 512, 16 * MIB), (101 << 30, 32 * MIB), (33 << 40, 64 * MIB)],
)
def test_blocks_are_as_large_as_qemus(size: int, block_size: int) -> None:
    assert plan(size, {}).block_size == block_size


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"block_size": 3 * MIB}, "Block size must be a power of two"),
        ({"log_size": 0}, "Log size must be a multiple of 1 MB"),
        ({"log_size": 5 << 30}, "Log size must be smaller than 4 GB"),
        ({"subformat": "x"}, "Parameter 'subformat' does not accept value 'x'"),
        ({"preallocation": "x"}, "invalid parameter value: x"),
        ({"preallocation": "metadata"}, "Unsupported preallocation mode: metadata"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Value], message: str) -> None:
    with pytest.raises(BlockError, match=message):
        VhdxDriver.check_creation(MIB, options)


def test_64_tib_are_the_limit() -> None:
    VhdxDriver.check_creation(64 << 40, {})
    with pytest.raises(BlockError, match="max of 64TB"):
        VhdxDriver.check_creation((64 << 40) + 512, {})


def test_sectors_may_have_4096_bytes() -> None:
    driver = MemoryDriver(fresh(logical_sector_size=4096))
    with attach(driver) as node:
        node.pwrite(5 * MIB - 100, b"x" * 200)
    with attach(driver, read_only=True) as node:
        assert node.read(5 * MIB - 101, 202) == b"\0" + b"x" * 200 + b"\0"


def test_a_fixed_image_has_its_blocks() -> None:
    data = fresh(subformat="fixed", block_state_zero=True)
    assert entries(data) == [FIRST + block * MIB | 6 for block in range(10)]
    assert check(data) == (0, [])

"""Writing images with subclusters: entries that say two things at once, and discards."""

from __future__ import annotations

import pytest

from hostel.block.formats.qcow2 import layout
from hostel.errors import CorruptImage
from support import qcow2
from support.memory import MemoryDriver

CLUSTER = 65536
L2_TABLE = 4 * CLUSTER  # where the first one of a fresh image comes to lie


def with_second_bitmap(bitmap: int, *, written: bool) -> MemoryDriver:
    """An image of which the second cluster's bitmap was damaged; where not ``written`` that cluster has no place."""
    driver = MemoryDriver(qcow2.create(4 * CLUSTER, {"extended_l2": True}))
    with qcow2.attach(driver) as node:
        node.pwrite(0 if written else 3 * CLUSTER, bytes(3 * CLUSTER if written else 512))
    driver.data[L2_TABLE + 24 : L2_TABLE + 32] = bitmap.to_bytes(8, "big")
    return driver


@pytest.mark.parametrize(
    ("bitmap", "written"), [(1 << 32 | layout.ALL_ALLOCATED, True), (1 << 32 | 1, False), (1, False)]
)
@pytest.mark.parametrize(("offset", "length"), [(0, 3 * CLUSTER), (CLUSTER, CLUSTER), (CLUSTER + 512, 512)])
def test_a_write_over_a_subcluster_that_is_two_things_at_once_is_refused(
    bitmap: int, written: bool, offset: int, length: int
) -> None:
    driver = with_second_bitmap(bitmap, written=written)
    node = qcow2.attach(driver)
    with pytest.raises(CorruptImage, match=r"Invalid cluster entry found \(L2 offset: 0x40000, L2 index: 0x1\)"):
        node.pwrite(offset, b"x" * length)
    assert qcow2.header(driver.data).incompatible_features & layout.Incompatible.CORRUPT


def test_a_discard_leaves_subclusters_that_have_no_place_as_they_are() -> None:
    half = 0xFFFF << 32
    driver = with_second_bitmap(half, written=False)
    with qcow2.attach(driver) as node:
        node.discard(CLUSTER, CLUSTER)
    assert int.from_bytes(driver.data[L2_TABLE + 24 : L2_TABLE + 32], "big") == half


def test_a_discard_over_a_backing_image_hides_it() -> None:
    driver = with_second_bitmap(0xFFFF << 32, written=False)
    with qcow2.attach(driver, backing=bytes(4 * CLUSTER)) as node:
        node.discard(CLUSTER, CLUSTER)
    assert int.from_bytes(driver.data[L2_TABLE + 24 : L2_TABLE + 32], "big") == layout.ALL_ZERO

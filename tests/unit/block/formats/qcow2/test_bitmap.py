"""Persistent dirty bitmaps."""

from __future__ import annotations

import pytest

from hostel.errors import BlockError
from support import qcow2
from support.memory import MemoryDriver


def test_an_image_of_no_bytes_gets_no_bitmap_since_none_could_read_it() -> None:
    driver = MemoryDriver(qcow2.create(0))
    with qcow2.attach(driver) as node, pytest.raises(BlockError, match="no bytes"):
        node.driver.bitmap_add("b")
    driver = MemoryDriver(qcow2.create(1 << 20))
    with qcow2.attach(driver) as node:
        node.driver.bitmap_add("b")
        with pytest.raises(BlockError, match="to 0 bytes"):
            node.resize(0)
        node.resize(512)
    with qcow2.attach(driver, read_only=True) as node:
        assert node.driver.bitmap("b").size == 512

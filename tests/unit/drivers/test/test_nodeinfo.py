"""What the invented host says, whatever is asked."""

from __future__ import annotations

from hostel.drivers.test.nodeinfo import TestHostDriver
from hostel.errors import ErrorCode
from support.refusal import refused


def test_counts_of_free_pages_are_bounded_in_number_and_size() -> None:
    driver = TestHostDriver()
    assert driver.node_get_free_pages([4], 0, 2) == [19, 45]
    assert max(driver.node_get_free_pages([4, 2048], 0, 512)) < 2**64
    with refused(ErrorCode.INTERNAL_ERROR, "internal error: the result won't fit into REMOTE_NODE_MAX_CELLS"):
        driver.node_get_free_pages([4], 0, 2**32 - 1)

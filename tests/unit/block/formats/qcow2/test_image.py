"""The order in which an image's parts reach the disk, and what a failure leaves behind."""

from __future__ import annotations

import pytest

from support import qcow2
from support.memory import Kind, LoggedDriver

CLUSTER = 4096
SIZE = 64 * CLUSTER


def table_writes(driver: LoggedDriver, start: int) -> tuple[list[int], list[int]]:
    """Indexes in the log, from ``start`` on, of data and of L2 entries."""
    l2 = int.from_bytes(driver.data[3 * CLUSTER : 3 * CLUSTER + 8], "big") & 0xFFFFFFFFFFFE00
    data = [at for at in range(start, len(driver.log)) if b"new" in driver.log[at].data]
    return data, [at for at in range(start, len(driver.log)) if l2 <= driver.log[at].offset < l2 + CLUSTER]


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("compressed", [False, True])
def test_data_is_synced_before_the_entry_that_points_to_it(lazy: bool, compressed: bool) -> None:
    driver = LoggedDriver(qcow2.create(SIZE, {"cluster_size": CLUSTER, "lazy_refcounts": lazy}))
    with qcow2.attach(driver) as node:
        node.pwrite(0, b"old " * (CLUSTER // 4))
        node.write_zeroes(0, CLUSTER)  # keeps its place
        node.flush()
        start = len(driver.log)
        if compressed:
            node.driver.pwrite_compressed(0, b"new")
        else:
            node.pwrite(0, b"new " * (CLUSTER // 4))
        node.flush()
        data, entries = table_writes(driver, start)
        assert data and entries
        between = [driver.log[at].kind for at in range(data[-1], entries[0])]
        assert Kind.FLUSH in between

"""Guest writes, zero writes and discards, and where their clusters end up."""

from __future__ import annotations

from support import qcow2
from support.memory import MemoryDriver

CLUSTER = 4096
SIZE = 16 * CLUSTER


def test_discarding_in_version_2_never_shows_the_backing_file_again() -> None:
    driver = MemoryDriver(qcow2.create(SIZE, {"cluster_size": CLUSTER, "compat": "0.10"}))
    with qcow2.attach(driver, backing=b"b" * SIZE) as node:
        node.pwrite(0, b"o" * SIZE)
        node.discard(0, SIZE)
        assert node.read(0, SIZE) == b"o" * SIZE

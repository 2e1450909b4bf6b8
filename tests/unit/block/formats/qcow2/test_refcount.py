"""The allocator: widths, free clusters, new refcount blocks, a table that moves."""

from __future__ import annotations

import random

from support import qcow2
from support.crash import crash_states
from support.memory import LoggedDriver


def test_a_new_block_is_in_the_table_only_after_the_block_that_counts_it() -> None:
    driver = LoggedDriver(qcow2.create(400 * 512, {"cluster_size": 512, "refcount_bits": 64}))
    before = bytes(driver.data)
    with qcow2.attach(driver) as node:
        node.pwrite(0, b"data" * (300 * 128))
    for state in crash_states(before, driver.log, random.Random(0)):
        result, lines, _ = qcow2.check(state.data)
        assert qcow2.faults(result) == (0, 0), lines

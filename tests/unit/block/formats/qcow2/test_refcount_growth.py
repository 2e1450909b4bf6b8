"""A refcount table that outgrows its place: moved with one write to the header, whatever fails, and its place used."""

from __future__ import annotations

import contextlib
import functools
import random

from hostel.block.formats.qcow2.driver import Qcow2Driver
from support import qcow2
from support.crash import crash_states
from support.memory import FaultyDriver, LoggedDriver, MemoryDriver

KiB = 1024
SIZE = 8 << 20
FULL = 1900 * KiB  # of data: nearly what one cluster of the table, and 64 clusters a block, can count
WRITE = 128 * KiB


@functools.cache
def nearly_full() -> bytes:
    driver = MemoryDriver(qcow2.create(SIZE, {"cluster_size": 512, "refcount_bits": 64}))
    with qcow2.attach(driver) as node:
        node.pwrite(0, b"old." * (FULL // 4))
    return bytes(driver.data)


def content(data: bytes | bytearray) -> bytes:
    with qcow2.attach(MemoryDriver(data), read_only=True) as node:
        return bytes(node.read(0, FULL + WRITE))


OLD = b"old." * (FULL // 4)


def test_the_place_of_a_table_that_has_moved_is_used_again() -> None:
    driver = MemoryDriver(nearly_full())
    before = qcow2.header(driver.data)
    with qcow2.attach(driver) as node:
        node.pwrite(FULL, b"new." * (WRITE // 4))
    with qcow2.attach(driver) as node:
        node.pwrite(FULL + WRITE, b"last" * 128)
    after = qcow2.header(driver.data)
    assert after.refcount_table_clusters > before.refcount_table_clusters == 1
    assert after.refcount_table_offset > before.refcount_table_offset
    assert driver.data[before.refcount_table_offset :][:512] == b"last" * 128
    assert content(driver.data) == OLD + b"new." * (WRITE // 4)
    assert qcow2.check(driver.data)[1] == []


def test_a_power_cut_while_the_table_moves_leaves_leaks_at_worst() -> None:
    driver = LoggedDriver(nearly_full())
    before = bytes(driver.data)
    with qcow2.attach(driver) as node:
        node.pwrite(FULL, b"new." * (WRITE // 4))
    for state in crash_states(before, driver.log, random.Random(1)):
        result, lines, _ = qcow2.check(state.data)
        assert qcow2.faults(result) == (0, 0), lines
        assert content(state.data)[:FULL] == OLD


def test_after_a_fault_while_the_table_moves_nothing_is_lost() -> None:
    fail_at = 0
    while True:
        driver = FaultyDriver(nearly_full())
        node = qcow2.attach(driver)
        driver.arm(fail_at, 5)
        with contextlib.suppress(OSError):
            node.pwrite(FULL, b"new." * (WRITE // 4))
            node.flush()
        fired = driver.fired
        driver.arm()
        with contextlib.suppress(OSError):  # a header that could not be written is not written any more
            node.close()
        result, lines, _ = qcow2.check(driver.data)
        assert qcow2.faults(result) == (0, 0), (fail_at, lines)
        assert content(driver.data)[:FULL] == OLD, fail_at
        if not fired:
            break
        fail_at += 1
    assert fail_at > 20
    assert content(driver.data) == OLD + b"new." * (WRITE // 4)


def test_the_header_that_is_written_later_names_the_table_that_has_moved() -> None:
    """The L1 table's new place is what makes the refcount table move; the bitmap, that all of the header is written."""
    driver = MemoryDriver(nearly_full())
    with qcow2.attach(driver) as node:
        assert isinstance(node.driver, Qcow2Driver)
        node.driver.bitmap_add("all", 65536)
        node.resize(1 << 30)
    after = qcow2.header(driver.data)
    assert after.refcount_table_clusters > 1
    assert qcow2.check(driver.data)[1] == []
    with qcow2.attach(driver) as node:
        node.pwrite(FULL, b"new." * (WRITE // 4))
    assert content(driver.data) == OLD + b"new." * (WRITE // 4)
    assert qcow2.check(driver.data)[1] == []

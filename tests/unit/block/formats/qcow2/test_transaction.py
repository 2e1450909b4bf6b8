"""Changes that take effect with one write to the header."""

from __future__ import annotations

import pytest

from hostel.block.formats.qcow2.driver import Qcow2Driver
from hostel.block.formats.qcow2.transaction import Transaction
from hostel.block.node import BlockNode
from support import qcow2
from support.memory import Kind, LoggedDriver, MemoryDriver

CLUSTER = 512
SIZE = 100 * CLUSTER


@pytest.fixture
def driver() -> LoggedDriver:
    driver = LoggedDriver(qcow2.create(SIZE, {"cluster_size": CLUSTER}))
    with qcow2.attach(driver) as node:
        node.pwrite(0, b"data" * 2000)
        image(node).snapshot_create("before", date=(0, 0))
        node.pwrite(0, b"more" * 200)
    driver.log.clear()
    return driver


def image(node: BlockNode) -> Qcow2Driver:
    assert isinstance(node.driver, Qcow2Driver)
    return node.driver


def used(data: bytes | bytearray) -> set[int]:
    """The clusters that an image counts as used."""
    with qcow2.attach(MemoryDriver(data)) as node:
        refcounts = image(node)._image.refcounts
        return {cluster for cluster in range(len(data) // CLUSTER + 1) if refcounts.get(cluster)}


@pytest.mark.parametrize("what", ["create", "apply", "delete"])
def test_before_the_header_only_free_clusters_are_written(driver: LoggedDriver, what: str) -> None:
    before, taken = bytes(driver.data), used(driver.data)
    with qcow2.attach(driver) as node:
        {
            "create": lambda: image(node).snapshot_create("after", date=(0, 0)),
            "apply": lambda: image(node).snapshot_apply("before"),
            "delete": lambda: image(node).snapshot_delete("before"),
        }[what]()
        log = list(driver.log)
    headers = [at for at, entry in enumerate(log) if entry.kind is Kind.WRITE and entry.offset < CLUSTER]
    assert len(headers) == 1
    (at,) = headers
    assert (log[at].offset, log[at].length) == (24, 48)
    assert log[at - 1].kind is log[at + 1].kind is Kind.FLUSH
    for entry in log[:at]:
        if entry.kind is Kind.WRITE:
            clusters = range(entry.offset // CLUSTER, (entry.offset + entry.length - 1) // CLUSTER + 1)
            assert not taken.intersection(clusters)
    for entry in log[at + 1 :]:
        assert entry.kind is not Kind.WRITE
    assert driver.data[:24] == before[:24]


def test_left_without_commit_nothing_has_happened(driver: LoggedDriver) -> None:
    before = bytes(driver.data)
    with qcow2.attach(driver) as node:
        inner = image(node)._image
        with pytest.raises(KeyError), Transaction(inner) as transaction:
            place = transaction.allocate(10 * CLUSTER)
            transaction.write(place, b"never" * 1000)
            inner.refcounts.free(inner.header.l1_table_offset, CLUSTER)
            raise KeyError
        assert inner.refcounts.get(place // CLUSTER) == 0
        assert inner.refcounts.get(inner.header.l1_table_offset // CLUSTER) == 1
        assert not inner.refcounts.dirty
    for cluster in used(before):
        assert driver.data[cluster * CLUSTER :][:CLUSTER] == before[cluster * CLUSTER :][:CLUSTER]
    result, lines, _ = qcow2.check(driver.data)
    assert (lines, result.leaks) == ([], 0)


def test_what_was_freed_in_a_transaction_is_not_used_again_in_it(driver: LoggedDriver) -> None:
    with qcow2.attach(driver) as node:
        inner = image(node)._image
        l1 = inner.header.l1_table_offset
        with pytest.raises(KeyError), Transaction(inner) as transaction:
            inner.refcounts.free(l1, CLUSTER)
            places = {transaction.allocate(CLUSTER) for _ in range(300)}
            assert l1 not in places
            assert len(places) == 300
            raise KeyError


def test_refcount_blocks_move_with_everything_that_counts_them(driver: LoggedDriver) -> None:
    with qcow2.attach(driver) as node:
        inner = image(node)._image
        table, blocks = inner.header.refcount_table_offset, list(inner.refcounts.table)
        image(node).snapshot_create("after", date=(0, 0))
        assert inner.header.refcount_table_offset != table
        assert set(blocks).isdisjoint(inner.refcounts.table)
    result, lines, _ = qcow2.check(driver.data)
    assert (lines, result.leaks) == ([], 0)

"""Changes that take effect with one write to the header."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hostel.block.formats.qcow2.layout import OFFSET_MASK
from hostel.block.formats.qcow2.transaction import Transaction, in_place, replace_l1
from support import qcow2
from support.memory import Entry, Kind, LoggedDriver, MemoryDriver

CLUSTER = 512
SIZE = 100 * CLUSTER


@pytest.fixture
def driver() -> LoggedDriver:
    driver = LoggedDriver(qcow2.create(SIZE, {"cluster_size": CLUSTER}))
    with qcow2.attach(driver) as node:
        node.pwrite(0, b"data" * 2000)
        qcow2.driver_of(node).snapshot_create("before", date=(0, 0))
        node.pwrite(0, b"more" * 200)
    driver.log.clear()
    return driver


def used(data: bytes | bytearray) -> set[int]:
    """The clusters that an image counts as used."""
    with qcow2.attach(MemoryDriver(data)) as node:
        refcounts = qcow2.driver_of(node)._image.refcounts
        return {cluster for cluster in range(len(data) // CLUSTER + 1) if refcounts.get(cluster)}


@pytest.mark.parametrize("what", ["create", "apply", "delete"])
def test_before_the_header_only_free_clusters_are_written(driver: LoggedDriver, what: str) -> None:
    before, taken = bytes(driver.data), used(driver.data)
    with qcow2.attach(driver) as node:
        changes: dict[str, Callable[[], object]] = {
            "create": lambda: qcow2.driver_of(node).snapshot_create("after", date=(0, 0)),
            "apply": lambda: qcow2.driver_of(node).snapshot_apply("before"),
            "delete": lambda: qcow2.driver_of(node).snapshot_delete("before"),
        }
        changes[what]()
        log = list(driver.log)
    headers = [at for at, entry in enumerate(log) if entry.kind is Kind.WRITE and entry.offset < CLUSTER]
    aside, done = headers
    copies = {cluster for entry in log[:aside] for cluster in clusters(entry)}
    for at in headers:
        assert (log[at].offset, log[at].length) == (24, 48)
        assert log[at - 1].kind is log[at + 1].kind is Kind.FLUSH
    assert not taken & copies
    # What has been set aside is free now, and written again where it was; the copies are not touched.
    assert not copies.intersection(cluster for entry in log[aside + 1 : done] for cluster in clusters(entry))
    for entry in log[done + 1 :]:
        assert entry.kind is not Kind.WRITE
    assert driver.data[:24] == before[:24]


def clusters(entry: Entry) -> range:
    """The clusters that a call writes to."""
    written = entry.length if entry.kind is Kind.WRITE else 0
    return range(entry.offset // CLUSTER, -(-(entry.offset + written) // CLUSTER))


def test_left_without_commit_nothing_has_happened(driver: LoggedDriver) -> None:
    before = bytes(driver.data)
    with qcow2.attach(driver) as node:
        inner = qcow2.driver_of(node)._image
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
        inner = qcow2.driver_of(node)._image
        l1 = inner.header.l1_table_offset
        with pytest.raises(KeyError), Transaction(inner) as transaction:
            inner.refcounts.free(l1, CLUSTER)
            places = {transaction.allocate(CLUSTER) for _ in range(300)}
            assert l1 not in places
            assert len(places) == 300
            raise KeyError


def test_refcounts_and_the_active_tables_stay_where_they_are(driver: LoggedDriver) -> None:
    with qcow2.attach(driver) as node:
        inner = qcow2.driver_of(node)._image
        places = inner.header.refcount_table_offset, list(inner.refcounts.table), inner.header.l1_table_offset
        tables = [entry & OFFSET_MASK for entry in inner.l1]
        qcow2.driver_of(node).snapshot_create("after", date=(0, 0))
        qcow2.driver_of(node).snapshot_create("again", date=(0, 0))
        assert [entry & OFFSET_MASK for entry in inner.l1] == tables
        qcow2.driver_of(node).snapshot_delete("again")
        qcow2.driver_of(node).snapshot_apply("before")
        assert (inner.header.refcount_table_offset, list(inner.refcounts.table), inner.header.l1_table_offset) == places
    result, lines, _ = qcow2.check(driver.data)
    assert (lines, result.leaks) == ([], 0)


def test_a_place_that_is_taken_meanwhile_is_not_written_over(driver: LoggedDriver) -> None:
    with qcow2.attach(driver) as node:
        inner = qcow2.driver_of(node)._image
        l1 = inner.header.l1_table_offset
        transaction = in_place(inner)
        inner.refcounts.update(l1 // CLUSTER, 1, 1)
        with transaction:
            transaction.commit(**replace_l1(inner, transaction, inner.l1))
        assert inner.header.l1_table_offset != l1
        assert bytes(node.read(0, 8)) == b"moremore"
        inner.refcounts.update(l1 // CLUSTER, 1, -1)
    result, lines, _ = qcow2.check(driver.data)
    assert (lines, result.leaks) == ([], 0)

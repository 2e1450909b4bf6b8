"""The order in which an image's parts reach the disk, and what a failure leaves behind."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from hostel.block import graph
from hostel.block.formats.qcow2.driver import Qcow2Driver
from hostel.block.formats.qcow2.layout import Incompatible
from hostel.errors import CorruptImage
from support import qcow2
from support.memory import FaultyDriver, Kind, LoggedDriver, MemoryDriver

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
            qcow2.driver_of(node).pwrite_compressed(0, b"new")
        else:
            node.pwrite(0, b"new " * (CLUSTER // 4))
        node.flush()
        data, entries = table_writes(driver, start)
        assert data and entries
        between = [driver.log[at].kind for at in range(data[-1], entries[0])]
        assert Kind.FLUSH in between


class HeaderFault(FaultyDriver):
    """Memory that cannot write the header while ``armed``."""

    def pwrite(self, offset: int, data: memoryview) -> None:
        if self.armed and offset < CLUSTER:
            raise OSError(errno.EIO, "an injected fault")
        MemoryDriver.pwrite(self, offset, data)


def test_after_a_failed_write_of_the_header_nothing_more_is_accepted() -> None:
    driver = HeaderFault(qcow2.create(SIZE, {"cluster_size": CLUSTER, "lazy_refcounts": True}))
    node = qcow2.attach(driver)
    driver.armed = True
    with pytest.raises(OSError, match="injected"):
        node.pwrite(0, b"new")
    driver.armed = False
    with pytest.raises(CorruptImage, match="open it again"):
        node.pwrite(0, b"new")
    with pytest.raises(CorruptImage, match="open it again"):
        node.flush()
    node.close()


def test_closing_says_that_accepted_writes_are_lost_where_the_image_was_found_corrupt() -> None:
    driver = MemoryDriver(qcow2.create(SIZE, {"cluster_size": CLUSTER}))
    with qcow2.attach(driver) as node:
        node.pwrite(CLUSTER, b"old")
    l2 = int.from_bytes(driver.data[3 * CLUSTER : 3 * CLUSTER + 8], "big") & 0xFFFFFFFFFFFE00
    driver.data[l2 + 8 : l2 + 16] = (1 << 63 | CLUSTER).to_bytes(8, "big")  # the refcount table
    node = qcow2.attach(driver)
    node.pwrite(0, b"new")
    with pytest.raises(CorruptImage, match="overlaps with refcount table"):
        node.pwrite(CLUSTER, b"new")
    with pytest.raises(CorruptImage, match="overlaps with refcount table"):
        node.close()
    assert qcow2.header(driver.data).incompatible_features & Incompatible.CORRUPT
    with pytest.raises(CorruptImage, match="cannot be opened read/write"):
        qcow2.attach(driver)


def test_a_cluster_whose_refcount_could_not_be_read_is_freed_later() -> None:
    driver = FaultyDriver(qcow2.create(SIZE, {"cluster_size": CLUSTER}))
    with qcow2.attach(driver) as node:
        node.pwrite(0, bytes(SIZE))
    data = bytes(driver.data)
    driver.arm()
    with qcow2.attach(driver) as node:
        node.discard(0, SIZE)
        driver.arm()
        node.flush()
        reading = driver.calls.index(Kind.READ)
    driver = FaultyDriver(data)
    with qcow2.attach(driver) as node:
        node.discard(0, SIZE)
        driver.arm(reading, errno.EIO)
        with pytest.raises(OSError, match="injected"):
            node.flush()
    assert qcow2.check(driver.data)[0].leaks == 0


def test_unknown_autoclear_bits_are_cleared_before_the_first_change_with_one_small_write() -> None:
    driver = LoggedDriver(qcow2.create(SIZE, {"cluster_size": CLUSTER}))
    driver.data[88] = 0x80
    with qcow2.attach(driver) as node:
        node.read(0, SIZE)
        assert not driver.log
        node.pwrite(0, b"new")
        assert [(each.kind, each.offset, each.data) for each in driver.log if each.offset < CLUSTER][:3] == [
            (Kind.FLUSH, 0, b""),
            (Kind.WRITE, 88, bytes(8)),
            (Kind.FLUSH, 0, b""),
        ]


def test_tables_that_are_read_make_room_behind_tables_that_wait_to_be_written(tmp_path: Path) -> None:
    path, cluster, tables = tmp_path / "disk.qcow2", 2 << 20, 30
    reach = cluster // 8 * cluster
    qcow2.create_file(path, tables * reach, {"cluster_size": cluster})
    with graph.open(str(path), "qcow2", read_only=False) as node:
        for index in range(tables):
            node.write_zeroes(index * reach, cluster)
    with graph.open(str(path), "qcow2", read_only=False) as node:
        for index in range(8):
            node.write_zeroes(index * reach + cluster, cluster)
        for index in range(8, tables):
            assert node.read(index * reach, 512) == bytes(512)
        assert isinstance(node.driver, Qcow2Driver)
        assert len(node.driver._image.tables) <= 16


def test_only_the_fields_that_are_written_change_in_memory_too() -> None:
    """A header may have been read before another part of the image changed it."""
    driver = MemoryDriver(qcow2.create(SIZE, {"cluster_size": CLUSTER}))
    with qcow2.attach(driver) as node:
        assert isinstance(node.driver, Qcow2Driver)
        image = node.driver._image
        before = image.header
        image.write_header_fields(before.replace(compatible_features=1 << 40), "compatible_features", "refcount_order")
        image.write_header_fields(before.replace(size=2 * SIZE), "size", "crypt_method")
        image.write_preamble(image.preamble)
    after = qcow2.header(driver.data)
    assert (after.compatible_features, after.size) == (1 << 40, 2 * SIZE)

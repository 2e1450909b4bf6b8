"""From guest to host: runs of L2 entries."""

from __future__ import annotations

import pytest

from hostel.block.formats.qcow2.driver import Qcow2Driver
from hostel.block.formats.qcow2.layout import COMPRESSED, COPIED, ZERO
from hostel.block.formats.qcow2.mapping import classify, runs
from hostel.block.formats.run import Kind, Run
from hostel.errors import CorruptImage
from support import qcow2
from support.memory import MemoryDriver

CLUSTER = 512
ENTRIES = 64


@pytest.mark.parametrize(
    ("entry", "kind"),
    [
        (0, Kind.UNALLOCATED),
        (COPIED, Kind.UNALLOCATED),
        (ZERO, Kind.ZERO),
        (ZERO | COPIED | 0x600, Kind.ZERO),
        (0x600, Kind.DATA),
        (COPIED | 0x600, Kind.DATA),
        (COMPRESSED | 0x601, Kind.COMPRESSED),
        (COMPRESSED, Kind.COMPRESSED),
    ],
)
def test_an_entry_is_of_one_kind(entry: int, kind: Kind) -> None:
    assert classify(entry, external=False) is kind


def opened(entries: dict[int, int], size: int = 4 * ENTRIES * CLUSTER) -> Qcow2Driver:
    """An image whose second L2 table has these entries."""
    driver = MemoryDriver(qcow2.create(size, {"cluster_size": CLUSTER}))
    with qcow2.attach(driver) as node:
        node.pwrite(ENTRIES * CLUSTER, b"x")
    l1 = qcow2.header(driver.data).l1_table_offset
    table = int.from_bytes(driver.data[l1 + 8 : l1 + 16], "big") & ~COPIED
    driver.data[table : table + CLUSTER] = bytes(CLUSTER)
    for index, entry in entries.items():
        driver.data[table + 8 * index : table + 8 * index + 8] = entry.to_bytes(8, "big")
    image = qcow2.attach(driver, read_only=True).driver
    assert isinstance(image, Qcow2Driver)
    return image


def found(entries: dict[int, int], offset: int, length: int) -> list[Run]:
    return list(runs(opened(entries)._image, offset, length))


START = ENTRIES * CLUSTER


def test_neighbours_on_the_host_are_one_run_whether_copied_or_not() -> None:
    entries = {1: COPIED | 0x600, 2: 0x800, 3: COPIED | 0xA00, 4: COPIED | 0x600}
    assert found(entries, START, 6 * CLUSTER) == [
        Run(START, CLUSTER, Kind.UNALLOCATED, 0),
        Run(START + CLUSTER, 3 * CLUSTER, Kind.DATA, 0x600),
        Run(START + 4 * CLUSTER, CLUSTER, Kind.DATA, 0x600),
        Run(START + 5 * CLUSTER, CLUSTER, Kind.UNALLOCATED, 0),
    ]


def test_a_range_inside_clusters_starts_inside_the_host_cluster() -> None:
    entries = {0: COPIED | 0x600, 1: COPIED | 0x800, 2: ZERO | COPIED | 0xC00}
    assert found(entries, START + 100, 1000) == [
        Run(START + 100, 924, Kind.DATA, 0x600 + 100),
        Run(START + 1024, 76, Kind.ZERO, 0xC00),
    ]


def test_absent_tables_are_one_run_up_to_the_next() -> None:
    assert found({}, 0, 4 * START) == [
        Run(0, START, Kind.UNALLOCATED, 0),
        Run(START, START, Kind.UNALLOCATED, 0),
        Run(2 * START, 2 * START, Kind.UNALLOCATED, 0),
    ]
    assert found({}, 10, 100) == [Run(10, 100, Kind.UNALLOCATED, 0)]


def test_compressed_clusters_are_runs_of_their_own() -> None:
    entries = {0: COMPRESSED | 0x600, 1: COMPRESSED | 0x600}
    assert found(entries, START + 1, 1000) == [
        Run(START + 1, 511, Kind.COMPRESSED, COMPRESSED | 0x600),
        Run(START + 512, 489, Kind.COMPRESSED, COMPRESSED | 0x600),
    ]


@pytest.mark.parametrize("entry", [COPIED | 0x601 | 0x100, 1 << 60 | 1 << 8, ZERO | 0x601 | 0x40])
def test_reserved_bits_hurt_nobody_who_reads(entry: int) -> None:
    assert found({0: entry}, START, CLUSTER)[0].length == CLUSTER


def test_an_offset_inside_a_cluster_is_corrupt() -> None:
    driver = MemoryDriver(qcow2.create(1 << 20, {"cluster_size": 4096}))
    with qcow2.attach(driver) as node:
        node.pwrite(0, b"x")
    table = int.from_bytes(driver.data[3 * 4096 : 3 * 4096 + 8], "big") & ~COPIED
    driver.data[table : table + 8] = (COPIED | 0x5200).to_bytes(8, "big")
    with qcow2.attach(driver, read_only=True) as node, pytest.raises(CorruptImage, match="0x5200 unaligned"):
        node.read(0, 1)

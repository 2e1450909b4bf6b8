"""Runtime options of qcow2, and what preallocated metadata shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from hostel.block import graph
from hostel.block.extent import Status
from hostel.block.formats.qcow2.geometry import Geometry
from hostel.block.formats.qcow2.runtime import RUNTIME_OPTIONS, check_runtime_options
from hostel.block.node import BlockNode
from hostel.errors import BlockError
from support.memory import Kind, LoggedDriver, MemoryDriver, memory_node
from support.qcow2 import attach, check, create, create_file, driver_of, faults, pwrite_compressed
from support.qcow2 import header as image_header

CLUSTER = 65536


def _check(given: dict[str, str], version: int = 3) -> None:
    header = image_header(create(64 << 20, {"compat": "0.10" if version == 2 else "1.1"}))
    check_runtime_options(RUNTIME_OPTIONS.convert(given), header, Geometry.of(header))


@pytest.mark.parametrize(
    ("given", "version", "message"),
    [
        ({"overlap-check": "some"}, 3, "Unsupported value 'some' for qcow2 option 'overlap-check'"),
        ({"overlap-check.template": "some"}, 3, "Unsupported value 'some' for qcow2 option 'overlap-check'"),
        ({"overlap-check": "all", "overlap-check.template": "none"}, 3, "Conflicting values for qcow2 options"),
        ({"lazy-refcounts": "on"}, 2, "Lazy refcounts require"),
        ({"discard-no-unref": "on"}, 2, "discard-no-unref is only supported since qcow2 version 3"),
    ],
)
def test_options_that_contradict_are_refused(given: dict[str, str], version: int, message: str) -> None:
    with pytest.raises(BlockError, match=message):
        _check(given, version)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"overlap-check": "none", "overlap-check.template": "none"},
        {"discard-no-unref": "on"},
        {"lazy-refcounts": "on", "cache-size": "1M", "pass-discard-request": "off", "overlap-check.active-l1": "off"},
    ],
)
def test_options_that_qemu_takes_are_taken(given: dict[str, str]) -> None:
    _check(given)


def test_preallocated_clusters_are_zeroes_where_the_host_has_holes(tmp_path: Path) -> None:
    path = tmp_path / "a"
    create_file(path, 4 << 20, {"preallocation": "metadata"})
    with graph.open(str(path)) as node:
        assert {extent.status for extent in node.extents()} == {Status.DATA | Status.ZERO | Status.ALLOCATED}
    with graph.open(str(path), read_only=False) as node:
        node.pwrite(1 << 20, b"x" * 65536)
    with graph.open(str(path)) as node:
        written = [extent for extent in node.extents() if not extent.status & Status.ZERO]
    assert [(extent.offset, extent.length) for extent in written] == [(1 << 20, 65536)]


def test_without_preallocation_holes_of_the_host_are_not_looked_for(tmp_path: Path) -> None:
    path = tmp_path / "a"
    create_file(path, 1 << 20)
    with graph.open(str(path), read_only=False) as node:
        node.pwrite(0, b"x" * (1 << 20))
    with graph.open(str(path)) as node:
        assert {extent.status for extent in node.extents()} == {Status.DATA | Status.ALLOCATED}


@pytest.mark.parametrize("extended", [False, True])
@pytest.mark.parametrize("backed", [False, True])
def test_discarded_clusters_keep_their_place_where_that_is_asked_for(*, extended: bool, backed: bool) -> None:
    size = CLUSTER * 4
    driver = LoggedDriver(create(size, {"cluster_size": CLUSTER, "extended_l2": extended}))
    with attach(driver, backing=b"b" * size if backed else None, options={"discard-no-unref": True}) as node:
        node.pwrite(0, b"x" * size)
        driver_of(node).snapshot_create("s", date=(0, 0))
        node.pwrite(0, b"y" * (3 * CLUSTER))
        pwrite_compressed(node, 2 * CLUSTER, b"z" * CLUSTER)
        node.flush()
        own = [_place(node, index) for index in range(2)]
        node.discard(0, CLUSTER)
        node.write_zeroes(CLUSTER, CLUSTER, unmap=True)
        node.discard(2 * CLUSTER, 2 * CLUSTER)
        assert node.read(0, size) == bytes(size)
        assert [_place(node, index) for index in range(4)] == [*own, None, None]
        given_back = [entry for entry in driver.log if entry.kind is Kind.DISCARD]
        assert {(entry.offset, entry.length) for entry in given_back} >= {(place, CLUSTER) for place in own}
        node.pwrite(100, b"again")
        node.pwrite(CLUSTER, b"w" * CLUSTER)
        assert [_place(node, index) for index in range(2)] == own
        expected = bytes(node.read(0, size))
        assert expected == (bytes(100) + b"again").ljust(CLUSTER, b"\0") + b"w" * CLUSTER + bytes(2 * CLUSTER)
    result, lines, _ = check(driver.data)
    assert (result.leaks, *faults(result)) == (0, 0, 0), lines
    with attach(driver, read_only=True, backing=b"b" * size if backed else None) as node:
        assert node.read(0, size) == expected
        driver_of(node).snapshot_load(None, "s")
        assert node.read(0, size) == b"x" * size


def test_zeroes_are_on_the_disk_before_the_space_of_a_cluster_that_keeps_its_place_is_given_back() -> None:
    driver = LoggedDriver(create(CLUSTER, {"cluster_size": CLUSTER}))
    with attach(driver, options={"discard-no-unref": True}) as node:
        node.pwrite(0, b"x" * CLUSTER)
        node.flush()
        driver.log.clear()
        node.write_zeroes(0, CLUSTER, unmap=True)
        assert [entry.kind for entry in driver.log if entry.kind is not Kind.FLUSH] == [Kind.WRITE, Kind.DISCARD]
        assert driver.log[-2].kind is Kind.FLUSH


def _place(node: BlockNode, index: int) -> int | None:
    return next(iter(node.extents(index * CLUSTER, CLUSTER))).host_offset


@pytest.mark.parametrize("keeps", [False, True])
@pytest.mark.parametrize("raw", [False, True])
def test_a_raw_data_file_is_zeroed_and_not_discarded_which_need_not_read_as_zeroes(*, keeps: bool, raw: bool) -> None:
    metadata = MemoryDriver(create(0, {"data_file": "d", "data_file_raw": raw}))
    data = LoggedDriver(bytes(4 * CLUSTER))
    with attach(metadata, options={"discard-no-unref": keeps}) as node:
        node.driver.children["data-file"] = memory_node(data)
        node.resize(4 * CLUSTER)
        node.pwrite(0, b"x" * (4 * CLUSTER))
        data.log.clear()
        node.discard(0, CLUSTER)
        node.write_zeroes(2 * CLUSTER, CLUSTER, unmap=True)
        node.flush()
        assert (Kind.DISCARD in {entry.kind for entry in data.log}) is not raw
        assert (Kind.ZERO in {entry.kind for entry in data.log}) is raw
        assert node.read(0, 4 * CLUSTER) == (bytes(CLUSTER) + b"x" * CLUSTER) * 2
    if raw:
        assert data.data == (bytes(CLUSTER) + b"x" * CLUSTER) * 2

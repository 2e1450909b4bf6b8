"""Compressed clusters share host clusters."""

from __future__ import annotations

from pathlib import Path

from hostel.block import creating, graph
from hostel.block.formats.qcow2.driver import Qcow2Driver
from hostel.block.node import BlockNode

CLUSTER = 65536


def image(path: Path) -> BlockNode:
    with creating.create(str(path)) as file:
        Qcow2Driver.create(file, 16 * CLUSTER, {})
    return graph.open(str(path), "qcow2", read_only=False)


def write_compressed(node: BlockNode, index: int, value: int) -> None:
    driver = node.driver
    assert isinstance(driver, Qcow2Driver)
    payload = driver.compressor()(bytes([value]) * CLUSTER)
    assert payload is not None
    driver.pwrite_compressed(index * CLUSTER, payload)


def test_payloads_are_packed_into_one_cluster(tmp_path: Path) -> None:
    with image(tmp_path / "disk.qcow2") as node:
        for index in range(8):
            write_compressed(node, index, index + 1)
        node.flush()
        for index in range(8):
            assert node.read(index * CLUSTER, CLUSTER) == bytes([index + 1]) * CLUSTER
        assert node.read(3 * CLUSTER - 2, 4) == b"\x03\x03\x04\x04"
    assert (tmp_path / "disk.qcow2").stat().st_size < 6 * CLUSTER + CLUSTER


def test_a_payload_is_not_packed_behind_payloads_whose_cluster_was_freed(tmp_path: Path) -> None:
    with image(tmp_path / "disk.qcow2") as node:
        write_compressed(node, 0, 1)
        node.pwrite(0, bytes([2]) * CLUSTER)  # gives the payload up
        node.flush()
        node.pwrite(CLUSTER, bytes([3]) * CLUSTER)  # may take its cluster
        write_compressed(node, 2, 4)
        assert node.read(CLUSTER, CLUSTER) == bytes([3]) * CLUSTER
        assert node.read(2 * CLUSTER, CLUSTER) == bytes([4]) * CLUSTER

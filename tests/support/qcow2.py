"""qcow2 images in memory: creating, opening, checking, and what their tables say."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hostel.block import creating, graph
from hostel.block.driver import OpenMode
from hostel.block.formats.qcow2 import header as headers
from hostel.block.formats.qcow2.driver import Qcow2Driver
from hostel.block.formats.qcow2.layout import Header
from hostel.block.node import BlockNode
from hostel.block.options import Value
from hostel.block.powers import CheckResult, Repair
from support.memory import MemoryDriver, memory_node


def create(size: int, options: Mapping[str, Value] | None = None) -> bytes:
    """A fresh image's bytes."""
    driver = MemoryDriver()
    Qcow2Driver.create(memory_node(driver), size, options or {})
    return bytes(driver.data)


def create_file(path: Path, size: int, options: Mapping[str, Value] | None = None) -> None:
    """A fresh image in a file."""
    with creating.create(str(path)) as file:
        Qcow2Driver.create(file, size, options or {})


def attach(
    driver: MemoryDriver,
    *,
    read_only: bool = False,
    check: bool = False,
    backing: bytes | None = None,
    options: Mapping[str, Value] | None = None,
) -> BlockNode:
    """Open an image that lies in ``driver``, over a raw backing image where there is one; encrypted, with a secret."""
    place = Header.OFFSET["crypt_method"]
    secret: dict[str, Value] = {"encrypt.key-secret": "first"} if any(driver.data[place : place + 4]) else {}
    mode = OpenMode(read_only=read_only, check=check, options={**secret, **(options or {})})
    node = BlockNode(Qcow2Driver.open(memory_node(driver, read_only=read_only), mode), "memory", read_only=read_only)
    if backing is not None:
        node.driver.children["backing"] = disk(backing)
    return node


def driver_of(node: BlockNode) -> Qcow2Driver:
    """The node's driver."""
    assert isinstance(node.driver, Qcow2Driver)
    return node.driver


def pwrite_compressed(node: BlockNode, offset: int, content: bytes) -> None:
    """Write a whole cluster, which gets smaller by that."""
    driver = driver_of(node)
    payload = driver.compressor()(content)
    assert payload is not None
    driver.pwrite_compressed(offset, payload)


def disk(content: bytes) -> BlockNode:
    """A raw disk of a fixed size, for reading."""
    return BlockNode(_Disk(content), "backing", read_only=True)


class _Disk(MemoryDriver):
    """Without GROWS: a disk of a fixed size, as format drivers have it."""

    name = "raw"
    supports = MemoryDriver.supports & ~MemoryDriver.supports.GROWS


def check(data: bytes | bytearray, repair: Repair = Repair.NOTHING) -> tuple[CheckResult, list[str], bytes]:
    """Check or repair an image: the result, the lines reported, and the bytes afterwards."""
    lines: list[str] = []
    driver = MemoryDriver(data)
    with attach(driver, read_only=not repair, check=True) as node:
        result = driver_of(node).check(repair, lines.append)
    return result, lines, bytes(driver.data)


def check_file(path: Path, repair: Repair = Repair.NOTHING) -> tuple[CheckResult, list[str]]:
    """Check or repair an image file; returns the result and the lines reported."""
    lines: list[str] = []
    with graph.open(str(path), "qcow2", read_only=not repair, check=True, no_backing=True) as node:
        return driver_of(node).check(repair, lines.append), lines


def header(data: bytes | bytearray) -> Header:
    """The fixed header fields; of version 2 with version 3's defaults."""
    return headers.parse(bytes(data[: 1 << 16])).header


def faults(result: CheckResult) -> tuple[int, int]:
    """Corruptions and check errors."""
    return result.corruptions, result.check_errors

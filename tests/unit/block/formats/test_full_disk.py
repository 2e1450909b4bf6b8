"""A host's disk that is full: what was written before is kept, and what is given up makes room again."""

from __future__ import annotations

import errno
import random

import pytest

from hostel.block.driver import OpenMode
from hostel.block.formats.qcow2.layout import Incompatible
from hostel.block.node import BlockNode
from hostel.block.options import Value
from hostel.block.powers import Repair
from hostel.block.registry import format_driver
from support import qcow2
from support.memory import MemoryDriver, SmallDisk, memory_node

KiB = 1024
PIECE = 64 * KiB
SIZE = 64 << 20
ROOM = 6 << 20
OTHERS = ("qcow", "qed", "parallels", "vdi", "vmdk", "vpc", "vhdx")


def fill(node: BlockNode, rng: random.Random) -> dict[int, bytes]:
    """Write pieces in no order until there is no room; returns what was, by offset."""
    written: dict[int, bytes] = {}
    for place in rng.sample(range(0, SIZE, PIECE), SIZE // PIECE):
        content = rng.randbytes(16) * (PIECE // 16)
        try:
            node.pwrite(place, content)
        except OSError as error:
            assert error.errno == errno.ENOSPC
            break
        written[place] = content
    return written


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"cluster_size": 512},  # with many tables and refcount blocks
        {"cluster_size": 4 * KiB, "lazy_refcounts": True},
        {"extended_l2": True, "cluster_size": 16 * KiB},
        {"cluster_size": 4 * KiB, "refcount_bits": 64},
    ],
    ids=repr,
)
def test_what_was_written_to_a_qcow2_image_is_kept(options: dict[str, Value]) -> None:
    host = SmallDisk(qcow2.create(SIZE, options), ROOM)
    with qcow2.attach(host, options={"discard": "unmap"}) as node:
        written = fill(node, random.Random(1))
        assert 64 <= len(written) < ROOM // PIECE
        node.flush()  # there is room for the tables: it was taken before the data they lead to
        kept, at_first = bytes(host.data), dict(written)
        for offset in list(written)[::2]:
            node.discard(offset, PIECE)
            del written[offset]
        node.flush()
        free = next(offset for offset in range(0, SIZE, PIECE) if offset not in at_first)
        written[free] = b"room" * (PIECE // 4)
        node.pwrite(free, written[free])
    for data, contents in ((kept, at_first), (host.data, written)):
        is_dirty = qcow2.header(data).incompatible_features & Incompatible.DIRTY
        assert qcow2.faults(qcow2.check(data, Repair.ALL if is_dirty else Repair.NOTHING)[0]) == (0, 0)
        with qcow2.attach(MemoryDriver(data), read_only=True) as node:
            assert all(node.read(offset, PIECE) == content for offset, content in contents.items())


@pytest.mark.parametrize("format", OTHERS)
def test_what_was_written_to_another_image_is_kept(format: str) -> None:
    driver = format_driver(format)
    made = MemoryDriver()
    driver.create(memory_node(made), SIZE, {})  # type: ignore[attr-defined]
    host = SmallDisk(made.data, ROOM)
    with BlockNode(driver.open(memory_node(host), OpenMode(read_only=False)), "memory", read_only=False) as node:
        written = fill(node, random.Random(1))
        assert 64 <= len(written) < ROOM // PIECE
        node.flush()
    with BlockNode(driver.open(memory_node(host, read_only=True), OpenMode()), "memory", read_only=True) as node:
        assert all(node.read(offset, PIECE) == content for offset, content in written.items())

"""What ``qemu-io`` does to an image beyond reading and writing."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from hostel.block.composing import AlwaysCompressing
from hostel.block.driver import FilterDriver
from hostel.block.extent import Status
from hostel.block.node import BlockNode
from hostel.block.powers import Compressing, VmStateStore
from hostel.errors import BlockError, OutOfRange, ReadOnly, UnsupportedFeature

if TYPE_CHECKING:
    from hostel.block.filters.blkdebug import BlkdebugDriver


def write_compressed(node: BlockNode, offset: int, data: bytes) -> None:
    """Write whole clusters compressed; one that would not get smaller is written as it is.

    A vmdk disk of a kind that has no compressed grains takes any range, and as it is.

    Raises:
        UnsupportedFeature: the format has no compression, or not beside an external data file.
        BlockError: the range is not made of whole clusters (EINVAL).
    """
    if node.read_only:
        raise ReadOnly(f"'{node.filename}' is open for reading only")
    while node.format in ("copy-on-read", "throttle") and isinstance(node.driver, FilterDriver):
        node = node.driver.child
    driver = node.driver
    if isinstance(driver, AlwaysCompressing) and not driver.always_compresses:
        node.pwrite(offset, data)
        return
    if not isinstance(driver, Compressing):
        raise UnsupportedFeature("Compression not supported for this file format")
    if "data-file" in driver.children:
        raise UnsupportedFeature("Images with an external data file have no compressed clusters")
    end = offset + len(data)
    if offset < 0 or end > node.length:
        raise OutOfRange(f"{len(data)} bytes at offset {offset} are outside '{node.filename}'")
    cluster_size = driver.cluster_size
    if offset % cluster_size or (end % cluster_size and end != node.length):
        raise BlockError("A compressed write is whole clusters", errno=errno.EINVAL)
    from hostel.block.filters import compress

    compress.write_compressed(node, offset, data)


def load_vm_state(node: BlockNode, offset: int, buf: memoryview) -> None:
    """Read machine state that is kept beside the disk.

    Raises:
        UnsupportedFeature: the format keeps none.
    """
    keeper, store = _vm_state_store(node)
    with keeper.lock():
        store.load_vm_state(offset, buf)


def save_vm_state(node: BlockNode, offset: int, data: bytes) -> None:
    """Write machine state beside the disk.

    Raises:
        UnsupportedFeature: the format keeps none.
    """
    if node.read_only:
        raise ReadOnly(f"'{node.filename}' is open for reading only")
    keeper, store = _vm_state_store(node)
    with keeper.lock():
        store.save_vm_state(offset, memoryview(data))


def _vm_state_store(node: BlockNode) -> tuple[BlockNode, VmStateStore]:
    """The node that keeps the state, and its driver: filters and raw images leave it to what they stand on."""
    keeper = node
    while not isinstance(keeper.driver, VmStateStore):
        # Of the two images of blkverify the copy has it.
        below = keeper.driver.children.get("raw") if keeper.format == "blkverify" else keeper.file
        if below is None:
            raise UnsupportedFeature(f"'{node.format}' images keep no machine state")
        keeper = below
    return keeper, keeper.driver


def copy_on_read(node: BlockNode) -> BlockNode:
    """Lay the filter ``copy-on-read`` over a node, which is closed with it, and at once where it cannot be.

    Raises:
        ReadOnly: the node is.
    """
    from hostel.block.filters.copy_on_read import CopyOnReadDriver

    if node.read_only:
        node.close()
        raise ReadOnly("Can't use copy-on-read on read-only device")
    driver = CopyOnReadDriver(node)
    return BlockNode(driver, node.filename, read_only=False)


def overlay(base: BlockNode, folder: str, *, read_only: bool) -> BlockNode:
    """Lay an empty image over a node, which is closed with it; its file has no name any more, and goes when closed.

    Args:
        base: open for reading.
        folder: the directory that the file lies in.
        read_only: nothing will be written.

    Raises:
        OSError: the file cannot be made; the node is closed.
    """
    import tempfile

    from hostel.block import graph
    from hostel.block.driver import CACHE_MODES
    from hostel.img import create

    try:
        descriptor, path = tempfile.mkstemp(prefix="vl.", dir=folder)
        os.close(descriptor)
        try:
            create.create(create.plan(path, "qcow2", base.length))
            node = graph.open(path, "qcow2", read_only=read_only, cache=CACHE_MODES["unsafe"])
        finally:
            os.unlink(path)
    except BaseException:
        base.close()
        raise
    node.driver.children["backing"] = base
    return node


def debugger(node: BlockNode) -> BlkdebugDriver | None:
    """The ``blkdebug`` filter that a node's bytes come through, the first one; None where there is none."""
    below: BlockNode | None = node
    while below is not None:
        if below.driver.on_event is not None:
            from hostel.block.filters.blkdebug import BlkdebugDriver

            assert isinstance(below.driver, BlkdebugDriver)
            return below.driver
        below = below.file
    return None


def allocation(node: BlockNode, offset: int, length: int) -> Iterator[tuple[int, int, bool]]:
    """The ranges that this layer decides and those it does not: offset, length, whether it does."""
    last: tuple[int, int, bool] | None = None
    for extent in node.extents(offset, length):
        # What is neither data nor zeroes nobody keeps.
        allocated = bool(extent.status & Status.ALLOCATED and extent.status & (Status.DATA | Status.ZERO))
        if last is not None and last[2] is allocated:
            last = (last[0], last[1] + extent.length, allocated)
            continue
        if last is not None:
            yield last
        last = (extent.offset, extent.length, allocated)
    if last is not None:
        yield last

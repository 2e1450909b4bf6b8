"""Copying ranges between nodes that others use meanwhile."""

from __future__ import annotations

from hostel.block.chain import ChainExtent, block_status, held
from hostel.block.driver import Compressing, Resizable
from hostel.block.extent import Status
from hostel.block.filters.compress import write_compressed
from hostel.block.jobs.policy import SourceError, TargetError
from hostel.block.node import BlockNode
from hostel.errors import UnsupportedFeature
from hostel.units import GiB, MiB

CHUNK = 1 * MiB  # bytes of data that a step reads and writes
LOOK = 1 * GiB  # bytes whose metadata a step looks at


def first_extent(node: BlockNode, start: int, end: int, base: BlockNode | None = None) -> ChainExtent:
    """What a node's chain, above ``base`` where there is one, says of a range's beginning.

    Raises:
        SourceError: metadata cannot be read.
    """
    try:
        with held(node):
            return next(block_status(node, start, min(end - start, LOOK), base=base))
    except OSError as error:
        raise SourceError(error) from None


def read(node: BlockNode, offset: int, length: int) -> bytearray:
    """Read.

    Raises:
        SourceError: that failed.
    """
    try:
        return node.read(offset, length)
    except OSError as error:
        raise SourceError(error) from None


def write(node: BlockNode, offset: int, data: bytearray, *, compress: bool = False) -> None:
    """Write.

    Raises:
        TargetError: that failed.
    """
    try:
        if compress and isinstance(node.driver, Compressing) and offset % node.driver.cluster_size == 0:
            write_compressed(node, offset, data)
        else:
            node.pwrite(offset, data)
    except OSError as error:
        raise TargetError(error) from None


def write_zeroes(node: BlockNode, offset: int, length: int, *, unmap: bool = True) -> None:
    """Zero a range, where it is not known to read as zeroes already.

    Raises:
        TargetError: that failed.
    """
    try:
        with held(node):
            missing = [extent for extent in block_status(node, offset, length) if not extent.status & Status.ZERO]
        for extent in missing:
            node.write_zeroes(extent.offset, extent.length, unmap=unmap)
    except OSError as error:
        raise TargetError(error) from None


def write_own_zeroes(node: BlockNode, offset: int, length: int) -> None:
    """Zero a range in an overlay itself, so that it stays zero when what is below is exchanged.

    Raises:
        TargetError: that failed.
    """
    try:
        node.write_zeroes(offset, length)
        with held(node):
            left = [extent for extent in node.extents(offset, length) if not extent.status & Status.ALLOCATED]
        for extent in left:
            for start in range(extent.offset, extent.end, CHUNK):
                node.pwrite(start, bytes(min(CHUNK, extent.end - start)))
    except OSError as error:
        raise TargetError(error) from None


def flush(node: BlockNode) -> None:
    """Sync what was written.

    Raises:
        TargetError: that failed.
    """
    try:
        node.flush()
    except OSError as error:
        raise TargetError(error) from None


def grow(node: BlockNode, length: int) -> None:
    """Make a node that a job uses at least as long as what is written to it.

    Raises:
        UnsupportedFeature: its driver cannot.
    """
    if node.length >= length:
        return
    with node.lock():
        if not isinstance(node.driver, Resizable):
            raise UnsupportedFeature(f"Image format driver '{node.format}' does not support resize")
        node.driver.resize(length)

"""Copying ranges between nodes that others use meanwhile."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from hostel.block.chain import ChainExtent, block_status, held
from hostel.block.extent import Status
from hostel.block.filling import fill
from hostel.block.filters.compress import write_compressed
from hostel.block.jobs.policy import SourceError, TargetError
from hostel.block.node import BlockNode
from hostel.block.powers import Compressing, Resizable, lose_patience
from hostel.block.rewiring import bottom_of_filters
from hostel.block.tree import own
from hostel.errors import UnsupportedFeature
from hostel.units import GiB, MiB

CHUNK = 1 * MiB  # bytes of data that a step reads and writes
LOOK = 1 * GiB  # bytes whose metadata a step looks at
PATIENCE = 60.0  # seconds for a disk to sync what nobody needs
_GLANCE: Final = 0.1  # seconds after which who waits for a server is told again not to
_SPARE: Final = 8
# Used again: the host takes longer to find a new one's pages than to fill them.
_buffers: deque[bytearray] = deque()


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


def next_extent(
    node: BlockNode, start: int, end: int, base: BlockNode | None, is_copied: Callable[[ChainExtent], bool]
) -> ChainExtent:
    """A range's beginning: of data no more than a step copies, so that metadata is not walked again for each step.

    Args:
        node: whose chain; see :func:`first_extent`.
        start: bytes.
        end: likewise.
        base: see :func:`first_extent`.
        is_copied: whether an extent is read and written; all others are as long as they are.

    Raises:
        SourceError: metadata cannot be read.
    """
    near = min(end, start + CHUNK)
    extent = first_extent(node, start, near, base)
    if extent.end < near or near == end or is_copied(extent):
        return extent
    return first_extent(node, start, end, base)


def copy_data(source: BlockNode, target: BlockNode, offset: int, length: int, *, compress: bool = False) -> None:
    """Read and write; ``compress`` stores whole clusters compressed.

    Raises:
        SourceError: reading failed.
        TargetError: writing failed.
    """
    buffer = _buffer(length)
    with memoryview(buffer)[:length] as view:
        try:
            source.pread(offset, view)
        except OSError as error:
            raise SourceError(error) from None
        try:
            if compress and isinstance(target.driver, Compressing) and offset % target.driver.cluster_size == 0:
                write_compressed(target, offset, view)
            elif not fill(target, offset, view):
                target.pwrite(offset, view)
        except OSError as error:
            raise TargetError(error) from None
    if len(buffer) == CHUNK and len(_buffers) < _SPARE:
        _buffers.append(buffer)


def write_zeroes(node: BlockNode, offset: int, length: int, *, unmap: bool = True) -> None:
    """Zero a range, where it is not known to read as zeroes already.

    Raises:
        TargetError: that failed.
    """
    if hides_backing(node):
        write_own_zeroes(node, offset, length)
        return
    try:
        with held(node):
            missing = [extent for extent in block_status(node, offset, length) if not extent.status & Status.ZERO]
        for extent in missing:
            node.write_zeroes(extent.offset, extent.length, unmap=unmap)
    except OSError as error:
        raise TargetError(error) from None


def hides_backing(node: BlockNode) -> bool:
    """Whether an image was opened without what it records to stand on, which shows through once it is opened again."""
    image = bottom_of_filters(node)
    return image.backing is None and any(reference.child == "backing" for reference in image.driver.references())


def write_own_zeroes(node: BlockNode, offset: int, length: int, *, unmap: bool = False) -> None:
    """Zero a range in an overlay itself, so that it stays zero when what is below is exchanged.

    Raises:
        TargetError: that failed.
    """
    try:
        node.write_zeroes(offset, length, unmap=unmap)
        with held(node):
            left = [extent for extent in node.extents(offset, length) if not extent.status & Status.ALLOCATED]
        for extent in left:
            for start in range(extent.offset, extent.end, CHUNK):
                node.pwrite(start, bytes(min(CHUNK, extent.end - start)))
    except OSError as error:
        raise TargetError(error) from None


def _buffer(length: int) -> bytearray:
    if length <= CHUNK:
        with contextlib.suppress(IndexError):
            return _buffers.pop()
    return bytearray(max(length, CHUNK))


def flush(node: BlockNode) -> None:
    """Sync what was written.

    Raises:
        TargetError: that failed.
    """
    try:
        node.flush()
    except OSError as error:
        raise TargetError(error) from None


def flush_last(*nodes: BlockNode) -> None:
    """Sync what was written, at a job's end, where no error is passed over or waited for.

    Raises:
        OSError: that failed.
    """
    try:
        for node in nodes:
            flush(node)
    except SourceError as failure:
        raise failure.cause from None


def flush_impatiently(node: BlockNode) -> bool:
    """Sync what was written, at the end of a job that nobody wants any more; whether all is.

    A server that has gone is not waited for, and one that hangs for :data:`PATIENCE` seconds: the request goes on then.
    """
    synced = threading.Event()

    def sync() -> None:
        with contextlib.suppress(OSError):
            node.flush()
            synced.set()

    thread = threading.Thread(target=sync, name=f"sync of {node.name}", daemon=True)
    try:
        thread.start()
    except RuntimeError:  # the host has no thread left for us
        return False
    until = time.monotonic() + PATIENCE
    while thread.is_alive() and time.monotonic() < until:
        thread.join(_GLANCE)
        lose_patience(own(node))
    return synced.is_set()


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

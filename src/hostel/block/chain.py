"""Block status through a backing chain: which layer decides each range, without reading data."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

from hostel.block.driver import FilterDriver, FormatDriver
from hostel.block.extent import Status
from hostel.block.node import BlockNode
from hostel.units import SECTOR


class ChainExtent(NamedTuple):
    """A range that one layer of a chain decides.

    Attributes:
        offset: bytes from the start of the top node.
        length: bytes; never 0.
        status: without ``ALLOCATED`` no layer decides it: it reads as zeroes (``ZERO``), or, where the walk had a
            base, as the base reads (no flag at all).
        layer: the node that decides, or the lowest node that was asked.
        depth: how many layers above ``layer`` were asked first.
        host_offset: where the range starts in ``layer``'s child ``file``; None where it has no such place.
        file: the node that ``host_offset`` is of, where the layer's data lies in several, or below another layer.
    """

    offset: int
    length: int
    status: Status
    layer: BlockNode
    depth: int
    host_offset: int | None = None
    file: BlockNode | None = None

    @property
    def direct(self) -> BlockNode | None:
        """What ``host_offset`` is of, where reading it is as good as reading ``layer``; None where it is not."""
        if self.file is None:
            return self.layer.direct
        filtered = _is_filtered(self.layer) or isinstance(self.file.driver, FilterDriver)
        return None if filtered else self.file

    @property
    def end(self) -> int:
        """The first byte after it."""
        return self.offset + self.length


def _is_filtered(layer: BlockNode) -> bool:
    """Whether a filter may be on the way to what a layer shows as its own: a raw one shows all of its child's chain."""
    if layer.format != "raw" or layer.file is None:
        return isinstance(layer.driver, FilterDriver)
    below: BlockNode | None = layer.file
    while below is not None:
        if _is_filtered(below):
            return True
        below = below.backing
    return False


@contextlib.contextmanager
def held(node: BlockNode) -> Iterator[None]:
    """Keep others from writing to a node and what lies below it, as :func:`block_status` needs it."""
    with contextlib.ExitStack() as stack:
        below: BlockNode | None = node
        while below is not None:
            stack.enter_context(below.hold())
            below = _passed_on(below) or below.driver.children.get("backing")
        yield


def rounded_length(node: BlockNode) -> int:
    """A node's length as QEMU counts it: in whole sectors of 512 bytes."""
    return -(-node.length // SECTOR) * SECTOR


def file_end(layer: BlockNode) -> int | None:
    """Where the file of a raw image ends, in bytes: in the middle of its disk's last sector, maybe.

    The image may be part of another raw one, and filters may lie between. None for a format whose file may end
    anywhere, and for direct input and output, which read the block that a file ends in as a whole.
    """
    file = layer
    while (child := _passed_on(file)) is not None:
        file = child
    return None if isinstance(file.driver, FormatDriver) or file.cache.direct else file.length


def length_in_file(extent: ChainExtent) -> int:
    """How much of an extent of data a raw image's file has: a disk's last sector may be more than the file's end."""
    if extent.host_offset is None or (end := file_end(extent.layer)) is None:
        return extent.length
    return max(0, min(extent.length, end - extent.host_offset))


def _passed_on(node: BlockNode) -> BlockNode | None:
    """The child whose bytes a node has for its own; None for one that makes something of them."""
    passes_on = node.format == "raw" or (isinstance(node.driver, FilterDriver) and node.driver.primary)
    return node.file if passes_on else None


def block_status(
    node: BlockNode, offset: int = 0, length: int | None = None, *, base: BlockNode | None = None
) -> Iterator[ChainExtent]:
    """Walk a range of ``node``, and through what it leaves unallocated down its backing chain.

    ``base`` and what lies below it are not asked; it is a node of the chain below ``node``. Beyond the end of a
    shorter backing node reads are zeroes, and that node counts as the one that decides so. Lazy: no node of the chain
    may be written to while the iterator is used.
    """
    if length is None:
        length = node.length - offset
    return _walk(node, offset, length, base, 0)


def _walk(node: BlockNode, offset: int, length: int, base: BlockNode | None, depth: int) -> Iterator[ChainExtent]:
    below = node.backing
    for extent in node.extents(offset, length):
        start, size, status, host_offset, file = extent
        if status & Status.ALLOCATED:
            yield ChainExtent(start, size, status, node, depth, host_offset, file)
        elif below is None:
            yield ChainExtent(start, size, Status.ZERO, node, depth, host_offset, file)
        else:
            inside = max(0, min(size, rounded_length(below) - start))
            if inside and below is base:
                yield ChainExtent(start, inside, Status.UNALLOCATED, node, depth)
            elif inside:
                yield from _walk(below, start, inside, base, depth + 1)
            if inside < size:
                beyond = start + inside
                if below is base:
                    yield ChainExtent(beyond, size - inside, Status.ZERO, node, depth)
                else:
                    yield ChainExtent(beyond, size - inside, Status.ZERO | Status.ALLOCATED, below, depth + 1)


def paired(
    first: Iterator[ChainExtent], second: Iterator[ChainExtent]
) -> Iterator[tuple[int, int, ChainExtent, ChainExtent]]:
    """Walk two images side by side over the same range: start, end, and the extent of each that covers it."""
    one, other = next(first, None), next(second, None)
    while one is not None and other is not None:
        end = min(one.end, other.end)
        yield max(one.offset, other.offset), end, one, other
        if one.end == end:
            one = next(first, None)
        if other.end == end:
            other = next(second, None)

"""Extents: what lies where in a node, without reading it (QEMU's block status)."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from hostel.block.node import BlockNode


class Status(enum.IntFlag):
    """What is known of a range at one layer (``BDRV_BLOCK_*``)."""

    UNALLOCATED = 0  # this layer says nothing: the backing layer shows through, or zeroes where there is none
    DATA = 1  # must be read
    ZERO = 2  # reads as zeroes
    ALLOCATED = 4  # decided by this layer
    COMPRESSED = 8  # stored compressed; has no host offset

    # Flags are tested millions of times, and an enum's own "and" costs ten times an integer's.
    __and__ = int.__and__  # type: ignore[assignment]


class Extent(NamedTuple):
    """A range of one status.

    Attributes:
        offset: bytes from the start of the node.
        length: bytes; never 0.
        status: what is known.
        host_offset: where the range starts in the child ``file`` (or, from the protocol driver, in the host's file);
            None where it has no such place. Within an extent guest and host offsets advance together.
        file: the node that ``host_offset`` is of, where the data lies in several; None for the only one.
    """

    offset: int
    length: int
    status: Status
    host_offset: int | None = None
    file: BlockNode | None = None

    @property
    def end(self) -> int:
        """The first byte after it."""
        return self.offset + self.length


def merge(extents: Iterable[Extent]) -> Iterator[Extent]:
    """Join neighbours of the same status whose host offsets continue."""
    last: Extent | None = None
    for extent in extents:
        if last is not None and last.status == extent.status and last.end == extent.offset:
            continues = (
                extent.host_offset is None
                if last.host_offset is None
                else extent.host_offset == last.host_offset + last.length and extent.file is last.file
            )
            if continues:
                last = Extent(last.offset, last.length + extent.length, last.status, last.host_offset, last.file)
                continue
        if last is not None:
            yield last
        last = extent
    if last is not None:
        yield last

"""Which parts of an image are data, and where they lie."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from hostel.block.chain import ChainExtent, block_status
from hostel.block.extent import Status
from hostel.block.node import BlockNode


class MapEntry(NamedTuple):
    """A range of an image.

    Attributes:
        start: bytes from the start of the image.
        length: bytes.
        depth: how many layers of the chain are above the one that decides.
        present: a layer decides it.
        zero: it reads as zeroes.
        data: it must be read.
        offset: where it lies in ``filename``; None where it has no place of its own.
        filename: the file that holds it.
    """

    start: int
    length: int
    depth: int
    present: bool
    zero: bool
    data: bool
    offset: int | None
    filename: str | None

    @property
    def end(self) -> int:
        """The first byte after it."""
        return self.start + self.length

    def joins(self, following: MapEntry) -> bool:
        """Whether the next entry continues this one."""
        return self[2:6] == following[2:6] and self.filename == following.filename and self._continues(following)

    def _continues(self, following: MapEntry) -> bool:
        if self.offset is None or following.offset is None:
            return self.offset is following.offset
        return self.offset + self.length == following.offset

    def extended(self, following: MapEntry) -> MapEntry:
        """This entry and the one that continues it."""
        return self._replace(length=self.length + following.length)


def map(node: BlockNode, start: int, end: int) -> Iterator[MapEntry]:
    """The entries from ``start`` to ``end``, neighbours joined; nothing is read."""
    last: MapEntry | None = None
    if start >= end:
        return
    for extent in block_status(node, start, end - start):
        for entry in _entries(extent):
            if last is not None and last.joins(entry):
                last = last.extended(entry)
                continue
            if last is not None:
                yield last
            last = entry
    if last is not None:
        yield last


def _entries(extent: ChainExtent) -> Iterator[MapEntry]:
    """An extent of the chain, cut where a raw image's file ends in the middle of a sector."""
    entry = _entry(extent)
    file = extent.layer.storage
    if entry.data and entry.offset is not None and file is not None and extent.layer.format == "raw":
        inside = file.length - entry.offset
        if 0 < inside < entry.length:
            yield entry._replace(length=inside)
            entry = entry._replace(
                start=entry.start + inside,
                length=entry.length - inside,
                zero=True,
                data=False,
                offset=entry.offset + inside,
            )
    yield entry


def _entry(extent: ChainExtent) -> MapEntry:
    """What a chain's extent is on a map."""
    layer, depth = extent.layer, extent.depth
    present = bool(extent.status & Status.ALLOCATED)
    if present and extent.offset >= layer.length:
        # Beyond the end of a shorter backing image: on a map the layer above leaves it out.
        present, depth = False, depth - 1
    file = layer.storage if extent.host_offset is not None else None
    return MapEntry(
        start=extent.offset,
        length=extent.length,
        depth=depth,
        present=present,
        zero=bool(extent.status & Status.ZERO),
        data=bool(extent.status & Status.DATA),
        offset=extent.host_offset,
        filename=file.filename if file is not None else None,
    )

"""Which parts of an image are data, and where they lie."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from hostel.block.chain import ChainExtent, block_status, file_end, rounded_length
from hostel.block.extent import Status
from hostel.block.node import BlockNode

# Present, zero, data: for each sum of flags. What is neither zero nor data is not present: some protocols have such.
_FLAGS: Final = [(flags > Status.ALLOCATED, bool(flags & Status.ZERO), bool(flags & Status.DATA)) for flags in range(8)]


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
        compressed: it is stored compressed; not told where that was not asked for.
    """

    start: int
    length: int
    depth: int
    present: bool
    zero: bool
    data: bool
    offset: int | None
    filename: str | None
    compressed: bool = False

    @property
    def end(self) -> int:
        """The first byte after it."""
        return self.start + self.length

    def joins(self, following: MapEntry) -> bool:
        """Whether the next entry continues this one."""
        return self[2:6] == following[2:6] and self[7:] == following[7:] and self._continues(following)

    def _continues(self, following: MapEntry) -> bool:
        if self.offset is None or following.offset is None:
            return self.offset is following.offset
        return self.offset + self.length == following.offset

    def extended(self, following: MapEntry) -> MapEntry:
        """This entry and the one that continues it."""
        return self._replace(length=self.length + following.length)


class _Layer:
    """What the map needs to know of a layer, asked once: there may be millions of extents.

    Attributes:
        length: bytes that the guest sees of it, whole sectors.
        filename: the file that its data lies in.
        end: where a raw image's file ends; see :func:`hostel.block.chain.file_end`.
    """

    __slots__ = ("end", "filename", "length")

    def __init__(self, node: BlockNode) -> None:
        file = node.storage
        self.length = rounded_length(node)
        self.filename = None if file is None else file.filename
        self.end = file_end(node)


def map(node: BlockNode, start: int, end: int, *, compressed: bool = False) -> Iterator[MapEntry]:
    """The entries from ``start`` to ``end``, neighbours joined; nothing is read.

    Args:
        node: what to map.
        start: bytes from the start of the image.
        end: likewise.
        compressed: tell compressed clusters from others.
    """
    if start >= end:
        return
    layers = {id(layer): _Layer(layer) for layer in node.chain()}
    entries = _entries(block_status(node, start, end - start), layers, int(Status.COMPRESSED) if compressed else 0)
    last = next(entries)
    for entry in entries:
        if last.joins(entry):
            last = last.extended(entry)
        else:
            yield last
            last = entry
    yield last


def _entries(extents: Iterator[ChainExtent], layers: Mapping[int, _Layer], told: int) -> Iterator[MapEntry]:
    """What a chain's extents are on a map; ``told`` is the flag of compressed ones, or 0."""
    for offset, length, status, node, depth, host, file in extents:
        layer = layers[id(node)]
        present, zero, data = _FLAGS[status & 7]
        if present and offset >= layer.length:
            # Beyond the end of a shorter backing image: on a map the layer above leaves it out.
            present, depth = False, depth - 1
        if not (present or zero):
            host = None
        filename = None if host is None else layer.filename if file is None else file.filename
        if data and host is not None and layer.end is not None and host < layer.end < host + length:
            # A raw image's file ends in the middle of a sector.
            inside = layer.end - host
            yield MapEntry(offset, inside, depth, present, zero, data, host, filename)
            offset, length, host, zero, data = offset + inside, length - inside, layer.end, True, False
        yield MapEntry(offset, length, depth, present, zero, data, host, filename, bool(status & told))

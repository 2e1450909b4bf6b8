"""The map of an image without a backing file whose format tells all runs by columns: for millions of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

from hostel.block.node import BlockNode


class Columns(Protocol):
    """Runs in order, without gaps: where they start, how long they are, and where they lie; 0 is nowhere."""

    @property
    def starts(self) -> Sequence[int]:
        """Guest offsets, bytes."""

    @property
    def lengths(self) -> Sequence[int]:
        """Bytes."""

    @property
    def hosts(self) -> Sequence[int]:
        """Host offsets, bytes."""


@runtime_checkable
class Columnar(Protocol):
    """Can tell all runs by columns."""

    def columns(self) -> Iterator[Columns] | None:
        """The runs; None where there is more to say of one than where it lies."""


def rows(node: BlockNode) -> Iterator[list[tuple[int, int, int]]] | None:
    """Lists of starts, lengths and places in the image's file, neighbours joined; None where that is not all."""
    if node.backing is not None or not node.length or not isinstance(node.driver, Columnar):
        return None
    with node.lock():
        found = node.driver.columns()
    return None if found is None else _joined(found)


def _joined(blocks: Iterator[Columns]) -> Iterator[list[tuple[int, int, int]]]:
    last: tuple[int, int, int] | None = None
    for block in blocks:
        found = list(zip(block.starts, block.lengths, block.hosts, strict=True))
        if last is not None:
            _, length, host = found[0]
            if host == (last[2] + last[1] if last[2] else 0):
                found[0] = (last[0], last[1] + length, last[2])
            else:
                found.insert(0, last)
        last = found.pop()
        yield found
    if last is not None:
        yield [last]

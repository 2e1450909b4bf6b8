"""The map of an image without a backing file whose format tells all runs by columns: for millions of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

from hostel.block.node import BlockNode

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Columns(Protocol):
    """Runs in order, without gaps: where they start, how long they are, and where they lie; 0 is nowhere."""

    @property
    def starts(self) -> NDArray[np.uint64]:
        """Guest offsets, bytes."""

    @property
    def lengths(self) -> NDArray[np.uint64]:
        """Bytes."""

    @property
    def hosts(self) -> NDArray[np.uint64]:
        """Host offsets, bytes."""


@runtime_checkable
class Columnar(Protocol):
    """Can tell all runs by columns."""

    def columns(self) -> Iterator[Columns] | None:
        """The runs; None where there are few, or more to say of one than where it lies."""


class Rows(NamedTuple):
    """The columns of :class:`Columns`, at least one row."""

    starts: NDArray[np.uint64]
    lengths: NDArray[np.uint64]
    hosts: NDArray[np.uint64]


def rows(node: BlockNode) -> Iterator[Rows] | None:
    """Columns of starts, lengths and places in the image's file, neighbours joined; None where that is not all."""
    if node.backing is not None or not node.length or not isinstance(node.driver, Columnar):
        return None
    with node.lock():
        found = node.driver.columns()
    return None if found is None else _joined(found)


def _joined(blocks: Iterator[Columns]) -> Iterator[Rows]:
    import numpy as np

    last: Rows | None = None
    for block in blocks:
        found = Rows(block.starts, block.lengths, block.hosts)
        if last is not None:
            length, host = int(last.lengths[0]), int(last.hosts[0])
            if int(found.hosts[0]) == (host + length if host else 0):
                found.lengths[0] += np.uint64(length)
                found.starts[0], found.hosts[0] = last.starts[0], last.hosts[0]
            else:
                found = Rows(*(np.concatenate(pair) for pair in zip(last, found, strict=True)))
        last = Rows(*(column[-1:] for column in found))
        if len(found.starts) > 1:
            yield Rows(*(column[:-1] for column in found))
    if last is not None:
        yield last

"""Limits that hold requests up, and having them hold up nobody while somebody waits for a request's end."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from hostel.block.node import BlockNode


@runtime_checkable
class Restraining(Protocol):
    """A driver that makes requests wait that could be done at once. Calls nest, and any thread may make them."""

    def relax(self) -> None:
        """Let requests through, those that wait too, until :meth:`tighten`."""

    def tighten(self) -> None:
        """Take one :meth:`relax` back."""


@contextlib.contextmanager
def unrestrained(*nodes: BlockNode) -> Iterator[None]:
    """Have no request to the nodes, nor below them, held up by a limit: who waits for its end waits for the disk."""
    with contextlib.ExitStack() as stack:
        for driver in {node.driver for node in below(nodes)}:
            if isinstance(driver, Restraining):
                driver.relax()
                stack.callback(driver.tighten)
        yield


def below(nodes: Sequence[BlockNode]) -> list[BlockNode]:
    """Nodes, and all that they stand on; the target of a job may stand on its source again."""
    found = dict.fromkeys(nodes)
    waiting = list(found)
    for node in waiting:  # which grows meanwhile
        new = [child for child in list(node.driver.children.values()) if child not in found]
        found.update(dict.fromkeys(new))
        waiting += new
    return waiting

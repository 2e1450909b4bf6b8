"""A node that has become another one: what it is asked it passes on, and those who hold it need not know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

from hostel.block.chain import rounded_length
from hostel.block.driver import FilterDriver, OpenMode
from hostel.block.node import BlockNode


class ForwardDriver(FilterDriver):
    """Passes everything on, unchanged."""

    name = "forward"
    implicit = True

    def __init__(self, child: BlockNode) -> None:
        super().__init__({"file": child})

    @classmethod
    def open(cls, children: Mapping[str, BlockNode], mode: OpenMode) -> Self:
        """Put it on a node."""
        return cls(children["file"])

    @property
    def length(self) -> int:
        """The child's, in whole sectors: it may stand in the place of a disk that is as long in these."""
        return rounded_length(self.child)

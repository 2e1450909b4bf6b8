"""A driver that is opened anew in its node's place (:class:`hostel.block.powers.Reopenable`)."""

from __future__ import annotations

from hostel.block.node import BlockNode
from hostel.block.powers import Reopenable


def check_reopened(node: BlockNode, offset: int) -> None:
    """What was written and is held back yet is there for the next driver, which has the same children."""
    node.pwrite(offset, b"written")
    first = node.driver
    assert isinstance(first, Reopenable)
    again = first.reopened(lambda mode: mode._replace(read_only=True))
    assert again.children == first.children
    node.driver = again
    assert node.read(offset, 7) == b"written"

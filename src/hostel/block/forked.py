"""What a forked child may do with its parent's images: nothing that spoils them.

Parent and child would each hold back metadata of its own for one image, and each read the other's replies from one
connection. What both can use is files that are only read, and raw ones, of which nothing is known beyond their bytes.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from hostel.block.powers import Divisible

if TYPE_CHECKING:
    from hostel.block.node import BlockNode

_NODES: Final[weakref.WeakSet[BlockNode]] = weakref.WeakSet()


def watch(node: BlockNode) -> None:
    """Take a node away from the children that this process forks, where it would spoil it."""
    _NODES.add(node)


def _in_child() -> None:
    """Sort the parent's nodes, in the only thread that the child has: it waits for no lock that another one had."""
    for node in list(_NODES):
        if not node.closed and not (_is_shareable(node) and _divide(node)):
            node.disown(
                f"'{node.filename}' was opened by process {os.getppid()}, of which this one is a fork; open it here"
            )


def in_child(act: Callable[[], object]) -> None:
    """Have something done in each child that this process forks; nothing where the system has no forks."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=act)


def _is_shareable(node: BlockNode) -> bool:
    """Whether two processes can use a node without knowing of each other."""
    if isinstance(node.driver, Divisible):
        return True
    if not (node.read_only or node.format == "raw"):
        return False
    children = list(node.driver.children.values())
    return bool(children) and all(map(_is_shareable, children))


def _divide(node: BlockNode) -> bool:
    """Let the child go on with a node by itself; False where a request is under way, which nobody ends there."""
    if not node.divide():
        return False
    if isinstance(node.driver, Divisible):
        node.driver.divide()
    return True


in_child(_in_child)

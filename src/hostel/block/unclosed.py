"""Images that a program opened for writing, and leaves to its end: they are closed then.

A format holds metadata back until it is flushed or closed, without which the data is not in the image.
"""

from __future__ import annotations

import atexit
from typing import TYPE_CHECKING, Final

from hostel.block.forked import in_child

if TYPE_CHECKING:
    from hostel.block.node import BlockNode

_NODES: Final[dict[int, BlockNode]] = {}  # in the order of opening


def remember(node: BlockNode) -> None:
    """Close a node at the end of the program, if nobody has by then."""
    _NODES[id(node)] = node


def forget(node: BlockNode) -> None:
    """The node is closed; harmless for one that was not remembered."""
    _NODES.pop(id(node), None)


def forget_all() -> None:
    """Close nothing at the end of the program: something hangs."""
    _NODES.clear()


def _close() -> None:
    """Close what is left, as a file object would; it is too late to raise, so what fails is a warning."""
    told: list[tuple[str, type[Warning]]] = []
    while _NODES:
        _, node = _NODES.popitem()
        told.append((f"unclosed image '{node.filename}'", ResourceWarning))
        try:
            while not node.closed:
                node.close()
        except Exception as error:  # which must not keep the others from being closed
            reason = (error.strerror if isinstance(error, OSError) else None) or repr(error)
            told.append((f"'{node.filename}' was not closed, and could not be at the end: {reason}", RuntimeWarning))
    for message, kind in told:  # afterwards, since a warning may be an error
        import warnings

        warnings.warn(message, kind, stacklevel=1)


atexit.register(_close)
in_child(forget_all)  # they are the parent's

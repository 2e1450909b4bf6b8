"""What nodes are called: by the file that they lie in, or where that does not say everything, by what opens them."""

from __future__ import annotations

from typing import Any, Final

from hostel.block import blockdev, registry
from hostel.block.driver import Supports
from hostel.block.filename import resolve
from hostel.block.node import BlockNode
from hostel.block.rewiring import unfiltered

# Options that change what there is to be read: a name that leaves them out would open something else.
_STRONG: Final = {
    **blockdev.STRONG,
    "quorum": ("vote-threshold", "blkverify", "rewrite-corrupted", "read-pattern"),
    "throttle": ("throttle-group",),
}


def full_name(node: BlockNode) -> str:
    """The name of a node, with what it stands on where its own metadata does not say that."""
    return _described(node)[0]


def filtered(node: BlockNode) -> BlockNode | None:
    """The node whose bytes a filter shows; None for what is no filter, or lays several together."""
    node = unfiltered(node)
    row = registry.FILTERS.get(node.format)
    return None if row is None or row.lists else node.driver.children[row.edges[0]]


def _described(node: BlockNode) -> tuple[str, dict[str, Any]]:
    """A node's name, and the options that open it."""
    node = unfiltered(node)
    children, row = node.driver.children, registry.FILTERS.get(node.format)
    opened = blockdev.tree_of(node)
    if not children or (row is not None and row.scheme):
        return node.filename, opened
    given = node.given or opened
    strong = {key: given[key] for key in _STRONG.get(node.format, ()) if key in given}
    tree: dict[str, Any] = {"driver": node.format, **strong}
    if row is not None and row.lists:
        tree[row.edges[0]] = [_described(child)[1] for child in children.values()]
    else:
        edges = row.edges if row is not None else ("file", *registry.FORMATS[node.format].parts)
        tree |= {edge: _described(children[edge])[1] for edge in edges if edge in children}
    below = _unrecorded_backing(node)
    if row is None and not strong and not below and node.file is not None:
        file = unfiltered(node.file)
        if not file.driver.children and not file.filename.startswith(blockdev.JSON_PREFIX):
            return file.filename, tree
    return blockdev.json_name({**tree, **below}), {**tree, **below}


def _unrecorded_backing(node: BlockNode) -> dict[str, Any]:
    """What has to be said of an overlay's backing file: nothing where it is the one that the image records."""
    if not node.driver.supports & Supports.BACKING:
        return {}
    recorded = next((each.filename for each in node.driver.references() if each.child == "backing"), None)
    if node.backing is None:
        return {} if recorded is None else {"backing": None}
    name, tree = _described(node.backing)
    return {} if resolve(recorded or "", node.place) == name else {"backing": tree}

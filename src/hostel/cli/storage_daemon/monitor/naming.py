"""What nodes are called: by the file that they lie in, or where that does not say everything, by what opens them."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

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
    "blklogwrites": ("log-append", "log-sector-size"),
    "qcow": ("encrypt.key-secret",),
}


class _Described(NamedTuple):
    """The options that open a node, and its name; None where only the options say everything."""

    tree: dict[str, Any]
    plain: str | None


def full_name(node: BlockNode) -> str:
    """The name of a node, with what it stands on where its own metadata does not say that."""
    return Names().of(node)


def filtered(node: BlockNode) -> BlockNode | None:
    """The node whose bytes a filter shows; None for what is no filter, or lays several together."""
    node = unfiltered(node)
    row = registry.FILTERS.get(node.format)
    return None if row is None or row.lists else node.driver.children[row.edges[0]]


class Names:
    """What nodes are called, for a query in which none of them changes: each is looked at once.

    A name has what the node stands on where its own metadata does not say that.
    """

    def __init__(self) -> None:
        self._found: dict[BlockNode, _Described] = {}
        self._names: dict[BlockNode, str] = {}

    def of(self, node: BlockNode) -> str:
        """The name of a node."""
        node = unfiltered(node)
        name = self._names.get(node)
        if name is None:
            found = self._described(node)
            name = blockdev.json_name(found.tree) if found.plain is None else found.plain
            self._names[node] = name
        return name

    def _described(self, node: BlockNode) -> _Described:
        node = unfiltered(node)
        found = self._found.get(node)
        if found is None:
            found = self._found[node] = self._describe(node)
        return found

    def _describe(self, node: BlockNode) -> _Described:
        children, row = node.driver.children, registry.FILTERS.get(node.format)
        opened = blockdev.tree_of(node)
        if not children or (row is not None and row.scheme):
            return _Described(opened, node.filename)
        given = node.given or opened
        strong = {key: given[key] for key in _STRONG.get(node.format, ()) if key in given}
        tree: dict[str, Any] = {"driver": node.format, **strong}
        if row is not None and row.lists:
            tree[row.edges[0]] = [self._described(child).tree for child in children.values()]
        else:
            edges = row.edges if row is not None else ("file", *registry.FORMATS[node.format].parts)
            tree |= {edge: self._described(children[edge]).tree for edge in edges if edge in children}
        below = self._unrecorded_backing(node)
        if row is None and not strong and not below and node.file is not None:
            file = unfiltered(node.file)
            if not file.driver.children and not file.filename.startswith(blockdev.JSON_PREFIX):
                return _Described(tree, file.filename)
        return _Described({**tree, **below}, None)

    def _unrecorded_backing(self, node: BlockNode) -> dict[str, Any]:
        """What has to be said of an overlay's backing file: nothing where it is the one that the image records."""
        if not node.driver.supports & Supports.BACKING:
            return {}
        recorded = next((each.filename for each in node.driver.references() if each.child == "backing"), None)
        if node.backing is None:
            return {} if recorded is None else {"backing": None}
        below, name = self._described(node.backing), resolve(recorded or "", node.place)
        # JSON is written only to be compared with JSON: it grows with each layer.
        is_recorded = name == below.plain or (name.startswith(blockdev.JSON_PREFIX) and name == self.of(node.backing))
        return {} if is_recorded else {"backing": below.tree}

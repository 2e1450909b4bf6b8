"""A node and all that it stands on: going through them, and what must hold of them together."""

from __future__ import annotations

import errno
from collections.abc import Iterator

from hostel.block.driver import FilterDriver
from hostel.block.node import BlockNode
from hostel.block.options import OptionError
from hostel.errors import BlockError, ReadOnly


def tree(node: BlockNode) -> list[BlockNode]:
    """A node and all below it, each once, children first; the target of a backup may stand on its source."""
    found: dict[int, BlockNode] = {}
    seen: set[int] = set()

    def visit(each: BlockNode) -> None:
        if id(each) in seen:
            return
        seen.add(id(each))
        for child in list(each.driver.children.values()):
            visit(child)
        found[id(each)] = each

    visit(node)
    return list(found.values())


def in_order_of_opening(node: BlockNode) -> list[BlockNode]:
    """The same as QEMU names them: what holds a node's bytes, the node, what else it opens, what it stands on."""
    found: dict[int, BlockNode] = {}
    seen: set[int] = set()

    def visit(each: BlockNode) -> None:
        if id(each) in seen:
            return
        seen.add(id(each))
        children = dict(each.driver.children)
        if each.driver.primary == "file" and "file" in children:
            visit(children.pop("file"))
        found.setdefault(id(each), each)
        backing = children.pop("backing", None)
        for child in children.values():
            visit(child)
        if backing is not None:
            visit(backing)

    visit(node)
    return list(found.values())


def layers(node: BlockNode) -> Iterator[BlockNode]:
    """A node, what it filters, what that stands on, and so on down: each node that shows the disk or a part of it."""
    below: BlockNode | None = node
    while below is not None:
        yield below
        driver = below.driver
        is_filter = isinstance(driver, FilterDriver) and driver.primary
        below = driver.children.get(driver.primary if is_filter else "backing")


def own(node: BlockNode) -> Iterator[BlockNode]:
    """A node and those that hold what is its own: all below it but what overlays stand on."""
    yield node
    for role, child in node.driver.children.items():
        if role != "backing":
            yield from own(child)


def require_writable(node: BlockNode) -> None:
    """Refuse to write what stands on nodes that were opened for reading.

    What an overlay stands on always is, and a header that lies apart from its data is written only where keys change.

    Raises:
        ReadOnly: with QEMU's text.
    """
    if node.read_only:
        raise ReadOnly("Block node is read-only", errno=errno.EACCES)
    for edge, child in node.driver.children.items():
        if edge not in ("backing", "header"):
            require_writable(child)


def require_apart(source: BlockNode, target: BlockNode) -> None:
    """Refuse to copy a disk to a node that it stands on, which would change it meanwhile.

    Raises:
        BlockError: it does; with QEMU's text.
    """
    above = next(
        (
            each
            for each in layers(source)
            if any(child is target for edge, child in each.driver.children.items() if edge != "target")
        ),
        None,
    )
    if above is not None:
        raise BlockError(
            f"Permission conflict on node '{target.name}': permissions 'write' are both required by node "
            f"'{source.name}' (uses node '{target.name}' as 'target' child) and unshared by node '{above.name}' "
            f"(uses node '{target.name}' as 'backing' child).",
            errno=errno.EPERM,
        )


def require_distinct(node: BlockNode) -> None:
    """Refuse two nodes of one name.

    Raises:
        OptionError: with QEMU's text.
    """
    names: set[str] = set()
    for each in tree(node):
        if each.name in names:
            raise OptionError(f"Duplicate nodes with node-name='{each.name}'")
        names.add(each.name)

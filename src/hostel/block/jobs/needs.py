"""What each job does with nodes, and lets others do meanwhile: QEMU's (``block/{mirror,commit,stream,backup}.c``)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from hostel.block.driver import FilterDriver
from hostel.block.node import BlockNode
from hostel.block.permission import Permission
from hostel.block.rewiring import bottom_of_filters, present, unfiltered
from hostel.block.tree import tree
from hostel.block.uses import Layer, Passing, Use, by_device

_NOTHING: Final = Permission.NONE
_READ: Final = Permission.CONSISTENT_READ
_WRITE: Final = Permission.WRITE
_SAME: Final = Permission.WRITE_UNCHANGED
_INTERMEDIATE: Final = "intermediate node"


class Need(NamedTuple):
    """A use that a job has until it is over.

    Attributes:
        node: what is used.
        use: how; or a filter of the job's, which is put over the node.
        reopened: what is read-only of the node will be opened for writing.
        until_replaced: it ends where the node takes another one's place.
    """

    node: BlockNode
    use: Use | Layer
    reopened: bool = False
    until_replaced: bool = False


def of_backup(job: str, name: str, source: BlockNode, target: BlockNode) -> list[Need]:
    """Those of a backup whose filter has this name."""
    copied = Use(f"node '{name}'", "target", _WRITE, ~Permission.RESIZE & Permission.ALL)
    return [
        Need(target, copied),
        Need(source, Layer(name, Passing.BACKUP, [_of("backup", job, "main node")], map(id, tree(target)))),
        Need(target, _of("backup", job, "target")),
    ]


def of_mirror(job: str, name: str, source: BlockNode, target: BlockNode) -> list[Need]:
    """Those of a mirror."""
    return [
        Need(source, Layer(name, Passing.MIRROR, [_of("mirror", job, "main node", _READ, _READ | _SAME | _WRITE)])),
        Need(target, by_device(_WRITE, _SAME), until_replaced=True),
        Need(source, _of("mirror", job, "source", _NOTHING, _READ | _SAME | _WRITE)),
        Need(target, _of("mirror", job, "target")),
    ]


def of_active_commit(job: str, name: str, top: BlockNode, base: BlockNode) -> list[Need]:
    """Those of a commit of the active layer."""
    between, base = _down_to(top, base)
    growing = Permission.RESIZE if base.length < top.length else _NOTHING
    return [
        Need(top, Layer(name, Passing.ACTIVE_COMMIT, [_of("commit", job, "main node", _READ, _READ | _SAME | _WRITE)])),
        Need(base, by_device(_WRITE | growing, _SAME | _READ | _WRITE), reopened=True, until_replaced=True),
        Need(top, _of("commit", job, "source", _NOTHING, _READ | _SAME | _WRITE), reopened=True),
        Need(base, _of("commit", job, "target"), reopened=True),
        *(_committed(job, node, base) for node in between),
    ]


def of_commit(job: str, name: str, root: BlockNode, top: BlockNode, base: BlockNode) -> list[Need]:
    """Those of a commit below the active layer."""
    _, top = _down_to(root, top)
    between, base = _down_to(top, base)
    growing = Permission.RESIZE if base.length < top.length else _NOTHING
    return [
        Need(root, _of("commit", job, "main node")),
        Need(top, Layer(name, Passing.COMMIT)),
        *(_committed(job, node, base) for node in [top, *between]),
        Need(base, _of("commit", job, "base")),
        Need(base, by_device(_READ | _WRITE | growing, _READ | _SAME), reopened=True),
        Need(top, by_device(_NOTHING), reopened=True),
    ]


def of_stream(job: str, name: str, node: BlockNode, base: BlockNode | None) -> list[Need]:
    """Those of a stream."""
    between, _ = _down_to(node, base)
    reader = by_device(_READ, _READ | _SAME | _WRITE)
    return [
        Need(node, Layer(name, Passing.STREAM, [_of("stream", job, "main node"), reader])),
        Need(node, _of("stream", job, "active node", _NOTHING, _READ | _SAME | _WRITE)),
        *(Need(each, _of("stream", job, _INTERMEDIATE, _NOTHING, _READ | _SAME)) for each in between),
    ]


def _of(kind: str, job: str, edge: str, used: Permission = _NOTHING, shared: Permission = Permission.ALL) -> Use:
    return Use(f"{kind} job '{job}'", edge, used, shared)


def _committed(job: str, node: BlockNode, base: BlockNode) -> Need:
    """A node that will be gone: nobody can read it consistently, unless it is a filter on the base."""
    is_base = bottom_of_filters(node) is bottom_of_filters(base)
    return Need(
        node,
        _of("commit", job, _INTERMEDIATE, _NOTHING, _SAME | _WRITE | (_READ if is_base else _NOTHING)),
        reopened=True,
    )


def _down_to(node: BlockNode, base: BlockNode | None) -> tuple[list[BlockNode], BlockNode]:
    """The nodes between one and another below it, and that one as it is known to its users."""
    between: list[BlockNode] = []
    for each in _below(node):
        if base is not None and unfiltered(each) is unfiltered(base):
            return between, each
        between.append(each)
    return between, node


def _below(node: BlockNode) -> Iterator[BlockNode]:
    while True:
        image = unfiltered(node)
        is_filter = isinstance(image.driver, FilterDriver) and image.driver.primary
        child = image.driver.children.get(image.driver.primary if is_filter else "backing")
        if child is None:
            return
        node = present(child)
        yield node

"""The kinds of exports: what ``block-export-add`` takes for each, and what one that runs can be asked."""

from __future__ import annotations

import contextlib
import importlib
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple

from hostel.block import objects
from hostel.block.driver import Cache, FilterDriver, OpenMode
from hostel.block.node import BlockNode
from hostel.block.nodes import NodeTable
from hostel.block.permission import Permission
from hostel.block.restraint import unrestrained
from hostel.block.uses import by_device
from hostel.cli.storage_daemon.monitor.parameter import Kind, Parameter, check, generic, needed

if TYPE_CHECKING:
    from hostel.cli.storage_daemon.daemon import Daemon

_IDENTIFIER: Final = re.compile(r"[A-Za-z][A-Za-z0-9._-]*", re.ASCII)


class ExportKind(NamedTuple):
    """A kind of exports.

    Attributes:
        target: ``module:Class`` of what runs one.
        parameters: what it takes beside what all take.
    """

    target: str
    parameters: tuple[Parameter, ...]


KINDS: Final[Mapping[str, ExportKind]] = {
    "nbd": ExportKind(
        "hostel.cli.storage_daemon.nbd:NbdRunning",
        (
            Parameter("name"),
            Parameter("description"),
            Parameter("bitmaps", Kind.ARRAY),
            Parameter("allocation-depth", Kind.BOOL),
        ),
    ),
    "vhost-user-blk": ExportKind(
        "hostel.cli.storage_daemon.vhost_user_blk:VhostUserBlkRunning",
        (
            needed("addr", Kind.OBJECT),
            Parameter("logical-block-size", Kind.SIZE),
            Parameter("num-queues", Kind.UINT16),
        ),
    ),
    "fuse": ExportKind(
        "hostel.cli.storage_daemon.fuse:FuseRunning",
        (
            needed("mountpoint"),
            Parameter("growable", Kind.BOOL),
            Parameter("allow-other", values=("off", "on", "auto")),
        ),
    ),
}
COMMON: Final = (
    needed("type", values=("nbd", "vhost-user-blk", "fuse", "vduse-blk")),
    needed("id"),
    Parameter("fixed-iothread", Kind.BOOL),
    Parameter("iothread"),
    needed("node-name"),
    Parameter("writable", Kind.BOOL),
    Parameter("writethrough", Kind.BOOL),
)


class Export:
    """An export that runs; subclasses serve it.

    Args:
        daemon: whose it is.
        node: what is exported; an export is one of its users until it is closed.
        given: the checked parameters.
        text: values within them are text, from a command line.

    Attributes:
        kind: its type, as the monitor calls it.
        id: its name for the monitor.
        node: the node itself.
        root: what clients read and write: the node, or the node with each write made durable.
        from_text: values within its parameters are text.
        shutting_down: it is about to end.
    """

    kind: ClassVar[str]
    shared: ClassVar[Permission] = Permission.ALL

    def __init__(self, daemon: Daemon, node: BlockNode, given: Mapping[str, Any], *, text: bool) -> None:
        self.id: str = given["id"]
        self.from_text = text
        self.node = node
        self.writable: bool = given.get("writable", False)
        self.shutting_down = False
        self._nodes: NodeTable = daemon.nodes
        used = Permission.CONSISTENT_READ | (Permission.WRITE if self.writable else Permission.NONE)
        self._use = by_device(used | self.needed(given), self.shared)
        with contextlib.ExitStack() as stack:
            # What it shares less than others comes second, as in QEMU: of two conflicts that one is told.
            everything = self._use._replace(shared=Permission.ALL)
            self._nodes.hold(node, everything)
            self._nodes.release(node, everything)
            self._nodes.hold(node, self._use)
            stack.callback(self._nodes.release, node, self._use)
            self.root = _writethrough(node) if given.get("writethrough", False) else node.share()
            stack.callback(self.root.close)
            self.start(daemon, given)
            stack.pop_all()

    def needed(self, given: Mapping[str, Any]) -> Permission:
        """What it uses of the node beside reading it, and writing where that is allowed."""
        return Permission.NONE

    def start(self, daemon: Daemon, given: Mapping[str, Any]) -> None:
        """Begin to serve; what fails here leaves nothing behind."""

    def stop(self) -> None:
        """End all clients, and wait for that."""

    def is_used(self) -> bool:
        """Whether a client would be cut off."""
        return False

    def resized(self) -> None:
        """Tell clients where the node has another size than they know, if they can be told; any thread may call it."""

    def close(self) -> None:
        """End the export; once is enough.

        Raises:
            OSError: requests do not end, or what was held back could not be written.
        """
        if self.shutting_down:
            return
        self.shutting_down = True
        with contextlib.ExitStack() as stack:
            stack.callback(self._nodes.release, self.node, self._use)
            stack.callback(self.root.close)
            with unrestrained(self.root):
                self.stop()


class _Writethrough(FilterDriver):
    """Passes everything on: its node syncs each write."""

    name = "writethrough"

    @classmethod
    def open(cls, children: Mapping[str, BlockNode], mode: OpenMode) -> _Writethrough:
        """Put it on a node."""
        return cls(children)


def _writethrough(node: BlockNode) -> BlockNode:
    mode = OpenMode(read_only=node.read_only, cache=Cache(writethrough=True))
    driver = _Writethrough.open({"file": node.share()}, mode)
    return BlockNode(driver, node.filename, read_only=node.read_only, cache=mode.cache)


def add(daemon: Daemon, given: Mapping[str, Any], *, text: bool = False) -> Export:
    """Make an export as ``block-export-add`` says.

    Args:
        daemon: whose it will be.
        given: the arguments.
        text: their values are text, from a command line.

    Raises:
        QmpError: an argument is wrong; the text is QEMU's.
        BlockError: the node, or what serves it, is not to be had.
    """
    kind = given.get("type")
    row = KINDS.get(str(kind))
    known = COMMON + (row.parameters if row is not None else ())
    checked = check(
        known if row is not None else COMMON[:1], given if row is not None else _only(given, "type"), text=text
    )
    if row is None:
        raise generic(f"{kind} exports are not supported here")
    if not _IDENTIFIER.fullmatch(checked["id"]):
        raise generic("Invalid block export id")
    if checked["id"] in daemon.exports:
        raise generic(f"Block export id '{checked['id']}' is already in use")
    node = daemon.nodes.find(checked["node-name"])
    if node.read_only and checked.get("writable"):
        raise generic("Cannot export read-only node as writable")
    if "iothread" in checked and objects.find(checked["iothread"]) != "iothread":
        raise generic(f'iothread "{checked["iothread"]}" not found')
    module, _, name = row.target.partition(":")
    running: type[Export] = getattr(importlib.import_module(module), name)
    export = running(daemon, node, checked, text=text)
    daemon.exports[export.id] = export
    return export


def _only(given: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {name: given[name]} if name in given else {}


def remove(daemon: Daemon, identifier: str, *, hard: bool) -> None:
    """End an export; where not ``hard``, only one that no client uses.

    Raises:
        QmpError: there is none of this id, or a client uses it.
    """
    export = daemon.exports.get(identifier)
    if export is None:
        raise generic(f"Export '{identifier}' is not found")
    if not hard and export.is_used():
        raise generic(f"export '{identifier}' still in use")
    daemon.remove_export(export)

"""Nodes by their names: what ``blockdev-add`` opens, who uses each, and what one user forbids another.

Permissions are QEMU's: a user says what it does with a node and what others may do meanwhile. What the nodes above
another one use of it follows from what they are, and from their own users.
"""

from __future__ import annotations

import errno
import functools
import threading
from collections.abc import Iterator, Mapping, Sequence, ValuesView
from typing import Any, Final, NamedTuple

from hostel.block import blockdev, graph, reopening, schema
from hostel.block.driver import FilterDriver
from hostel.block.filters.copy_on_read import CopyOnReadDriver
from hostel.block.filters.forward import ForwardDriver
from hostel.block.filters.quorum import QuorumDriver
from hostel.block.formats.raw import RawDriver
from hostel.block.node import BlockNode
from hostel.block.options import OptionError
from hostel.block.permission import Permission
from hostel.block.powers import Named
from hostel.block.protocols.file import FileDriver
from hostel.block.rewiring import end_writing, held_image, present, unfiltered
from hostel.block.tree import in_order_of_opening, tree
from hostel.block.uses import Layer, Level, Parent, Use, combined, conflict, levels
from hostel.errors import BlockError, ReadOnly

_CHANGES: Final = Permission.WRITE | Permission.RESIZE
_WRITES: Final = Permission.WRITE | Permission.WRITE_UNCHANGED
_UNWRITABLE: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


class JobFilter(NamedTuple):
    """A filter that a job has put into a node, under the name that its user has chosen.

    Attributes:
        driver: what it is called: ``mirror_top``, ``copy-before-write``.
        node: the one that it is in.
    """

    driver: str
    node: BlockNode


class NodeTable(Mapping[str, BlockNode]):
    """The open nodes of a process, those first that others stand on.

    For one thread at a time, but that those of jobs take nodes out, and exchange them, meanwhile. So no mapping is
    changed: a new one takes its place, and who goes through the old one goes on with that.

    The name of a job's filter leads to the node that the filter is in; :attr:`filters` lists those.

    Attributes:
        filters: those that have names, the oldest first.
    """

    def __init__(self) -> None:
        self._nodes: dict[str, BlockNode] = {}
        self.filters: Mapping[str, JobFilter] = {}
        self._owned: dict[str, BlockNode] = {}
        self._holds: dict[str, list[Use | Layer]] = {}
        self._changing = threading.Lock()

    def __getitem__(self, name: str) -> BlockNode:
        found = self.filters.get(name)
        node = self._nodes[name] if found is None else found.node
        if node.closed:
            raise KeyError(name)
        return node

    def __iter__(self) -> Iterator[str]:
        return iter(self._present())

    def __len__(self) -> int:
        return len(self._present())

    def values(self) -> ValuesView[BlockNode]:
        """The nodes of this moment: one that Mapping found by its name could have closed in between."""
        return self._present().values()

    def _present(self) -> dict[str, BlockNode]:
        return {name: node for name, node in self._nodes.items() if not node.closed}

    def find(self, name: str, device: str = "") -> BlockNode:
        """A node by its name.

        Raises:
            BlockError: there is none; with QEMU's text.
        """
        found = self.get(name) or self.get(device)
        if found is None:
            raise BlockError(f"Cannot find device='{device}' nor node-name='{name}'", errno=errno.ENODEV)
        return found

    def add(self, tree: Mapping[str, Any], *, text: bool = False) -> BlockNode:
        """Open a node and what is below it; the table's owner owns it.

        Args:
            tree: the options of ``blockdev-add``, nested as in JSON; children are objects, or names of open nodes.
            text: values are text, from a command line.

        Raises:
            BlockError: with QEMU's text.
            OSError: the host's own errors.
        """
        schema.check(tree, text=text)
        name = str(tree.get("node-name", ""))
        if not name:
            raise OptionError("'node-name' must be specified for the root node")
        given = {"discard": "ignore", **dict(blockdev.flatten(blockdev.typed(tree) if text else tree))}
        for each in schema.names(tree):
            self._require_free(each)
        with schema.in_words_of_the_schema(tree):
            node = self._open(given)
        try:
            self.adopt(node)
        except BaseException:
            node.close()
            self.forget_closed()
            raise
        with self._changing:
            self._owned = {**self._owned, name: node}
        reopening.remember(node, given)
        return node

    def reopen(self, trees: Sequence[Mapping[str, Any]]) -> None:
        """Open nodes again in their places with other options; see :mod:`hostel.block.reopening`.

        Args:
            trees: the options of ``blockdev-reopen``: each is what ``blockdev-add`` takes.

        Raises:
            BlockError: with QEMU's text; all nodes are as before then.
            OSError: the host's own errors; likewise.
        """
        wanted: list[tuple[BlockNode, blockdev.Described, dict[str, Any]]] = []
        for index, options in enumerate(trees):
            schema.check(options, text=False, path=f"options[{index}].")
            name = options.get("node-name")
            if name is None:
                raise OptionError("node-name not specified")
            node = self._nodes.get(name)
            if node is None:
                raise BlockError(f"Failed to find node with node-name='{name}'", errno=errno.ENOENT)
            given = dict(blockdev.flatten(options))
            for edge in ("file", "backing"):
                if isinstance(given.get(edge), str):
                    self.find(given[edge])
            with schema.in_words_of_the_schema(options, f"options[{index}]."):
                wanted.append((node, _describe(given, self._nodes), given))
        reopening.reopen(self, wanted)
        self.forget_closed()

    def attach(self, parent: BlockNode, name: str) -> None:
        """Take a node in among the copies of a quorum.

        Raises:
            BlockError: it cannot be; with QEMU's text.
        """
        driver = unfiltered(parent).driver
        if not isinstance(driver, QuorumDriver):
            raise BlockError(f"The node {parent.name} does not support adding a child", errno=errno.ENOTSUP)
        node = self[name]
        if self.uses(node):
            raise BlockError(f"The node {name} already has a parent", errno=errno.EINVAL)
        if parent in tree(node):
            what = f"Making '{name}' a {driver.next_edge} child of '{parent.name}'"
            raise BlockError(f"{what} would create a cycle", errno=errno.EINVAL)
        with held_image(parent) as image:
            edge = driver.add(node.share())
            try:
                self.require_compatible(parent)
            except BaseException:
                driver.drop(edge).close()
                raise
            blockdev.rename(image)

    def detach(self, parent: BlockNode, edge: str) -> None:
        """Leave one of a quorum's copies out.

        Raises:
            BlockError: it cannot be; with QEMU's text.
            OSError: what it held back could not be written.
        """
        driver = unfiltered(parent).driver
        if edge not in driver.children:
            raise BlockError(f"Node '{parent.name}' does not have child '{edge}'", errno=errno.EINVAL)
        if not isinstance(driver, QuorumDriver):
            raise BlockError(f"The node {parent.name} does not support removing a child", errno=errno.ENOTSUP)
        with held_image(parent) as image:
            node = driver.drop(edge)
            blockdev.rename(image)
        try:
            node.close()
        finally:
            self.forget_closed()

    def adopt(self, node: BlockNode) -> None:
        """Take a node, and those below it, in; the caller closes it.

        Raises:
            OptionError: a name is taken.
            BlockError: a node below it is used in a way that forbids this; nothing is taken in then.
        """
        below = in_order_of_opening(node)
        # What bitmaps and jobs have put their filters over has the name of the node that it is in.
        hidden = [each.driver.child for each in below if isinstance(each.driver, FilterDriver) and each.driver.implicit]
        new = [each for each in below if self._nodes.get(each.name) is not each and each not in hidden]
        taken: list[str] = []
        try:
            for each in new:
                with self._changing:
                    self._require_free(each.name)
                    self._nodes = {**self._nodes, each.name: each}
                taken.append(each.name)
                if isinstance(each.driver, Named):
                    each.driver.called = functools.partial(_name, each)
            self.require_compatible(node)
        except BlockError:
            with self._changing:
                self._nodes = {name: found for name, found in self._nodes.items() if name not in taken}
            raise

    def _require_free(self, name: str) -> None:
        if name in self:
            raise OptionError(f"Duplicate nodes with node-name='{name}'")

    def name_filter(self, name: str, driver: str, node: BlockNode) -> None:
        """Let a job's filter be found under a name, until :meth:`forget_filter`.

        Raises:
            OptionError: the name is taken, or none; with QEMU's text.
        """
        blockdev.check_node_name(name)
        self._require_free(name)
        with self._changing:
            self.filters = {**self.filters, name: JobFilter(driver, node)}

    def forget_filter(self, name: str) -> None:
        """A filter is no more; any thread may call it."""
        with self._changing:
            self.filters = {each: found for each, found in self.filters.items() if each != name}

    def remove(self, name: str) -> None:
        """Close a node that :meth:`add` opened, and what only it used.

        Raises:
            BlockError: there is none, it is not the owner's, or it is used; with QEMU's text.
            OSError: what was held back could not be written; the node is closed nevertheless, but for EBUSY.
        """
        self.forget_closed()
        node = self._nodes.get(name)
        if node is None and name not in self.filters:
            raise BlockError(f"Failed to find node with node-name='{name}'", errno=errno.ENOENT)
        if node is None or any(use.edge == "root" for use in self.uses(node)):
            raise BlockError(f"Node {name} is in use", errno=errno.EBUSY)
        self.require_top(node)
        node.require_unblocked()
        if name not in self._owned:
            raise BlockError(f"Node {name} is not owned by the monitor", errno=errno.EPERM)
        if self.uses(node):
            raise BlockError(f"Block device {name} is in use", errno=errno.EBUSY)
        with self._changing:
            self._owned = {each: owned for each, owned in self._owned.items() if each != name}
        try:
            node.close()
        except OSError:
            if not node.closed:
                with self._changing:
                    self._owned = {**self._owned, name: node}
            raise
        finally:
            self.forget_closed()

    def close(self) -> None:
        """Close all that :meth:`add` opened, what stands on others first.

        Raises:
            OSError: the first failure to write what was held back; everything is closed nevertheless.
        """
        failure: OSError | None = None
        for node in self.take_owned():
            try:
                node.close()
            except OSError as error:
                failure = failure or error
        self.forget_closed()
        if failure is not None:
            raise failure

    def take_owned(self) -> list[BlockNode]:
        """All that :meth:`add` opened, what stands on others first: from now on the caller's to close."""
        with self._changing:
            owned, self._owned = self._owned, {}
        return list(reversed(owned.values()))

    def hold(self, node: BlockNode, use: Use | Layer, *, reopened: bool = False) -> None:
        """Let somebody who is no node use a node, or put a job's filter over it, until :meth:`release`.

        Args:
            node: which.
            use: how.
            reopened: what is read-only will be opened for writing.

        Raises:
            BlockError: another user forbids it, or it another user; with QEMU's text.
            ImageLocked: another process does.
        """
        if isinstance(use, Layer):
            use.above = frozenset(key for key, _ in self._users(node) if key[0] not in use.apart)
        with self._changing:
            self._holds = {**self._holds, node.name: [*self._holds.get(node.name, []), use]}
        try:
            self.require_compatible(node, reopened=reopened)
            if isinstance(node.driver, FileDriver):
                node.driver.lock(*self.permissions(node))
        except BaseException:
            self.release(node, use)
            raise

    def release(self, node: BlockNode, use: Use | Layer) -> None:
        """End a use that has not ended; that of a node which is closed has. Any thread may call it."""
        with self._changing:
            holds = self._holds.get(node.name, [])
            # One that another user has may be equal.
            place = next((index for index, hold in enumerate(holds) if hold is use), None)
            if place is not None:
                self._holds = {**self._holds, node.name: holds[:place] + holds[place + 1 :]}

    def rebind(self, node: BlockNode, former: BlockNode) -> None:
        """A node has become another one: its name, and the ownership, go to a node with its former driver.

        Any thread may call it. Who held the node holds it still, under a name that nobody knows. Where it was open for
        reading only, so is what it has become, unless somebody writes to that.
        """
        reads, became = former.read_only, present(node)
        try:
            self.give_name(node, former).close()
            if reads and not became.closed and not self.permissions(became)[0] & _WRITES:
                end_writing(became if node.closed else node)
        finally:
            self.forget_closed()

    def give_name(self, node: BlockNode, former: BlockNode) -> BlockNode:
        """Do :meth:`rebind` without closing anything; :meth:`take_name_back` undoes it.

        Returns:
            What the caller has to close: the table's share of ``node``, or, where it had none, that of ``former``.
        """
        with self._changing:
            name, hidden = node.name, former.name
            node.name, former.name = hidden, name
            node.marks, former.marks = former.marks, node.marks
            # New mappings, not changed ones: another thread may be going through the old.
            self._nodes = {**self._nodes, name: former, hidden: node}
            if name in self._holds:
                self._holds = {**self._holds, hidden: self._holds[name], name: []}
            owned = name in self._owned
            if owned:
                self._owned = {**self._owned, name: former}
        # Where nobody else has a share of the node, its use of what it has become ends with the table's.
        return node if owned else former

    def take_name_back(self, node: BlockNode, former: BlockNode) -> None:
        """Undo :meth:`give_name`."""
        with self._changing:
            name, hidden = former.name, node.name
            node.name, former.name = name, hidden
            node.marks, former.marks = former.marks, node.marks
            self._nodes = {each: found for each, found in self._nodes.items() if each != hidden} | {name: node}
            holds = {each: found for each, found in self._holds.items() if each != hidden}
            self._holds = {**holds, name: self._holds.get(hidden, [])}
            if name in self._owned:
                self._owned = {**self._owned, name: node}

    def _parents(self) -> Iterator[tuple[BlockNode, BlockNode]]:
        """The named nodes, and those that jobs have put below them, each with the named one."""
        for named in self.values():
            below = named
            yield below, named
            while isinstance(below.driver, FilterDriver) and below.driver.implicit:
                below = below.driver.child
                if self._nodes.get(below.name) is below:
                    break
                yield below, named

    def _users(self, node: BlockNode) -> list[Parent]:
        """The nodes that use a node; the oldest first."""
        found: list[Parent] = []
        for parent, named in self._parents():
            for edge, child in list(parent.driver.children.items()):
                if child is not node:
                    continue
                # What has become this one: its users are this one's.
                became = isinstance(named.driver, ForwardDriver)
                uses = self.uses(named)[::-1] if became else [self._use(parent, edge, named)]
                found.append(((id(named), edge), uses))
        return found

    def levels(self, node: BlockNode) -> list[Level]:
        """Who uses a node, and the filters that jobs have put over it, from the uppermost down."""
        return levels(node.name, self._holds.get(node.name, []), self._users(node))

    def uses(self, node: BlockNode) -> list[Use]:
        """Who uses a node itself, the newest first."""
        return self.levels(node)[-1].uses

    def is_backing(self, node: BlockNode) -> bool:
        """Whether an overlay stands on a node."""
        return self._backed(node) is not None

    def _backed(self, node: BlockNode) -> Use | None:
        """How an overlay uses the node that it stands on, where there is one."""
        return next((use for use in self.uses(node) if use.edge == "backing" and not use.is_filter), None)

    def require_top(self, node: BlockNode) -> None:
        """Refuse a node that an overlay stands on.

        Raises:
            BlockError: with QEMU's text.
        """
        use = self._backed(node)
        if use is not None:
            above = use.by.removeprefix("node '").removesuffix("'")
            raise BlockError(f"Node '{node.name}' is busy: node is used as backing hd of '{above}'", errno=errno.EBUSY)

    def require_root(self, node: BlockNode) -> None:
        """Refuse a node that another one stands on, or that a job uses.

        Raises:
            BlockError: with QEMU's text.
        """
        if any(use.edge != "root" for use in self.uses(node)):
            raise BlockError("Need a root block node", errno=errno.EBUSY)

    def permissions(self, node: BlockNode) -> tuple[Permission, Permission]:
        """What all users of a node together use, and what all of them share."""
        return combined(self.uses(node))

    def _open(self, given: dict[str, Any]) -> BlockNode:
        image = _describe(given, self._nodes)
        automatic = given.get("auto-read-only") in (True, "on") and not image.read_only
        try:
            return graph.open_node(image, self._nodes, read_only=image.read_only)
        except OSError as error:
            if not automatic or error.errno not in _UNWRITABLE:
                raise
        return graph.open_node(image, self._nodes, read_only=True)

    def _use(self, parent: BlockNode, edge: str, named: BlockNode) -> Use:
        """What a node uses of a child, as QEMU's default permissions have it."""
        if edge == "target":
            # What old data goes to may stand on the node that it is copied from: who uses that is not asked for.
            return Use(f"node '{named.name}'", edge, Permission.WRITE)
        used, shared = self.permissions(named)
        by = f"node '{named.name}'"
        if edge == "backing":
            below = _CHANGES if shared & Permission.WRITE else Permission.NONE
            below |= Permission.CONSISTENT_READ | Permission.WRITE_UNCHANGED
            return Use(by, edge, used & Permission.CONSISTENT_READ, below)
        if isinstance(named.driver, QuorumDriver):
            # Copies that somebody else writes or resizes would differ.
            used |= Permission.WRITE if named.driver.rewrites else Permission.NONE
            return Use(by, edge, used, shared & ~_CHANGES)
        if isinstance(parent.driver, CopyOnReadDriver):
            used |= Permission.WRITE_UNCHANGED
        if isinstance(parent.driver, RawDriver) and parent.driver.is_window:
            return Use(by, edge, used, shared & ~Permission.RESIZE)  # which ends where the file did when it was opened
        if parent.format == "raw" or isinstance(parent.driver, FilterDriver):
            return Use(by, edge, used, shared)
        used |= Permission.CONSISTENT_READ
        if not parent.read_only:
            used |= _CHANGES
        return Use(by, edge, used, (shared | Permission.WRITE_UNCHANGED) & ~_CHANGES)

    def require_compatible(self, node: BlockNode, *, reopened: bool = False) -> None:
        """Find two users that exclude each other, of this node or one below it.

        Args:
            node: which.
            reopened: what is read-only will be opened for writing.

        Raises:
            BlockError: with QEMU's text.
        """
        for each in reversed(tree(node)):
            found = self.levels(each)
            for name, uses in found:
                for one in uses:
                    for other in uses:
                        if other is not one and other.used & ~one.shared:
                            raise conflict(name, one, other)
            if each.read_only and not reopened and any(use.used & _WRITES for use in found[-1].uses):
                raise ReadOnly("Block node is read-only", errno=errno.EACCES)

    def forget_closed(self) -> None:
        """Leave out nodes that were closed meanwhile, as jobs do with those that nobody needs any more."""
        with self._changing:
            self._nodes = {name: node for name, node in self._nodes.items() if not node.closed}
            self._holds = {name: holds for name, holds in self._holds.items() if name in self._nodes and holds}


def _describe(given: Mapping[str, Any], nodes: Mapping[str, BlockNode]) -> blockdev.Described:
    if given.get("driver") in ("file", "host_device"):
        return blockdev.child(given, probes=False)
    return blockdev.from_options(given, nodes)


def _name(node: BlockNode) -> str:
    """A node's name at this moment: jobs exchange names."""
    return node.name

"""An external snapshot: an overlay takes the place of a node, which becomes what the overlay stands on."""

from __future__ import annotations

import errno
from collections.abc import Callable

from hostel.block.draining import drained
from hostel.block.driver import FilterDriver, Supports
from hostel.block.jobs.atomic import Action
from hostel.block.node import BlockNode
from hostel.block.nodes import NodeTable
from hostel.block.permission import Permission
from hostel.block.rewiring import bottom_of_filters, end_writing, redirect, replace_backing, restore, retire, unfiltered
from hostel.block.tree import tree
from hostel.errors import BlockError, ReadOnly


class Overlay(Action):
    """Lets whoever uses a node use an overlay of it instead; the node keeps its name, and is not written any more.

    Args:
        nodes: where both have names.
        node: the one that is to be kept as it is.
        make: gives the overlay, once it is known that the node can be kept.
        owned: the overlay is the caller's to close when nobody uses it any more, as one that was made for this is.
    """

    def __init__(
        self, nodes: NodeTable, node: BlockNode, make: Callable[[BlockNode], BlockNode], *, owned: bool = False
    ) -> None:
        super().__init__(node)
        self._nodes, self._below, self._make, self._owned = nodes, node, make, owned
        self._overlay: BlockNode | None = None
        self._former: BlockNode | None = None

    def prepare(self) -> None:
        """Put the overlay in."""
        node, nodes = self._below, self._nodes
        nodes.require_top(node)
        node.require_unblocked()
        try:
            node.flush()
        except OSError as error:
            raise BlockError("An IO error has occurred", errno=error.errno or errno.EIO) from None
        self._overlay = overlay = self._make(node)
        try:
            self._check(overlay)
            # Both before either is changed: an overlay that stands on nothing has zeroes for the guest.
            with drained(node, bottom_of_filters(overlay)):
                self._former = redirect(node, overlay)
                former = replace_backing(overlay, self._former.share())
                assert former is None
        except BaseException:
            self._drop()
            raise
        self._unused = nodes.give_name(node, self._former)

    def _check(self, overlay: BlockNode) -> None:
        node = self._below
        used = self._nodes.permissions(overlay)[0]
        if used & Permission.CONSISTENT_READ:
            raise BlockError("The overlay is already in use", errno=errno.EBUSY)
        image = unfiltered(overlay)
        if isinstance(image.driver, FilterDriver):
            raise BlockError("Filters cannot be used as overlays", errno=errno.EINVAL)
        if image.backing is not None:
            raise BlockError("The overlay already has a backing image", errno=errno.EINVAL)
        if overlay in tree(node):
            raise BlockError(
                f"Making '{node.name}' a backing child of '{overlay.name}' would create a cycle", errno=errno.EINVAL
            )
        if not image.driver.supports & Supports.BACKING:
            raise BlockError("The overlay does not support backing images", errno=errno.ENOTSUP)
        if overlay.read_only and self._nodes.permissions(node)[0] & (Permission.WRITE | Permission.RESIZE):
            raise ReadOnly("Block node is read-only")

    def undo(self) -> None:
        """Take the overlay out again."""
        assert self._overlay is not None and self._former is not None
        with drained(self._below, self._former, bottom_of_filters(self._overlay)):
            self._nodes.take_name_back(self._below, self._former)
            former = replace_backing(self._overlay, None)
            assert former is self._former
            former.close()
            restore(self._below, self._former)
        self._drop()

    def commit(self) -> None:
        """Open the node for reading only; where that cannot be, it stays as it is, since nobody writes to it."""
        assert self._overlay is not None and self._former is not None
        former = self._former
        retire(self._unused)
        if not former.closed:
            end_writing(former)
        self._drop()

    def _drop(self) -> None:
        try:
            if self._owned and self._overlay is not None:
                self._overlay.close()
        finally:
            self._nodes.forget_closed()

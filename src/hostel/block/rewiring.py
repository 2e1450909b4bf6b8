"""Changing an open graph while requests come in: filters put in and taken out, nodes that become other nodes.

Who holds a node, an export, an overlay or a caller, keeps it: what changes is the node's driver. A filter goes *into*
a node, whose former driver moves to a new node below; a node that is replaced passes everything on to the one that
takes its place. So no holder has to be known, told, or waited for; only those inside the node are.

    node [qcow2]            insert: node [mirror] -> inner [qcow2]           redirect: node [forward] -> target [raw]

Nothing is changed before every node concerned is drained (:mod:`hostel.block.draining`).
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterator

from hostel.block import notice, sizes
from hostel.block.draining import drained
from hostel.block.driver import BlockDriver, FilterDriver
from hostel.block.filters.forward import ForwardDriver
from hostel.block.interruption import breaks_in
from hostel.block.node import BlockNode
from hostel.block.powers import Reopenable
from hostel.errors import BlockError


def insert_filter(node: BlockNode, make: Callable[[BlockNode], FilterDriver]) -> BlockNode:
    """Put a filter into a node.

    Args:
        node: every request to it goes through the filter from now on.
        make: gives the filter on a child, which has the node's former driver.

    Returns:
        The child: requests to it pass the filter by.
    """
    with drained(node):
        inner = _move_out(node)
        node.exchange(make(inner))
    return inner


def remove_filter(node: BlockNode, driver: FilterDriver) -> None:
    """Take out what :func:`insert_filter` put into a node; others may have been put in since.

    What still asks the filter's former child is passed on to where the filter was.
    """
    inner = driver.child
    while True:
        place = node
        while place.driver is not driver:
            assert isinstance(place.driver, FilterDriver), "the filter is not there"
            place = place.driver.child
        with drained(place, inner):
            if place.driver is not driver:
                continue  # another one was put in before it was drained
            place.exchange(inner.driver)
            inner.exchange(ForwardDriver(place))
            return


def redirect(node: BlockNode, target: BlockNode) -> BlockNode:
    """Let a node become another one.

    Args:
        node: whoever holds it has ``target`` from now on, and closes it with the node.
        target: shared, not taken over.

    Returns:
        A node with the former driver, to be closed by the caller.
    """
    with drained(node):
        inner = _move_out(node)
        inner.detect_zeroes = node.detect_zeroes
        node.exchange(ForwardDriver(target.share()))
        node.read_only = target.read_only
        # What becomes of discards and of zeroes is the target's choice now.
        node.discards, node.detect_zeroes = True, "off"
    sizes.tell()
    return inner


def restore(node: BlockNode, former: BlockNode) -> None:
    """Undo :func:`redirect`; ``former`` is what that gave, and needs no closing any more."""
    with drained(node, former):
        forward = node.driver
        node.exchange(former.driver)
        node.read_only = former.read_only
        node.discards, node.detect_zeroes = former.discards, former.detect_zeroes
        former.exchange(ForwardDriver(node))
    sizes.tell()
    for child in forward.children.values():
        child.close()


def _move_out(node: BlockNode) -> BlockNode:
    """A new node for the driver of a drained one."""
    inner = BlockNode(
        node.driver,
        node.filename,
        read_only=node.read_only,
        cache=node.cache._replace(writethrough=False),
        probed=node.probed,
        bounded=node.bounded,
    )
    inner.discards, inner.detect_zeroes = node.discards, "off"
    inner.given, inner.inheriting = node.given, node.inheriting
    return inner


def present(node: BlockNode) -> BlockNode:
    """What a node is now: itself, or the node that it has become."""
    while isinstance(node.driver, ForwardDriver):
        node = node.driver.child
    return node


def unfiltered(node: BlockNode) -> BlockNode:
    """The node that the filters of jobs and former replacements lie on, or the node itself."""
    while isinstance(node.driver, FilterDriver) and node.driver.implicit:
        node = node.driver.child
    return node


def bottom_of_filters(node: BlockNode) -> BlockNode:
    """The node below all filters: a format's, or a protocol's."""
    while isinstance(node.driver, FilterDriver) and node.driver.primary:
        node = node.driver.child
    return node


@contextlib.contextmanager
def held_image(node: BlockNode) -> Iterator[BlockNode]:
    """Hold others off the image below all filters of a node, which come and go with bitmaps and jobs at any time.

    Yields:
        The image's node; its driver stays in it meanwhile.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(node.hold())
        while isinstance(node.driver, FilterDriver) and node.driver.primary:
            node = node.driver.child
            stack.enter_context(node.hold())
        yield node


def replace_backing(node: BlockNode, backing: BlockNode | None) -> BlockNode | None:
    """Put an overlay, or the one below a node's filters, on another node, which it takes over, also where it fails.

    What its image records is not changed.

    Returns:
        The former backing node, to be closed by the caller.

    Raises:
        BlockError: EBUSY: requests to it do not come to an end.
    """
    try:
        while True:
            image = bottom_of_filters(node)
            with drained(image):
                if bottom_of_filters(image) is not image:
                    continue  # a filter came or went before it was drained
                former = image.driver.children.pop("backing", None)
                if backing is not None:
                    image.driver.children["backing"] = backing
                return former
    except BaseException:
        if backing is not None:
            backing.close()
        raise


def retire(former: BlockNode, close: Callable[[], None] | None = None) -> None:
    """Close an image that others do without from now on.

    What fails of that is told, and not raised: the graph has changed, and whoever asked for that must know that it has.

    Args:
        former: the image.
        close: closes it; its own method where that is not given.
    """
    try:
        (close or former.close)()
    except OSError as error:
        notice.tell(f"'{former.filename}', which is not used any more, could not be closed: {error}")


def end_writing(node: BlockNode) -> None:
    """Open an image for reading only again, once what it was open for writing for is done.

    What fails of that is told, and not raised: the image stays as it is, and nobody writes to it.
    """
    try:
        reopen(node, read_only=True)
    except OSError as error:
        notice.tell(f"'{node.filename}' stays open for writing: {error}")


@contextlib.contextmanager
def writable(node: BlockNode) -> Iterator[None]:
    """Have an image open for writing that may be open for reading only, as backing files are.

    Raises:
        BlockError: it cannot be opened so; it is open as before then.
    """
    if not node.read_only:
        yield
        return
    reopen(node, read_only=False)
    try:
        yield
    finally:
        if not node.closed:
            reopen(node, read_only=True)


def reopen(node: BlockNode, *, read_only: bool) -> None:
    """Open an image, with the file it lies in, for reading only or for writing too; who holds it keeps it.

    Raises:
        BlockError: its driver cannot, or the host or another process's lock refuses; nothing has changed then.
    """
    if node.read_only == read_only:
        return
    parts = _opened_with(node)
    with drained(node, *parts):
        if read_only:
            node.flush()
        done: list[BlockNode] = []
        fresh: BlockDriver | None = None
        try:
            if not read_only:
                for child in parts:
                    reopen(child, read_only=False)
                    done.append(child)
            fresh = _reopened(node, read_only=read_only)
            node.exchange(fresh)
            node.read_only = read_only
        except BaseException as error:
            if breaks_in(error):
                node.break_off()  # one driver may be closed, and the other one in no node yet
                if fresh not in (None, node.driver) and not fresh.children:
                    fresh.close()
            for child in done:
                reopen(child, read_only=True)
            raise
        if read_only:
            for child in parts:
                reopen(child, read_only=True)


def _opened_with(node: BlockNode) -> list[BlockNode]:
    """The nodes that are open for writing because a node is; what a job writes to is its own."""
    if isinstance(node.driver, FilterDriver) and node.driver.implicit:
        return [node.driver.child]
    return [child for edge, child in node.driver.children.items() if edge != "backing"]


def _reopened(node: BlockNode, *, read_only: bool) -> BlockDriver:
    driver = node.driver
    if isinstance(driver, FilterDriver):
        return driver
    if not isinstance(driver, Reopenable):
        raise BlockError(
            f"Block format '{node.format}' used by node '{node.name}' does not support reopening files",
            errno=errno.ENOTSUP,
        )
    return driver.reopened(lambda mode: mode._replace(read_only=read_only))

"""Images that lie in a file of the host as they are: who uses them may read and write the file past the nodes."""

from __future__ import annotations

from typing import NamedTuple

from hostel.block.filters.forward import ForwardDriver
from hostel.block.formats.raw import RawDriver
from hostel.block.gate import Gate
from hostel.block.node import BlockNode
from hostel.block.probe import HEAD_LENGTH
from hostel.block.protocols.file import FileDriver
from hostel.units import INT64_MAX


class HostFile(NamedTuple):
    """A file of the host that holds an image's bytes as they are.

    Attributes:
        start: where in the file the image begins, bytes.
        gate: held for as long as the descriptor is used.
        guarded: bytes from the image's start that only the node may write; all of them where nothing may be written.
        nodes: those that are passed by, and where the image begins in each.
    """

    fd: int
    start: int
    guarded: int
    gate: Gate
    nodes: tuple[tuple[BlockNode, int], ...] = ()

    def wrote(self, end: int) -> None:
        """Let the nodes know that a write has reached as far as ``end``, in bytes from the image's start."""
        for node, start in self.nodes:
            if start + end > node.marks.level:
                node.marks.reach(start + end, node.name)


def host_file(node: BlockNode, *, writable: bool) -> HostFile | None:
    """The file that may be read and written past the node; None where the node has more to do than pass on.

    Flushing, zeroing and trimming stay the node's. The descriptor is used as :class:`hostel.block.gate.Bypass` says,
    and until the graph changes.
    """
    if node.cache.writethrough:
        return None
    start, guarded = 0, 0
    nodes: list[tuple[BlockNode, int]] = []
    while isinstance(node.driver, (RawDriver, ForwardDriver)):
        nodes.append((node, start))
        if isinstance(node.driver, ForwardDriver):
            node = node.driver.child
            continue
        if node.probed:
            guarded = max(guarded, HEAD_LENGTH - start)
        if node.detect_zeroes != "off":
            return None
        start += node.driver.start
        node = node.driver.children["file"]
    nodes.append((node, start))
    if any(each.marks.threshold for each, _ in nodes):
        return None  # a write has to be told before it is made
    driver = node.driver
    if not isinstance(driver, FileDriver) or node.detect_zeroes != "off":
        return None
    fd = driver.fileno()
    if fd < 0 or driver.is_direct:
        return None  # it is closed, or wants aligned buffers
    return HostFile(fd, start, guarded if writable else INT64_MAX, driver.past, tuple(nodes))

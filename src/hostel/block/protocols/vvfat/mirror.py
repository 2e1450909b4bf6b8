"""Making the directory on the host what the guest has made of the disk.

First directories are made, and files and directories moved; then contents are written; what the guest has removed goes
last. A file that is new, or of which all is new, gets its name when it is whole; one that was changed in its place is
changed in its place. Whatever fails, no step before it is lost sight of, and the next time goes on from there.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable, Iterator
from typing import Final

from hostel.block.node import is_zero
from hostel.block.protocols.vvfat.guest import Node
from hostel.block.protocols.vvfat.host import HostDirectory, set_time, temporary_name
from hostel.block.protocols.vvfat.overlay import Overlay
from hostel.block.protocols.vvfat.tree import File, Identity
from hostel.block.protocols.vvfat.volume import Geometry
from hostel.units import SECTOR, MiB

_PIECE: Final = MiB


class Mirror:
    """One time of it.

    Args:
        host: the directory.
        disk: as the guest sees it.
        layout: of the disk.
        old: what the host has, which is kept up to date.
        new: what the guest has.
        retire: called with a file of the disk whose bytes are about to be gone from the host.
    """

    def __init__(
        self,
        host: HostDirectory,
        disk: Overlay,
        layout: Geometry,
        old: Node,
        new: Node,
        retire: Callable[[Node], None],
    ) -> None:
        self._host = host
        self._disk = disk
        self._layout = layout
        self._unit = layout.unit * SECTOR
        self._old = old
        self._new = new
        self._retire = retire
        self._twins: dict[int, Node] = {id(new): old}  # what the host has of the guest's nodes, by their ids
        self._claimed: set[int] = {id(old)}

    def run(self) -> None:
        """Do it.

        Raises:
            OSError: the host refuses, or has something else than it had.
        """
        self._match()
        nodes = list(self._new.walk())
        for node in nodes:
            self._place(node)
        failed: OSError | None = None
        for node in nodes:
            try:
                if not node.is_directory:
                    self._write(node)
            except OSError as error:  # of one file, which keeps no other from being written
                failed = failed or error
        if failed is not None:
            raise failed
        self._remove(self._old)
        self._host.sync()
        self._old.cluster, self._old.runs = self._new.cluster, self._new.runs

    # ---- which is which

    def _match(self) -> None:
        """Find what the host has of each: it begins at the same cluster, or has the same name at the same place."""
        begins = {(node.is_directory, node.cluster): node for node in self._old.walk() if node.cluster}
        for node in self._new.walk():
            found = begins.get((node.is_directory, node.cluster))
            if found is not None and (self._is_untouched(node) or found.path == node.path):
                self._claim(node, found)
        for node in self._new.walk():
            if id(node) in self._twins or node.parent is None:
                continue
            above = self._twins.get(id(node.parent))
            found = above.children.get(node.name) if above is not None else None
            if found is not None and found.is_directory is node.is_directory and id(found) not in self._claimed:
                self._claim(node, found)

    def _is_untouched(self, node: Node) -> bool:
        """Whether what begins there is what it was: another file would have been written there."""
        return node.is_directory or not self._disk.is_fresh(self._layout.place(node.cluster), self._unit)

    def _claim(self, node: Node, found: Node) -> None:
        self._twins[id(node)] = found
        self._claimed.add(id(found))

    # ---- places

    def _place(self, node: Node) -> None:
        """Bring a node to its place, whose directory is at its own."""
        assert node.parent is not None
        above, twin = self._twins[id(node.parent)], self._twins.get(id(node))
        if twin is not None and node.is_directory:
            twin.cluster, twin.runs = node.cluster, node.runs
        if twin is not None and twin.parent is above and twin.name == node.name:
            return
        occupant = above.children.get(node.name)
        if twin is None:
            if not node.is_directory:
                return  # it is made with its content
            if occupant is not None:
                self._displace(occupant)
            twin = Node(node.name, above, is_directory=True)
            twin.cluster, twin.runs = node.cluster, node.runs
            twin.known = self._host.make_directory(above, node.name)
            above.children[node.name] = twin
            self._claim(node, twin)
        elif occupant is not None and not (twin.is_directory or occupant.is_directory or self._is_wanted(occupant)):
            self._retire(occupant)
            self._host.move(twin, above, node.name, over=occupant)
            self._moved(twin, above, node.name)
        else:
            if occupant is not None:
                self._displace(occupant)
            self._host.move(twin, above, node.name)
            self._moved(twin, above, node.name)

    def _is_wanted(self, found: Node) -> bool:
        return id(found) in self._claimed

    def _displace(self, found: Node) -> None:
        """Get what is at somebody else's place out of the way, until its own turn."""
        assert found.parent is not None
        name = temporary_name()
        self._host.move(found, found.parent, name)
        self._moved(found, found.parent, name)

    def _moved(self, found: Node, parent: Node, name: str) -> None:
        assert found.parent is not None
        del found.parent.children[found.name]
        found.parent, found.name = parent, name
        parent.children[name] = found
        for node in (found, *found.walk()):
            if node.base is not None:
                node.base.path = os.path.join(self._host.path, node.path)

    # ---- contents

    def _write(self, node: Node) -> None:
        """Give a file its content."""
        assert node.parent is not None
        above, twin = self._twins[id(node.parent)], self._twins.get(id(node))
        if twin is None:
            occupant = above.children.get(node.name)
            if occupant is not None:
                self._displace(occupant)
            known = self._host.create(above, node.name, lambda to: self._fill(node, to))
            twin = Node(node.name, above, is_directory=False)
            above.children[node.name] = twin
            self._claim(node, twin)
            self._written(twin, node, known)
            return
        pieces = list(self._pieces(node, twin))
        is_same = not pieces and node.size == twin.size
        if is_same and node.stamp == twin.stamp:
            twin.runs = node.runs
        elif is_same or (node.cluster == twin.cluster != 0 and not self._host.is_shared(twin)):
            self._update(node, twin, pieces)
        else:
            self._retire(twin)
            self._written(twin, node, self._host.replace(twin, lambda to: self._fill(node, to)))
            twin.base = None

    def _written(self, twin: Node, node: Node, known: Identity) -> None:
        twin.known = known
        twin.cluster, twin.runs, twin.size, twin.stamp = node.cluster, node.runs, node.size, node.stamp

    def _fill(self, node: Node, descriptor: int) -> None:
        """Write all of a file's content into an empty one; what is zeroes takes no room."""
        for place, offset, length in self._extents(node.runs, 0, node.size):
            self._copy(place, descriptor, offset, length, sparse=True)
        os.ftruncate(descriptor, node.size)
        set_time(descriptor, node.stamp)

    def _update(self, node: Node, twin: Node, pieces: list[tuple[int, int, int]]) -> None:
        descriptor = self._host.open_file(twin, os.O_RDWR)
        base = twin.base
        try:
            if base is not None:  # the disk goes on having what the file had
                start = self._layout.place(base.cluster)
                for _, offset, length in pieces:
                    self._keep(base, start, offset, length)
                self._keep(base, start, node.size, base.found.st_size)
            for place, offset, length in pieces:
                self._copy(place, descriptor, offset, length, base)
            os.ftruncate(descriptor, node.size)
            set_time(descriptor, node.stamp)
            os.fsync(descriptor)
        finally:
            # As far as it came, it is known.
            twin.known = Identity.of(os.fstat(descriptor))
            if base is not None:
                base.known = twin.known
            os.close(descriptor)
        self._written(twin, node, twin.known)

    def _keep(self, base: File, start: int, offset: int, length: int) -> None:
        length = min(length, base.found.st_size - offset)
        if length > 0:
            self._disk.keep(start + offset, length)

    def _copy(
        self, place: int, descriptor: int, offset: int, length: int, base: File | None = None, *, sparse: bool = False
    ) -> None:
        """Copy from the disk into a file; where the disk has a part of ``base`` from it, it may be read on."""
        for done in range(0, length, _PIECE):
            data = memoryview(self._disk.read(place + done, min(_PIECE, length - done)))
            if sparse and is_zero(data):
                continue
            at = offset + done
            while data:
                count = os.pwrite(descriptor, data, at)
                data, at = data[count:], at + count
            if base is not None:
                base.known = Identity.of(os.fstat(descriptor))

    def _pieces(self, node: Node, twin: Node) -> Iterator[tuple[int, int, int]]:
        """What of a file's content the host has not: places on the disk, offsets in the file, and lengths."""
        same = _common(node.runs, twin.runs) * self._unit
        edge = min(node.size, same, twin.size)
        for place, offset, length in self._extents(node.runs, 0, edge):
            for start, count in self._disk.changes(place, length):
                yield start, offset + start - place, count
        yield from self._extents(node.runs, edge, node.size)

    def _extents(self, runs: array[int], low: int, high: int) -> Iterator[tuple[int, int, int]]:
        """Where on the disk a part of a file lies: places, offsets in the file, and lengths."""
        offset = 0
        for first, count in zip(runs[::2], runs[1::2], strict=True):
            start, end = max(low, offset), min(high, offset + count * self._unit)
            if start < end:
                yield self._layout.place(first) + start - offset, start, end - start
            offset += count * self._unit

    # ---- what is gone

    def _remove(self, directory: Node) -> None:
        """Remove what the guest has no more, the last below first."""
        gone = [node for node in directory.walk() if not self._is_wanted(node)]
        for node in reversed(gone):
            assert node.parent is not None
            if not node.is_directory:
                self._retire(node)
            self._host.remove(node)
            self._host.forget(node)
            del node.parent.children[node.name]


def _common(first: array[int], second: array[int]) -> int:
    """How many clusters two chains have in common at their beginning."""
    count = 0
    for at in range(0, min(len(first), len(second)), 2):
        if first[at] != second[at]:
            break
        count += min(first[at + 1], second[at + 1])
        if first[at + 1] != second[at + 1]:
            break
    return count

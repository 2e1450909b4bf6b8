"""The files and directories that a guest has made of a disk, read by the specification; or why they are none.

What a guest writes is not to be trusted: chains may lead in circles or into each other, directories into themselves,
and names to anywhere. Every cluster belongs to one file at most, so what is read is no more than the disk.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable, Iterator
from typing import Final

from hostel.block.protocols.vvfat import names, tree
from hostel.block.protocols.vvfat.tree import ENTRY, File, Identity
from hostel.block.protocols.vvfat.volume import Geometry
from hostel.codec.table import unpack_table
from hostel.errors import InvalidImage
from hostel.units import SECTOR

_PAGE: Final = 4096  # entries of a table read at once; FAT12 has no more
_MOST_PAGES: Final = 1024
_MOST_SLOTS: Final = 16 * tree.MAX_FILES  # entries of all directories, those without a file counted too
_FIRST_ROOT: Final = 2  # the cluster where the first directory of FAT32 begins
_FREE, _LABEL, _DIRECTORY, _LONG, _LONG_MASK = 0xE5, 0x08, 0x10, 0x0F, 0x3F
_DOTS: Final = (b".".ljust(11), b"..".ljust(11))


class Inconsistent(Exception):
    """The disk makes no sense: as long as the guest is in the middle of a change, or for good."""


class Node:
    """A file or a directory of the guest; and what of it lies on the host.

    Attributes:
        name: as the host has it.
        parent: the directory that it is in; None of the first one.
        cluster: where its bytes begin; 0 of an empty file, and of the first directory where it is no chain.
        runs: its clusters: pairs of a first one and how many follow each other.
        size: bytes; 0 of a directory.
        stamp: when it was last written: FAT's date and time of the day.
        children: by name.
        known: of what lies on the host, the file that it is.
        base: the file of the disk as it was opened, whose bytes lie there as well.
    """

    __slots__ = ("base", "children", "cluster", "is_directory", "known", "name", "parent", "runs", "size", "stamp")

    def __init__(self, name: str, parent: Node | None, *, is_directory: bool) -> None:
        self.name = name
        self.parent = parent
        self.is_directory = is_directory
        self.cluster = 0
        self.runs = array("I")
        self.size = 0
        self.stamp = (0, 0)
        self.children: dict[str, Node] = {}
        self.known: Identity | None = None
        self.base: File | None = None

    @property
    def path(self) -> str:
        """Seen from the first directory."""
        above = self.parent.path if self.parent is not None else ""
        return f"{above}/{self.name}" if above else self.name

    def walk(self) -> Iterator[Node]:
        """All below it, directories before what is in them."""
        waiting = [self]
        while waiting:
            directory = waiting.pop()
            for child in directory.children.values():
                yield child
                if child.is_directory:
                    waiting.append(child)


class Chains:
    """The table of a disk."""

    def __init__(self, layout: Geometry, read: Callable[[int, int], bytes]) -> None:
        self._layout = layout
        self._read = read
        self._end = layout.clusters + 2
        self._pages: dict[int, array[int]] = {}
        self._owned = bytearray(self._end)
        # From here on entries say that a chain ends; the one before says that a cluster is broken.
        self._last = {12: 0xFF8, 16: 0xFFF8, 32: 0x0FFFFFF8}[layout.fat_type]

    def follow(self, cluster: int, path: str) -> array[int]:
        """The chain that begins at a cluster, as runs; each of its clusters is its own from now on.

        Raises:
            Inconsistent: it leads to no end, or to where another has been.
        """
        runs = array("I")
        first = self._checked(cluster, path)
        cluster = first
        while True:
            last = self._stretch(cluster)
            if self._owned.find(1, cluster, last + 1) >= 0:
                raise Inconsistent(f"'{path}' has a cluster that is a part of something else as well, or comes twice")
            self._owned[cluster : last + 1] = b"\1" * (last + 1 - cluster)
            following = self._entry(last)
            if following >= self._last:
                runs.extend((first, last + 1 - first))
                return runs
            cluster = self._checked(following, path)
            if following != last + 1:
                runs.extend((first, last + 1 - first))
                first = cluster

    def _checked(self, cluster: int, path: str) -> int:
        if not 2 <= cluster < self._end:
            raise Inconsistent(f"'{path}' has no end: it goes on at cluster {cluster:#x}, which the disk has not")
        return cluster

    def _entry(self, cluster: int) -> int:
        number, index = divmod(cluster, _PAGE)
        return self._page(number)[index]

    def _stretch(self, cluster: int) -> int:
        """The last of the clusters from one on of which each is followed by the next; at most to its page's end."""
        number, index = divmod(cluster, _PAGE)
        page = self._page(number)
        base, step = number * _PAGE + 1, 1
        while index < len(page):
            stop = min(len(page), index + step)
            if page[index:stop] == array("I", range(base + index, base + stop)):
                index, step = stop, step * 2
            elif step == 1:
                break
            else:
                step = max(1, step // 4)
        return number * _PAGE + min(index, len(page) - 1)

    def _page(self, number: int) -> array[int]:
        page = self._pages.get(number)
        if page is None:
            if len(self._pages) >= _MOST_PAGES:
                self._pages.clear()
            page = self._pages[number] = self._load(number * _PAGE, min(self._end, (number + 1) * _PAGE))
        return page

    def _load(self, first: int, end: int) -> array[int]:
        start, bits = self._layout.first_table * SECTOR, self._layout.fat_type
        if bits == 12:
            data = self._read(start, -(-end * 3 // 2) + 1)
            pairs = (int.from_bytes(data[at : at + 3], "little") for at in range(0, len(data) - 2, 3))
            return array("I", (half for pair in pairs for half in (pair & 0xFFF, pair >> 12)))[:end]
        width = bits // 8
        data = self._read(start + first * width, (end - first) * width)
        if bits == 16:
            return array("I", unpack_table(data, "H", "little"))
        page = unpack_table(data, "I", "little")
        # The four high bits are of nobody.
        return page if max(page) <= 0x0FFFFFFF else array("I", (entry & 0x0FFFFFFF for entry in page))


class GuestTree:
    """One look at a disk.

    Args:
        layout: of the disk.
        read: gives so many bytes from an offset of the disk on.
    """

    def __init__(self, layout: Geometry, read: Callable[[int, int], bytes]) -> None:
        self._layout = layout
        self._read = read
        self._unit = layout.unit * SECTOR
        self._chains = Chains(layout, read)
        self._slots_left = _MOST_SLOTS

    def look(self) -> Node:
        """The first directory, with all that is below it.

        Raises:
            Inconsistent: the disk makes no sense.
            OSError: it cannot be read.
        """
        root, count = Node("", None, is_directory=True), 0
        if not self._layout.root:
            root.cluster, root.runs = _FIRST_ROOT, self._chains.follow(_FIRST_ROOT, "/")
        waiting = [(root, 1)]
        while waiting:
            directory, depth = waiting.pop()
            if depth > tree.MAX_DEPTH:
                raise Inconsistent(f"'{directory.path}' lies below more than {tree.MAX_DEPTH} directories")
            self._look_into(directory)
            count += len(directory.children)
            if count > tree.MAX_FILES:
                raise Inconsistent(f"there are more than {tree.MAX_FILES} files")
            waiting += [(child, depth + 1) for child in directory.children.values() if child.is_directory]
        return root

    def _look_into(self, directory: Node) -> None:
        seen: dict[str, str] = {}
        for name, slot in self._named(directory):
            child = Node(name, directory, is_directory=bool(slot[11] & _DIRECTORY))
            try:
                names.check(name, child.path)
            except InvalidImage as error:
                raise Inconsistent(str(error)) from None
            if (other := seen.setdefault(names.folded(name), name)) != name or name in directory.children:
                raise Inconsistent(f"'{child.path}' and '{other}' are one name")
            high, time, date, low, size = struct.unpack_from("<HHHHI", slot, 20)
            child.cluster = (high << 16 if self._layout.fat_type == 32 else 0) | low
            child.stamp = (date, time)
            if child.cluster or child.is_directory or size:
                child.runs = self._chains.follow(child.cluster, child.path)
            if not child.is_directory:
                child.size = size
                if sum(child.runs[1::2]) * self._unit < size:
                    raise Inconsistent(f"'{child.path}' has {size} bytes, and fewer clusters")
            directory.children[name] = child

    def _named(self, directory: Node) -> Iterator[tuple[str, bytes]]:
        """The entries of files and directories, with their names."""
        slots = self._slots(directory)
        if directory.parent is not None:
            self._require_dots(directory, next(slots, b""), next(slots, b""))
        long = names.LongName()
        for slot in slots:
            if slot[0] == _FREE:
                long.forget()
            elif slot[11] & _LONG_MASK == _LONG:
                long.add(slot)
            elif slot[11] & _LABEL:
                long.forget()
            else:
                try:
                    yield long.take(slot[:11]) or names.shown_as(slot), slot
                except ValueError as error:
                    raise Inconsistent(f"'{directory.path}' has a name that makes no sense: {error}") from None

    def _require_dots(self, directory: Node, first: bytes, second: bytes) -> None:
        """A directory begins with itself and with the one that it is in: what does not was not laid out yet."""
        above = directory.parent
        assert above is not None
        wanted = (directory.cluster, 0 if above.parent is None else above.cluster)
        for slot, name, cluster in zip((first, second), _DOTS, wanted, strict=True):
            found = -1
            if slot[:11] == name and slot[11] & _DIRECTORY:
                found = struct.unpack_from("<H", slot, 26)[0]
                found |= struct.unpack_from("<H", slot, 20)[0] << 16 if self._layout.fat_type == 32 else 0
            if found != cluster and not (above.parent is None and name == _DOTS[1] and found == above.cluster):
                raise Inconsistent(f"'{directory.path}' does not begin as a directory does")

    def _slots(self, directory: Node) -> Iterator[bytes]:
        """The entries up to the first that was never used."""
        for data in self._pieces(directory):
            self._slots_left -= len(data) // ENTRY
            if self._slots_left < 0:
                raise Inconsistent(f"the directories have more than {_MOST_SLOTS} entries")
            for at in range(0, len(data), ENTRY):
                if not data[at]:
                    return
                yield data[at : at + ENTRY]

    def _pieces(self, directory: Node) -> Iterator[bytes]:
        if directory.parent is None and self._layout.root:
            yield self._read(self._layout.first_root * SECTOR, self._layout.root * SECTOR)
            return
        if sum(directory.runs[1::2]) * self._unit > tree.MAX_DIRECTORY * ENTRY + self._unit:
            raise Inconsistent(f"'{directory.path}' has more than the {tree.MAX_DIRECTORY} entries of a directory")
        for first, count in zip(directory.runs[::2], directory.runs[1::2], strict=True):
            for cluster in range(first, first + count):
                yield self._read(self._layout.place(cluster), self._unit)

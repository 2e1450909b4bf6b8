"""A directory as a disk that can be written: what the guest writes lands in the directory when it makes sense.

The disk is what it was when it was opened, with all that was written over it; the directory follows it. That happens
when the guest asks for its writes to be safe, when some time has passed, and at the end, and each time only if the
file system is whole.
"""

from __future__ import annotations

import errno
import os
import tempfile
import time
from collections.abc import Iterator
from typing import Final

from hostel.block import notice
from hostel.block.extent import Extent, Status
from hostel.block.protocols.vvfat.guest import GuestTree, Inconsistent, Node
from hostel.block.protocols.vvfat.host import HostDirectory
from hostel.block.protocols.vvfat.mirror import Mirror
from hostel.block.protocols.vvfat.overlay import Overlay
from hostel.block.protocols.vvfat.tree import File
from hostel.block.protocols.vvfat.volume import Volume
from hostel.errors import BlockError
from hostel.units import SECTOR, MiB

_PATIENCE: Final = 2.0  # seconds after which a guest that never asks for it gets its writes into the directory
_SHARE: Final = 10  # times as long as it takes it is left alone
_DOUBT: Final = 10.0  # seconds after which somebody should know that they do not get there
_SMALL: Final = MiB  # bytes of a file that is copied, rather than held open, when it is gone from the host
_MOST_PINNED: Final = 64
_DIRTY_FLAG: Final = {12: 0x25, 16: 0x25, 32: 0x41}  # of the boot sector: the byte that says "not unmounted"
_INFO_SECTORS: Final = (1, 7)  # of FAT32: how many clusters are free


class WritableVolume:
    """The disk of a directory that a guest may write.

    Args:
        volume: the disk as it was opened.
        top: the directory, as it was looked at.

    Raises:
        BlockError: the directory cannot be written.
        ImageLocked: somebody else writes it.
    """

    def __init__(self, volume: Volume, top: File) -> None:
        self._volume = volume
        self._layout = volume.geometry
        self._pinned: list[int] = []
        self._host = HostDirectory(top.path, top.known)
        self._disk = Overlay(self._layout.total * SECTOR, volume.pread)
        try:
            self._guest = self._look()
            self._directory = self._look()
            self._recognize(self._directory, top)
        except BaseException:
            self.close()
            raise
        self._directories = self._places_of_directories(self._guest)
        self._is_new_shape = False  # tables or directories were written: the files may be others
        self._next = time.monotonic() + _PATIENCE
        self._doubted: float | None = None  # since when the disk makes no sense
        self._is_told = False

    def _look(self) -> Node:
        return GuestTree(self._layout, self._disk.read).look()

    def _recognize(self, node: Node, file: File) -> None:
        """Find out which files of the host a disk that nobody has written yet shows."""
        node.known = file.known
        waiting = [(node, file)]
        while waiting:
            above, directory = waiting.pop()
            for child, found in zip(above.children.values(), directory.children, strict=True):
                child.known = found.known
                if child.is_directory:
                    waiting.append((child, found))
                elif child.cluster:
                    child.base = found

    def _places_of_directories(self, root: Node) -> bytearray:
        """Of each cluster whether it is one of a directory."""
        found = bytearray(self._layout.clusters + 2)
        for node in (root, *root.walk()):
            if node.is_directory:
                for first, count in zip(node.runs[::2], node.runs[1::2], strict=True):
                    found[first : first + count] = b"\1" * count
        return found

    # ---- the guest's requests

    def pread(self, offset: int, buf: memoryview) -> None:
        """Read what the guest sees."""
        self._disk.pread(offset, buf)

    def pwrite(self, offset: int, data: memoryview) -> None:
        """Write; where the guest never asks for its writes to be safe, they get into the directory after a while.

        Raises:
            BlockError: what makes the disk one was to be changed, or the host refuses what was written before.
        """
        self._guard(offset, data)
        self._disk.pwrite(offset, data)
        self._is_new_shape = self._is_new_shape or self._shapes(offset, len(data))
        if time.monotonic() > self._next:
            self.flush()

    def flush(self) -> None:
        """Bring what was written into the directory, if the file system is whole; else that waits for the next time.

        Raises:
            BlockError: the host refuses, or a file was changed there; what was written is kept, and tried again.
        """
        start = time.monotonic()
        try:
            self._bring()
        except Inconsistent as reason:
            now = time.monotonic()
            self._doubted = self._doubted or now
            if now - self._doubted > _DOUBT and not self._is_told:
                self._is_told = True
                notice.tell(f"vvfat: '{self._host.path}' does not get what is written to its disk: {reason}")
        else:
            if self._is_told:
                notice.tell(f"vvfat: '{self._host.path}' has all that was written to its disk")
            self._doubted, self._is_told = None, False
        finally:
            now = time.monotonic()
            # A directory that takes long to look at is not looked at all the time.
            self._next = now + max(_PATIENCE, _SHARE * (now - start))

    def extents(self, below: Iterator[Extent]) -> Iterator[Extent]:
        """What was written is data, and else what the disk had ``below``."""
        for extent in below:
            for start, count, own in self._disk.written.ranges(extent.offset, extent.length):
                yield Extent(start, count, Status.DATA | Status.ALLOCATED if own else extent.status)

    def finish(self) -> None:
        """Bring the last writes into the directory, and close it.

        Raises:
            BlockError: that cannot be; the whole disk is then kept in a file, whose name the error tells.
        """
        try:
            self._bring()
        except (Inconsistent, OSError) as reason:
            raise BlockError(
                f"'{self._host.path}' does not have all that was written to its disk: {reason}",
                errno=getattr(reason, "errno", None) or errno.EIO,
                hint=self._save(),
            ) from None
        finally:
            self.close()

    def close(self) -> None:
        """Let go of everything."""
        self._disk.close()
        self._host.close()
        while self._pinned:
            os.close(self._pinned.pop())

    # ---- inside

    def _bring(self) -> None:
        if not self._disk.is_changed:
            return
        if self._is_new_shape:
            self._guest = self._look()
            self._directories = self._places_of_directories(self._guest)
        Mirror(self._host, self._disk, self._layout, self._directory, self._guest, self._retire).run()
        self._is_new_shape = False
        self._disk.settle()

    def _shapes(self, offset: int, length: int) -> bool:
        """Whether a write may have changed which files there are."""
        start, unit = self._layout.first_cluster * SECTOR, self._layout.unit * SECTOR
        if offset < start:
            return True
        first, last = 2 + (offset - start) // unit, 2 + (offset + length - 1 - start) // unit
        return self._directories.find(1, first, last + 1) >= 0

    def _guard(self, offset: int, data: memoryview) -> None:
        """Refuse to change what no file lies in: nothing of that could ever get into the directory."""
        layout = self._layout
        low, high = layout.first_table * SECTOR, layout.end
        parts = []
        if offset < low:
            parts.append((offset, data[: low - offset]))
        if offset + len(data) > high:
            at = max(offset, high)
            parts.append((at, data[at - offset :]))
        for at, part in parts:
            is_part = bytearray(part)
            now = self._disk.read(at, len(part))
            for place, length in self._free_places():
                start, end = max(0, place - at), min(len(part), place + length - at)
                if start < end:
                    is_part[start:end] = now[start:end]
            if is_part != now:
                raise BlockError(
                    "The partition table and the boot sector of a directory's disk cannot be changed",
                    errno=errno.EPERM,
                    hint="It can be neither partitioned nor formatted; of FAT32 there is fat:32:rw:.",
                )

    def _free_places(self) -> Iterator[tuple[int, int]]:
        """What may be changed before the tables: offsets and lengths in bytes."""
        layout = self._layout
        copies = (0, 6) if layout.fat_type == 32 else (0,)
        for copy in copies:
            yield (layout.start + copy) * SECTOR + _DIRTY_FLAG[layout.fat_type], 1
        if layout.fat_type == 32:
            for number in _INFO_SECTORS:
                yield (layout.start + number) * SECTOR, SECTOR

    def _retire(self, node: Node) -> None:
        """Keep what the disk has of a file that is about to be gone from the host."""
        base, node.base = node.base, None
        if base is None:
            return
        size = base.found.st_size
        if size > _SMALL and len(self._pinned) < _MOST_PINNED:
            node.known = node.known or base.known
            base.pinned = self._host.open_file(node, os.O_RDONLY)
            self._pinned.append(base.pinned)
        else:
            self._disk.keep(self._layout.place(base.cluster), size)

    def _save(self) -> str:
        """Keep the whole disk in a file, but for what somebody else has changed below it; says where."""
        try:
            descriptor, path = tempfile.mkstemp(prefix="hostel-vvfat-", suffix=".raw")
        except OSError as error:
            return f"The disk could not be kept in a file either: {error.strerror}."
        try:
            with open(descriptor, "wb") as file:
                file.truncate(self._disk.length)
                below = iter((Extent(0, self._volume.used, Status.DATA),))
                for extent in (*self.extents(below), *self._beyond()):
                    for at in range(extent.offset, extent.offset + extent.length, MiB):
                        file.seek(at)
                        file.write(self._disk.read_what_is_there(at, min(MiB, extent.offset + extent.length - at)))
        except OSError as error:
            os.unlink(path)
            return f"The disk could not be kept in a file either: {error}."
        return f"The whole disk is in '{path}': its files can be copied out with mtools."

    def _beyond(self) -> Iterator[Extent]:
        used = self._volume.used
        for start, length, own in self._disk.written.ranges(used, self._disk.length - used):
            if own:
                yield Extent(start, length, Status.DATA)

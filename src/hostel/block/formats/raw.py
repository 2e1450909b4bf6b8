"""Format ``raw``: the disk's bytes and nothing else, or a window of another node (``offset=``, ``size=``)."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, Self

from hostel.block import probe
from hostel.block.chain import block_status
from hostel.block.driver import FilterDriver, FormatDriver, FormatInfo, OpenMode, Supports, Threading
from hostel.block.extent import Extent, Status
from hostel.block.formats.preallocation import host_preallocation_of, preallocation_of
from hostel.block.node import BlockNode
from hostel.block.options import Kind, Option, Options, Value
from hostel.block.powers import Measured, ModeChange, Preallocation
from hostel.errors import BlockError, InvalidImage, UnsupportedFeature
from hostel.units import SECTOR


class RawDriver(FormatDriver):
    """Passes everything on to its child."""

    name = "raw"
    supports = Supports.WRITE | Supports.ZEROES | Supports.DISCARD
    threading = Threading.PARALLEL
    options: Final = Options(  # type: ignore[misc]
        Option("offset", Kind.SIZE, "offset in the disk where the image starts"),
        Option("size", Kind.SIZE, "virtual disk size"),
    )
    create_options: Final = Options(Option("size", Kind.SIZE, "Virtual disk size"))

    def __init__(self, file: BlockNode, offset: int, size: int | None, *, probed: bool) -> None:
        super().__init__()
        self.children["file"] = file
        self._file = file
        self._offset = offset
        self._size = size
        self._probed = probed

    @classmethod
    def open(cls, file: BlockNode, mode: OpenMode) -> Self:
        """Open all of ``file``, or the window that the options name.

        Raises:
            InvalidImage: the window does not lie inside the file.
        """
        offset = int(mode.options.get("offset", 0))
        size = int(mode.options["size"]) if "size" in mode.options else None
        whole = _sectors(file.length)
        if offset > whole:
            raise InvalidImage(f"Offset ({offset}) cannot be greater than size of the containing file ({whole})")
        if size is not None and offset + size > whole:
            raise InvalidImage(
                f"The sum of offset ({offset}) and size ({size}) has to be smaller or equal to the  "
                f"actual size of the containing file ({whole})"
            )
        if size is not None and size % SECTOR:
            raise InvalidImage("Specified size is not multiple of 512")
        return cls(file, offset, size, probed=mode.probed)

    @classmethod
    def probe(cls, head: bytes, filename: str) -> int:
        """Anything may be raw; everything else goes first."""
        return 1

    @classmethod
    def check_creation(cls, size: int, options: Mapping[str, Value]) -> None:
        """Refuse a preallocation mode that raw images do not have.

        Raises:
            BlockError: there is no such mode, or it is one of other formats.
        """
        host_preallocation_of(options)

    @classmethod
    def measure(cls, size: int, options: Mapping[str, Value], data: Iterable[tuple[int, int]] | None) -> Measured:
        """The virtual size: what is not allocated counts too."""
        whole = _sectors(size)
        return Measured(whole, whole)

    @classmethod
    def create(cls, file: BlockNode, size: int, options: Mapping[str, Value]) -> None:
        """Give the file its size.

        Raises:
            BlockError: an unknown preallocation mode, or the host refuses.
        """
        file.resize(size, preallocation_of(options))

    @property
    def length(self) -> int:
        """What the file has from the window's start on, in whole sectors, but no more than the window is long."""
        found = _sectors(max(0, self._file.length - self._offset))
        return found if self._size is None else min(found, self._size)

    @property
    def is_window(self) -> bool:
        """Whether options say where in the file the image begins, or how long it is."""
        return bool(self._offset) or self._size is not None

    @property
    def start(self) -> int:
        """Where in the child the image begins, bytes."""
        return self._offset

    def zeroes_fast(self, offset: int, length: int, *, unmap: bool) -> bool:
        """Whether the child does."""
        return self._file.zeroes_fast(self._offset + offset, length, unmap=unmap)

    def pread(self, offset: int, buf: memoryview) -> None:
        """Read from the child."""
        self._file.debug_event("read_aio")
        self._file.pread(self._offset + offset, buf)

    def pwrite(self, offset: int, data: memoryview) -> None:
        """Write to the child.

        Raises:
            BlockError: the format was guessed, and the write would make another format of the image: its reader
                would then follow a header that the guest wrote (CVE-2008-2004 and those after it).
        """
        if self._probed and offset < probe.HEAD_LENGTH:
            self._refuse_disguise(offset, data)
        self._file.debug_event("write_aio")
        self._file.pwrite(self._offset + offset, data)

    def write_zeroes(self, offset: int, length: int, *, unmap: bool) -> None:
        """Zero in the child."""
        self._file.write_zeroes(self._offset + offset, length, unmap=unmap)

    def discard(self, offset: int, length: int) -> None:
        """Discard in the child."""
        self._file.discard(self._offset + offset, length)

    def flush(self) -> None:
        """Sync the child."""
        self._file.flush()

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """The child's extents, moved; where that is an overlay, those of all that it stands on."""
        if self._file.backing is None:
            for extent in self._file.extents(self._offset + offset, length):
                place, file = self._place(extent)
                yield extent._replace(offset=extent.offset - self._offset, host_offset=place, file=file)
            return
        # Nobody who has this node asks what is below the child: what the child leaves open would pass for zeroes.
        for found in block_status(self._file, self._offset + offset, length):
            file = None if found.host_offset is None else found.file or found.layer.storage
            status = found.status | Status.ALLOCATED
            yield Extent(found.offset - self._offset, found.length, status, found.host_offset, file)

    def _place(self, extent: Extent) -> tuple[int | None, BlockNode | None]:
        """Where an extent of the child's begins, and in what: below a child that is a filter, or has a format."""
        if extent.host_offset is None:
            return None, None
        if not isinstance(self._file.driver, FormatDriver | FilterDriver):
            return extent.offset, None
        return extent.host_offset, extent.file or self._file.storage

    def info(self) -> FormatInfo:
        """What the child says, but for what is its own."""
        return self._file.driver.info()._replace(specific=None)

    def resize(self, size: int, preallocation: Preallocation = Preallocation.OFF) -> None:
        """Resize the child.

        Raises:
            UnsupportedFeature: this is a window of a size of its own.
        """
        if self._size is not None:
            raise UnsupportedFeature("Cannot resize fixed-size raw disks")
        self._file.resize(self._offset + size, preallocation)

    def reopened(self, change: ModeChange) -> RawDriver:
        """The window that the mode names; it holds nothing back."""
        present: dict[str, Value] = {"offset": self._offset} if self._offset else {}
        if self._size is not None:
            present["size"] = self._size
        mode = change(OpenMode(probed=self._probed, options=present))
        if mode.options == present and self._file is self.children["file"]:
            return self
        return RawDriver.open(self.children["file"], mode)

    def preallocate(self, offset: int, length: int) -> None:
        """Reserve space for a range."""
        self._file.preallocate(self.start + offset, length)

    def _refuse_disguise(self, offset: int, data: memoryview) -> None:
        head = self._file.read(self._offset, min(probe.HEAD_LENGTH, self.length))
        head[offset : offset + len(data)] = data[: len(head) - offset]
        found = probe.detect(bytes(head), self._file.filename)
        if found != "raw":
            raise BlockError(
                f"'{self._file.filename}' was opened without a format; a write would turn its first sector into a "
                f"{found} header",
                errno=errno.EPERM,
                hint="Specify the format explicitly: raw.",
            )


def _sectors(length: int) -> int:
    return -(-length // SECTOR) * SECTOR

"""The format driver ``vmdk``: a VMware disk as nodes see it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Self

from hostel.block.composing import Surroundings
from hostel.block.driver import FilterDriver, FormatDriver, FormatInfo, OpenMode, Reference, Supports
from hostel.block.extent import Extent, Status
from hostel.block.formats.vmdk import layout
from hostel.block.formats.vmdk.creation import CREATE_OPTIONS
from hostel.block.formats.vmdk.descriptor import is_descriptor
from hostel.block.formats.vmdk.extent import FlatExtent, Kind, VmdkExtent
from hostel.block.formats.vmdk.image import VmdkImage, child_name
from hostel.block.formats.vmdk.sparse import SparseExtent
from hostel.block.formats.vmdk.stream import Stored, StreamExtent
from hostel.block.node import BlockNode, fill_zeroes
from hostel.block.options import Options, Value
from hostel.block.powers import CheckResult, ModeChange, Repair, Report
from hostel.errors import BlockError, InvalidImage, UnsupportedFeature
from hostel.units import MiB

_STATUS: Final = {
    Kind.UNALLOCATED: Status.UNALLOCATED,
    Kind.ZERO: Status.ZERO | Status.ALLOCATED,
    Kind.DATA: Status.DATA | Status.ALLOCATED,
    Kind.COMPRESSED: Status.DATA | Status.ALLOCATED | Status.COMPRESSED,
}
_ZEROES: Final = memoryview(bytes(2 * MiB))  # a whole number of grains, as far as they are usual


class VmdkDriver(FormatDriver):
    """VMware disks."""

    name = "vmdk"
    supports = Supports.WRITE | Supports.ZEROES | Supports.BACKING
    create_options: Final[Options] = CREATE_OPTIONS

    def __init__(self, file: BlockNode, image: VmdkImage) -> None:
        super().__init__()
        self.children["file"] = file
        self._image = image
        self._judged: BlockNode | None = None  # the backing node whose content ID was compared last
        self._fits = True
        self._ignores_parent = False

    @classmethod
    def open(cls, file: BlockNode, mode: OpenMode) -> Self:
        """Open a disk, as far as it lies in ``file``.

        Raises:
            InvalidImage: the descriptor or the header is malformed.
            UnsupportedFeature: the disk is of a kind that is not read.
            ReadOnly: the disk is of a kind that is not written.
        """
        return cls(file, VmdkImage(file, mode))

    @classmethod
    def probe(cls, head: bytes, filename: str) -> int:
        """By the magic of an extent, or by the text of a descriptor."""
        return 100 if head[:4] in (layout.MAGIC, layout.COWD_MAGIC) or is_descriptor(head) else 0

    @classmethod
    def check_creation(cls, size: int, options: Mapping[str, Value]) -> None:
        """Refuse what cannot be created; see :func:`hostel.block.formats.vmdk.create.check_creation`."""
        from hostel.block.formats.vmdk.create import check_creation

        check_creation(size, options)

    @classmethod
    def create(cls, file: BlockNode, size: int, options: Mapping[str, Value]) -> None:
        """Lay out an empty disk that lies in one file and has no parent.

        Raises:
            UnsupportedFeature: it takes more than that.
        """
        cls.compose(file, size, options, Surroundings())

    @classmethod
    def compose(cls, file: BlockNode, size: int, options: Mapping[str, Value], around: Surroundings) -> None:
        """Lay out an empty disk; see :func:`hostel.block.formats.vmdk.create.create_image`."""
        from hostel.block.formats.vmdk.create import create_image

        create_image(file, size, options, around)

    @classmethod
    def parts(cls, filename: str, size: int, options: Mapping[str, Value]) -> list[str]:
        """The names of the extents' files, where they are apart."""
        from hostel.block.formats.vmdk.create import extent_names

        return extent_names(filename, size, options)

    def assembled(self) -> None:
        """Open the extents that lie in files of their own."""
        self._image.assemble(self.children)

    @property
    def length(self) -> int:
        """The virtual size in bytes."""
        return self._image.length

    @property
    def cid(self) -> int:
        """The content ID, which an overlay remembers."""
        return self._image.descriptor.cid

    @property
    def always_compresses(self) -> bool:
        """Whether nothing can be written but whole grains, which are compressed."""
        return self._image.streams

    def _below(self) -> BlockNode | None:
        """The backing node, which must be as it was when this disk was made.

        Raises:
            InvalidImage: it has changed since, or is no VMware disk.
        """
        if (difference := self._difference()) is not None:
            raise InvalidImage("Invalid argument", hint=difference)
        return self.children.get("backing")

    def _difference(self) -> str | None:
        """Why the backing node is not what it was; None where it is."""
        backing = self.children.get("backing")
        if backing is not self._judged:
            self._judged, self._fits = backing, backing is None or _content_id(backing) == self._parent_cid
        if self._fits or backing is None:
            return None
        return (
            f"The backing file '{backing.filename}' has changed, or is another one: the image expects the content ID "
            f"{self._parent_cid:08x}."
        )

    @property
    def _parent_cid(self) -> int:
        return self._image.descriptor.parent_cid

    def pread(self, offset: int, buf: memoryview) -> None:
        """Read from this layer and, where it says nothing, from the backing node."""
        for extent, run in self._image.runs(offset, len(buf)):
            at = extent.start + run.offset - offset
            part = buf[at : at + run.length]
            if run.kind is Kind.DATA:
                extent.file.debug_event("read_aio")
                extent.file.pread(run.host, part)
            elif run.kind is Kind.COMPRESSED:
                assert isinstance(extent, StreamExtent)
                extent.read_stored(extent.stored(run), part)
            elif run.kind is Kind.UNALLOCATED and (below := self._below()) is not None:
                self.children["file"].debug_event("read_backing_aio")
                below.pread_padded(extent.start + run.offset, part)
            else:
                fill_zeroes(part)

    def pwrite(self, offset: int, data: memoryview) -> None:
        """Write in place or into new grains.

        Raises:
            BlockError: the disk is compressed, and this is no whole grain, or one that is there already.
        """
        for extent, start, length in self._image.parts(offset, len(data)):
            if isinstance(extent, StreamExtent):
                extent.require_free(start, length)
        self._image.touch()
        for extent, start, length in list(self._image.parts(offset, len(data))):
            at = extent.start + start - offset
            part = data[at : at + length]
            if isinstance(extent, FlatExtent):
                extent.pwrite(start, part)
            elif isinstance(extent, StreamExtent):
                extent.write_grains(start, part)
            else:
                assert isinstance(extent, SparseExtent)
                extent.pwrite(start, part, self._reader(extent))

    def write_zeroes(self, offset: int, length: int, *, unmap: bool) -> None:
        """Zero by entries or by the host where that is possible; else write zeroes."""
        for extent, start, size in list(self._image.parts(offset, length)):
            if not extent.compressed:
                self._image.touch()
            if isinstance(extent, FlatExtent):
                extent.write_zeroes(start, size, unmap=unmap)
            elif isinstance(extent, StreamExtent):
                for at in range(start, start + size, len(_ZEROES)):
                    self.pwrite(extent.start + at, _ZEROES[: min(len(_ZEROES), start + size - at)])
            else:
                assert isinstance(extent, SparseExtent)
                extent.write_zeroes(start, size, self._reader(extent), alone=self._below() is None)

    def zeroes_fast(self, offset: int, length: int, *, unmap: bool) -> bool:
        """Whether every extent in a range has a word for a grain of zeroes, or leaves it to a host that zeroes fast."""
        return all(
            each.zeroes_fast(start, size, unmap=unmap) if isinstance(each, FlatExtent) else each.has_zero_grains
            for each, start, size in self._image.parts(offset, length)
        )

    def _reader(self, extent: VmdkExtent) -> Callable[[int, memoryview], None]:
        """What fills up a new grain: what lies below this disk."""

        def below(offset: int, buf: memoryview) -> None:
            if (backing := self._below()) is None:
                return  # the grain's buffer is zeroes
            inside = max(0, min(len(buf), extent.length - offset))
            if inside:
                backing.pread_padded(extent.start + offset, buf[:inside])

        self._below()  # a grain that is written as a whole hides a parent that has changed as well
        return below

    def flush(self) -> None:
        """Write what is held back, in order, and sync."""
        self._image.flush()

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """This layer's grains; of flat extents, holes of the host's file are zeroes.

        Raises:
            InvalidImage: the backing file, which shows through, is not the one that it was.
        """
        for extent, run in self._image.runs(offset, length):
            status = _STATUS[run.kind]
            if run.kind is Kind.UNALLOCATED:
                if not self._ignores_parent:
                    self._below()
            elif run.hole:
                status |= Status.ZERO
            host = run.host if run.kind is Kind.DATA else None
            yield Extent(extent.start + run.offset, run.length, status, host, extent.file if host is not None else None)

    def references(self) -> Sequence[Reference]:
        """The extents in files of their own, and the parent."""
        found = [
            Reference(child_name(index), line.filename, "file", essential=True)
            for index, line in enumerate(self._image.lines)
        ]
        if self._image.descriptor.parent:
            found.append(Reference("backing", self._image.descriptor.parent, "vmdk"))
        return found

    def info(self) -> FormatInfo:
        """The grain size and QEMU's format-specific part."""
        image = self._image
        shown: list[dict[str, Any]]
        if image.assembled:
            shown = [_shown(extent) for extent in image.extents]
        else:
            shown = [
                {"virtual-size": line.length, "filename": line.filename, "format": line.kind} for line in image.lines
            ]
        return FormatInfo(
            cluster_size=image.grain_size,
            # As QEMU, which knows nothing of disks of several kinds.
            dirty=False if image.is_uniform or not image.assembled else None,
            specific={
                "cid": image.descriptor.cid,
                "parent-cid": image.descriptor.parent_cid,
                "create-type": image.create_type,
                "extents": shown,
            },
        )

    def close(self) -> None:
        """Write what is held back."""
        self._image.close()

    # ---- optional powers

    @contextlib.contextmanager
    def ignoring_parent(self) -> Iterator[str | None]:
        """Say what is allocated here whatever the parent is like; see :class:`hostel.block.powers.ParentBound`."""
        self._ignores_parent = True
        try:
            yield self._difference()
        finally:
            self._ignores_parent = False

    def reopened(self, change: ModeChange) -> VmdkDriver:
        """Write out what is held back and open the disk anew; see :class:`hostel.block.powers.Reopenable`."""
        self._image.close()
        driver = VmdkDriver.open(self.children["file"], change(self._image.mode))
        driver.children.update(self.children)
        driver.assembled()
        return driver

    def check(self, repair: Repair, report: Report) -> CheckResult:
        """Check the tables.

        Raises:
            UnsupportedFeature: something shall be repaired.
        """
        if repair:
            raise UnsupportedFeature("This image format does not support checks")
        from hostel.block.formats.vmdk.check import check_image

        for extent in self._image.extents:
            if extent.has_changes:
                extent.flush()
        return check_image(self._image, report)

    @property
    def cluster_size(self) -> int:
        """Bytes of the unit of compression.

        Raises:
            BlockError: there is none, with QEMU's text.
        """
        size = self._image.grain_size
        if size is None:
            raise BlockError("invalid cluster size", errno=22)
        return size

    def compressor(self) -> Callable[[bytes | bytearray | memoryview], bytes | None]:
        """A function for one thread that compresses one whole grain; a disk of another kind has it written as it is."""
        first = self._image.extents[0]
        return first.packer() if isinstance(first, StreamExtent) else lambda data: None

    def pwrite_compressed(self, offset: int, payload: bytes) -> None:
        """Append a compressed grain.

        Raises:
            BlockError: the disk is not compressed, ``offset`` is inside a grain, or that grain is there already.
        """
        extent, start = self._image.stream_at(offset)
        if start % extent.grain_size or not payload:
            raise BlockError("A compressed write is one whole grain", errno=22)
        self._image.touch()
        self._below()
        extent.append(start, payload)

    def deferred_read(self, offset: int, length: int) -> Callable[[memoryview], None]:
        """Look up compressed grains that are read without the lock.

        Raises:
            BlockError: the range is not all compressed.
        """
        batch: list[tuple[int, StreamExtent, list[Stored]]] = []
        for extent, run in self._image.runs(offset, length):
            if run.kind is not Kind.COMPRESSED or not isinstance(extent, StreamExtent):
                raise BlockError("Only compressed grains can be looked up before they are read", errno=22)
            batch.append((extent.start + run.offset - offset, extent, extent.stored(run)))

        def fill(buf: memoryview) -> None:
            for at, extent, grains in batch:
                extent.read_stored(grains, buf[at : at + sum(grain.length for grain in grains)])

        return fill


def _content_id(node: BlockNode) -> int | None:
    """The content ID of a backing node; None where it has none."""
    driver = node.driver
    while isinstance(driver, FilterDriver):
        driver = driver.child.driver
    return driver.cid if isinstance(driver, VmdkDriver) else None


def _shown(extent: VmdkExtent) -> dict[str, Any]:
    """An extent as QEMU's ``ImageInfo``."""
    found: dict[str, Any] = {"virtual-size": extent.length, "filename": extent.file.filename}
    if extent.grain_size is not None:
        found["cluster-size"] = extent.grain_size
    found["format"] = extent.line.kind if extent.line is not None else ""
    return {"compressed": True, **found} if extent.compressed else found

"""A VMware disk at work: its descriptor and its extents as one range of bytes."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterator, Mapping

from hostel.block.driver import OpenMode
from hostel.block.formats.vmdk import descriptor as descriptors
from hostel.block.formats.vmdk import layout
from hostel.block.formats.vmdk.descriptor import Descriptor, ExtentLine
from hostel.block.formats.vmdk.extent import FlatExtent, Run, VmdkExtent, refuse_write
from hostel.block.formats.vmdk.mapped import CowdExtent, SeSparseExtent, read_bounded
from hostel.block.formats.vmdk.sparse import open_sparse, read_sparse_header
from hostel.block.formats.vmdk.stream import StreamExtent
from hostel.block.node import BlockNode
from hostel.errors import BlockError, InvalidImage
from hostel.units import INT64_MAX, SECTOR


class VmdkImage:
    """A disk. Its extents are there once the files that the descriptor names are: see :meth:`assemble`.

    Args:
        file: the descriptor, or the extent that it lies in.
        mode: how the disk is opened.

    Attributes:
        create_type: what VMware calls this kind of disk.
        descriptor: what the descriptor says.
        lines: the extents in other files.
        extents: those that are open, in the disk's order.

    Raises:
        InvalidImage: the descriptor, or an extent's header, is malformed.
        UnsupportedFeature: the disk is of a kind that is not read.
    """

    def __init__(self, file: BlockNode, mode: OpenMode) -> None:
        self.file = file
        self.mode = mode
        self.create_type = ""
        self.lines: list[ExtentLine] = []
        self.extents: list[VmdkExtent] = []
        self._ends: list[int] = []
        self._text_offset = 0
        self._cid_written = False
        text = self._open()
        try:
            self.descriptor: Descriptor = descriptors.parse(text)
        except InvalidImage as error:
            error.message = f"Could not open '{file.filename}': {error.message}"
            raise

    def _open(self) -> bytes:
        """Find the descriptor, and with it the extent around it; returns its text."""
        if self.file.length < 4:
            raise InvalidImage("File is too small, not a valid image")
        magic = read_bounded(self.file, 0, 4)
        if magic == layout.MAGIC:
            header = read_sparse_header(self.file)
            if not header.capacity and header.descriptor_offset and not self._is_empty(header.descriptor_offset):
                return self._open_text(header.descriptor_offset * SECTOR)
            self._add(open_sparse(self.file, None, self.mode))
            self.create_type = "streamOptimized" if self.extents[0].compressed else "monolithicSparse"
        elif magic == layout.COWD_MAGIC:
            self._add(CowdExtent(self.file, None))
        else:
            return self._open_text(0)
        self._text_offset = layout.DESCRIPTOR_OFFSET
        text = read_bounded(self.file, self._text_offset, layout.DESCRIPTOR_LENGTH).partition(b"\0")[0]
        # It is read from here, so a guest must not write here, whatever the header says of its place.
        self.extents[0].text_end = self._text_offset + min(len(text) + 1, layout.DESCRIPTOR_LENGTH)
        return text

    def _is_empty(self, sector: int) -> bool:
        """Whether a sparse extent without capacity is a disk of no bytes; else its descriptor names the extents."""
        if sector * SECTOR != layout.DESCRIPTOR_OFFSET:
            return False
        text = read_bounded(self.file, layout.DESCRIPTOR_OFFSET, layout.DESCRIPTOR_LENGTH)
        return descriptors.is_empty(text)

    def _open_text(self, offset: int) -> bytes:
        """A descriptor that names its extents."""
        if offset > INT64_MAX - layout.MAX_DESCRIPTOR:
            raise InvalidImage("Could not read from file: Invalid argument")
        length = min(self.file.length, layout.MAX_DESCRIPTOR)
        text = read_bounded(self.file, offset, length).partition(b"\0")[0]
        self.create_type = descriptors.parse_create_type(text)
        self.lines = descriptors.parse_extents(text)
        self._text_offset = offset
        return text

    @property
    def assembled(self) -> bool:
        """Whether all extents are open."""
        return not self.lines or bool(self.extents)

    @property
    def length(self) -> int:
        """Bytes of the disk: what the extents say, or as long as they are not open, the descriptor."""
        return self._ends[-1] if self.extents else sum(line.length for line in self.lines)

    def assemble(self, children: Mapping[str, BlockNode]) -> None:
        """Open the extents in the files that the descriptor names.

        Raises:
            InvalidImage: a header is malformed.
            BlockError: an extent cannot be written.
        """
        if self.assembled:
            return
        for index, line in enumerate(self.lines):
            self._add(self._open_extent(children[child_name(index)], line))

    def _add(self, extent: VmdkExtent) -> None:
        if not self.mode.read_only:
            refuse_write(extent)
        extent.start = self.length if self.extents else 0
        if extent.end > INT64_MAX:
            raise InvalidImage("The extents are too long together")
        self.extents.append(extent)
        self._ends.append(extent.end)

    def _open_extent(self, file: BlockNode, line: ExtentLine) -> VmdkExtent:
        if line.kind in descriptors.FLAT:
            return FlatExtent(file, line)
        if line.kind == descriptors.SESPARSE:
            return SeSparseExtent(file, line)
        if read_bounded(file, 0, 4) == layout.COWD_MAGIC:
            return CowdExtent(file, line)
        return open_sparse(file, line, self.mode)

    def parts(self, offset: int, length: int) -> Iterator[tuple[VmdkExtent, int, int]]:
        """The extents of a range: each with the bytes from its own start, and the length."""
        end = offset + length
        index = bisect_right(self._ends, offset)
        while offset < end:
            extent = self.extents[index]
            stop = min(end, extent.end)
            if stop > offset:
                yield extent, offset - extent.start, stop - offset
            offset = stop
            index += 1

    def runs(self, offset: int, length: int) -> Iterator[tuple[VmdkExtent, Run]]:
        """The runs of a range, each with its extent."""
        for extent, start, size in self.parts(offset, length):
            for run in extent.runs(start, size):
                yield extent, run

    def touch(self) -> None:
        """Give the disk another content ID before it is changed for the first time: its children must notice.

        As many digits are written as are there, so that nothing else moves, and a write that is cut off leaves a
        descriptor that can be read.
        """
        if self._cid_written:
            return
        place, width = self.descriptor.cid_place
        cid = self.descriptor.cid
        while cid in (self.descriptor.cid, descriptors.NO_PARENT):
            cid = int.from_bytes(os.urandom(4), "little") % 16**width
        self.file.pwrite(self._text_offset + place, f"{cid:0{width}x}".encode())
        self.file.flush()
        self._cid_written = True
        self.descriptor = self.descriptor._replace(cid=cid)

    @property
    def is_uniform(self) -> bool:
        """Whether all extents are of one kind."""
        return len({(each.grain_size, each.compressed) for each in self.extents}) == 1

    @property
    def grain_size(self) -> int | None:
        """Bytes of a grain where all extents are of one kind; None where they are not, or have none."""
        return self.extents[0].grain_size if self.is_uniform else None

    @property
    def streams(self) -> bool:
        """Whether the disk is compressed."""
        return bool(self.extents) and self.extents[0].compressed

    def stream_at(self, offset: int) -> tuple[StreamExtent, int]:
        """The compressed extent that holds a byte, and where in it that is.

        Raises:
            BlockError: it is not compressed.
        """
        extent, start, _ = next(self.parts(offset, 1))
        if not isinstance(extent, StreamExtent):
            raise BlockError("Only streamOptimized extents are compressed", errno=22)
        return extent, start

    def flush(self) -> None:
        """Write what is held back, and sync all files."""
        for extent in self.extents:
            extent.flush()
        if self.lines:
            self.file.flush()

    def close(self) -> None:
        """Write what is held back."""
        for extent in self.extents:
            if extent.has_changes:
                extent.flush()


def child_name(index: int) -> str:
    """How QEMU calls the edge to an extent's file."""
    return f"extents.{index}"

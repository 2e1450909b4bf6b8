"""The extents that a VMware disk consists of: what all kinds have in common, and the flat ones."""

from __future__ import annotations

import abc
import enum
from collections.abc import Iterator
from typing import NamedTuple

from hostel.block.extent import Status
from hostel.block.formats.vmdk.descriptor import ExtentLine
from hostel.block.node import BlockNode
from hostel.errors import ReadOnly


class Kind(enum.Enum):
    """What a range of an extent is."""

    UNALLOCATED = "unallocated"
    ZERO = "zero"
    DATA = "data"
    COMPRESSED = "compressed"


class Run(NamedTuple):
    """A range of one kind.

    Attributes:
        offset: bytes from the extent's start.
        length: bytes; never 0.
        host: of DATA, where it begins in the extent's file; bytes.
        hole: of DATA, the host's file has no bytes for it, so it reads as zeroes.
    """

    offset: int
    length: int
    kind: Kind
    host: int = 0
    hole: bool = False


class VmdkExtent(abc.ABC):
    """An extent at work. Offsets are bytes from its own start.

    Args:
        file: what it lies in.
        line: the descriptor's line; None for the one that has the descriptor inside.

    Attributes:
        start: where in the disk it begins, bytes.
        length: bytes of the disk that it holds.
        grain_size: bytes that are mapped together; None where nothing is mapped.
        compressed: grains are stored compressed.
        text_end: where the descriptor ends that lies inside, with its NUL, as far as it is read; 0 without one.
    """

    length: int
    grain_size: int | None = None
    compressed = False

    def __init__(self, file: BlockNode, line: ExtentLine | None) -> None:
        self.file = file
        self.line = line
        self.start = 0
        self.text_end = 0

    @property
    def end(self) -> int:
        """The first byte of the disk after it."""
        return self.start + self.length

    @property
    def has_zero_grains(self) -> bool:
        """Whether a grain of zeroes has an entry of its own, and takes no space."""
        return False

    @abc.abstractmethod
    def runs(self, offset: int, length: int) -> Iterator[Run]:
        """What a range is, in order and without gaps.

        Raises:
            CorruptImage: the tables make no sense.
        """

    def write_refusal(self) -> str | None:
        """Why it can only be read, in QEMU's words; None where it can be written."""
        return None

    def flush(self) -> None:
        """Write what is held back, and sync."""
        self.file.flush()

    @property
    def has_changes(self) -> bool:
        """Whether anything is held back."""
        return False


class FlatExtent(VmdkExtent):
    """A range of a file, as it is."""

    def __init__(self, file: BlockNode, line: ExtentLine) -> None:
        super().__init__(file, line)
        self.length = line.length
        self.offset = line.offset

    def runs(self, offset: int, length: int) -> Iterator[Run]:
        """All of it is data, in which the host knows of holes."""
        host = self.offset + offset
        for part in self.file.extents(host, length):
            yield Run(part.offset - self.offset, part.length, Kind.DATA, part.offset, bool(part.status & Status.ZERO))

    def pread(self, offset: int, buf: memoryview) -> None:
        """Read; beyond the file's end there are zeroes."""
        self.file.pread(self.offset + offset, buf)

    def pwrite(self, offset: int, data: memoryview) -> None:
        """Write in place."""
        self.file.debug_event("write_aio")
        self.file.pwrite(self.offset + offset, data)

    def write_zeroes(self, offset: int, length: int, *, unmap: bool) -> None:
        """Zero in place."""
        self.file.write_zeroes(self.offset + offset, length, unmap=unmap)

    def zeroes_fast(self, offset: int, length: int, *, unmap: bool) -> bool:
        """Whether the file does."""
        return self.file.zeroes_fast(self.offset + offset, length, unmap=unmap)


def refuse_write(extent: VmdkExtent) -> None:
    """Refuse to open an extent for writing that can only be read.

    Raises:
        ReadOnly: it can only be read.
    """
    if (refusal := extent.write_refusal()) is not None:
        raise ReadOnly(refusal)

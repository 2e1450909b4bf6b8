"""Filter ``copy-before-write``: what the guest is about to overwrite is copied to a target first."""

from __future__ import annotations

import enum
import threading
from collections.abc import Iterator, Mapping
from typing import Final, Self

from hostel.block.bitmap import DirtyBitmap
from hostel.block.chain import rounded_length
from hostel.block.driver import FilterDriver, OpenMode, Supports
from hostel.block.extent import Extent
from hostel.block.filters.option import settle
from hostel.block.jobs.block_copy import BlockCopy, copy_unit
from hostel.block.jobs.policy import SourceError
from hostel.block.node import BlockNode
from hostel.block.options import Kind, Option, OptionError, Options
from hostel.errors import BlockError, ReadOnly, UnsupportedFeature


class OnCbwError(enum.Enum):
    """What becomes of the guest's write when the old data cannot be copied; the values are QMP's."""

    BREAK_GUEST_WRITE = "break-guest-write"  # it fails
    BREAK_SNAPSHOT = "break-snapshot"  # it is done, and the old content is lost


class CopyBeforeWriteDriver(FilterDriver):
    """Copies before it writes.

    Attributes:
        block_copy: what is still to be copied.
    """

    name = "copy-before-write"
    options: Final = Options(  # type: ignore[misc]
        Option("on-cbw-error", Kind.STRING, "what to do when old data cannot be copied"),
    )

    def __init__(
        self,
        child: BlockNode,
        target: BlockNode,
        block_copy: BlockCopy,
        on_error: OnCbwError = OnCbwError.BREAK_GUEST_WRITE,
    ) -> None:
        super().__init__({"file": child, "target": target})
        self.block_copy = block_copy
        self._on_error = on_error

    @classmethod
    def open(cls, children: Mapping[str, BlockNode], mode: OpenMode) -> Self:
        """Put the filter on an image whose present content is to be kept in ``target``.

        Raises:
            OptionError: an option is unknown or wrong.
            BlockError: the target is of another size.
        """
        given = settle(cls.name, cls.options, mode.options)
        text = str(given.get("on-cbw-error", OnCbwError.BREAK_GUEST_WRITE.value))
        try:
            on_error = OnCbwError(text)
        except ValueError:
            raise OptionError(f"Invalid parameter '{text}'") from None
        source, target = children["file"], children["target"]
        if rounded_length(source) != rounded_length(target):
            raise BlockError("Source and target image have different sizes", errno=22)
        block_copy = BlockCopy(source, target, copy_unit(target))
        block_copy.choose(None)
        return cls(source, target, block_copy, on_error)

    def pwrite(self, offset: int, data: memoryview) -> None:
        """Copy, then write."""
        self._copy(offset, len(data))
        self.child.pwrite(offset, data)

    def write_zeroes(self, offset: int, length: int, *, unmap: bool) -> None:
        """Copy, then zero."""
        self._copy(offset, length)
        self.child.write_zeroes(offset, length, unmap=unmap)

    def discard(self, offset: int, length: int) -> None:
        """Copy, then discard."""
        self._copy(offset, length)
        self.child.discard(offset, length)

    def _copy(self, offset: int, length: int) -> None:
        if self.block_copy.broken is not None:
            return
        try:
            self.block_copy.copy(offset, offset + length)
        except SourceError as failure:
            if self._on_error is OnCbwError.BREAK_GUEST_WRITE:
                raise failure.cause from None
            self.block_copy.broken = failure.cause


class BackupFilter(CopyBeforeWriteDriver):
    """The filter that a backup puts in.

    Attributes:
        written: records what is written while the filter is there; None where nobody wants to know.
    """

    implicit = True

    def __init__(self, child: BlockNode, target: BlockNode, block_copy: BlockCopy, written: DirtyBitmap | None) -> None:
        super().__init__(child, target, block_copy)
        self.written = written
        self._lock = threading.Lock()

    def _copy(self, offset: int, length: int) -> None:
        if self.written is not None:
            with self._lock:
                self.written.mark(offset, length)
        super()._copy(offset, length)


class SnapshotAccessDriver(FilterDriver):
    """Shows the content that a ``copy-before-write`` filter keeps; what is discarded need not be kept any longer."""

    name = "snapshot-access"
    primary = ""  # what lies below has another content
    options: Final = Options()  # type: ignore[misc]

    def __init__(self, children: Mapping[str, BlockNode], block_copy: BlockCopy) -> None:
        super().__init__(children)
        self.supports = Supports.DISCARD
        self._block_copy = block_copy

    @classmethod
    def open(cls, children: Mapping[str, BlockNode], mode: OpenMode) -> Self:
        """Show what the filter keeps that the child is.

        Raises:
            UnsupportedFeature: the child is another driver's.
        """
        settle(cls.name, cls.options, mode.options)
        below = children["file"].driver
        if not isinstance(below, CopyBeforeWriteDriver):
            raise UnsupportedFeature(f"snapshot-access needs a copy-before-write node, not {below.name}")
        return cls(children, below.block_copy)

    @property
    def length(self) -> int:
        """The source's at that moment."""
        return self._block_copy.length

    def pread(self, offset: int, buf: memoryview) -> None:
        """Read what the source had."""
        self._block_copy.read(offset, buf)

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """What is known of what the source had."""
        for start, size, status in self._block_copy.extents(offset, length):
            yield Extent(start, size, status)

    def pwrite(self, offset: int, data: memoryview) -> None:
        """Refuse: the past does not change.

        Raises:
            ReadOnly: always.
        """
        raise ReadOnly("Block node is read-only")

    def discard(self, offset: int, length: int) -> None:
        """Keep a range no longer."""
        self._block_copy.forget(offset, length)

    def flush(self) -> None:
        """Nothing is written."""

    def zeroes_fast(self, offset: int, length: int, *, unmap: bool) -> bool:
        """Nothing is zeroed."""
        return False

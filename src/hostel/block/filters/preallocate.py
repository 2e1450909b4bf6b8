"""Filter ``preallocate``: a file that grows grows by much at once, so that its blocks lie together.

What was reserved too much is cut off when the file is closed.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Final, Self

from hostel.block.driver import FilterDriver, OpenMode, Supports
from hostel.block.filters.option import settle
from hostel.block.interruption import failures_ignored
from hostel.block.lock import require_free
from hostel.block.node import BlockNode
from hostel.block.options import Kind, Option, OptionError, Options
from hostel.block.powers import ModeChange, Preallocation
from hostel.units import SECTOR


class PreallocateDriver(FilterDriver):
    """Reserves space behind the end of a file before it is written."""

    name = "preallocate"
    options: Final = Options(  # type: ignore[misc]
        Option("prealloc-align", Kind.SIZE, "on preallocation, align file length to this number, default 1M", "1M"),
        Option("prealloc-size", Kind.SIZE, "how much to preallocate, default 128M", "128M"),
    )

    def __init__(self, child: BlockNode, align: int, size: int) -> None:
        super().__init__({"file": child})
        self._align = align
        self._size = size
        # Where the written data ends, and where the file does; not known before the first write.
        self._data_end: int | None = None
        self._file_end = 0
        self._lock = threading.RLock()

    @classmethod
    def open(cls, children: Mapping[str, BlockNode], mode: OpenMode) -> Self:
        """Put the filter on a file.

        Raises:
            OptionError: ``prealloc-align`` is no number of sectors.
        """
        values = settle(cls.name, cls.options, mode.options)
        align, size = int(values["prealloc-align"]), int(values["prealloc-size"])
        if align % SECTOR or not align:
            raise OptionError(f"prealloc-align parameter of preallocate filter is not aligned to {SECTOR}")
        return cls(children["file"], align, size)

    def reopened(self, change: ModeChange) -> PreallocateDriver:
        """Give up what was reserved; the filter with other sizes; see :class:`hostel.block.powers.Reopenable`."""
        self.close()
        return type(self).open(self.children, change(OpenMode()))

    @property
    def length(self) -> int:
        """The written data's end: what is reserved behind it is nobody's business."""
        return self.child.length if self._data_end is None else self._data_end

    def pwrite(self, offset: int, data: memoryview) -> None:
        """Reserve, then write."""
        self._reserve(offset + len(data))
        self.child.pwrite(offset, data)

    def write_zeroes(self, offset: int, length: int, *, unmap: bool) -> None:
        """Reserve, then zero."""
        self._reserve(offset + length)
        self.child.write_zeroes(offset, length, unmap=unmap)

    def _reserve(self, end: int) -> None:
        if not self.child.driver.supports & Supports.GROWS:
            return
        require_free(self._lock)
        with self._lock:
            if self._data_end is None:
                self._data_end = self._file_end = self.child.length
            if end <= self._data_end:
                return
            self._data_end = end
            if end <= self._file_end:
                return
            target = -(-(end + self._size) // self._align) * self._align
            self._file_end = max(self._file_end, end)
            # A host that reserves nothing, or has no room for it, may still have room for the write.
            length = target - self._file_end
            with failures_ignored():
                if self.child.zeroes_fast(self._file_end, length):
                    self.child.write_zeroes(self._file_end, length)
                    self._file_end = target

    def resize(self, size: int, preallocation: Preallocation) -> None:
        """Give up what was reserved, then resize."""
        require_free(self._lock)
        with self._lock:
            self._cut()
            self.child.resize(size, preallocation)
            self._data_end = self._file_end = size

    def _cut(self) -> None:
        if self._data_end is not None:
            # The host may have reserved a part of what was asked for, also where it then said no.
            if self.child.length > self._data_end:
                self.child.resize(self._data_end)
            self._file_end = self._data_end

    def close(self) -> None:
        """Give up what was reserved.

        Raises:
            OSError: the file cannot be cut: it is longer than its data.
        """
        require_free(self._lock)
        with self._lock:
            self._cut()

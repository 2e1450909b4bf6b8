"""What VDI, VHD and VHDX share beside their tables: reading and writing a disk whose blocks a table finds.

A format says where the runs of a range are, and adds blocks; its table is held back until a flush. An image that is the
difference from a parent is only read, and what it leaves out is the parent's.
"""

from __future__ import annotations

import abc
from collections.abc import Iterator
from typing import ClassVar, Self

from hostel.block.driver import FormatDriver, OpenMode, Supports
from hostel.block.extent import Extent, Status
from hostel.block.formats.block_table import ABSENT, BlockMap, BlockTable, Run
from hostel.block.node import BlockNode, fill_zeroes
from hostel.block.powers import ModeChange
from hostel.errors import InvalidImage


class BlockMappedDriver(FormatDriver):
    """A disk of blocks.

    Attributes:
        title: how users call the format.
    """

    title: ClassVar[str]
    new_blocks_read_as_zeroes = True
    _table: BlockTable
    _map: BlockMap

    def __init__(self, file: BlockNode, mode: OpenMode, *, differs: bool) -> None:
        super().__init__()
        self.children["file"] = file
        self._file = file
        self._mode = mode
        self._differs = differs
        self.supports = Supports.BACKING if differs else Supports.WRITE | Supports.ZEROES

    @abc.abstractmethod
    def _add(self, offset: int, data: memoryview) -> None:
        """Write where there are no blocks yet."""

    def _runs(self, offset: int, length: int) -> Iterator[Run]:
        """A range's runs."""
        return self._map.runs(offset, length)

    def _before_overwriting(self, run: Run) -> None:
        """What must be on its way before bytes of a block change."""

    def pread(self, offset: int, buf: memoryview) -> None:
        """Read blocks, and zeroes, or the parent, where there are none."""
        for run in self._runs(offset, len(buf)):
            part = buf[run.offset - offset : run.offset - offset + run.length]
            if run.host >= 0:
                self._file.pread(run.host, part)
            elif run.host == ABSENT and self._differs:
                self._parent().pread_padded(run.offset, part)
            else:
                fill_zeroes(part)

    def pwrite(self, offset: int, data: memoryview) -> None:
        """Write in place, or into new blocks."""
        for run in list(self._runs(offset, len(data))):
            part = data[run.offset - offset : run.offset - offset + run.length]
            if run.host >= 0:
                self._before_overwriting(run)
                self._file.pwrite(run.host, part)
            else:
                self._add(run.offset, part)
        if self._table.is_crowded:
            self.flush()

    def write_zeroes(self, offset: int, length: int, *, unmap: bool) -> None:
        """Zero blocks that are there; others are zeroes already."""
        for run in self._runs(offset, length):
            if run.host >= 0:
                self._file.write_zeroes(run.host, run.length, unmap=unmap)

    def zeroes_fast(self, offset: int, length: int, *, unmap: bool) -> bool:
        """Whether the child does, where there are blocks."""
        runs = self._runs(offset, length)
        return all(self._file.zeroes_fast(run.host, run.length, unmap=unmap) for run in runs if run.host >= 0)

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """Blocks and zeroes, and what the parent has."""
        for run in self._runs(offset, length):
            if run.host >= 0:
                yield Extent(run.offset, run.length, Status.DATA | Status.ALLOCATED, run.host)
            elif run.host == ABSENT and self._differs:
                yield Extent(run.offset, run.length, Status.UNALLOCATED)
            else:
                yield Extent(run.offset, run.length, Status.ZERO | Status.ALLOCATED)

    def close(self) -> None:
        """Write what is held back."""
        if self._table.is_dirty:
            self.flush()

    def reopened(self, change: ModeChange) -> Self:
        """Write out what is held back and open the image anew; see :class:`hostel.block.powers.Reopenable`."""
        self.close()
        driver = type(self).open(self.children["file"], change(self._mode))
        driver.children.update(self.children)
        return driver

    def _parent(self) -> BlockNode:
        parent = self.children.get("backing")
        if parent is None:
            raise InvalidImage(f"The parent of this differencing {self.title} is not open")
        return parent

"""Filter ``copy-on-read``: what is read from a backing file is kept in the overlay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Self

from hostel.block.chain import block_status, rounded_length
from hostel.block.driver import FilterDriver, OpenMode, Threading
from hostel.block.extent import Status
from hostel.block.filters.option import settle
from hostel.block.node import BlockNode, fill_zeroes
from hostel.block.options import Kind, Option, Options
from hostel.errors import ReadOnly, UnsupportedFeature
from hostel.units import MiB

_STEP: Final = 16 * MiB  # bytes copied at once


class CopyOnReadDriver(FilterDriver):
    """Copies whole clusters into the overlay when a part of them is read.

    One request at a time, so that a copy never overwrites what is written meanwhile.
    """

    name = "copy-on-read"
    threading = Threading.SERIAL
    options: Final = Options(  # type: ignore[misc]
        Option("bottom", Kind.STRING, "the node of the chain from which nothing is copied"),
    )

    def __init__(self, child: BlockNode) -> None:
        super().__init__({"file": child})
        self._unit = child.driver.info().cluster_size or 1

    @classmethod
    def open(cls, children: Mapping[str, BlockNode], mode: OpenMode) -> Self:
        """Put the filter on an image.

        Raises:
            ReadOnly: nothing can be kept in an image that is open for reading only.
            UnsupportedFeature: ``bottom`` is given.
        """
        if "bottom" in settle(cls.name, cls.options, mode.options):
            raise UnsupportedFeature("copy-on-read: nodes are not known by name yet, so 'bottom' cannot be followed")
        if children["file"].read_only:
            raise ReadOnly("Block node is read-only")
        return cls(children["file"])

    def pread(self, offset: int, buf: memoryview) -> None:
        """Read; what is read from below the image is kept in it, in whole clusters."""
        end = offset + len(buf)
        start, stop = offset - offset % self._unit, min(rounded_length(self.child), -(-end // self._unit) * self._unit)
        for extent in list(self.child.extents(start, stop - start)):
            if not extent.status & Status.ALLOCATED:
                self._keep(extent.offset, extent.end, offset, buf)
                continue
            low, high = max(extent.offset, offset), min(extent.end, end)
            if low < high:
                self.child.pread(low, buf[low - offset : high - offset])

    def _keep(self, start: int, stop: int, offset: int, buf: memoryview) -> None:
        """Write what an unallocated range reads as, zeroes as zeroes, and fill ``buf``, which begins at ``offset``."""
        for extent in list(block_status(self.child, start, stop - start)):
            for low in range(extent.offset, extent.end, _STEP):
                high = min(low + _STEP, extent.end)
                data = self.child.read(low, high - low) if extent.status & Status.DATA else b""
                self.child.debug_event("cor_write")
                if data.count(0) == len(data):
                    self.child.write_zeroes(low, high - low)
                else:
                    self.child.pwrite(low, data)
                first, last = max(low, offset), min(high, offset + len(buf))
                if first < last and data:
                    buf[first - offset : last - offset] = data[first - low : last - low]
                elif first < last:
                    fill_zeroes(buf[first - offset : last - offset])

"""Filter ``copy-on-read``: what is read from a backing file is kept in the overlay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Self

from hostel.block.chain import block_status
from hostel.block.driver import FilterDriver, OpenMode, Threading
from hostel.block.extent import Status
from hostel.block.filters.option import settle
from hostel.block.node import BlockNode
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
        if child.read_only:
            raise ReadOnly("Can't use copy-on-read on read-only device")
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
        return cls(children["file"])

    def pread(self, offset: int, buf: memoryview) -> None:
        """Keep what the range's clusters read as, then read."""
        if self.child.backing is not None or self._unit > 1:
            start = offset - offset % self._unit
            end = min(self.child.length, -(-(offset + len(buf)) // self._unit) * self._unit)
            for extent in list(self.child.extents(start, end - start)):
                if not extent.status & Status.ALLOCATED:
                    self._keep(extent.offset, extent.length)
        self.child.pread(offset, buf)

    def _keep(self, offset: int, length: int) -> None:
        """Write what an unallocated range reads as; zeroes as zeroes."""
        for extent in list(block_status(self.child, offset, length)):
            for start in range(extent.offset, extent.end, _STEP):
                part = min(_STEP, extent.end - start)
                data = self.child.read(start, part) if extent.status & Status.DATA else b""
                self.child.debug_event("cor_write")
                if data.count(0) == len(data):
                    self.child.write_zeroes(start, part)
                else:
                    self.child.pwrite(start, data)

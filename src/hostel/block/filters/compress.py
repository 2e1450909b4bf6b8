"""Filter ``compress``: what is written is stored compressed, where the format can."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Self

from hostel.block.driver import FilterDriver, OpenMode
from hostel.block.filters.fitting import Fitting, Limits
from hostel.block.filters.option import settle
from hostel.block.node import BlockNode
from hostel.block.options import Options
from hostel.block.powers import Compressing
from hostel.errors import UnsupportedFeature


def write_compressed(node: BlockNode, offset: int, data: bytes | bytearray | memoryview) -> None:
    """Write whole clusters compressed, the image's last one filled with zeroes; the range lies inside the node.

    What would not get smaller is written as it is, and so is all where a job has put a filter into the node.
    """
    driver = node.driver
    if not isinstance(driver, Compressing):
        node.pwrite(offset, data)
        return
    compress, size = driver.compressor(), driver.cluster_size
    for start in range(0, len(data), size):
        part = data[start : start + size]
        payload = compress(bytes(part).ljust(size, b"\0"))
        if payload is not None:
            with node.lock():
                if node.driver is driver:
                    driver.pwrite_compressed(offset + start, payload)
                    continue
        node.pwrite(offset + start, part)


class CompressDriver(FilterDriver):
    """Writes whole clusters compressed; what is smaller is read, changed and written back."""

    name = "compress"
    options: Final = Options()  # type: ignore[misc]

    def __init__(self, child: BlockNode, cluster_size: int) -> None:
        super().__init__({"file": child})
        self._fitting = Fitting(self, Limits(alignment=cluster_size), lambda event: None)

    @classmethod
    def open(cls, children: Mapping[str, BlockNode], mode: OpenMode) -> Self:
        """Put the filter on an image.

        Raises:
            UnsupportedFeature: its format has no compression.
        """
        settle(cls.name, cls.options, mode.options)
        child = children["file"]
        if not isinstance(child.driver, Compressing):
            raise UnsupportedFeature(f"Compression is not supported for underlying format: {child.format}")
        return cls(child, child.driver.cluster_size)

    def pwrite(self, offset: int, data: memoryview) -> None:
        """Write compressed."""
        self._fitting.write(offset, data)

    def write_zeroes(self, offset: int, length: int, *, unmap: bool) -> None:
        """Zero whole clusters; parts are written compressed."""
        self._fitting.zero(offset, length, unmap=unmap)

    def discard(self, offset: int, length: int) -> None:
        """Discard whole clusters."""
        self._fitting.discard(offset, length)

    def read_fitting(self, offset: int, buf: memoryview) -> None:
        """Read clusters."""
        self.child.pread_padded(offset, buf)

    def write_fitting(self, offset: int, data: memoryview) -> None:
        """Write clusters."""
        write_compressed(self.child, offset, data[: self.child.length - offset])

    def zero_fitting(self, offset: int, length: int, *, unmap: bool) -> None:
        """Zero clusters."""
        self.child.write_zeroes(offset, length, unmap=unmap)

    def discard_fitting(self, offset: int, length: int) -> None:
        """Discard clusters."""
        self.child.discard(offset, length)

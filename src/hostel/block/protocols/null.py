"""Protocols ``null-co`` and ``null-aio``: a disk that keeps nothing, for measuring what lies above it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any, Final, Self

from hostel.block.driver import FormatInfo, OpenMode, Supports, Threading
from hostel.block.extent import Extent, Status
from hostel.block.options import Kind, Option, OptionError, Options
from hostel.block.powers import ModeChange
from hostel.block.protocol import Creation, ProtocolDriver
from hostel.units import SECTOR


class NullDriver(ProtocolDriver):
    """Accepts every write and forgets it; a read leaves the buffer as it is, or zeroes it with ``read-zeroes``."""

    name = "null-co"
    supports = Supports.WRITE | Supports.ZEROES | Supports.DISCARD
    threading = Threading.PARALLEL
    creation = Creation.NONE
    options: Final = Options(  # type: ignore[misc]
        Option("size", Kind.SIZE, "size of the null block", "1G"),
        Option("latency-ns", Kind.NUMBER, "nanoseconds (approximated) to wait before completing request", "0"),
        Option("read-zeroes", Kind.BOOL, "return zeroes when read", "off"),
    )

    def __init__(self, size: int, latency: float, *, read_zeroes: bool, filename: str) -> None:
        super().__init__()
        self.filename = filename
        self._size = size
        self._latency = latency  # seconds
        self._read_zeroes = read_zeroes

    @classmethod
    def parse_filename(cls, name: str) -> Mapping[str, Any]:
        """Read the only name that there is.

        Raises:
            OptionError: it is another one.
        """
        if name not in ("null-co://", "null-aio://"):
            raise OptionError(f"The only allowed filename for this driver is '{cls.name}://'")
        return {}

    @classmethod
    def open(cls, options: Mapping[str, Any], mode: OpenMode, *, creating: bool = False) -> Self:
        """Make the disk.

        Raises:
            OptionError: an option is unknown or wrong.
        """
        values = cls.converted(options)
        latency = int(values["latency-ns"])
        if not 0 <= latency < 2**63:
            raise OptionError("latency-ns is invalid")
        strong = {name: options[name] for name in ("size", "read-zeroes") if name in options}
        filename = f"{cls.name}://"
        if strong:
            from hostel.codec.qobject import compact_json

            filename = f"json:{compact_json({'driver': cls.name, **strong})}"
        return cls(int(values["size"]), latency / 1e9, read_zeroes=bool(values["read-zeroes"]), filename=filename)

    def reopened(self, change: ModeChange) -> NullDriver:
        """Itself."""
        return self

    @property
    def length(self) -> int:
        """The size that the options say, in whole sectors."""
        return -(-self._size // SECTOR) * SECTOR

    @property
    def allocated_length(self) -> int:
        """Nothing is kept."""
        return 0

    def _wait(self) -> None:
        if self._latency:
            time.sleep(self._latency)

    def pread(self, offset: int, buf: memoryview) -> None:
        """Read nothing, or zeroes."""
        if self._read_zeroes:
            buf[:] = bytes(len(buf))
        self._wait()

    def pwrite(self, offset: int, data: memoryview) -> None:
        """Forget."""
        self._wait()

    def write_zeroes(self, offset: int, length: int, *, unmap: bool) -> None:
        """Forget."""
        self._wait()

    def flush(self) -> None:
        """There is nothing."""
        self._wait()

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """Zeroes where that is promised, else neither them nor data: nothing was ever kept."""
        if self._read_zeroes:
            yield Extent(offset, length, Status.ALLOCATED | Status.ZERO, offset)
        else:
            yield Extent(offset, length, Status.ALLOCATED, offset)

    def info(self) -> FormatInfo:
        """Nothing is known."""
        return FormatInfo(dirty=None)


class NullAioDriver(NullDriver):
    """The same under the name of QEMU's other interface."""

    name = "null-aio"

"""Filter ``blkverify``: an image and a raw copy of it get the same writes, and every read must find them equal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final, Self

from hostel.block.driver import FilterDriver, FormatInfo, OpenMode, Supports
from hostel.block.extent import Extent
from hostel.block.filters.option import settle
from hostel.block.interruption import breaks_in
from hostel.block.node import BlockNode
from hostel.block.options import OptionError, Options, Value
from hostel.errors import Mismatch


def first_difference(one: bytes | bytearray | memoryview, other: bytes | bytearray | memoryview) -> int:
    """The index of the first byte in which two buffers of one length differ; -1 where there is none."""
    if one == other:
        return -1
    low, high = 0, len(one)
    while high - low > 1:
        middle = (low + high) // 2
        if one[low:middle] != other[low:middle]:
            high = middle
        else:
            low = middle
    return low


class BlkverifyDriver(FilterDriver):
    """Shows the image ``test`` and holds it beside ``raw``; a difference fails the request.

    QEMU's ends the process at the first difference.
    """

    name = "blkverify"
    primary = "test"
    options: Final = Options()  # type: ignore[misc]

    def __init__(self, children: Mapping[str, BlockNode]) -> None:
        super().__init__(children)
        self._raw = children["raw"]
        # Zeroes are written and nothing is discarded: only so both are sure to read alike.
        self.supports &= ~(Supports.ZEROES | Supports.DISCARD)

    @classmethod
    def open(cls, children: Mapping[str, BlockNode], mode: OpenMode) -> Self:
        """Put the filter on two images.

        Raises:
            OptionError: there are no options.
        """
        settle(cls.name, cls.options, mode.options)
        return cls(children)

    def info(self) -> FormatInfo:
        """What is said of ``raw``, whose bytes QEMU takes for the filter's own."""
        return self._raw.driver.info()._replace(specific=None)

    @classmethod
    def parse_filename(cls, name: str) -> dict[str, str]:
        """Read ``blkverify:RAW:IMAGE``, or an image's name alone.

        Raises:
            OptionError: the second colon is missing.
        """
        if not name.startswith("blkverify:"):
            return {"test.filename": name}
        raw, colon, image = name.removeprefix("blkverify:").partition(":")
        if not colon:
            raise OptionError("blkverify requires raw copy and original image path")
        return {"raw.filename": raw, "test.filename": image}

    @classmethod
    def filename(cls, options: Mapping[str, Value], children: Mapping[str, str]) -> str | None:
        """``blkverify:RAW:IMAGE``."""
        if any(name.startswith("json:") for name in children.values()):
            return None
        return f"blkverify:{children['raw']}:{children['test']}"

    def pread(self, offset: int, buf: memoryview) -> None:
        """Read both, and compare.

        Raises:
            Mismatch: they differ, or only one can be read.
        """
        other = bytearray(len(buf))
        self._both(
            f"read offset={offset} bytes={len(buf)}",
            lambda: self.child.pread(offset, buf),
            lambda: self._raw.pread_padded(offset, memoryview(other)),
        )
        difference = first_difference(buf, other)
        if difference >= 0:
            raise Mismatch(
                f"blkverify: read offset={offset} bytes={len(buf)} contents mismatch at offset {offset + difference}"
            )

    def pwrite(self, offset: int, data: memoryview) -> None:
        """Write both.

        Raises:
            Mismatch: only one can be written.
        """
        self._both(
            f"write offset={offset} bytes={len(data)}",
            lambda: self.child.pwrite(offset, data),
            lambda: self._raw.pwrite(offset, data),
        )

    def _both(self, what: str, test: Callable[[], None], raw: Callable[[], None]) -> None:
        first, second = _outcome(test), _outcome(raw)
        codes = [-(error.errno or 0) if error is not None else 0 for error in (first, second)]
        if codes[0] != codes[1]:
            raise Mismatch(f"blkverify: {what} return value mismatch {codes[0]} != {codes[1]}")
        if first is not None:
            raise first

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """The image's, without places: who reads there would compare nothing."""
        for extent in self.child.extents(offset, length):
            yield extent._replace(host_offset=None)


def _outcome(call: Callable[[], None]) -> OSError | None:
    try:
        call()
    except OSError as error:
        if breaks_in(error):
            raise
        return error
    return None

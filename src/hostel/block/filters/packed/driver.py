"""The drivers of filters ``gzip``, ``xz`` and ``zstd``."""

from __future__ import annotations

import errno
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from typing import ClassVar, Final, NamedTuple, Self

from hostel.block.driver import FilterDriver, FormatInfo, OpenMode, Supports
from hostel.block.extent import Extent, Status
from hostel.block.filters.option import settle
from hostel.block.filters.packed.layout import Unit, unpack_xz, unpack_zstd, xz_units, zstd_units
from hostel.block.filters.packed.spool import Spool
from hostel.block.node import BlockNode, fill_zeroes
from hostel.block.options import Kind, Option, Options, Value
from hostel.block.powers import Preallocation
from hostel.block.unpacked import Unpacked
from hostel.codec.stream import Read, gunzip, unxz, unzstd_frames
from hostel.errors import CorruptImage, ReadOnly
from hostel.units import SECTOR, MiB

_MAX_UNIT: Final = 64 * MiB  # bytes of a part, packed or not, that is unpacked in memory


class _Container(NamedTuple):
    """How a kind of compressed file is read.

    Attributes:
        find: the parts that can be unpacked by themselves; none where they cannot.
        unpack: unpacks one.
        stream: unpacks all of them.
    """

    find: Callable[[BlockNode], list[Unit]]
    unpack: Callable[[Unit, bytes], bytes]
    stream: Callable[[Read], Iterator[bytes]]


class _PackedDriver(FilterDriver):
    """A compressed file as what is in it. Parts that stand by themselves are unpacked in memory when they are wanted.

    Files without such parts, and with larger ones, are unpacked from start to end into a temporary file, as far as
    they are wanted.
    """

    options: Final = Options(  # type: ignore[misc]
        Option("unpacked-limit", Kind.SIZE, "how much a file may hold that cannot be read in parts", "64G"),
    )
    container: ClassVar[_Container]

    def __init__(self, child: BlockNode, units: list[Unit], spool: Spool | None, length: int) -> None:
        super().__init__({"file": child})
        self.supports = Supports.COMPUTES
        self._units = units
        self._starts = [unit.offset for unit in units]
        self._spool = spool
        self._length = length
        self._unpacked = Unpacked()

    @classmethod
    def open(cls, children: Mapping[str, BlockNode], mode: OpenMode) -> Self:
        """Find the parts of a file; of one without, all that it holds.

        Raises:
            OptionError: an option is unknown or wrong.
            InvalidImage: the file is no such one, or cut off.
            CorruptImage: it is broken.
            NoSpace: it holds more than allowed, or there is no room for it.
            ReadOnly: it was to be written.
        """
        limit = int(settle(cls.name, cls.options, mode.options)["unpacked-limit"])
        if not mode.read_only:
            raise ReadOnly("Image is read-only", errno=errno.EACCES)
        child = children["file"]
        units = cls.container.find(child)
        lengths = [unit.length for unit in units if unit.length is not None]
        is_known = bool(units) and len(lengths) == len(units)
        if is_known and max((*lengths, *(unit.packed for unit in units))) <= _MAX_UNIT:
            # Of parts of nothing none begins anywhere.
            return cls(child, [unit for unit in units if unit.length], None, sum(lengths))
        spool = Spool(cls.container.stream(_reader(child)), limit)
        try:
            return cls(child, [], spool, sum(lengths) if is_known else spool.fill())
        except BaseException:
            spool.close()
            raise

    @classmethod
    def parse_filename(cls, name: str) -> dict[str, str]:
        """What stands behind the filter's name is the file's."""
        return {"file.filename": name.removeprefix(f"{cls.name}:")}

    @classmethod
    def filename(cls, options: Mapping[str, Value], children: Mapping[str, str]) -> str | None:
        """The file's name behind the filter's."""
        return f"{cls.name}:{children['file']}"

    @property
    def length(self) -> int:
        """What the file holds, in bytes, filled up to whole sectors: a disk has no part of one."""
        return -(-self._length // SECTOR) * SECTOR

    def pread(self, offset: int, buf: memoryview) -> None:
        """Unpack.

        Raises:
            CorruptImage: the file is broken.
        """
        inside = max(0, min(len(buf), self._length - offset))
        fill_zeroes(buf[inside:])
        buf = buf[:inside]
        if self._spool is not None and inside:
            self._spool.pread(offset, buf)
            return
        done = 0
        while done < len(buf):
            index = bisect_right(self._starts, offset + done) - 1
            unit = self._units[index]
            within = offset + done - unit.offset
            data = self._unpacked.part(index, lambda unit=unit: self._load(unit))  # type: ignore[misc]
            part = memoryview(data)[within : within + len(buf) - done]
            buf[done : done + len(part)] = part
            done += len(part)

    def _load(self, unit: Unit) -> bytes:
        if unit.place + unit.packed > self.child.length:
            raise CorruptImage("The file is shorter than it was")
        return self.container.unpack(unit, bytes(self.child.read(unit.place, unit.packed)))

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """Data that lies nowhere as it is."""
        yield Extent(offset, length, Status.DATA | Status.ALLOCATED)

    def info(self) -> FormatInfo:
        """Nothing is known of it."""
        return FormatInfo(dirty=None)

    def resize(self, size: int, preallocation: Preallocation) -> None:
        """Nothing can be changed."""
        raise ReadOnly(f"{self.name} files cannot be written")

    def close(self) -> None:
        """Give the temporary file's space back."""
        if self._spool is not None:
            self._spool.close()


def _reader(file: BlockNode) -> Read:
    """What reads a file from start to end."""
    at = 0

    def read(length: int) -> bytes:
        nonlocal at
        data = bytes(file.read(at, min(length if length >= 0 else MiB, max(0, file.length - at))))
        at += len(data)
        return data

    return read


class GzipDriver(_PackedDriver):
    """gzip: its only parts are members, whose lengths nothing tells."""

    name = "gzip"
    container = _Container(lambda file: [], lambda unit, data: data, gunzip)


class XzDriver(_PackedDriver):
    """xz: the index tells the blocks; ``xz`` makes several with ``-T0`` or ``--block-size``."""

    name = "xz"
    container = _Container(xz_units, unpack_xz, unxz)


class ZstdDriver(_PackedDriver):
    """zstd: frames, of which ``zstd`` makes one; ``pzstd`` and those of the seekable format make many."""

    name = "zstd"
    container = _Container(zstd_units, unpack_zstd, unzstd_frames)

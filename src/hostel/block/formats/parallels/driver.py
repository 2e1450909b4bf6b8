"""The format driver ``parallels``: an image as nodes see it.

The image is marked as in use before its first change, and not when it is opened; the mark is taken off when it is
closed. Entries are held back, and written after the clusters that they point to, so that what a power cut leaves is
sound; but a marked image must be checked, as QEMU wants it, before it is written again.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from typing import Final, NoReturn, Self

from hostel.block import notice
from hostel.block.bitmap import DirtyBitmap
from hostel.block.driver import FormatInfo, OpenMode
from hostel.block.formats.cluster_tables import EntryTable
from hostel.block.formats.clustered import ClusteredDriver
from hostel.block.formats.parallels import layout
from hostel.block.formats.parallels.extension import StoredBitmap, load_bitmap, read_extension
from hostel.block.formats.parallels.layout import Header, plan, read_header
from hostel.block.formats.run import Kind, Run
from hostel.block.node import BlockNode
from hostel.block.options import Kind as OptionKind
from hostel.block.options import Option, Options, Value
from hostel.block.powers import BitmapInfo, CheckResult, ModeChange, Repair, Report
from hostel.errors import BlockError, CorruptImage, InvalidImage, NoSpace, UnsupportedFeature
from hostel.units import SECTOR

_MODES: Final = ("falloc", "truncate")
_ENTRY_MAX: Final = 0xFFFFFFFF


class ParallelsDriver(ClusteredDriver):
    """Parallels' expandable disks, of both signatures."""

    name = "parallels"
    options: Final = Options(  # type: ignore[misc]
        Option("prealloc-size", OptionKind.SIZE, "Preallocation size on image expansion"),
        Option(
            "prealloc-mode",
            OptionKind.STRING,
            "Preallocation mode on image expansion (allowed values: falloc, truncate)",
        ),
    )
    create_options: Final = Options(
        Option("size", OptionKind.SIZE, "Virtual disk size"),
        Option("cluster_size", OptionKind.SIZE, "Parallels image cluster size", str(layout.DEFAULT_CLUSTER)),
    )

    def __init__(self, file: BlockNode, mode: OpenMode, header: Header) -> None:
        super().__init__(file, mode, header.cluster_size)
        self.header = header
        self.bat = EntryTable(file, Header.SIZE, header.bat_entries, "little", "I")
        self.stored: list[StoredBitmap] = []
        self._busy_bitmaps: dict[str, bool] = {}
        self._extra = int(mode.options.get("prealloc-size", 0))
        self._mode = str(mode.options.get("prealloc-mode", _MODES[0]))
        self._end: int | None = None  # where the next new cluster goes; looked for when there is one
        self._touched = file.length  # from here on nothing was ever written
        self._has_extension = bool(header.ext_off)  # or had one: what it used may lie anywhere

    @classmethod
    def open(cls, file: BlockNode, mode: OpenMode) -> Self:
        """Open an image.

        Raises:
            InvalidImage: the header is malformed, or the extension is.
            UnsupportedFeature: the extension has features that must be known to who opens the image.
            BlockError: the image was not closed properly, and was to be written.
        """
        header = read_header(file)
        wanted = mode.options.get("prealloc-mode", _MODES[0])
        if wanted not in _MODES:
            raise BlockError(f"invalid parameter value: {wanted}", errno=errno.EINVAL)
        if header.inuse == layout.IN_USE and not mode.read_only and not mode.check:
            raise BlockError(
                "parallels: Image was not closed correctly; cannot be opened read/write",
                errno=errno.EACCES,
            )
        driver = cls(file, mode, header)
        if header.ext_off and not mode.check and not mode.no_io:
            driver._read_extension()
        return driver

    def _read_extension(self) -> None:
        try:
            self.stored = read_extension(self.file, self.header)
        except InvalidImage:
            # What is broken is dropped by the first write anyway.
            if self.mode.read_only:
                raise
        if not self.mode.read_only:
            notice.tell("warning: Format Extension ignored in RW mode")

    @classmethod
    def probe(cls, head: bytes, filename: str) -> int:
        """By magic and version."""
        known = len(head) >= Header.SIZE and head[:16] in (layout.MAGIC, layout.MAGIC_EXTENDED)
        return 100 if known and head[16:20] == layout.VERSION.to_bytes(4, "little") else 0

    # ---- creating

    @classmethod
    def check_creation(cls, size: int, options: Mapping[str, Value]) -> None:
        """Refuse sizes that an image cannot have.

        Raises:
            BlockError: the size or the cluster size is too large.
        """
        plan(size, options)

    @classmethod
    def create(cls, file: BlockNode, size: int, options: Mapping[str, Value]) -> None:
        """Lay out an image: header, and a table of zeroes.

        Raises:
            BlockError: see :meth:`check_creation`.
            OSError: the host's own errors.
        """
        header = plan(size, options)
        file.write_zeroes(SECTOR, header.data_off * SECTOR - SECTOR, unmap=True)
        file.pwrite(0, header.pack().ljust(SECTOR, b"\0"))
        file.flush()

    # ---- what nodes ask

    @property
    def length(self) -> int:
        """The virtual size in bytes."""
        return self.header.size

    def flush(self) -> None:
        """Write what is held back, after the data that it points to, and sync."""
        if self.bat.changed:
            self.file.flush()
            self.bat.write()
        self.file.flush()

    def info(self) -> FormatInfo:
        """Nothing, as with QEMU: not even the cluster size."""
        return FormatInfo(dirty=None)

    def close(self) -> None:
        """Write what is held back, take the mark off and cut off what was preallocated.

        Raises:
            OSError: the host's own errors; what was not written is lost.
        """
        if self.mode.read_only or self.mode.check:
            return
        if self.bat.changed:
            self.flush()
        if self._end is not None and self.file.length > self._end and self._marked:
            self._trim(self._end)
        if self._marked:
            self._write_header(self.header.replace(inuse=0))

    @property
    def _marked(self) -> bool:
        return self.header.inuse == layout.IN_USE

    def _trim(self, end: int) -> None:
        try:
            self.file.resize(end)
        except UnsupportedFeature:
            return  # a device, which has the size it has

    def check(self, repair: Repair, report: Report) -> CheckResult:
        """Check the image, and repair what ``repair`` allows; see :mod:`hostel.block.formats.parallels.check`."""
        from hostel.block.formats.parallels.check import check_image

        if self.bat.changed:
            self.flush()
        result = check_image(self, repair, report)
        if repair:
            self.bat.resize(self.header.bat_entries)
            self._end, self._touched = None, self.file.length
        return result

    # ---- bitmaps

    def bitmaps(self) -> list[BitmapInfo]:
        """Those of the format extension: they can be read, and record nothing."""
        flags = () if self._records_all else ("in-use",)
        return [BitmapInfo(each.name, each.granularity, flags) for each in self.stored]

    @property
    def _records_all(self) -> bool:
        """Whether the last to write the image knew of the extension: else writes are missing in its bitmaps."""
        return self.header.inuse == layout.CLOSED

    def bitmap(self, name: str) -> DirtyBitmap:
        """The bits of one.

        Raises:
            BlockError: there is none of this name, or it is inconsistent.
            InvalidImage: it lies outside the file.
        """
        found = self._find(name)
        if not self._records_all:
            raise BlockError(
                f"Bitmap '{name}' is inconsistent: the image was written since by who does not know of it",
                errno=errno.EINVAL,
            )
        return load_bitmap(self.file, self.header, found)

    @property
    def busy_bitmaps(self) -> dict[str, bool]:
        """See :class:`hostel.block.powers.BitmapStore`."""
        return self._busy_bitmaps

    @property
    def keeps_bitmaps(self) -> bool:
        """Those that another program has put there."""
        return True

    def bitmap_add(self, name: str, granularity: int | None = None, *, enabled: bool = True) -> None:
        """Refused: bitmaps are read only."""
        raise UnsupportedFeature(
            f"Can't store persistent bitmaps to {self.file.filename}: {os.strerror(errno.ENOTSUP)}"
        )

    def bitmap_remove(self, name: str) -> None:
        """Refused."""
        self._refuse_change(name)

    def bitmap_clear(self, name: str) -> None:
        """Refused."""
        self._refuse_change(name)

    def reopened(self, change: ModeChange) -> Self:
        """See :class:`hostel.block.powers.Reopenable`; who uses a bitmap uses it still."""
        driver = super().reopened(change)
        driver._busy_bitmaps = self._busy_bitmaps
        return driver

    def bitmap_enable(self, name: str, enabled: bool) -> None:
        """Refused."""
        self._refuse_change(name)

    def bitmap_merge(self, name: str, source: DirtyBitmap) -> None:
        """Refused."""
        self._refuse_change(name)

    def bitmap_replace(self, name: str, source: DirtyBitmap) -> None:
        """Refused."""
        self._refuse_change(name)

    def _find(self, name: str) -> StoredBitmap:
        for each in self.stored:
            if each.name == name:
                return each
        raise BlockError(f"Dirty bitmap '{name}' not found", errno=errno.ENOENT)

    def _refuse_change(self, name: str) -> NoReturn:
        self._find(name)
        raise UnsupportedFeature("Bitmaps of parallels images can be read, and not changed")

    # ---- clusters

    def runs(self, offset: int, length: int) -> Iterator[Run]:
        """The runs of a guest range; beyond the table nothing is allocated."""
        size, end = self.cluster_size, offset + length
        inside = min(end, self.header.bat_entries * size)
        while offset < inside:
            index = offset // size
            entry = self.bat[index]
            last = -(-inside // size)
            if not entry:
                stop = min(inside, self.bat.next_used(index + 1, last) * size)
                yield Run(offset, stop - offset, Kind.UNALLOCATED, 0)
            else:
                host = self.place(entry, index)
                after = self._data_run(index, entry, last)
                stop = min(inside, after * size)
                yield Run(offset, stop - offset, Kind.DATA, host + offset % size)
            offset = stop
        if offset < end:
            yield Run(offset, end - offset, Kind.UNALLOCATED, 0)

    def _data_run(self, index: int, entry: int, last: int) -> int:
        """The index after the neighbours that lie one after the other on the host."""
        step = self.cluster_size // self.header.unit
        first = index
        index += 1
        while index < last and self.bat[index] == entry + step:
            entry += step
            index += 1
        if index - first > 1:
            self.place(entry, index - 1)
        return index

    def place(self, entry: int, index: int) -> int:
        """The host offset of a cluster, bytes.

        Raises:
            CorruptImage: it lies over header and table, or outside the file.
        """
        host = entry * self.header.unit
        if host < self.header.table_end or host >= self.file.length:
            raise CorruptImage(
                f"cluster {index} is outside image: its place is {host:#x}",
                hint="Use qemu-img check -r all to repair it: what it stood for is lost.",
            )
        return host

    def begin_write(self) -> None:
        """Before the first change: mark the image as in use, and drop an extension that would not record it."""
        if not self._marked:
            self._write_header(self.header.replace(inuse=layout.IN_USE, ext_off=0))
            self.file.flush()
            self.stored = []

    def room(self, offset: int, length: int) -> int:
        """As far as the table reaches, which is in memory afterwards."""
        reach = self.header.bat_entries * self.cluster_size
        if offset >= reach:
            raise InvalidImage("The image is larger than its catalog: it cannot be written there")
        length = min(length, reach - offset)
        for index in range(offset // self.cluster_size, -(-(offset + length) // self.cluster_size)):
            self.bat[index]
        return length

    def end(self) -> int:
        """Where the next new cluster goes, bytes: after all that the table, or an extension, refers to."""
        if self._end is None:
            start = self.header.data_start
            end, index = start, self.bat.next_used(0, self.header.bat_entries)
            while index < self.header.bat_entries:
                entry = self.bat[index]
                end = max(end, self.place(entry, index) + self.cluster_size)
                index = self.bat.next_used(index + 1, self.header.bat_entries)
            if self._has_extension:
                end = max(end, self.file.length)
            # A whole number of clusters after the first.
            beyond = -(-(end - start) // self.cluster_size) * self.cluster_size
            self._end = start + beyond
        return self._end

    def allocate(self, length: int) -> int:
        """Take clusters at the end of the file, which grows by more than that where it shall be preallocated."""
        self.file.debug_event("cluster_alloc")
        host = self.end()
        if (host + length) // self.header.unit > _ENTRY_MAX:
            raise NoSpace("The image has no room for more clusters", errno=errno.EFBIG)
        if self._extra and host + length > self.file.length:
            self._preallocate(host + length + self._extra)
        self._end = host + length
        return host

    def _preallocate(self, end: int) -> None:
        if self._mode == "truncate":
            self.file.resize(end)
        else:
            self.file.write_zeroes(self.file.length, end - self.file.length)

    def is_untouched(self, host: int) -> bool:
        """Whether there is nothing yet, or zeroes that were preallocated."""
        return host >= self._touched

    def give_back(self, host: int, length: int) -> None:
        """Go back to where the end was."""
        self._touched = max(self._touched, host + length)
        if host + length == self._end:
            self._end = host

    def map_data(self, offset: int, length: int, host: int) -> None:
        """Record places."""
        unit, size = self.header.unit, self.cluster_size
        self._touched = max(self._touched, host + length)
        for index in range(offset // size, (offset + length) // size):
            self.bat[index] = host // unit
            host += size

    def _write_header(self, header: Header) -> None:
        self.file.pwrite(0, header.pack())
        self.header = header

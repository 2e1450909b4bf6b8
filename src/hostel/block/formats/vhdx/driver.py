"""Format ``vhdx``: reading and writing, with all changes of the table through the log."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Self

from hostel.block import notice
from hostel.block.driver import FormatInfo, OpenMode, Reference
from hostel.block.extent import Extent
from hostel.block.formats.block_mapped import BlockMappedDriver
from hostel.block.formats.block_table import ABSENT, ZEROES, BlockMap, BlockTable, Run, claim, with_holes
from hostel.block.formats.vhdx import layout
from hostel.block.formats.vhdx.check import check_table, last_end, require_sound_table
from hostel.block.formats.vhdx.create import CREATE_OPTIONS
from hostel.block.formats.vhdx.header import Headers
from hostel.block.formats.vhdx.layout import LOG_SECTOR, BlockState, guid_text
from hostel.block.formats.vhdx.log import Log
from hostel.block.formats.vhdx.region import Metadata, Regions, read_metadata, read_regions
from hostel.block.node import BlockNode
from hostel.block.options import Value
from hostel.block.powers import CheckResult, Repair, Report
from hostel.errors import BlockError, CorruptImage, InvalidImage, ReadOnly

_WRONG: Final = -3  # an entry that says nothing that can be understood
_PARTIAL: Final = BlockState.PARTIALLY_PRESENT
_LEFT: Final = frozenset({BlockState.UNDEFINED, BlockState.ZERO, BlockState.UNMAPPED, BlockState.UNMAPPED_V095})


class VhdxDriver(BlockMappedDriver):
    """Blocks are found by the table and added at the end; the table's changes are held back until a flush."""

    name = "vhdx"
    title = "VHDX"
    create_options: Final = CREATE_OPTIONS

    def __init__(
        self, file: BlockNode, mode: OpenMode, headers: Headers, log: Log, regions: Regions, metadata: Metadata
    ) -> None:
        super().__init__(file, mode, differs=metadata.parent is not None)
        self._headers = headers
        self._log = log
        self._regions = regions
        self._metadata = metadata
        self.unique_id = guid_text(headers.current.data_write_guid)
        self._table = BlockTable(file, regions.bat.offset, metadata.entries, "Q", "little", unit=LOG_SECTOR)
        self._map = BlockMap(self._table, metadata.block_size, self._place, metadata.chunk)
        self._end: int | None = None  # where the next block goes; not known before it is wanted
        self.was_replayed = False

    @classmethod
    def open(cls, file: BlockNode, mode: OpenMode) -> Self:
        """Read headers, regions, metadata and table; do again what the log says, where the image may be written.

        Raises:
            InvalidImage: something is malformed, or cut off.
            CorruptImage: parts of the image overlap.
            UnsupportedFeature: something that is required is unknown.
            ReadOnly: the log must be done first, or a differencing image is to be written.
        """
        if bytes(file.read(0, 8)) != layout.SIGNATURE:
            raise InvalidImage("Image is not in VHDX format")
        headers = Headers(file)
        log = Log(file, headers)
        replayed = _replay(file, log, mode)
        if headers.names_log and not mode.no_io:
            notice.tell(
                f"warning: '{file.filename}' was not closed properly, and no entry of its log is whole: the "
                "last changes may be lost"
            )
        regions = read_regions(file, log.area)
        metadata = read_metadata(file, regions.metadata)
        if metadata.parent is not None and not mode.read_only:
            raise ReadOnly("A differencing VHDX can only be read; convert it to write the disk")
        if 8 * metadata.entries > regions.bat.length:
            raise InvalidImage(
                f"The VHDX block allocation table has room for {regions.bat.length // 8} entries, and the disk needs "
                f"{metadata.entries}"
            )
        if regions.bat.offset + 8 * metadata.entries > file.length:
            raise InvalidImage("The VHDX block allocation table is cut off")
        driver = cls(file, mode, headers, log, regions, metadata)
        driver.was_replayed = replayed
        if mode.check:
            driver._table.load()
        else:  # which reads the table as well
            require_sound_table(driver._table, metadata, regions, file.length)
        return driver

    @classmethod
    def probe(cls, head: bytes, filename: str) -> int:
        """By signature."""
        return 100 if head.startswith(layout.SIGNATURE) else 0

    @classmethod
    def check_creation(cls, size: int, options: Mapping[str, Value]) -> None:
        """Refuse what cannot be created; see :func:`hostel.block.formats.vhdx.create.plan`."""
        from hostel.block.formats.vhdx.create import plan

        plan(size, options)

    @classmethod
    def create(cls, file: BlockNode, size: int, options: Mapping[str, Value]) -> None:
        """Lay out an empty image; see :func:`hostel.block.formats.vhdx.create.create_image`."""
        from hostel.block.formats.vhdx.create import create_image

        create_image(file, size, options)

    @property
    def length(self) -> int:
        """The virtual size in bytes."""
        return self._metadata.size

    def pwrite(self, offset: int, data: memoryview) -> None:
        """Write in place, or into new blocks."""
        self._headers.begin_session()
        super().pwrite(offset, data)

    def write_zeroes(self, offset: int, length: int, *, unmap: bool) -> None:
        """Zero blocks that are there; others are zeroes already."""
        for run in self._runs(offset, length):
            if run.host >= 0:
                self._headers.begin_session()
                self._file.write_zeroes(run.host, run.length, unmap=unmap)

    def flush(self) -> None:
        """Sync data, then change the table through the log: a crash leaves a block that nobody has, at worst."""
        if not self._table.is_dirty:
            self._file.flush()
            return
        self._log.write(self._table.changes())
        self._table.written()

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """Blocks, holes of the host's file in them, and zeroes."""
        return with_holes(self._file, super().extents(offset, length))

    def references(self) -> Sequence[Reference]:
        """The parent of a differencing image."""
        if self._metadata.parent is None:
            return ()
        from hostel.block.formats.vhdx.parent import parent_of

        return (parent_of(self._metadata.parent),)

    def info(self) -> FormatInfo:
        """The size of blocks."""
        return FormatInfo(cluster_size=self._metadata.block_size)

    def check(self, repair: Repair, report: Report) -> CheckResult:
        """Check the table; the log was done again when the image was opened, which counts as a repair."""
        if self._table.is_dirty:
            self.flush()
        result = check_table(self._table, self._metadata, self._regions, self._file.length, report)
        if repair and self.was_replayed:
            result.corruptions_fixed += 1
            self.was_replayed = False
        return result

    def close(self) -> None:
        """Write what is held back."""
        super().close()
        self._headers.settle()

    def _place(self, entry: int) -> int:
        state, place = entry & layout.STATE_MASK, entry & layout.PLACE_MASK
        if state == BlockState.FULLY_PRESENT or (state == _PARTIAL and self._differs):
            return place if layout.HEADER_SECTION <= place < 1 << 63 else _WRONG
        if state == BlockState.NOT_PRESENT:
            return ABSENT
        return ZEROES if state in _LEFT else _WRONG

    def _runs(self, offset: int, length: int) -> Iterator[Run]:
        for run in self._map.runs(offset, length):
            if run.host == _WRONG:
                block = run.offset // self._metadata.block_size
                raise CorruptImage(f"The VHDX table's entry of block {block} is 0x{self._map.entry(block):x}")
            if self._differs and run.host >= 0:
                yield from self._by_bitmap(run)
            else:
                yield run

    def _by_bitmap(self, run: Run) -> Iterator[Run]:
        """Blocks of a differencing image: those that are there in part are split by the bitmap of their chunk."""
        from hostel.block.formats.vhdx.parent import split_by_bitmap

        size, chunk = self._metadata.block_size, self._metadata.chunk
        offset, end = run.offset, run.offset + run.length
        while offset < end:
            block = offset // size
            stop = min(end, (block + 1) * size)
            part = Run(offset, stop - offset, run.host + offset - run.offset)
            if self._map.entry(block) & layout.STATE_MASK == _PARTIAL:
                entry = self._table[(block // chunk + 1) * (chunk + 1) - 1]
                if entry & layout.STATE_MASK != BlockState.FULLY_PRESENT:
                    raise CorruptImage(f"Block {block} is there in part, and no bitmap says which")
                first = block // chunk * chunk * size
                place = entry & layout.PLACE_MASK
                yield from split_by_bitmap(self._file, place, part, first, self._metadata.sector_size)
            else:
                yield part
            offset = stop

    def _add(self, offset: int, data: memoryview) -> None:
        block, inside = divmod(offset, self._metadata.block_size)
        count = -(-(inside + len(data)) // self._metadata.block_size)
        if self._end is None:
            end = self._file.length if self._file.grows else last_end(self._table, self._metadata, self._regions)
            self._end = -(-end // layout.UNIT) * layout.UNIT
        start, end = self._end, self._end + count * self._metadata.block_size
        if end > 1 << 62:
            raise BlockError("The file cannot become any larger", errno=errno.EFBIG)
        # Room for the table and the log first: on a full disk a later flush could keep none of what it leads to.
        for at in range(count):
            self._table.reserve(self._map.index(block + at))
        self._log.reserve(self._table.dirty_units + count)
        place = start + inside
        claim(self._file, start, end, place, place + len(data))
        self._file.pwrite(place, data)
        for at in range(count):
            where = start + at * self._metadata.block_size
            self._table[self._map.index(block + at)] = where | BlockState.FULLY_PRESENT
        self._end = end


def _replay(file: BlockNode, log: Log, mode: OpenMode) -> bool:
    """Do again what the log says; whether it said anything."""
    if mode.read_only and log.is_pending():
        raise ReadOnly(
            f"VHDX image file '{file.filename}' opened read-only, but contains a log that needs to be replayed",
            errno=errno.EPERM,
            hint=f"To replay the log, run:\nqemu-img check -r all '{file.filename}'",
        )
    entries = [] if mode.read_only else log.pending()
    if entries:
        log.replay(entries)
    return bool(entries)

"""The format driver ``qed``: an image as nodes see it.

Without a backing file the image is marked before its first new cluster, as QEMU does, and the mark is taken off when it
is closed. Ours stays sound without: entries are held back, and written after the clusters that they point to.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Self

from hostel.block import notice, registry
from hostel.block.driver import FormatInfo, OpenMode, Reference
from hostel.block.formats.cluster_tables import ClusterTables, Layout
from hostel.block.formats.clustered import ClusteredDriver
from hostel.block.formats.qed import layout
from hostel.block.formats.qed.layout import Feature, Header, read_backing_name, read_header, whole_clusters
from hostel.block.formats.run import Kind, Run
from hostel.block.node import BlockNode
from hostel.block.options import Kind as OptionKind
from hostel.block.options import Option, Options, Value
from hostel.block.powers import CheckResult, Preallocation, Repair, Report
from hostel.block.reading import reading
from hostel.errors import BlockError, CorruptImage, InvalidImage, NoSpace, UnsupportedFeature
from hostel.units import INT64_MAX, SECTOR, MiB

_MAX_SIZE_TEXT: Final = "QED image size must be a non-zero multiple of cluster size and less than"
_FILLED: Final = MiB  # bytes of a new table that is no hole; usual are 256 KiB


class QedDriver(ClusteredDriver):
    """QEMU enhanced disks."""

    name = "qed"
    zero_clusters = True
    create_options: Final = Options(
        Option("size", OptionKind.SIZE, "Virtual disk size"),
        Option("backing_file", OptionKind.STRING, "File name of a base image"),
        Option("backing_fmt", OptionKind.STRING, "Image format of the base image"),
        Option("cluster_size", OptionKind.SIZE, "Cluster size (in bytes)", str(layout.DEFAULT_CLUSTER)),
        Option("table_size", OptionKind.SIZE, "L1/L2 table size (in clusters)"),
    )

    def __init__(self, file: BlockNode, mode: OpenMode, header: Header) -> None:
        super().__init__(file, mode, header.cluster_size)
        self.header = header
        self.backing_name = read_backing_name(file, header)
        self.end = whole_clusters(file, header)  # where the next new cluster goes
        self.tables = ClusterTables(
            file,
            Layout(header.cluster_size, header.l1_table_offset, header.table_entries, "little"),
            header.l1_entries,
            classify=_classify,
            validate=self._validate,
            validate_table=self._validate_table,
            allocate_table=self._allocate_table,
        )

    @classmethod
    def open(cls, file: BlockNode, mode: OpenMode) -> Self:
        """Open an image; one that is marked is checked and repaired first where it is opened for writing.

        Raises:
            InvalidImage: the header is malformed.
            UnsupportedFeature: a feature is unknown.
            BlockError: it could not be repaired.
        """
        driver = cls(file, mode, read_header(file))
        with reading("Failed to read L1 table", reason=False):
            driver.tables.l1.load()
        if driver.header.features & Feature.NEED_CHECK and not (mode.read_only or mode.check or mode.no_io):
            result = driver.check(Repair.ALL, notice.tell)
            if result.corruptions or result.check_errors:
                raise BlockError("Image corrupted", errno=5, hint="Look at it with qemu-img check.")
        return driver

    @classmethod
    def probe(cls, head: bytes, filename: str) -> int:
        """By magic."""
        return 100 if head[:4] == layout.MAGIC and len(head) >= Header.SIZE else 0

    # ---- creating

    @classmethod
    def check_creation(cls, size: int, options: Mapping[str, Value]) -> None:
        """Refuse sizes that an image cannot have.

        Raises:
            BlockError: an option is out of its range, or the size is beyond what the tables can map.
        """
        _plan(size, options)

    @classmethod
    def create(cls, file: BlockNode, size: int, options: Mapping[str, Value]) -> None:
        """Lay out an image: header, and an L1 table of zeroes.

        Raises:
            BlockError: see :meth:`check_creation`.
            OSError: the host's own errors.
        """
        header, name = _plan(size, options)
        if not file.grows:
            raise UnsupportedFeature(f"Cannot resize '{file.filename}': a QED image is as long as its file")
        # What lies in the file tells what is in use: it must start from nothing.
        file.resize(0)
        file.write_zeroes(header.l1_table_offset, header.table_bytes, unmap=True)
        file.pwrite(0, header.pack() + name)
        file.flush()

    # ---- what nodes ask

    @property
    def length(self) -> int:
        """The virtual size in bytes."""
        return int(self.header.image_size)

    def zeroes_fast(self, offset: int, length: int, *, unmap: bool) -> bool:
        """There is a word for a cluster of zeroes."""
        return True

    def flush(self) -> None:
        """Write what is held back, in order, and sync."""
        self.tables.write()

    def references(self) -> Sequence[Reference]:
        """The backing file, where one is recorded; of its format only whether it is raw."""
        if self.backing_name is None:
            return ()
        is_raw = self.header.features & Feature.BACKING_FORMAT_NO_PROBE
        return (Reference("backing", self.backing_name, "raw" if is_raw else None),)

    def info(self) -> FormatInfo:
        """Cluster size, and whether the image is marked."""
        return FormatInfo(cluster_size=self.cluster_size, dirty=bool(self.header.features & Feature.NEED_CHECK))

    def close(self) -> None:
        """Write what is held back and take the mark off.

        Raises:
            OSError: the host's own errors; what was not written is lost.
        """
        if self.mode.read_only or self.mode.check:
            return
        if self.tables.is_dirty:
            self.tables.write()
        self._set_mark(False)

    def resize(self, size: int, preallocation: Preallocation = Preallocation.OFF) -> None:
        """Grow; what is new reads as zeroes, whatever a longer backing file has there.

        Raises:
            UnsupportedFeature: to shrink, or to preallocate.
            InvalidImage: the size is none that the tables can map.
        """
        if preallocation is not Preallocation.OFF:
            raise UnsupportedFeature(f"Unsupported preallocation mode '{preallocation.value}'")
        old = self.length
        if not layout.is_size(size, self.cluster_size, self.header.table_size):
            raise InvalidImage("Invalid image size specified")
        if size < old:
            raise UnsupportedFeature("Shrinking images is currently not supported")
        self.begin_write()
        header = self.header.replace(image_size=size)
        self.tables.l1.resize(header.l1_entries)
        self._clear_beyond(old, size)
        self.tables.write()
        self._write_header(header)
        self.file.flush()

    def _clear_beyond(self, old: int, size: int) -> None:
        """Make what is beyond the present end read as zeroes, before it is seen."""
        below = self.backing.length if self.backing is not None else 0
        end = -(-old // self.cluster_size) * self.cluster_size
        for run in list(self.tables.runs(old, size - old)):
            start, stop = max(run.offset, end), min(run.offset + run.length, below)
            if run.kind is Kind.DATA:
                self.file.write_zeroes(run.host, run.length, unmap=True)
                continue
            if run.kind is not Kind.UNALLOCATED or run.offset >= below:
                continue
            if run.offset < end:
                self.pwrite(run.offset, memoryview(bytes(end - run.offset)))
            while start < stop:
                part = self.tables.room(start, -(-(stop - start) // self.cluster_size) * self.cluster_size)
                self.map_zeroes(start, part)
                start += part

    def change_backing(self, filename: str | None, format: str | None) -> None:
        """Record another backing file, or none; of its format only whether it is raw.

        Raises:
            InvalidImage: the name is too long.
            NoSpace: it does not fit in front of the first regular cluster.
            UnsupportedFeature: the image has features that we do not know, which may have their data in its place.
        """
        name = b"" if filename is None else filename.encode(errors="surrogateescape")
        if len(name) > layout.MAX_BACKING_NAME:
            raise InvalidImage("Backing file name too long")
        if filename is not None and self.header.compat_features:
            raise UnsupportedFeature("The image has features that are not known; its header is left alone")
        self.begin_write()
        self.tables.write()
        features = self.header.features & ~int(Feature.BACKING_FILE | Feature.BACKING_FORMAT_NO_PROBE)
        place = Header.SIZE
        if filename is not None:
            features |= Feature.BACKING_FILE | (Feature.BACKING_FORMAT_NO_PROBE if format == "raw" else Feature.NONE)
            place = self._place_name(len(name))
            self.file.pwrite(place, name)
            self.file.flush()
        self._write_header(
            self.header.replace(features=int(features), backing_filename_offset=place, backing_filename_size=len(name))
        )
        self.file.flush()
        self.backing_name = filename

    def _place_name(self, length: int) -> int:
        """Where a name does not touch the one that the header on the disk points to: one or the other is whole."""
        present = Header.unpack(self.file.read(0, Header.SIZE))
        start, end = present.backing_filename_offset, present.backing_filename_offset + present.backing_filename_size
        place = Header.SIZE
        if present.features & Feature.BACKING_FILE and start < place + length and end > place:
            place = end
        if place + length > self.header.header_bytes:
            raise NoSpace("The backing file name does not fit in front of the first cluster")
        return place

    def check(self, repair: Repair, report: Report) -> CheckResult:
        """Check the image, and repair what ``repair`` allows; see :mod:`hostel.block.formats.qed.check`."""
        from hostel.block.formats.qed.check import check_image

        if self.tables.is_dirty:
            self.tables.write()
        result = check_image(self, repair, report)
        if repair:
            self.tables.forget()
            if not result.corruptions and not result.check_errors:
                self._set_mark(False)
                self.file.flush()
        return result

    # ---- clusters

    def runs(self, offset: int, length: int) -> Iterator[Run]:
        """The runs of a guest range."""
        return self.tables.runs(offset, length)

    def begin_write(self) -> None:
        """Before the first change: clear the autoclear bits, none of which is known."""
        if self.header.autoclear_features:
            self._write_header(self.header.replace(autoclear_features=0))
            self.file.flush()

    def room(self, offset: int, length: int) -> int:
        """As far as the L2 table reaches."""
        return self.tables.room(offset, length)

    def allocate(self, length: int) -> int:
        """Take clusters at the end of the file."""
        self._require_whole()
        self._mark()
        self.file.debug_event("cluster_alloc")
        return self.take(length)

    def _require_whole(self) -> None:
        hint = "Use qemu-img check -r all to repair it: what is lost reads as zeroes then."
        self.tables.require_whole(self.end, lambda entries: max(entries) + self.cluster_size <= self.end, hint)

    def take(self, length: int) -> int:
        """Take clusters at the end of the file, whatever entries say.

        Raises:
            NoSpace: no file is that long.
        """
        if self.end > INT64_MAX - length:
            raise NoSpace("The file cannot grow any more")
        self.end += length
        return self.end - length

    def give_back(self, host: int, length: int) -> None:
        """Go back to where the end was."""
        if host + length == self.end:
            self.end = host

    def map_data(self, offset: int, length: int, host: int) -> None:
        """Record places."""
        self.tables.change(offset, array("Q", range(host, host + length, self.cluster_size)))

    def map_zeroes(self, offset: int, length: int) -> None:
        """Record zeroes."""
        self._mark()
        self.tables.change(offset, array("Q", [layout.ZERO_CLUSTER]) * (length // self.cluster_size))

    def _allocate_table(self) -> int:
        self._require_whole()
        length = self.header.table_bytes
        offset = self.take(length)
        try:
            if length <= _FILLED:
                self.file.pwrite(offset, bytes(length))  # no hole: a full disk refuses it now, not its entries later
            else:
                self.file.write_zeroes(offset, length, unmap=True)
        except BaseException:
            self.give_back(offset, length)
            raise
        return offset

    def _validate(self, entry: int, offset: int) -> None:
        if not self.header.is_cluster(entry, self.end) or self.header.is_in_l1(entry, self.cluster_size):
            raise CorruptImage(
                f"Cluster offset {entry:#x} of guest offset {offset:#x} is invalid",
                hint="Use qemu-img check -r all to repair it: what it stood for is lost.",
            )

    def _validate_table(self, entry: int, index: int) -> None:
        if not self.header.is_table(entry, self.end) or self.header.is_in_l1(entry, self.header.table_bytes):
            raise CorruptImage(
                f"L2 table offset {entry:#x} is invalid (L1 index: {index:#x})",
                hint="Use qemu-img check -r all to repair it: what it stood for is lost.",
            )

    # ---- the header

    def _mark(self) -> None:
        # Over a backing file QEMU does without: it syncs before it changes a table, as we always do.
        if self.backing is None:
            self._set_mark(True)

    def _set_mark(self, marked: bool) -> None:
        bit = int(Feature.NEED_CHECK)
        features = self.header.features | bit if marked else self.header.features & ~bit
        if features != self.header.features:
            self._write_header(self.header.replace(features=features))

    def _write_header(self, header: Header) -> None:
        self.file.pwrite(0, header.pack())
        self.header = header


def _classify(entry: int) -> Kind:
    if entry > layout.ZERO_CLUSTER:
        return Kind.DATA
    return Kind.ZERO if entry else Kind.UNALLOCATED


def _plan(size: int, options: Mapping[str, Value]) -> tuple[Header, bytes]:
    """The header of a new image, and the name that follows it."""
    cluster_size = int(options.get("cluster_size", layout.DEFAULT_CLUSTER))
    table_size = int(options.get("table_size", layout.DEFAULT_TABLE))
    registry.require_backing_format(options.get("backing_fmt"))
    size = -(-size // SECTOR) * SECTOR
    if not layout.is_power(cluster_size, layout.MIN_CLUSTER, layout.MAX_CLUSTER):
        low, high = layout.MIN_CLUSTER, layout.MAX_CLUSTER
        raise BlockError(f"QED cluster size must be within range [{low}, {high}] and power of 2", errno=22)
    if not layout.is_power(table_size, layout.MIN_TABLE, layout.MAX_TABLE):
        low, high = layout.MIN_TABLE, layout.MAX_TABLE
        raise BlockError(f"QED table size must be within range [{low}, {high}] and power of 2", errno=22)
    if not layout.is_size(size, cluster_size, table_size):
        limit = layout.max_image_size(cluster_size, table_size)
        raise BlockError(f"{_MAX_SIZE_TEXT} {limit} bytes", errno=22)
    backing = options.get("backing_file")
    name = b"" if not backing else str(backing).encode(errors="surrogateescape")
    if len(name) > layout.MAX_BACKING_NAME:
        raise InvalidImage("Backing file name too long")
    features = Feature.NONE
    if name:
        is_raw = options.get("backing_fmt") == "raw"
        features = Feature.BACKING_FILE | (Feature.BACKING_FORMAT_NO_PROBE if is_raw else Feature.NONE)
    header = Header(
        magic=int.from_bytes(layout.MAGIC, "little"),
        cluster_size=cluster_size,
        table_size=table_size,
        header_size=1,
        features=int(features),
        compat_features=0,
        autoclear_features=0,
        l1_table_offset=cluster_size,
        image_size=size,
        backing_filename_offset=Header.SIZE if name else 0,
        backing_filename_size=len(name),
    )
    return header, name

"""Compressed extents ("Compressed Disks"): each grain a zlib stream behind a marker, appended and never changed."""

from __future__ import annotations

from typing import Final, NamedTuple

from hostel.block.formats.vmdk import layout
from hostel.block.formats.vmdk.descriptor import ExtentLine
from hostel.block.formats.vmdk.extent import Kind, Run
from hostel.block.formats.vmdk.layout import GrainMarker, SparseHeader
from hostel.block.formats.vmdk.mapped import MAX_BUFFER
from hostel.block.formats.vmdk.sparse import SparseExtent
from hostel.block.node import BlockNode
from hostel.codec import compress
from hostel.errors import BlockError, CorruptImage, UnsupportedFeature
from hostel.units import SECTOR, KiB, MiB

_READ_AHEAD: Final = 4 * MiB  # bytes read at once
_GAP: Final = 64 * KiB  # bytes that are read along rather than skipped


class Stored(NamedTuple):
    """A compressed grain, or a part of one.

    Attributes:
        offset: where the part begins, bytes from the extent's start.
        length: bytes of the part.
        host: where the grain's marker is in the file.
    """

    offset: int
    length: int
    host: int


class StreamExtent(SparseExtent):
    """A compressed extent."""

    compressed = True

    def __init__(
        self, file: BlockNode, line: ExtentLine | None, header: SparseHeader, *, has_footer: bool = False
    ) -> None:
        super().__init__(file, line, header, has_footer=has_footer)
        if self.grain_size > MAX_BUFFER:
            raise UnsupportedFeature(f"Compressed grains of {self.grain_size} bytes are not supported")
        self._has_markers = bool(header.flags & layout.MARKERS)
        self._cached: tuple[int, bytes] | None = None  # the grain that was read in part last, by its place

    def write_refusal(self) -> str | None:
        """Grains without markers cannot be appended."""
        if not self._has_markers:
            return "Compressed VMDK extents without markers must be read only"
        return super().write_refusal()

    def decode(self, entry: int) -> tuple[Kind, int]:
        """Grains follow one another at no fixed distance."""
        kind, host = super().decode(entry)
        return (Kind.COMPRESSED if kind is Kind.DATA else kind), host

    def _continues(self, kind: Kind, entry: int, expected: int) -> bool:
        if kind is Kind.COMPRESSED:
            return self.decode(entry)[0] is kind
        return entry == expected

    def grain_end(self, host: int) -> int | None:
        """By its marker, which has to be in the file as well as all of the grain."""
        if host + GrainMarker.SIZE > self.file_end:
            return None
        end = host + GrainMarker.SIZE + GrainMarker.unpack(self.file.read(host, GrainMarker.SIZE)).size
        return end if end <= self.file_end else None

    # ---- reading

    def stored(self, run: Run) -> list[Stored]:
        """The grains of a run, with where each is.

        Raises:
            CorruptImage: one lies beyond the file's end.
        """
        found = []
        offset, end = run.offset, run.offset + run.length
        while offset < end:
            index, at = divmod(offset // self.grain_size, self.tables.entries)
            table = self.tables[index]
            assert table is not None
            stop = min(end, offset - offset % self.grain_size + self.grain_size)
            host = table[at] * SECTOR
            if host >= self.file_end:
                raise CorruptImage(
                    f"A grain of '{self.file.filename}' at offset {host} lies beyond the file's end "
                    f"(disk offset {self.start + offset})"
                )
            found.append(Stored(offset, stop - offset, host))
            offset = stop
        return found

    def read_stored(self, grains: list[Stored], buf: memoryview) -> None:
        """Decompress grains that follow one another on the disk; no tables are looked at.

        Raises:
            CorruptImage: a grain is broken.
        """
        position = first = 0
        while first < len(grains):
            start = grains[first].host
            last = first + 1
            end = start
            while (
                last < len(grains)
                and start <= grains[last].host <= end + self.grain_size + _GAP
                and grains[last].host - start <= _READ_AHEAD
            ):
                end = max(end, grains[last].host)
                last += 1
            # The last one's length is not known yet; it is hardly ever more than a grain's.
            length = min(end - start + GrainMarker.SIZE + self.grain_size + SECTOR, self.file_end - start)
            self.file.debug_event("read_compressed")
            data = memoryview(self.file.read(start, length))
            for grain in grains[first:last]:
                content = self._grain(grain, data, start)
                within = grain.offset % self.grain_size
                if within + grain.length > len(content):
                    raise self._broken(grain, f"it holds {len(content)} bytes")
                buf[position : position + grain.length] = memoryview(content)[within : within + grain.length]
                position += grain.length
            first = last

    def _grain(self, grain: Stored, data: memoryview, start: int) -> bytes:
        """A grain's content, of which ``data`` from ``start`` on has been read."""
        if self._cached is not None and self._cached[0] == grain.host:
            return self._cached[1]
        at, size = grain.host - start, self.grain_size
        if self._has_markers:
            if at + GrainMarker.SIZE > len(data):
                raise self._broken(grain, "the file ends in its marker")
            size = GrainMarker.unpack(data, at).size
            at += GrainMarker.SIZE
            if not 0 < size <= 2 * self.grain_size or start + at + size > self.file_end:
                raise self._broken(grain, f"its marker says {size} bytes")
        payload = data[at : at + size]
        if len(payload) < size and start + at + len(payload) < self.file_end:
            payload = memoryview(self.file.read(start + at, min(size, self.file_end - start - at)))
        try:
            content = compress.unzlib(payload, self.grain_size)
        except CorruptImage as error:
            raise self._broken(grain, str(error)) from None
        if grain.length < self.grain_size:
            self._cached = (grain.host, content)
        return content

    def _broken(self, grain: Stored, why: str) -> CorruptImage:
        place = f"disk offset {self.start + grain.offset}, file offset {grain.host}"
        return CorruptImage(f"A compressed grain of '{self.file.filename}' is broken: {why} ({place})", errno=22)

    # ---- writing

    def packer(self) -> compress.Compressor:
        """A function for one thread that compresses a whole grain."""
        pack = compress.zlib_compressor()
        size = self.grain_size

        def compress_grain(data: bytes | bytearray | memoryview) -> bytes:
            return pack(data if len(data) == size else bytes(data).ljust(size, b"\0"))

        return compress_grain

    def append(self, offset: int, payload: bytes) -> None:
        """Append a compressed grain for the grain-aligned ``offset``.

        Raises:
            BlockError: EIO where the grain is there already.
        """
        (run,) = self.runs(offset, 1)
        if run.kind is Kind.COMPRESSED:
            raise _already_there()
        self.require_tables(offset // self.reach)
        marker = GrainMarker(sector=(self.start + offset) // SECTOR, size=len(payload))
        length = -(-(GrainMarker.SIZE + len(payload)) // SECTOR) * SECTOR
        host = self.allocate(length, alignment=SECTOR)
        self.file.debug_event("write_compressed")
        self.file.pwrite(host, (marker.pack() + payload).ljust(length, b"\0"))
        self._next = host + length
        self.file_end = max(self.file_end, self._next)
        self.set_entry(offset, host // SECTOR)
        self.write_many()

    def write_grains(self, offset: int, data: memoryview) -> None:
        """Compress and append whole grains, the last of a disk excepted, which may be a part of one."""
        pack = self.packer()
        for start in range(0, len(data), self.grain_size):
            self.append(offset + start, pack(data[start : start + self.grain_size]))

    def require_free(self, offset: int, length: int) -> None:
        """Refuse a range that :meth:`write_grains` would refuse, before anything is changed.

        Raises:
            BlockError: EINVAL where these are no whole grains; EIO where a grain is there already.
        """
        end = offset + length
        if offset % self.grain_size or (end % self.grain_size and end != self.length):
            raise BlockError(
                "Invalid argument", errno=22, hint="A streamOptimized image takes whole grains, each once."
            )
        if any(run.kind is Kind.COMPRESSED for run in self.runs(offset, length)):
            raise _already_there()


def _already_there() -> BlockError:
    return BlockError("Could not write to allocated cluster for streamOptimized", errno=5)

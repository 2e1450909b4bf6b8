"""What formats have in common that keep each guest cluster at a place of its own, once, and give out places in order.

The guest's bytes are read and written here by runs of clusters; a format says where its clusters lie, finds room for
new ones and records them. Data is written before the table entry that points to it changes.
"""

from __future__ import annotations

import abc
from collections.abc import Iterator
from typing import Final, Self

from hostel.block.driver import FormatDriver, OpenMode, Supports
from hostel.block.extent import Extent, Status
from hostel.block.formats.run import Kind, Run
from hostel.block.node import BlockNode, fill_zeroes
from hostel.block.powers import ModeChange
from hostel.units import GiB, MiB

ZEROES: Final = memoryview(bytes(MiB))
_ONE_BUFFER: Final = 256 * 1024  # bytes: up to here head, data and tail are written with one call
_MANY_ZEROES: Final = 64 * GiB  # bytes: tables that say no more than no table at all are not made for that many


_STATUS: Final = {
    Kind.UNALLOCATED: Status.UNALLOCATED,
    Kind.ZERO: Status.ZERO | Status.ALLOCATED,
    Kind.DATA: Status.DATA | Status.ALLOCATED,
    Kind.COMPRESSED: Status.DATA | Status.ALLOCATED | Status.COMPRESSED,
}


class ClusteredDriver(FormatDriver):
    """An image of clusters.

    Attributes:
        file: the node that holds the image's bytes.
        mode: how it was opened.
        cluster_size: bytes.
        zero_clusters: the format has a word for a cluster of zeroes.
    """

    supports = Supports.WRITE | Supports.ZEROES | Supports.BACKING
    zero_clusters = False
    cluster_size: int = 0  # the class is asked for its powers too, of which this is a part

    def __init__(self, file: BlockNode, mode: OpenMode, cluster_size: int) -> None:
        super().__init__()
        self.children["file"] = file
        self.file = file
        self.mode = mode
        self.cluster_size = cluster_size

    def reopened(self, change: ModeChange) -> Self:
        """Write out what is held back and open the image anew; see :class:`hostel.block.powers.Reopenable`."""
        self.close()
        driver = type(self).open(self.children["file"], change(self.mode))
        driver.children.update(self.children)
        return driver

    # ---- what a format says

    @abc.abstractmethod
    def runs(self, offset: int, length: int) -> Iterator[Run]:
        """The runs of a guest range, in order and without gaps; one ends where its table does at the latest."""

    @abc.abstractmethod
    def begin_write(self) -> None:
        """Before each change."""

    @abc.abstractmethod
    def room(self, offset: int, length: int) -> int:
        """How much of a guest range, from a cluster's start on, can be mapped at once, bytes; reads its table."""

    @abc.abstractmethod
    def allocate(self, length: int) -> int:
        """Find room for ``length`` bytes of whole clusters; returns the host offset."""

    @abc.abstractmethod
    def give_back(self, host: int, length: int) -> None:
        """Take back what :meth:`allocate` gave last, and nothing refers to."""

    @abc.abstractmethod
    def map_data(self, offset: int, length: int, host: int) -> None:
        """Record that whole clusters of the guest lie one after the other at ``host``."""

    def map_zeroes(self, offset: int, length: int) -> None:
        """Record that whole clusters read as zeroes; only of formats with ``zero_clusters``."""

    def is_untouched(self, host: int) -> bool:
        """Whether what lies from a host offset on reads as zeroes by itself: beyond the end of the file it does."""
        return host >= self.file.length

    def read_compressed(self, runs: list[Run], offset: int, buf: memoryview) -> None:
        """Decompress runs into their places in ``buf``, which starts at guest ``offset``."""

    def get(self, offset: int, host: int, buf: memoryview) -> None:
        """Read what guest ``offset`` has at host offset ``host``."""
        self.file.pread(host, buf)

    def put(self, offset: int, host: int, data: memoryview | bytes) -> None:
        """Write what guest ``offset`` shall have at host offset ``host``."""
        self.file.pwrite(host, data)

    def put_zeroes(self, offset: int, host: int, length: int, *, unmap: bool) -> None:
        """Write zeroes in place."""
        self.file.write_zeroes(host, length, unmap=unmap)

    @property
    def plain(self) -> bool:
        """Whether the file has the guest's bytes as they are."""
        return True

    # ---- reading

    @property
    def backing(self) -> BlockNode | None:
        """What shows through."""
        return self.children.get("backing")

    def pread(self, offset: int, buf: memoryview) -> None:
        """Read from this layer and, where it says nothing, from the backing node."""
        batch: list[Run] = []
        for run in self.runs(offset, len(buf)):
            if run.kind is Kind.COMPRESSED:
                batch.append(run)
                continue
            part = buf[run.offset - offset : run.offset - offset + run.length]
            if run.kind is Kind.DATA:
                self.file.debug_event("read_aio")
                self.get(run.offset, run.host, part)
            elif run.kind is Kind.UNALLOCATED and self.backing is not None:
                self.file.debug_event("read_backing_aio")
                self.backing.pread_padded(run.offset, part)
            else:
                fill_zeroes(part)
        if batch:
            self.read_compressed(batch, offset, buf)

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """This layer's clusters."""
        for run in self.runs(offset, length):
            host = run.host if run.kind is Kind.DATA and self.plain else None
            yield Extent(run.offset, run.length, _STATUS[run.kind], host)

    def reads_as_zeroes(self, offset: int, length: int) -> bool:
        """Whether the tables alone say that a range reads as zeroes; beyond the end of the image all does."""
        length = min(length, self.length - offset)
        return length <= 0 or all(self._is_zero(run) for run in self.runs(offset, length))

    def _is_zero(self, run: Run) -> bool:
        if run.kind is Kind.UNALLOCATED:
            return self.backing is None or run.offset >= self.backing.length
        return run.kind is Kind.ZERO

    # ---- writing

    def pwrite(self, offset: int, data: memoryview) -> None:
        """Write in place or into new clusters."""
        self.begin_write()
        done = 0
        while done < len(data):
            done += self._write_some(offset + done, data[done:])

    def _write_some(self, offset: int, data: memoryview) -> int:
        """Write as much as can be done alike; returns the bytes written."""
        runs = self.runs(offset, len(data))
        run = next(runs)
        length = run.length
        if run.kind is Kind.DATA:
            self.file.debug_event("write_aio")
            self.put(offset, run.host, data[:length])
            return length
        for run in runs:
            if run.kind is Kind.DATA:
                break
            length += run.length
        head = offset % self.cluster_size
        length = min(length, self.room(offset - head, head + length) - head)
        self._write_new(offset, data[:length])
        return length

    def _write_new(self, offset: int, data: memoryview) -> None:
        """Write into new clusters, which get what the guest had around the data as well."""
        size = self.cluster_size
        head = offset % size
        tail = -(offset + len(data)) % size
        length = head + len(data) + tail
        host = self.allocate(length)
        try:
            self._fill(offset, data, host, head, tail)
            self.map_data(offset - head, length, host)
        except BaseException:
            self.give_back(host, length)
            raise

    def _fill(self, offset: int, data: memoryview, host: int, head: int, tail: int) -> None:
        start, end = offset - head, offset + len(data)
        if not head and not tail:
            self.file.debug_event("write_aio")
            self.put(offset, host, data)
            return
        zero_head, zero_tail = self.reads_as_zeroes(start, head), self.reads_as_zeroes(end, tail)
        if zero_head and zero_tail and self.plain and self.is_untouched(host):
            self.file.debug_event("write_aio")
            self.file.pwrite(host + head, data)
            if tail and host + head + len(data) + tail > self.file.length:
                self.file.resize(host + head + len(data) + tail)
            return
        before, after = bytearray(head), bytearray(tail)
        if not zero_head:
            self._read_old(start, memoryview(before))
        if not zero_tail:
            self._read_old(end, memoryview(after))
        self.file.debug_event("cow_write" if head or tail else "write_aio")
        if head + len(data) + tail <= _ONE_BUFFER:
            self.put(start, host, b"".join((before, data, after)))
            return
        for at, part in ((0, memoryview(before)), (head, data), (head + len(data), memoryview(after))):
            if part:
                self.put(start + at, host + at, part)

    def _read_old(self, offset: int, buf: memoryview) -> None:
        """Read what the guest has; beyond the end of the image that is zeroes."""
        inside = max(0, min(len(buf), self.length - offset))
        if inside:
            self.file.debug_event("cow_read")
            self.pread(offset, buf[:inside])

    # ---- zeroes

    def write_zeroes(self, offset: int, length: int, *, unmap: bool) -> None:
        """Make a range read as zeroes: in place where there is data, else by the tables where they have a word."""
        self.begin_write()
        end = offset + length
        while offset < end:
            offset += self._zero_some(offset, end - offset, unmap=unmap)

    def _zero_some(self, offset: int, length: int, *, unmap: bool) -> int:
        size = self.cluster_size
        run = next(self.runs(offset, length))
        length = run.length
        if run.kind is Kind.DATA:
            self.put_zeroes(offset, run.host, length, unmap=unmap)
            return length
        if run.kind is Kind.ZERO or (self._is_bare(run) and (not self.zero_clusters or length > _MANY_ZEROES)):
            return length
        head = offset % size
        is_whole = not head and (length >= size or offset + length == self.length)
        if self.zero_clusters and is_whole and run.kind is Kind.UNALLOCATED:
            whole = length if offset + length == self.length else length - length % size
            whole = min(whole, self.room(offset, whole))
            self.map_zeroes(offset, -(-whole // size) * size)
            return whole
        if self._is_bare(run):
            return min(length, size - head)
        part = min(length, len(ZEROES), size - head if self.zero_clusters or head else length)
        self.pwrite(offset, ZEROES[:part])
        return part

    def _is_bare(self, run: Run) -> bool:
        """Whether there is nothing, neither here nor below."""
        return run.kind is Kind.UNALLOCATED and self.backing is None

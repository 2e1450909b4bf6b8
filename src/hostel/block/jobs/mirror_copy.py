"""How a mirror copies a range: alone, or with a second thread.

Where the target takes several writes at once, each of the two threads copies chunks of its own. Where it takes one at
a time, as qcow2 does, one thread reads ahead and the other writes, which then never waits for its turn.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from hostel.block.driver import Threading
from hostel.block.extent import Status
from hostel.block.jobs.companion import Companion
from hostel.block.jobs.copying import (
    Piece,
    copy_data,
    first_extent,
    read_piece,
    write_own_zeroes,
    write_piece,
    write_zeroes,
)
from hostel.block.jobs.mirror_filter import MirrorFilter
from hostel.block.node import BlockNode

_AHEAD: Final = 3  # chunks that are read and not yet written


class How(NamedTuple):
    """How ranges are copied.

    Attributes:
        chunk: bytes that are read and written at once.
        unmap: zeroes give space back in the target.
        own: zeroes are recorded in the target itself, since what it stands on is, or will be, another image.
    """

    chunk: int
    unmap: bool
    own: bool


class MirrorCopy:
    """Copies what the filter has marked.

    Args:
        mirror: the filter; a range's mark goes before it is read, and comes back where it is not copied.
        source: the node below the filter.
        target: where to.
        how: see :class:`How`.
    """

    def __init__(self, mirror: MirrorFilter, source: BlockNode, target: BlockNode, how: How) -> None:
        self._mirror, self._source, self._target, self._how = mirror, source, target, how
        self._companion = Companion()
        self._together = target.driver.threading is Threading.PARALLEL

    def close(self) -> None:
        """End the second thread."""
        self._companion.close()

    def alone(self, start: int, stop: int) -> None:
        """Copy a range.

        Raises:
            SourceError: a read failed; the range is marked again.
            TargetError: a write failed; likewise.
        """
        mirror = self._mirror
        with mirror.ranges.hold(start, stop):
            mirror.unmark(start, stop)
            try:
                for offset, length, status in self._extents(start, stop):
                    if status & Status.ZERO:
                        self._zero(offset, length)
                    else:
                        copy_data(self._source, self._target, offset, length)
            except BaseException:
                mirror.mark(start, stop - start)
                raise

    def paired(self, start: int, stop: int, done: Callable[[int], None]) -> None:
        """Copy a range in chunks, with two threads.

        Args:
            start: bytes.
            stop: likewise.
            done: told of each chunk's bytes, one call at a time; by either thread.

        Raises:
            SourceError: a read failed; what is not copied is marked.
            TargetError: a write failed; likewise.
        """
        if self._together:
            self._side_by_side(start, stop, done)
        else:
            self._read_ahead(start, stop, done)

    def _side_by_side(self, start: int, stop: int, done: Callable[[int], None]) -> None:
        chunks = iter(self._chunks(start, stop))
        lock = threading.Lock()

        def copy() -> None:
            while True:
                with lock:
                    chunk = next(chunks, None)
                if chunk is None:
                    return
                self.alone(*chunk)
                with lock:
                    done(chunk[1] - chunk[0])

        self._companion.run(copy, copy)

    def _read_ahead(self, start: int, stop: int, done: Callable[[int], None]) -> None:
        read: queue.SimpleQueue[tuple[int, int, list[Piece]] | None] = queue.SimpleQueue()
        room = threading.Semaphore(_AHEAD)
        failed = False
        mirror = self._mirror

        def reader() -> None:
            try:
                for low, high in self._chunks(start, stop):
                    room.acquire()  # the writer takes every chunk, whatever becomes of it
                    if failed:
                        return
                    read.put((low, high, self._read(low, high)))
            finally:
                read.put(None)

        def writer() -> None:
            nonlocal failed
            failure: BaseException | None = None
            while (chunk := read.get()) is not None:
                low, high, pieces = chunk
                try:
                    if failure is None:
                        self._write(pieces)
                        done(high - low)
                    else:
                        mirror.mark(low, high - low)
                except BaseException as error:
                    mirror.mark(low, high - low)
                    failure, failed = error, True
                finally:
                    mirror.ranges.release(low, high)
                    room.release()
            if failure is not None:
                raise failure

        self._companion.run(writer, reader)

    def _chunks(self, start: int, stop: int) -> list[tuple[int, int]]:
        size = self._how.chunk
        return [(low, min(stop, low + size)) for low in range(start, stop, size)]

    def _read(self, start: int, stop: int) -> list[Piece]:
        """Take a range, and read it."""
        mirror, pieces = self._mirror, []
        mirror.ranges.take(start, stop)
        mirror.unmark(start, stop)
        try:
            for offset, length, status in self._extents(start, stop):
                pieces.append(read_piece(self._source, offset, length, is_zero=bool(status & Status.ZERO)))
        except BaseException:
            mirror.mark(start, stop - start)
            mirror.ranges.release(start, stop)
            raise
        return pieces

    def _write(self, pieces: list[Piece]) -> None:
        for piece in pieces:
            if piece.buffer is None:
                self._zero(piece.offset, piece.length)
            else:
                write_piece(self._target, piece)

    def _zero(self, offset: int, length: int) -> None:
        if self._how.own:
            write_own_zeroes(self._target, offset, length)
        else:
            write_zeroes(self._target, offset, length, unmap=self._how.unmap)

    def _extents(self, start: int, stop: int) -> Iterator[tuple[int, int, Status]]:
        """The parts of a range: zeroes, or no more than a chunk to be read."""
        while start < stop:
            extent = first_extent(self._source, start, stop)
            length = extent.length if extent.status & Status.ZERO else min(extent.length, self._how.chunk)
            yield start, length, extent.status
            start += length

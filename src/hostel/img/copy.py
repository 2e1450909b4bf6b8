"""The engine of ``convert``: large reads into reused buffers, zeroes left out, a few threads in step.

Workers take the next windows of the plan, read them and find their zeroes, or compress them; the caller's thread writes
them in order, so that the target fills from its start to its end. System calls and codecs release the interpreter's
lock; that is where the time goes.
"""

from __future__ import annotations

import itertools
import mmap
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from hostel.block.chain import rounded_length
from hostel.block.node import BlockNode
from hostel.block.protocols.file import FileDriver
from hostel.img.segments import Kind, Segment, Window, source_segments, windows
from hostel.img.team import Team, portions, worker_count
from hostel.img.transfer import CopyError, Pace, Piece, Preparer, Reader, new_writer
from hostel.units import MiB

if TYPE_CHECKING:
    from hostel.img.offload import Offload

WINDOW: Final = 2 * MiB  # of data, read and written at once; QEMU's buffer has this size too
_LOOKED_AT: Final = 32  # segments, before anything is copied
_WAITING_READERS: Final = 6
_ZERO_STEP: Final = 1 << 40  # bytes: zeroes written at once; in small steps a format would not see how many they are


class CopySettings(NamedTuple):
    """How to copy.

    Attributes:
        compress: store clusters compressed.
        min_sparse: bytes: zeroes are left out of the target where there are this many; 0 writes every byte, None
            what metadata calls data.
        reads_as_zeroes: the target does already, so zeroes need no writing.
        base: a node of the source's chain: only what lies above it is copied, since the target has the rest, in a
            backing file or in itself.
        backing_end: where the target's backing file ends; None where that is not known.
        in_order: fill the target from its start to its end.
        threads: the most threads to use.
        rate: bytes a second; 0 for no limit.
        salvage: what cannot be read is reported and copied as zeroes.
        offload: let the host copy, without looking for zeroes.
    """

    compress: bool = False
    min_sparse: int | None = 4096
    reads_as_zeroes: bool = False
    base: BlockNode | None = None
    backing_end: int | None = None
    in_order: bool = True
    threads: int = 8
    rate: int = 0
    salvage: bool = False
    offload: bool = False


class Feedback(NamedTuple):
    """Who is told how a copy goes.

    Attributes:
        progress: called with the bytes begun and those in all.
        count_data: progress counts bytes of data, for which the plan is walked once more; else it counts positions.
        warn: called with each line that salvaging has to say.
    """

    progress: Callable[[int, int], None] | None = None
    count_data: bool = False
    warn: Callable[[str], None] | None = None


_NOBODY: Final = Feedback()


def _unheard(line: str) -> None:
    pass


def _waits(node: BlockNode) -> bool:
    """Whether each read waits for a disk, since it passes the host's page cache by."""
    storage = node.storage
    return storage is not None and isinstance(storage.driver, FileDriver) and storage.driver.is_direct


def _offload(target: BlockNode) -> Offload:
    from hostel.img.offload import Offload

    return Offload(target)


class CopyJob:
    """Copies the bytes of open images, one after another, into an open target.

    Args:
        sources: read through their backing chains.
        target: at least as long as the sources together.
        settings: how.
        feedback: who is told how it goes.
    """

    def __init__(
        self,
        sources: Sequence[BlockNode],
        target: BlockNode,
        settings: CopySettings,
        feedback: Feedback = _NOBODY,
    ) -> None:
        self._sources = sources
        self._length = sum(map(rounded_length, sources))
        self._settings = settings
        self._feedback = feedback
        self._salvage = (feedback.warn or _unheard) if settings.salvage else None
        self._reader = Reader(self._salvage)
        self._writer = new_writer(
            target,
            compress=settings.compress,
            shares_cells=settings.base is not None or target.backing is not None,
            min_sparse=settings.min_sparse,
            reads_as_zeroes=settings.reads_as_zeroes,
        )
        self._offload = _offload(target) if settings.offload else None
        self._pace = Pace(settings.rate)
        self._size = max(WINDOW, self._writer.cell)
        self._total = self._length
        self._begun = 0

    def run(self) -> None:
        """Copy.

        Raises:
            CopyError: a read or a write failed; what was written is no copy.
        """
        if self._feedback.count_data:
            self._total = sum(segment.length for segment in self._segments() if self._is_data(segment.kind))
        if self._settings.in_order:
            Team(self._portions(), self._sources, self._buffer, self._reading).run(self._workers(), self._write)
        else:
            Team(self._portions(), self._sources, self._buffer, self._copying).run_unordered(self._workers())

    def _workers(self) -> int:
        """How many threads read ahead of the one that writes, or read and write in no order.

        Ahead of one that writes, one is enough where nothing is to be computed, and nothing waited for: a disk has
        more to do at once.
        """
        if self._settings.threads == 1 or self._length <= self._size:
            return 0
        if self._salvage is not None:  # its lines come in the image's order
            return 1
        if any(map(_waits, self._sources)):
            return min(self._settings.threads, _WAITING_READERS)
        if self._settings.compress or not self._settings.in_order or self._is_computed():
            return worker_count(self._settings.threads)
        return 1

    def _is_computed(self) -> bool:
        """Whether the sources seem to be stored compressed or encrypted, judged by their beginning."""
        data = (segment for segment in self._segments() if segment.kind is Kind.DATA)
        return any(segment.computed for segment in itertools.islice(data, _LOOKED_AT))

    def _buffer(self) -> memoryview:
        return memoryview(mmap.mmap(-1, self._size))  # page-aligned, as direct I/O wants it

    def _is_data(self, kind: Kind) -> bool:
        return kind is Kind.DATA or (kind is Kind.ZERO and self._settings.min_sparse == 0)

    def _segments(self) -> Iterator[Segment]:
        settings = self._settings
        planned = 0
        try:
            for segment in source_segments(
                self._sources, base=settings.base, backing_end=settings.backing_end, salvage=self._salvage
            ):
                planned = segment.end
                yield segment
        except OSError as error:
            raise CopyError("reading block status at offset", planned, error) from None

    def _portions(self) -> Iterator[list[Window]]:
        for portion in portions(self._windows(), self._size, self._cost):
            self._report(portion)
            yield portion

    def _cost(self, window: Window) -> int:
        return window.length if self._is_data(window.kind) else 0

    def _windows(self) -> Iterator[Window]:
        """The windows that need anything done."""
        for window in windows(self._segments(), self._writer.cell, self._size, whole_cells=self._settings.compress):
            if window.kind is Kind.DATA:
                yield window
            elif self._is_data(window.kind):
                yield from window.steps(self._size)
            elif window.kind is Kind.ZERO and not self._settings.reads_as_zeroes:
                yield from window.steps(_ZERO_STEP)

    def _reading(self) -> Callable[[list[Window], memoryview], list[Piece]]:
        """What one thread does with a portion that another writes."""
        prepare = self._writer.preparer()
        return lambda portion, buffer: self._read(portion, buffer, prepare)

    def _copying(self) -> Callable[[list[Window], memoryview], None]:
        """What one thread does with a portion, to the end."""
        prepare = self._writer.preparer()
        return lambda portion, buffer: self._write(self._read(portion, buffer, prepare))

    def _report(self, portion: list[Window]) -> None:
        if self._feedback.progress is None:
            return
        for window in portion:
            self._begun = self._begun + self._cost(window) if self._feedback.count_data else window.end
            self._feedback.progress(self._begun, self._total)

    def _read(self, portion: list[Window], buffer: memoryview, prepare: Preparer) -> list[Piece]:
        """Read windows; what is to be written of them."""
        pieces: list[Piece] = []
        position = 0
        for window in portion:
            if not self._is_data(window.kind):
                pieces.append(Piece(window.offset, window.length))
            elif self._offload is None or not self._offload.copy(window):
                view = buffer[position : position + window.length]
                position += window.length
                self._reader.fill(window, view)
                pieces += prepare(window, view)
        return pieces

    def _write(self, pieces: list[Piece]) -> None:
        for piece in pieces:
            self._pace.wait(piece.length)
            self._writer.write(piece)

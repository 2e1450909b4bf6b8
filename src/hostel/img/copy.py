"""The engine of ``convert``: large reads into reused buffers, zeroes left out, a few threads in step.

Each thread takes the next windows of the plan, reads them (and compresses them) on its own, and then writes them in
its turn, so that the target fills from its start to its end while the others read. System calls and codecs release
the interpreter's lock; that is where the time goes.
"""

from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Final, NamedTuple

from hostel.block.driver import Threading
from hostel.block.node import BlockNode
from hostel.img.segments import Kind, Segment, Window, rounded_length, source_segments, windows
from hostel.img.transfer import CopyError, Offload, Pace, Piece, Preparer, Reader, new_writer
from hostel.units import MiB

WINDOW: Final = 2 * MiB  # of data, read and written at once; QEMU's buffer has this size too
_SMALL_WINDOWS: Final = 64  # taken at once
_ZERO_STEP: Final = 1024 * MiB  # zeroes written at once
MAX_THREADS: Final = 4


class CopySettings(NamedTuple):
    """How to copy.

    Attributes:
        compress: store clusters compressed.
        min_sparse: bytes: zeroes are left out of the target where there are this many; 0 writes every byte.
        reads_as_zeroes: the target does already, so zeroes need no writing.
        overlay: the target has a backing file with the content of the source's own.
        backing_end: where the target's backing file ends; None where that is not known.
        in_order: fill the target from its start to its end.
        threads: the most threads to use.
        rate: bytes a second; 0 for no limit.
        salvage: what cannot be read is reported and copied as zeroes.
        offload: let the host copy, without looking for zeroes.
    """

    compress: bool = False
    min_sparse: int = 4096
    reads_as_zeroes: bool = False
    overlay: bool = False
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


class _Work(NamedTuple):
    """Windows for one thread, and the ends of the turn before and of its own."""

    turn: int
    windows: list[Window]
    before: threading.Lock
    after: threading.Lock


_NOBODY: Final = Feedback()


def _unheard(line: str) -> None:
    pass


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
        self._reader = Reader(feedback.warn or _unheard if settings.salvage else None)
        self._writer = new_writer(
            target,
            compress=settings.compress,
            shares_cells=settings.overlay or target.backing is not None,
            min_sparse=settings.min_sparse,
            reads_as_zeroes=settings.reads_as_zeroes,
        )
        self._offload = Offload(target) if settings.offload else None
        self._pace = Pace(settings.rate)
        self._size = max(WINDOW, self._writer.cell)
        self._in_order = settings.in_order and target.driver.threading is Threading.SERIAL
        self._failure: tuple[int, BaseException] | None = None
        self._failure_lock = threading.Lock()
        self._total = self._length
        self._begun = 0
        self._planned = 0
        self._plan = self._portions()
        self._plan_lock = threading.Lock()
        self._turns = 0
        self._last = threading.Lock()

    def run(self) -> None:
        """Copy.

        Raises:
            CopyError: a read or a write failed; what was written is no copy.
        """
        if self._feedback.count_data:
            self._total = sum(segment.length for segment in self._segments() if self._is_data(segment.kind))
        others = [threading.Thread(target=self._run_thread, daemon=True) for _ in range(self._threads() - 1)]
        for thread in others:
            thread.start()
        self._run_thread()
        try:
            for thread in others:
                thread.join()
        except BaseException as error:  # an interrupt: the others must not write to what is closed next
            self._fail(-1, error)
            for thread in others:
                thread.join()
        if self._failure is not None:
            raise self._failure[1]

    def _fail(self, turn: int, error: BaseException) -> None:
        """Stop all threads; of several failures the earliest in the image is the one reported."""
        with self._failure_lock:
            if self._failure is None or turn < self._failure[0]:
                self._failure = turn, error

    def _threads(self) -> int:
        if self._length <= self._size:
            return 1
        return min(self._settings.threads, MAX_THREADS, len(os.sched_getaffinity(0)))

    def _is_data(self, kind: Kind) -> bool:
        return kind is Kind.DATA or (kind is Kind.ZERO and not self._settings.min_sparse)

    def _segments(self) -> Iterator[Segment]:
        settings = self._settings
        return source_segments(self._sources, overlay=settings.overlay, backing_end=settings.backing_end)

    def _portions(self) -> Iterator[list[Window]]:
        """Windows, in portions that are worth a turn."""
        portion: list[Window] = []
        room = self._size
        for window in self._windows():
            cost = window.length if self._is_data(window.kind) else 0
            if portion and (cost > room or len(portion) == _SMALL_WINDOWS):
                yield portion
                portion, room = [], self._size
            portion.append(window)
            room -= cost
        if portion:
            yield portion

    def _windows(self) -> Iterator[Window]:
        """The windows that need anything done."""
        settings = self._settings
        for window in windows(self._segments(), self._writer.cell, self._size, whole_cells=settings.compress):
            self._planned = window.end
            if window.kind is Kind.DATA:
                yield window
            elif window.kind is Kind.ZERO and not (settings.reads_as_zeroes and settings.min_sparse):
                yield from window.steps(_ZERO_STEP if settings.min_sparse else self._size)

    def _run_thread(self) -> None:
        try:
            buffer = memoryview(mmap.mmap(-1, self._size))  # page-aligned, as direct I/O wants it
            prepare = self._writer.preparer()
            while (work := self._take()) is not None:
                try:
                    self._copy(work, buffer, prepare)
                except Exception as error:
                    self._fail(work.turn, error)
                finally:
                    work.after.release()
        except BaseException as error:
            self._fail(-1, error)

    def _take(self) -> _Work | None:
        """The next portion of the plan; None at its end, and after a failure."""
        with self._plan_lock, ExitStack() as stack:
            if self._failure is not None:
                return None
            for source in self._sources:
                for node in source.chain():
                    stack.enter_context(node.lock())
            self._turns += 1
            try:
                portion = next(self._plan, None)
            except OSError as error:
                self._fail(self._turns, CopyError("reading block status at offset", self._planned, error))
                return None
            if portion is None:
                return None
            self._report(portion)
            before, self._last = self._last, threading.Lock()
            self._last.acquire()
            return _Work(self._turns, portion, before, self._last)

    def _report(self, portion: list[Window]) -> None:
        if self._feedback.progress is None:
            return
        if self._feedback.count_data:
            self._begun += sum(window.length for window in portion if self._is_data(window.kind))
        else:
            self._begun = portion[-1].end
        self._feedback.progress(self._begun, self._total)

    def _copy(self, work: _Work, buffer: memoryview, prepare: Preparer) -> None:
        pieces: list[Piece] = []
        position = 0
        for window in work.windows:
            if not self._is_data(window.kind):
                pieces.append(Piece(window.offset, window.length))
            elif self._offload is None or not self._offload.copy(window):
                view = buffer[position : position + window.length]
                position += window.length
                self._reader.fill(window, view)
                pieces += prepare(window, view)
        if self._in_order:
            work.before.acquire()  # released by whoever has the turn before, whatever happens to him
        if self._failure is not None:
            return
        for piece in pieces:
            self._pace.wait(piece.length)
            self._writer.write(piece)

"""Moving the bytes of windows: reading them, finding out what of them must be written, writing it."""

from __future__ import annotations

import abc
import errno
import os
import threading
import time
from collections.abc import Callable
from typing import Final, NamedTuple

from hostel.block.node import BlockNode, fill_zeroes
from hostel.block.powers import Compressing, Deferring
from hostel.cause import beyond_errno
from hostel.errors import BlockError, UnsupportedFeature
from hostel.img.segments import Segment, Window
from hostel.img.sparse import ZeroFinder
from hostel.units import SECTOR, KiB

_PIECE: Final = 64 * KiB  # of blocks that cost nothing where nothing is written: so many zeroes are left out


class CopyError(BlockError):
    """A copy stopped; the text is QEMU's, and ``hint`` what the driver found out beyond the errno."""

    def __init__(self, doing: str, offset: int, cause: OSError) -> None:
        code = cause.errno or errno.EIO
        super().__init__(
            f"error while {doing} {offset}: {os.strerror(code)}",
            errno=code,
            hint=beyond_errno(cause),
        )


class Reader:
    """Reads windows.

    Args:
        warn: salvage: called with a line for each sector that cannot be read and is taken for zeroes; None stops
            at the first.
    """

    def __init__(self, warn: Callable[[str], None] | None = None) -> None:
        self._warn = warn

    def fill(self, window: Window, view: memoryview) -> None:
        """Read a window of data.

        Raises:
            CopyError: a read failed.
        """
        for segment in window.segments:
            start = segment.offset - window.offset
            part = view[start : start + segment.length]
            if segment.node is None:
                fill_zeroes(part)
                continue
            try:
                _read(segment, part)
            except OSError as error:
                if self._warn is None:
                    raise CopyError("reading at byte", window.offset, error) from None
                self._salvage(segment, part, self._warn)

    def _salvage(self, segment: Segment, view: memoryview, warn: Callable[[str], None]) -> None:
        """Read a segment sector by sector."""
        assert segment.node is not None
        for start in range(0, segment.length, SECTOR):
            part = view[start : start + SECTOR]
            try:
                segment.node.pread(segment.source_offset + start, part)
            except OSError as error:
                reason = os.strerror(error.errno or errno.EIO)
                warn(f"error while reading offset {segment.offset + start}: {reason}")
                fill_zeroes(part)


def _read(segment: Segment, view: memoryview) -> None:
    node = segment.node
    assert node is not None
    if segment.computed and isinstance(node.driver, Deferring):
        # Only the look-up holds others off; decompressing or decrypting, which takes long, does not.
        with node.lock():
            fill = node.driver.deferred_read(segment.source_offset, segment.length)
        fill(view)
    else:
        node.pread(segment.source_offset, view)


class Piece(NamedTuple):
    """What is written at once.

    Attributes:
        offset: bytes from the start of the target.
        length: bytes of the target.
        data: the bytes; None where they are zeroes, or in ``payload``.
        payload: the compressed cluster.
    """

    offset: int
    length: int
    data: memoryview | None = None
    payload: bytes | None = None


Preparer = Callable[[Window, memoryview], list[Piece]]


class Writer(abc.ABC):
    """Writes windows; what needs no access to the target is done first, in any thread.

    Args:
        target: the image to write.
        cell: bytes that are always written together.
        min_sparse: see :class:`hostel.img.copy.CopySettings`.
        reads_as_zeroes: see there.
    """

    def __init__(self, target: BlockNode, cell: int, min_sparse: int | None, reads_as_zeroes: bool) -> None:
        self._target = target
        self.cell = cell
        self._min_sparse = min_sparse
        self._reads_as_zeroes = reads_as_zeroes

    @abc.abstractmethod
    def preparer(self) -> Preparer:
        """A function, for one thread, that turns a window and its bytes into pieces, which may refer to the bytes."""

    def write(self, piece: Piece) -> None:
        """Write one piece.

        Raises:
            CopyError: the write failed.
        """
        try:
            if piece.data is not None:
                self._target.pwrite(piece.offset, piece.data)
            elif piece.payload is not None:
                self._write_payload(piece.offset, piece.payload)
            else:
                self._target.write_zeroes(piece.offset, piece.length, unmap=self._min_sparse != 0)
        except OSError as error:
            raise CopyError("writing at byte", piece.offset, error) from None

    def _write_payload(self, offset: int, payload: bytes) -> None:
        raise UnsupportedFeature("Compression not supported for this file format")


class PlainWriter(Writer):
    """Writes data as it is, without the zeroes in it."""

    def __init__(self, target: BlockNode, cell: int, min_sparse: int | None, reads_as_zeroes: bool) -> None:
        super().__init__(target, cell, min_sparse, reads_as_zeroes)
        granule = 1 << min_sparse.bit_length() - 1 if min_sparse else SECTOR
        self._zeroes = ZeroFinder(max(granule, cell), min_sparse or 0)

    def preparer(self) -> Preparer:
        """All threads share one function."""
        return self._prepare

    def _prepare(self, window: Window, view: memoryview) -> list[Piece]:
        if not self._min_sparse:
            return [Piece(window.offset, window.length, view)]
        pieces: list[Piece] = []
        position = 0
        for start, end in self._zeroes.data_ranges(view, window.offset):
            if start > position:
                self._add_zeroes(pieces, window.offset + position, start - position)
            pieces.append(Piece(window.offset + start, end - start, view[start:end]))
            position = end
        if position < window.length:
            self._add_zeroes(pieces, window.offset + position, window.length - position)
        return pieces

    def _add_zeroes(self, pieces: list[Piece], offset: int, length: int) -> None:
        if not self._reads_as_zeroes:
            pieces.append(Piece(offset, length))


class CompressedWriter(Writer):
    """Writes compressed clusters."""

    def __init__(self, target: BlockNode, driver: Compressing, min_sparse: int | None, reads_as_zeroes: bool) -> None:
        super().__init__(target, driver.cluster_size, min_sparse, reads_as_zeroes)
        self._driver = driver
        self._zeroes = ZeroFinder(driver.cluster_size)

    def preparer(self) -> Preparer:
        """Each thread has a compressor of its own."""
        compress = self._driver.compressor()
        cluster = self.cell

        def prepare(window: Window, view: memoryview) -> list[Piece]:
            pieces = []
            for start in range(0, window.length, cluster):
                part = view[start : start + cluster]
                offset = window.offset + start
                if self._min_sparse and self._zeroes.is_zero(part):
                    if not self._reads_as_zeroes:
                        pieces.append(Piece(offset, len(part)))
                    continue
                payload = compress(part if len(part) == cluster else _padded(part, cluster))
                pieces.append(Piece(offset, len(part), None if payload is not None else part, payload))
            return pieces

        return prepare

    def _write_payload(self, offset: int, payload: bytes) -> None:
        with self._target.lock():
            self._driver.pwrite_compressed(offset, payload)


def new_writer(
    target: BlockNode, *, compress: bool, shares_cells: bool, min_sparse: int | None, reads_as_zeroes: bool
) -> Writer:
    """The writer for a target; ``shares_cells``: a cluster may belong in part to a backing file.

    Raises:
        UnsupportedFeature: the target cannot be compressed.
    """
    if compress:
        if not isinstance(target.driver, Compressing):
            raise UnsupportedFeature("Compression not supported for this file format")
        return CompressedWriter(target, target.driver, min_sparse, reads_as_zeroes)
    cluster = (None if shares_cells else target.driver.info().cluster_size) or SECTOR
    if target.driver.new_blocks_read_as_zeroes:
        cluster = min(cluster, _PIECE)
    return PlainWriter(target, cluster, min_sparse, reads_as_zeroes)


def _padded(view: memoryview, length: int) -> bytearray:
    padded = bytearray(length)
    padded[: len(view)] = view
    return padded


class Pace:
    """Holds back a copy to a number of bytes a second."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._lock = threading.Lock()
        self._next = 0.0

    def wait(self, length: int) -> None:
        """Wait until ``length`` more bytes may be written."""
        if not self._rate:
            return
        with self._lock:
            now = time.monotonic()
            start = max(self._next, now)
            self._next = start + length / self._rate
        time.sleep(start - now)

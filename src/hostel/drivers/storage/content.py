"""The content of volumes: copying between formats, and raw transfer in and out."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from typing import Final

from hostel.block.node import BlockNode
from hostel.drivers.base import Hole, Progress
from hostel.drivers.base.storage import piece_size
from hostel.drivers.fault import fault
from hostel.drivers.storage.document import VOLUME_FORMATS, VolumeFacts
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.units import MiB

CHUNK: Final = MiB
_IMAGES: Final = frozenset(VOLUME_FORMATS) - {"raw", "iso", "dir"}
_ZEROES: Final = memoryview(bytes(CHUNK))


def format_of(volume: VolumeFacts) -> str:
    """The format by which a volume's content is read: what is no image is its bytes."""
    return volume.format if volume.format in _IMAGES else "raw"


def copy(source: BlockNode, target: BlockNode, progress: Progress | None, *, is_new: bool = True) -> None:
    """Copy what a machine would read of ``source`` into ``target``.

    Args:
        source: it is at most as long as ``target``, in whole sectors.
        target: where to.
        progress: is told how far it is.
        is_new: ``target`` reads as zeroes.
    """
    # Most commands copy nothing.
    from hostel.img.copy import CopyJob, CopySettings, Feedback

    CopyJob([source], target, CopySettings(reads_as_zeroes=is_new), Feedback(progress=progress)).run()
    target.flush()
    if progress is not None:
        progress(source.length, source.length)


def data_ranges(descriptor: int, start: int = 0, end: int | None = None) -> Iterator[tuple[int, int]]:
    """The start and end of every part of an open file that the host has written, as far as it can say; in order."""
    stop = os.lseek(descriptor, 0, os.SEEK_END) if end is None else end
    offset = start
    while offset < stop:
        data = _seek(descriptor, offset, os.SEEK_DATA, stop)
        if data >= stop:
            return
        offset = _seek(descriptor, data, os.SEEK_HOLE, stop)
        yield data, offset


def download(descriptor: int, offset: int, length: int, *, sparse: bool) -> Iterator[memoryview | Hole]:
    """Yield an open file's bytes from ``offset``, at most ``length`` unless that is 0."""
    end = os.lseek(descriptor, 0, os.SEEK_END)
    if length:
        end = min(end, offset + length)
    ranges = data_ranges(descriptor, offset, end) if sparse else iter([(offset, end)])
    buffer = memoryview(bytearray(CHUNK))
    for start, stop in ranges:
        if start > offset:
            yield Hole(start - offset)
        offset = start
        while offset < stop:
            done = os.preadv(descriptor, [buffer[: min(CHUNK, stop - offset)]], offset)
            if not done:
                return  # it was truncated meanwhile
            yield buffer[:done]
            offset += done
    if sparse and offset < end:
        yield Hole(end - offset)


def upload(descriptor: int, name: str, source: Iterator[bytes | memoryview | Hole], offset: int, length: int) -> None:
    """Write ``source`` into an open file from ``offset``; its holes read as zeroes afterwards.

    What remains of ``source`` when ``length`` bytes are written is left for :func:`expect_end`.

    Raises:
        VirtError: ``OPERATION_FAILED`` when there are more than ``length`` bytes; the first ``length`` are written.
    """
    written = 0
    while not length or written < length:
        piece = next(source, None)
        if piece is None:
            break
        size = piece_size(piece)
        fitting = min(size, length - written) if length else size
        if isinstance(piece, Hole):
            _zero(descriptor, offset + written, fitting)
        else:
            write_all(descriptor, memoryview(piece).cast("B")[:fitting], offset + written)
        written += fitting
        if fitting < size:
            os.fsync(descriptor)
            raise _too_long(name, length)
    os.fsync(descriptor)


def expect_end(name: str, source: Iterator[bytes | memoryview | Hole], length: int) -> None:
    """Wait for the end of a source of which ``length`` bytes were taken.

    Raises:
        VirtError: ``OPERATION_FAILED`` when there are more.
    """
    if any(map(piece_size, source)):
        raise _too_long(name, length)


def _too_long(name: str, length: int) -> VirtError:
    reason = f"upload to volume '{name}': the data is longer than the {length} bytes announced"
    return fault(ErrorCode.OPERATION_FAILED, reason, ErrorDomain.STORAGE)


def write_all(descriptor: int, data: memoryview, offset: int) -> None:
    """Write all of ``data``, however few bytes the host takes at a time."""
    done = 0
    while done < len(data):
        done += os.pwrite(descriptor, data[done:], offset + done)


def _zero(descriptor: int, offset: int, length: int) -> None:
    """Make a range read as zeroes, without taking space for what lies beyond the end of the file."""
    end = os.lseek(descriptor, 0, os.SEEK_END)
    for start, stop in data_ranges(descriptor, offset, min(end, offset + length)):
        for position in range(start, stop, CHUNK):
            write_all(descriptor, _ZEROES[: min(CHUNK, stop - position)], position)
    if offset + length > end:
        os.ftruncate(descriptor, offset + length)


def _seek(descriptor: int, offset: int, whence: int, end: int) -> int:
    try:
        return min(os.lseek(descriptor, offset, whence), end)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return end
        # No such lseek here (a block device): all of it is data.
        return offset if whence == os.SEEK_DATA else end

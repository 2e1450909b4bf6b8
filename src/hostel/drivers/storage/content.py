"""The content of volumes: copying between formats, wiping, and raw transfer in and out."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from typing import Final

from hostel.block.extent import Status
from hostel.block.node import BlockNode
from hostel.drivers.base import Progress
from hostel.drivers.fault import fault
from hostel.errors import ErrorCode, ErrorDomain
from hostel.units import MiB

CHUNK: Final = MiB
_ZEROES: Final = memoryview(bytes(CHUNK))


def copy(source: BlockNode, target: BlockNode, progress: Progress | None) -> None:
    """Copy what a machine would read of ``source`` into ``target``, which is new and reads as zeroes."""
    total = source.length
    buffer = memoryview(bytearray(CHUNK))
    done = 0
    for extent in source.extents():
        is_hole = bool(extent.status & Status.ZERO) or (not extent.status & Status.ALLOCATED and source.backing is None)
        for offset in range(extent.offset, extent.end, CHUNK):
            length = min(CHUNK, extent.end - offset)
            if not is_hole:
                part = buffer[:length]
                source.pread(offset, part)
                if part != _ZEROES[:length]:
                    target.pwrite(offset, part)
            done += length
            if progress is not None and (not is_hole or done == total):
                progress(done, total)
    target.flush()


def wipe(descriptor: int, progress: Progress | None) -> None:
    """Overwrite every allocated byte of an open file with zeroes, in place; holes stay holes."""
    end = os.lseek(descriptor, 0, os.SEEK_END)
    offset = 0
    while offset < end:
        start = _seek(descriptor, offset, os.SEEK_DATA, end)
        stop = _seek(descriptor, start, os.SEEK_HOLE, end) if start < end else end
        for position in range(start, stop, CHUNK):
            _write(descriptor, _ZEROES[: min(CHUNK, stop - position)], position)
            if progress is not None:
                progress(min(position + CHUNK, stop), end)
        offset = stop
    os.fsync(descriptor)
    if progress is not None:
        progress(end, end)


def download(descriptor: int, offset: int, length: int) -> Iterator[memoryview]:
    """Yield an open file's bytes from ``offset``, at most ``length`` unless that is 0."""
    end = os.lseek(descriptor, 0, os.SEEK_END)
    if length:
        end = min(end, offset + length)
    buffer = memoryview(bytearray(CHUNK))
    while offset < end:
        done = os.preadv(descriptor, [buffer[: min(CHUNK, end - offset)]], offset)
        if not done:
            return
        yield buffer[:done]
        offset += done


def upload(descriptor: int, name: str, source: Iterator[bytes], offset: int, length: int) -> None:
    """Write ``source`` into an open file from ``offset``.

    Raises:
        VirtError: ``OPERATION_FAILED`` when there are more than ``length`` bytes; the first ``length`` are written.
    """
    written = 0
    for chunk in source:
        data = memoryview(chunk).cast("B")
        fitting = data[: length - written] if length else data
        _write(descriptor, fitting, offset + written)
        written += len(fitting)
        if len(fitting) < len(data):
            os.fsync(descriptor)
            raise fault(
                ErrorCode.OPERATION_FAILED,
                f"upload to volume '{name}': the data is longer than the {length} bytes announced",
                ErrorDomain.STORAGE,
            )
    os.fsync(descriptor)


def _write(descriptor: int, data: memoryview, offset: int) -> None:
    done = 0
    while done < len(data):
        done += os.pwrite(descriptor, data[done:], offset + done)


def _seek(descriptor: int, offset: int, whence: int, end: int) -> int:
    try:
        return min(os.lseek(descriptor, offset, whence), end)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return end
        # No such lseek here (a block device): all of it is data.
        return offset if whence == os.SEEK_DATA else end

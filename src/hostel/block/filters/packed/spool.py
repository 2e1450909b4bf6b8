"""What a compressed file holds, in a temporary file: for files without parts that can be unpacked by themselves."""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
from collections.abc import Iterator
from typing import Final

from hostel.block.lock import require_free
from hostel.block.node import is_zero
from hostel.errors import CorruptImage, NoSpace
from hostel.units import KiB

_CELL: Final = 16 * KiB  # bytes; those that are zeroes take no space


class Spool:
    """A stream that is unpacked as far as it is wanted, once. The file has no name, and is gone with the process.

    Args:
        pieces: the stream's bytes.
        limit: bytes that it may have at most, zeroes too.
    """

    def __init__(self, pieces: Iterator[bytes], limit: int) -> None:
        self._pieces = pieces
        self._limit = limit
        self._lock = threading.RLock()
        self._filled = 0
        self._file = tempfile.TemporaryFile(prefix="hostel-")  # noqa: SIM115

    def fill(self, until: int | None = None) -> int:
        """Unpack up to a byte, or all of it; returns how many there are so far.

        Raises:
            CorruptImage: the stream is broken.
            NoSpace: it is longer than allowed, or the temporary file has no room.
        """
        require_free(self._lock)
        with self._lock:
            while until is None or self._filled < until:
                piece = next(self._pieces, None)
                if piece is None:
                    break
                if self._filled + len(piece) > self._limit:
                    raise NoSpace(
                        f"The file holds more than {self._limit} bytes", hint="Allow more: unpacked-limit=SIZE."
                    )
                try:
                    self._write(piece)
                except OSError as error:
                    place = tempfile.gettempdir()
                    raise NoSpace(
                        f"The temporary file in '{place}' cannot hold what is unpacked: {error.strerror}",
                        errno=error.errno,
                        hint="Set TMPDIR to a directory with more room.",
                    ) from None
            return self._filled

    def _write(self, piece: bytes) -> None:
        view, end = memoryview(piece), self._filled + len(piece)
        for start in range(0, len(piece), _CELL):
            part = view[start : start + _CELL]
            at = self._filled + start
            while part and not is_zero(part):
                count = os.pwrite(self._file.fileno(), part, at)
                part, at = part[count:], at + count
        os.ftruncate(self._file.fileno(), end)
        self._filled = end

    def pread(self, offset: int, buf: memoryview) -> None:
        """Fill a buffer.

        Raises:
            CorruptImage: the stream is broken, or ends earlier.
        """
        if self.fill(offset + len(buf)) < offset + len(buf):
            raise CorruptImage(f"The file holds {self._filled} bytes only, and not what it says of itself")
        done = 0
        while done < len(buf):
            done += os.preadv(self._file.fileno(), [buf[done:]], offset + done)

    def close(self) -> None:
        """Give the space back."""
        with contextlib.suppress(AttributeError):
            self._pieces.close()  # type: ignore[attr-defined]
        self._file.close()

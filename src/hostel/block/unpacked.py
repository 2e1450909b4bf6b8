"""Parts of an image that are unpacked as a whole, each by one thread at a time; the last ones are kept."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from hostel.block.lock import require_free
from hostel.units import MiB

_KEPT: Final = 16 * MiB  # bytes; the part used last always is
_LANES: Final = 8  # parts that are unpacked at once


class Unpacked:
    """Parts by their numbers. Any number of threads may ask.

    Args:
        limit: bytes of parts that are kept.
    """

    def __init__(self, limit: int = _KEPT) -> None:
        self._limit = limit
        self._lock = threading.RLock()
        self._kept: dict[int, bytes] = {}  # the one used last behind the others
        self._lanes = [threading.RLock() for _ in range(_LANES)]

    def part(self, index: int, unpack: Callable[[], bytes]) -> bytes:
        """A part, which ``unpack`` makes where it is not kept; where several threads want it one does."""
        lane = self._lanes[index % _LANES]
        require_free(lane)
        require_free(self._lock)
        with lane:
            with self._lock:
                data = self._kept.pop(index, None)
                if data is not None:
                    self._kept[index] = data
                    return data
            data = unpack()
            with self._lock:
                self._kept[index] = data
                total = self.kept
                while total > self._limit and len(self._kept) > 1:
                    total -= len(self._kept.pop(next(iter(self._kept))))
            return data

    @property
    def kept(self) -> int:
        """Bytes of what is kept."""
        return sum(map(len, self._kept.values()))

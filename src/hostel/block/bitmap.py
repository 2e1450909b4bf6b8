"""Dirty bitmaps: which parts of an image were written since the bitmap was cleared.

One bit stands for ``granularity`` bytes. The bits are kept as qcow2 stores them: bit ``n`` is bit ``n % 8``, counted
from the low end, of byte ``n // 8``.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator

from hostel.errors import BlockError, OutOfRange
from hostel.units import SECTOR


class DirtyBitmap:
    """The bits for an image of ``size`` bytes.

    Attributes:
        granularity: bytes that one bit stands for, a power of two.
        bits: the bits, 8 a byte; those beyond the end are 0.
    """

    def __init__(self, size: int, granularity: int, bits: bytes | bytearray | None = None) -> None:
        self.granularity = granularity
        self._size = size
        self.bits = bytearray(self._bytes(size)) if bits is None else bytearray(bits)
        self._trim()

    def _bytes(self, size: int) -> int:
        return (-(-size // self.granularity) + 7) // 8

    @property
    def size(self) -> int:
        """Bytes of the image."""
        return self._size

    @property
    def count(self) -> int:
        """Dirty bits."""
        return int.from_bytes(self.bits, "little").bit_count()

    def mark(self, offset: int, length: int) -> None:
        """Every bit that stands for some of the range becomes 1."""
        if length > 0:
            self._check(offset, length)
            self._fill(offset // self.granularity, (offset + length - 1) // self.granularity + 1)

    def unmark(self, offset: int, length: int) -> None:
        """Every bit becomes 0 that stands for a part of the range and for nothing beside it but what is no image."""
        if length <= 0:
            return
        self._check(offset, length)
        end = offset + length
        first = -(-offset // self.granularity)
        last = -(-end // self.granularity) if end == self._size else end // self.granularity
        while first < last and first & 7:
            self.bits[first >> 3] &= ~(1 << (first & 7))
            first += 1
        whole = last - first >> 3
        if whole > 0:
            self.bits[first >> 3 : (first >> 3) + whole] = bytes(whole)
            first += whole << 3
        for index in range(first, last):
            self.bits[index >> 3] &= ~(1 << (index & 7))

    def clear(self) -> None:
        """Every bit becomes 0."""
        self.bits = bytearray(len(self.bits))

    def is_dirty(self, offset: int) -> bool:
        """The bit that stands for a byte."""
        self._check(offset, 1)
        index = offset // self.granularity
        return bool(self.bits[index >> 3] >> (index & 7) & 1)

    def _check(self, offset: int, length: int) -> None:
        if offset < 0 or offset + length > self._size:
            raise OutOfRange(f"{length} bytes at offset {offset} are outside the bitmap's {self._size} bytes")

    def _fill(self, first: int, end: int) -> None:
        low, high = first >> 3, (end - 1) >> 3
        head = 0xFF << (first & 7) & 0xFF
        tail = 0xFF >> (7 - (end - 1 & 7))
        if low == high:
            self.bits[low] |= head & tail
            return
        self.bits[low] |= head
        self.bits[low + 1 : high] = b"\xff" * (high - low - 1)
        self.bits[high] |= tail

    def _trim(self) -> None:
        """Bits beyond the end are 0."""
        used = -(-self._size // self.granularity)
        if used & 7 and self.bits:
            self.bits[used >> 3] &= (1 << (used & 7)) - 1

    def resize(self, size: int) -> None:
        """The image has another size; bits for what is new are 0."""
        length = self._bytes(size)
        del self.bits[length:]
        self.bits.extend(bytes(length - len(self.bits)))
        self._size = size
        self._trim()

    def copy(self) -> DirtyBitmap:
        """One with the same bits."""
        return DirtyBitmap(self._size, self.granularity, self.bits)

    def require_size_of(self, other: DirtyBitmap) -> None:
        """Refuse to take bits of an image of another size, in whole sectors.

        Raises:
            BlockError: EINVAL, with QEMU's text.
        """
        mine, theirs = (-(-size // SECTOR) * SECTOR for size in (self._size, other._size))
        if mine != theirs:
            raise BlockError(
                f"Bitmaps are of different sizes (destination size is {mine}, source size is {theirs}) "
                "and can't be merged",
                errno=errno.EINVAL,
            )

    def fitted(self, size: int, granularity: int) -> DirtyBitmap:
        """A bitmap of another size and granularity in which all is dirty that is in this one."""
        fitting = DirtyBitmap(size, granularity)
        fitting.merge(self)
        return fitting

    def merge(self, other: DirtyBitmap) -> None:
        """Mark all that is dirty in ``other``, whatever its granularity."""
        if other.granularity == self.granularity and other._size == self._size:
            both = int.from_bytes(self.bits, "little") | int.from_bytes(other.bits, "little")
            self.bits = bytearray(both.to_bytes(len(self.bits), "little"))
            return
        for offset, length, dirty in other.ranges(0, min(other._size, self._size)):
            if dirty:
                self.mark(offset, length)

    def ranges(self, offset: int, length: int) -> Iterator[tuple[int, int, bool]]:
        """The ranges of a range, in order and without gaps: offset, length, whether it is dirty."""
        if length <= 0:
            return
        self._check(offset, length)
        end = offset + length
        last = (end - 1) // self.granularity + 1
        index = offset // self.granularity
        while index < last:
            dirty = bool(self.bits[index >> 3] >> (index & 7) & 1)
            after = self._run_end(index, last, dirty)
            start, stop = max(offset, index * self.granularity), min(end, after * self.granularity)
            yield start, stop - start, dirty
            index = after

    def _run_end(self, index: int, last: int, dirty: bool) -> int:
        full = 0xFF if dirty else 0
        while index < last:
            if index & 7 == 0 and self.bits[index >> 3] == full:
                index += 8
                # Whole bytes of the same, many at once.
                while index + 512 <= last and self.bits[index >> 3 : (index >> 3) + 64] == bytes([full]) * 64:
                    index += 512
                continue
            if bool(self.bits[index >> 3] >> (index & 7) & 1) is not dirty:
                return index
            index += 1
        return last

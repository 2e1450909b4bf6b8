"""The pattern that guest and host both can write and check, sector by sector.

A sector of 512 bytes is 128 little-endian numbers of Marsaglia's xorshift32, begun anew in each sector from the seed
and the sector's address; so any sector can be checked alone, and one that landed at a wrong address is noticed.
"""

from __future__ import annotations

from array import array
from typing import Final

SECTOR: Final = 512
_MASK: Final = 0xFFFFFFFF
_GOLDEN: Final = 0x9E3779B1
_AT_ONCE: Final = 256  # sectors


def pattern(seed: int, lba: int, count: int = 1) -> bytes:
    """Return the pattern of ``count`` sectors (of 512 bytes) from sector ``lba`` on."""
    end = lba + count
    parts = (range(start, min(start + _AT_ONCE, end)) for start in range(lba, end, _AT_ONCE))
    return b"".join(_streams(seed, part, SECTOR // 4) for part in parts)


def stream(seed: int, lba: int, words: int) -> bytes:
    """Return the first ``words`` 32-bit numbers of one sector's pattern, little endian."""
    return _streams(seed, range(lba, lba + 1), words)


def _streams(seed: int, sectors: range, words: int) -> bytes:
    """The numbers of some sectors, all generators side by side in one large number."""
    starts = (((((lba & _MASK) * _GOLDEN) + (lba >> 32)) & _MASK) ^ (seed & _MASK) or 1 for lba in sectors)
    size = 4 * len(sectors)
    x = int.from_bytes(b"".join(start.to_bytes(4, "little") for start in starts), "little")
    ones = int.from_bytes(b"\1\0\0\0" * len(sectors), "little")
    # What a shift takes from one generator into the next is masked out.
    masks = (_MASK << 13 & _MASK) * ones, (_MASK >> 17) * ones, (_MASK << 5 & _MASK) * ones
    numbers = array("I", bytes(size * words))
    for index in range(words):
        x ^= x << 13 & masks[0]
        x ^= x >> 17 & masks[1]
        x ^= x << 5 & masks[2]
        numbers[index::words] = array("I", x.to_bytes(size, "little"))
    return numbers.tobytes()

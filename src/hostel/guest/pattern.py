"""The pattern that guest and host both can write and check, sector by sector.

A sector of 512 bytes is 128 little-endian numbers of Marsaglia's xorshift32, begun anew in each sector from the seed
and the sector's address; so any sector can be checked alone, and one that landed at a wrong address is noticed.
"""

from __future__ import annotations

import sys
from array import array
from typing import Final

SECTOR: Final = 512
_MASK: Final = 0xFFFFFFFF
_GOLDEN: Final = 0x9E3779B1


def pattern(seed: int, lba: int, count: int = 1) -> bytes:
    """Return the pattern of ``count`` sectors (of 512 bytes) from sector ``lba`` on."""
    return b"".join(stream(seed, sector, SECTOR // 4) for sector in range(lba, lba + count))


def stream(seed: int, lba: int, words: int) -> bytes:
    """Return the first ``words`` 32-bit numbers of one sector's pattern, little endian."""
    x = ((((lba & _MASK) * _GOLDEN) + (lba >> 32)) & _MASK) ^ (seed & _MASK) or 1
    numbers = array("I", bytes(4 * words))
    for index in range(words):
        x ^= x << 13 & _MASK
        x ^= x >> 17
        x ^= x << 5 & _MASK
        numbers[index] = x
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tobytes()

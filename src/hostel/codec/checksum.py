"""CRC-32C (Castagnoli), as VHDX has it; reflected, from and to all ones (RFC 3720, appendix B.4).

>>> hex(crc32c(b"123456789"))
'0xe3069283'
"""

from __future__ import annotations

import functools
from typing import Final

_POLYNOMIAL: Final = 0x82F63B78
_ONE: Final = 1 << 31  # the polynomial 1: reflected, the highest bit is the lowest power
_BLOCK: Final = 1024


def _entry(value: int) -> int:
    for _ in range(8):
        value = value >> 1 ^ (_POLYNOMIAL if value & 1 else 0)
    return value


_TABLE: Final = tuple(map(_entry, range(256)))


def crc32c(data: bytes | bytearray | memoryview) -> int:
    """The checksum of ``data``; the zeroes that blocks of 1,024 bytes end with cost next to nothing."""
    table, value, whole = _TABLE, 0xFFFFFFFF, bytes(data)
    for at in range(0, len(whole), _BLOCK):
        block = whole[at : at + _BLOCK]
        filled = block.rstrip(b"\0")
        for byte in filled:
            value = table[(value ^ byte) & 0xFF] ^ value >> 8
        # A zero byte multiplies by the polynomial x ** 8; tables and headers of VHDX are zeroes for the most part.
        if len(filled) < len(block):
            value = _product(value, _shifts()[len(block) - len(filled)])
    return value ^ 0xFFFFFFFF


@functools.cache
def _shifts() -> tuple[int, ...]:
    """``x ** (8 * count)`` modulo the polynomial, for each count of bytes up to a block."""
    found = [_ONE]
    for _ in range(_BLOCK):
        found.append(_entry(found[-1]))
    return tuple(found)


def _product(left: int, right: int) -> int:
    """Two polynomials multiplied, modulo that of the checksum."""
    product = 0
    while left:
        if left & _ONE:
            product ^= right
        left = left << 1 & 0xFFFFFFFF
        right = right >> 1 ^ (_POLYNOMIAL if right & 1 else 0)
    return product

"""Refcounts of one block: as they lie on disk, and as one byte a cluster.

Bytes hold 0 to 254; 255 says that the count is in a dictionary beside. So counts are searched and compared at the speed
of ``memchr`` and ``memcmp``.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from typing import Final

from hostel.codec.table import pack_table, unpack_table

WIDE: Final = 255
_ALL: Final = bytes(range(256))


def has_above(counts: bytes | bytearray, limit: int) -> bool:
    """Whether a byte is larger than ``limit``, at the speed of a table look-up."""
    return limit < WIDE and (limit < 0 or bool(counts.translate(None, _ALL[: limit + 1])))


def pack_refcounts(values: list[int], bits: int) -> bytes:
    """Refcounts as they lie in a block: big endian, and from the low bits up where narrower than a byte."""
    if bits < 8:
        per_byte = 8 // bits
        block = bytearray(len(values) // per_byte)
        for step in range(per_byte):
            for at, value in enumerate(values[step::per_byte]):
                block[at] |= value << (step * bits)
        return bytes(block)
    return pack_table(array({8: "B", 16: "H", 32: "I", 64: "Q"}[bits], values))


def pack_counts(values: bytes | bytearray, wide: Mapping[int, int], bits: int) -> bytes:
    """The inverse of :func:`unpack_refcounts`; no refcount may be wider than ``bits``."""
    if wide:
        return pack_refcounts([wide[at] if value == WIDE else value for at, value in enumerate(values)], bits)
    if bits < 8:
        per_byte = 8 // bits
        parts = (int.from_bytes(values[step::per_byte], "big") << (step * bits) for step in range(per_byte))
        return sum(parts).to_bytes(len(values) // per_byte, "big")
    packed = bytearray(len(values) * bits // 8)
    packed[bits // 8 - 1 :: bits // 8] = values
    return bytes(packed)


def unpack_refcounts(block: bytes | bytearray, bits: int) -> tuple[bytes, dict[int, int]]:
    """Read a block: one byte a cluster, :data:`WIDE` standing for 255 and more; and these, slot to refcount."""
    if bits < 8:
        out = bytearray(len(block) * 8 // bits)
        mask = (1 << bits) - 1
        for step in range(8 // bits):
            shift = step * bits
            out[step :: 8 // bits] = block.translate(bytes((value >> shift) & mask for value in range(256)))
        return bytes(out), {}
    width = bits // 8
    low = bytes(block[width - 1 :: width])
    if WIDE not in low and not any(block[step::width].strip(b"\0") for step in range(width - 1)):
        return low, {}
    values = unpack_table(block, {1: "B", 2: "H", 4: "I", 8: "Q"}[width])
    wide = {slot: value for slot, value in enumerate(values) if value >= WIDE}
    return bytes(min(value, WIDE) for value in values), wide

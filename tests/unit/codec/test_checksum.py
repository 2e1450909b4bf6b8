"""CRC-32C: known answers, and the definition bit by bit."""

from __future__ import annotations

import random

import pytest

from hostel.codec.checksum import crc32c


def defined(data: bytes | bytearray) -> int:
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value ^ 0xFFFFFFFF


@pytest.mark.parametrize(
    ("data", "checksum"),
    [
        (b"", 0),
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
    ],
)
def test_known_answers(data: bytes, checksum: int) -> None:
    """Those of RFC 3720, appendix B.4, and the usual one."""
    assert crc32c(data) == crc32c(bytearray(data)) == crc32c(memoryview(data)) == checksum


@pytest.mark.parametrize("seed", range(20))
def test_zeroes_count_wherever_they_are(seed: int) -> None:
    rng = random.Random(seed)
    data = bytearray(rng.choice((0, 1, 1023, 1024, 1025, 2048, 4096, 5000)))
    for _ in range(rng.randrange(5) if data else 0):
        at = rng.randrange(len(data))
        part = rng.randbytes(min(rng.randrange(1, 400), len(data) - at))
        data[at : at + len(part)] = part
    assert crc32c(data) == defined(data)

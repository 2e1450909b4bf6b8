from __future__ import annotations

import random

import pytest

from hostel.img.sparse import ZeroFinder


def sparse_bytes(seed: int, length: int) -> bytearray:
    """Bytes with stretches of zeroes of many lengths, and data that has zeroes in it."""
    rng = random.Random(seed)
    data = bytearray()
    while len(data) < length:
        size = rng.choice([1, 7, 511, 512, 513, 1024, 4095, 4096, 5000, 20000])
        data += bytes(size) if rng.random() < 0.5 else bytes(rng.choice([0, 0, 0, 1, 255]) for _ in range(size))
    return data[:length]


def by_hand(data: bytes | bytearray, offset: int, granule: int, min_zero: int) -> list[tuple[int, int]]:
    """The same, block by block."""
    ranges: list[tuple[int, int]] = []
    start = 0
    while start < len(data):
        end = min(len(data), start + granule - (offset + start) % granule)
        if any(data[start:end]):
            if ranges and (start == ranges[-1][1] or start - ranges[-1][1] < min_zero):
                ranges[-1] = (ranges[-1][0], end)
            else:
                ranges.append((start, end))
        start = end
    return ranges


@pytest.mark.parametrize(("granule", "min_zero"), [(512, 0), (512, 512), (4096, 4096), (4096, 6144), (65536, 4096)])
@pytest.mark.parametrize("offset", [0, 512, 3584, 65536])
def test_ranges_are_those_of_a_search_block_by_block(granule: int, min_zero: int, offset: int) -> None:
    finder = ZeroFinder(granule, min_zero)
    for seed, length in enumerate([1, 512, 4096, 5000, 70000, 300000]):
        data = sparse_bytes(seed, length)
        assert finder.data_ranges(memoryview(data), offset) == by_hand(data, offset, granule, min_zero)


def test_last_byte_of_a_block_decides_as_much_as_its_first() -> None:
    data = bytearray(8192)
    data[4095] = 1
    assert ZeroFinder(4096).data_ranges(memoryview(data), 0) == [(0, 4096)]
    assert not ZeroFinder(4096).is_zero(memoryview(data))


@pytest.mark.parametrize("length", [0, 1, 511, 512, 4096, 10000])
def test_zeroes_of_any_length_are_zero(length: int) -> None:
    assert ZeroFinder(512).is_zero(memoryview(bytes(length)))
    assert ZeroFinder(512).data_ranges(memoryview(bytes(length)), 0) == []

"""Dirty bitmaps in memory."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostel.block.bitmap import DirtyBitmap
from hostel.errors import OutOfRange

SIZE = 300_000


def dirty_bytes(bitmap: DirtyBitmap) -> set[int]:
    """The granules that are dirty, by walking the ranges."""
    found: set[int] = set()
    end = 0
    for offset, length, dirty in bitmap.ranges(0, bitmap.size):
        assert offset == end and length > 0
        end = offset + length
        if dirty:
            found.update(range(offset // bitmap.granularity, (end - 1) // bitmap.granularity + 1))
    assert end == bitmap.size
    return found


ranges = st.lists(st.tuples(st.integers(0, SIZE - 1), st.integers(1, SIZE)), max_size=12)


@given(ranges, st.sampled_from([512, 4096, 65536]))
def test_marked_ranges_are_what_the_ranges_show(marks: list[tuple[int, int]], granularity: int) -> None:
    bitmap = DirtyBitmap(SIZE, granularity)
    expected: set[int] = set()
    for offset, length in marks:
        length = min(length, SIZE - offset)
        bitmap.mark(offset, length)
        expected.update(range(offset // granularity, (offset + length - 1) // granularity + 1))
    assert dirty_bytes(bitmap) == expected
    assert bitmap.count == len(expected)
    assert all(bitmap.is_dirty(index * granularity) for index in expected)


@given(ranges, st.sampled_from([512, 65536]), st.sampled_from([512, 65536]))
def test_a_merge_marks_what_the_other_has(marks: list[tuple[int, int]], fine: int, coarse: int) -> None:
    source, target = DirtyBitmap(SIZE, fine), DirtyBitmap(SIZE, coarse)
    for offset, length in marks:
        source.mark(offset, min(length, SIZE - offset))
    target.mark(0, 1)
    target.merge(source)
    wanted = {0} | {index * fine // coarse for index in dirty_bytes(source)}
    if fine > coarse:
        wanted = {0}
        for index in dirty_bytes(source):
            end = min(SIZE, (index + 1) * fine)
            wanted.update(range(index * fine // coarse, (end - 1) // coarse + 1))
    assert dirty_bytes(target) == wanted


def test_growing_adds_clean_bits_and_shrinking_forgets() -> None:
    bitmap = DirtyBitmap(10 * 512, 512)
    bitmap.mark(0, 10 * 512)
    bitmap.resize(3 * 512)
    bitmap.resize(20 * 512)
    assert dirty_bytes(bitmap) == {0, 1, 2}


def test_bits_beyond_the_end_are_dropped_when_loaded() -> None:
    assert DirtyBitmap(3 * 512, 512, b"\xff").bits == b"\x07"


def test_a_range_outside_is_refused() -> None:
    with pytest.raises(OutOfRange):
        DirtyBitmap(512, 512).mark(0, 513)


@pytest.mark.parametrize("size", [512, 100_000, 1 << 20])
def test_only_what_lies_in_a_range_as_a_whole_is_unmarked(size: int) -> None:
    rng = random.Random(size)
    for _ in range(60):
        bitmap = DirtyBitmap(size, 512)
        bitmap.mark(0, size)
        offset = rng.randrange(size)
        length = rng.randrange(size - offset + 1)
        bitmap.unmark(offset, length)
        for start in range(0, size, 512):
            inside = offset <= start and min(size, start + 512) <= offset + length
            assert bitmap.is_dirty(start) != inside

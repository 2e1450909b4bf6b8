"""Block status in whole blocks, as clients are told of it whose blocks are larger than a byte."""

from __future__ import annotations

import operator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostel.export.nbd.context import Described, _in_blocks

HOLE, ZERO = 1, 3


@pytest.mark.parametrize(
    ("found", "told"),
    [
        ([(8, ZERO)], [(8, ZERO)]),
        ([(2, ZERO), (6, 0)], [(4, 0), (4, 0)]),
        ([(2, 0), (6, ZERO)], [(4, 0), (4, ZERO)]),
        ([(1, ZERO), (1, HOLE), (1, ZERO), (1, ZERO), (4, 0)], [(4, HOLE), (4, 0)]),
        ([(6, ZERO)], [(4, ZERO), (2, ZERO)]),
        ([], []),
    ],
)
def test_a_block_of_several_kinds_is_what_they_have_in_common(found: list[Described], told: list[Described]) -> None:
    assert list(_in_blocks(found, 4, operator.and_)) == told


def test_a_block_of_which_a_part_is_dirty_is_dirty() -> None:
    assert list(_in_blocks([(2, 0), (1, 1), (6, 0)], 4, operator.or_)) == [(4, 1), (4, 0), (1, 0)]


@given(st.lists(st.tuples(st.integers(1, 30), st.sampled_from([0, HOLE, ZERO]))))
def test_blocks_are_whole_and_cover_the_range(found: list[Described]) -> None:
    told = list(_in_blocks(found, 4, operator.and_))
    each = [flags for length, flags in found for _ in range(length)]
    assert sum(length for length, _ in told) == len(each)
    assert all(length % 4 == 0 for length, _ in told[:-1])
    start = 0
    for length, flags in told:
        assert all(flags & one == flags for one in each[start : start + length])
        start += length

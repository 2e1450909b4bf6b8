"""Refcount blocks as they lie on disk, in every width."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostel.block.formats.qcow2.refcount_bytes import WIDE, pack_refcounts, unpack_refcounts
from hostel.block.formats.qcow2.reference_count import ReferenceCounts

WIDTHS = (1, 2, 4, 8, 16, 32, 64)


def test_narrow_refcounts_fill_a_byte_from_its_low_bits() -> None:
    assert pack_refcounts([1, 0, 1, 1, 0, 0, 0, 1], 1) == bytes([0b10001101])
    assert pack_refcounts([1, 2, 3, 0], 2) == bytes([0b00111001])
    assert pack_refcounts([1, 15], 4) == bytes([0xF1])
    assert pack_refcounts([1, 2], 16) == b"\0\1\0\2"


@pytest.mark.parametrize("bits", WIDTHS)
@given(data=st.data())
def test_what_is_packed_is_unpacked(bits: int, data: st.DataObject) -> None:
    limit = (1 << min(bits, 63)) - 1
    value = st.one_of(st.integers(0, min(limit, 3)), st.integers(0, min(limit, 300)), st.integers(0, limit))
    values = data.draw(st.lists(value, min_size=64, max_size=64))
    packed = pack_refcounts(values, bits)
    assert len(packed) == 64 * bits // 8
    low, wide = unpack_refcounts(packed, bits)
    assert [wide[slot] if each == WIDE else each for slot, each in enumerate(low)] == values


@given(st.lists(st.tuples(st.integers(0, 90), st.integers(1, 20), st.sampled_from([1, 1, 2, 100, 254, 1000]))))
def test_counts_are_kept_however_large_they_get(added: list[tuple[int, int, int]]) -> None:
    counts, expected = ReferenceCounts(32), [0] * 128
    for first, count, weight in added:
        counts.add(first, count, weight)
        for cluster in range(first, first + count):
            expected[cluster] += weight
    assert [counts[cluster] for cluster in range(128)] == expected
    assert dict(counts.above(254)) == {at: value for at, value in enumerate(expected) if value > 254}
    used = [at + 1 for at, value in enumerate(expected) if value]
    assert counts.end() == max(used, default=0)

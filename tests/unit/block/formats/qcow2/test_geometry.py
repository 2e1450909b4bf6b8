"""The sizes that follow from a header."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostel.block.formats.qcow2.geometry import Geometry
from hostel.block.options import Value
from support import qcow2


def geometry(cluster_bits: int, **options: Value) -> Geometry:
    return Geometry.of(qcow2.header(qcow2.create(0, {"cluster_size": 1 << cluster_bits, **options})))


@pytest.mark.parametrize(
    ("bits", "options", "entries", "reach", "refcounts"),
    [
        (9, {}, 64, 32 << 10, 256),
        (9, {"refcount_bits": 64}, 64, 32 << 10, 64),
        (9, {"refcount_bits": 1}, 64, 32 << 10, 4096),
        (16, {}, 8192, 512 << 20, 32768),
        (16, {"extended_l2": True}, 4096, 256 << 20, 32768),
        (21, {"refcount_bits": 32}, 1 << 18, 512 << 30, 1 << 19),
    ],
)
def test_tables_reach_as_far_as_the_specification_says(
    bits: int, options: dict[str, Value], entries: int, reach: int, refcounts: int
) -> None:
    sizes = geometry(bits, **options)
    assert (sizes.l2_entries, sizes.l2_reach, sizes.block_entries) == (entries, reach, refcounts)
    assert sizes.l2_entries * sizes.entry_size == sizes.cluster_size
    assert sizes.subcluster_size == sizes.cluster_size // (32 if options.get("extended_l2") else 1)
    for size, wanted in ((0, 0), (1, 1), (reach, 1), (reach + 1, 2), (10 * reach, 10)):
        assert sizes.l1_entries(size) == wanted


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16, 32, 64])
def test_the_largest_refcount_fits_its_width(bits: int) -> None:
    assert geometry(12, refcount_bits=bits).refcount_max == (1 << min(bits, 63)) - 1


@given(st.data())
def test_a_compressed_entry_and_its_range_are_inverse(data: st.DataObject) -> None:
    sizes = geometry(data.draw(st.sampled_from([9, 12, 16, 21])))
    offset = data.draw(st.integers(0, min(1 << 55, 1 << sizes.csize_shift) - 1))
    length = data.draw(st.integers(1, sizes.cluster_size - 1))
    entry = sizes.compressed_entry(offset, length)
    assert entry >> 62 == 1
    found, whole = sizes.compressed_range(entry & ~(1 << 62))
    assert found == offset
    assert length <= whole < length + 512
    assert (offset + whole) % 512 == 0


def test_lengths_are_rounded_up_to_clusters() -> None:
    sizes = geometry(12)
    assert [sizes.clusters(length) for length in (0, 1, 4096, 4097)] == [0, 1, 1, 2]
    assert [sizes.align(length) for length in (0, 1, 4096, 4097)] == [0, 4096, 4096, 8192]
    assert [sizes.in_cluster(offset) for offset in (0, 1, 4096, 4097)] == [0, 1, 0, 1]

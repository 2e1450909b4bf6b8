"""Neighbours in L2 tables, compared with counting entry by entry."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostel.block.formats.qcow2.geometry import Geometry
from hostel.block.formats.qcow2.layout import COMPRESSED, COPIED, OFFSET_MASK, ZERO
from hostel.block.formats.qcow2.neighbours import Neighbours
from support import qcow2
from support.memory import MemoryDriver

CLUSTER = 1024
ENTRIES = CLUSTER // 8


def geometry() -> Geometry:
    with qcow2.attach(MemoryDriver(qcow2.create(CLUSTER, {"cluster_size": CLUSTER}))) as node:
        return qcow2.driver_of(node)._image.geometry


NEIGHBOURS = Neighbours(geometry())


@st.composite
def tables(draw: st.DrawFn, *, odd: bool) -> array[int]:
    """Stretches of an L2 table: nothing, zeroes, neighbours with mixed flags; ``odd``: compressed and unaligned too."""
    kinds = ["empty", "zero", "run", "run"] + (["compressed", "unaligned"] if odd else [])
    entries: list[int] = []
    while len(entries) < ENTRIES:
        kind, length = draw(st.sampled_from(kinds)), draw(st.sampled_from([1, 2, 3, 9, ENTRIES]))
        host = draw(st.integers(1, 40)) * CLUSTER
        flags = draw(st.sampled_from([0, COPIED, ZERO, ZERO | COPIED]))
        other = flags ^ draw(st.sampled_from([0, 0, COPIED]))
        if kind == "compressed":
            entries.append(COMPRESSED | host + draw(st.integers(0, CLUSTER)))
        elif kind == "run" or kind == "unaligned":
            host += 512 * (kind == "unaligned")
            entries += [host + at * CLUSTER | (other if at % 2 else flags) for at in range(length)]
        else:
            entries += [ZERO * (kind == "zero")] * length
    return array("Q", entries[:ENTRIES])


def references(runs: Iterable[tuple[int, int]]) -> Counter[int]:
    """Compressed entries, and the places of others, with how often there is each."""
    found: Counter[int] = Counter()
    for entry, count in runs:
        place = entry if entry & COMPRESSED else entry & OFFSET_MASK
        found.update(range(place, place + count * CLUSTER, CLUSTER))
    del found[0]
    return found


@pytest.mark.parametrize("odd", [False, True])
@given(data=st.data())
def test_neighbours_are_all_that_a_table_refers_to(odd: bool, data: st.DataObject) -> None:
    entries = data.draw(tables(odd=odd))
    expected = references((entry, 1) for entry in entries)
    assert references(NEIGHBOURS.runs(entries)) == expected
    found = list(NEIGHBOURS.find(entries))
    assert references((entries[index], end - index) for index, end in found) == expected
    assert all(before[1] <= after[0] for before, after in pairwise(found))


def test_neighbours_are_found_together() -> None:
    run = array("Q", range(CLUSTER, (ENTRIES + 1) * CLUSTER, CLUSTER))
    assert list(NEIGHBOURS.runs(run)) == [(CLUSTER, ENTRIES)]
    assert list(NEIGHBOURS.runs(array("Q", reversed(run)))) == [(CLUSTER, ENTRIES)]
    run[3] |= COPIED
    run[5] = 0
    assert list(NEIGHBOURS.find(run)) == [(0, 5), (6, ENTRIES)]

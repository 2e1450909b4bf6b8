"""Where metadata lies, and what overlaps it."""

from __future__ import annotations

import random

import pytest

from hostel.block.formats.qcow2.overlap import Runs


@pytest.mark.parametrize("seed", range(20))
def test_runs_overlap_exactly_what_they_hold(seed: int) -> None:
    rng = random.Random(seed)
    given = [(rng.randrange(100), rng.randrange(6)) for _ in range(rng.randrange(8))]
    held = {cluster for start, count in given for cluster in range(start, start + count)}
    runs = Runs(given)
    for first in range(110):
        for end in range(first + 1, first + 8):
            assert runs.overlap(first, end) == bool(held & set(range(first, end))), (given, first, end)

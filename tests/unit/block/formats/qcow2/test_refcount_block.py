"""What a refcount block in memory says of a transaction."""

from __future__ import annotations

import random

import pytest

from hostel.block.formats.qcow2.refcount_block import Block, NegativeCount
from hostel.errors import BlockError

SLOTS = 40


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("most", [1, 3, (1 << 16) - 1])
def test_what_was_in_use_is_not_usable_and_what_is_free_now_was_freed(most: int, seed: int) -> None:
    rng = random.Random(f"{most} {seed}")
    counts = [min(most, rng.choice((0, 1, 1, 2, 254, 255, 300))) for _ in range(SLOTS)]
    wide = {slot: count for slot, count in enumerate(counts) if count >= 255}
    block = Block(bytearray(min(count, 255) for count in counts), wide)
    before = counts[:]
    block.record()
    for _ in range(300):
        first = rng.randrange(SLOTS)
        length, delta = min(rng.choice((1, 1, 2, 9)), SLOTS - first), rng.choice((-1, 1))
        values, kept = bytes(block.values[first : first + length]), dict(block.wide)
        expected = counts[:]
        expected[first : first + length] = [count + delta for count in counts[first : first + length]]
        if all(0 <= count <= most for count in expected):
            block.add(first, length, delta, most)
            counts = expected
        else:
            with pytest.raises((BlockError, NegativeCount)):
                block.add(first, length, delta, most)
            block.usable()  # half of it may have happened
            block.put_back(first, values, kept)
        assert [block.get(slot) for slot in range(SLOTS)] == counts
        free = [not was and not now for was, now in zip(before, counts, strict=True)]
        assert [not value for value in block.usable()] == free
        freed = {slot + at for slot, length in block.freed() for at in range(length)}
        assert freed == {slot for slot in range(SLOTS) if before[slot] and not counts[slot]}
    block.roll_back()
    block.end()
    assert [block.get(slot) for slot in range(SLOTS)] == before
    assert [not value for value in block.usable()] == [not count for count in before]

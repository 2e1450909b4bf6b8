"""The allocator: widths, free clusters, new refcount blocks, a table that moves."""

from __future__ import annotations

import random
import tracemalloc
from array import array

import pytest

from hostel.block.formats.qcow2.driver import Qcow2Driver
from hostel.block.formats.qcow2.image import Qcow2Image
from hostel.block.formats.qcow2.refcount import Allocator
from hostel.block.node import BlockNode
from hostel.errors import BlockError, CorruptImage
from support import qcow2
from support.crash import crash_states
from support.memory import LoggedDriver, MemoryDriver


def test_a_new_block_is_in_the_table_only_after_the_block_that_counts_it() -> None:
    driver = LoggedDriver(qcow2.create(400 * 512, {"cluster_size": 512, "refcount_bits": 64}))
    before = bytes(driver.data)
    with qcow2.attach(driver) as node:
        node.pwrite(0, b"data" * (300 * 128))
    for state in crash_states(before, driver.log, random.Random(0)):
        result, lines, _ = qcow2.check(state.data)
        assert qcow2.faults(result) == (0, 0), lines


def allocator(bits: int = 16, cluster_size: int = 512) -> Allocator:
    """The allocator of a fresh image: four clusters are in use."""
    node = qcow2.attach(MemoryDriver(qcow2.create(512, {"cluster_size": cluster_size, "refcount_bits": bits})))
    assert isinstance(node.driver, Qcow2Driver)
    image = node.driver._image
    image.begin_write()
    return image.refcounts


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16, 32, 64])
def test_a_refcount_grows_to_what_its_width_holds_and_no_further(bits: int) -> None:
    refcounts = allocator(bits)
    first = refcounts.allocate_clusters(3)
    limit = min((1 << bits) - 1, 300)
    for _ in range(limit - 1):
        refcounts.update(first, 3, 1)
    assert [refcounts.get(first + at) for at in range(4)] == [limit, limit, limit, 0]
    if limit < 300:
        with pytest.raises(BlockError) as caught:
            refcounts.update(first - 1, 3, 1)
        assert caught.value.errno == 22
        assert [refcounts.get(first + at) for at in range(-1, 4)] == [1, limit, limit, limit, 0]
    for _ in range(limit):
        refcounts.update(first, 3, -1)
    assert [refcounts.get(first + at) for at in range(3)] == [0, 0, 0]
    with pytest.raises(CorruptImage, match="is wrong"):
        refcounts.update(first - 1, 2, -1)
    assert refcounts.get(first - 1) == 1


@pytest.mark.parametrize("bits", [1, 16, 64])
@pytest.mark.parametrize("seed", range(5))
def test_random_allocations_never_overlap_and_are_contiguous_across_blocks(bits: int, seed: int) -> None:
    rng = random.Random(f"{bits} {seed}")
    refcounts = allocator(bits)
    taken: set[int] = set()
    runs: list[tuple[int, int]] = []
    for _ in range(200):
        if runs and rng.random() < 0.4:
            first, count = runs.pop(rng.randrange(len(runs)))
            refcounts.update(first, count, -1)
            taken.difference_update(range(first, first + count))
            continue
        count = rng.choice((1, 1, 2, 5, 63, 64, 65, 200, 300))
        first = refcounts.allocate_clusters(count)
        run = set(range(first, first + count))
        assert not run & taken
        assert all(refcounts.get(cluster) == 1 for cluster in run)
        taken |= run
        runs.append((first, count))
    blocks = {entry >> 9 for entry in refcounts.table if entry}
    assert not blocks & taken
    assert all(refcounts.get(block) == 1 for block in blocks)


def test_a_free_gap_of_the_right_size_is_found_at_the_border_of_two_blocks() -> None:
    refcounts = allocator(64)  # 64 clusters a block
    first = refcounts.allocate_clusters(200)
    refcounts.update(62, 4, -1)
    assert first < 62
    assert refcounts.find(4) == 62
    assert refcounts.find(5) > 200
    assert refcounts.find(3) == 62


def test_a_full_refcount_table_moves_to_a_larger_place() -> None:
    driver = MemoryDriver(qcow2.create(512, {"cluster_size": 512, "refcount_bits": 64}))
    with qcow2.attach(driver) as node:
        image = inner(node)
        image.begin_write()
        place = image.refcounts.allocate(64 * 64 * 512)
        image.flush_metadata()
        assert image.header.refcount_table_clusters > 1
        image.refcounts.free(place, 64 * 64 * 512)
        image.flush_metadata()
    result, lines, _ = qcow2.check(driver.data)
    assert (lines, result.leaks) == ([], 0)


def test_a_file_that_cannot_be_counted_is_refused_with_efbig() -> None:
    refcounts = allocator(64)
    refcounts.skip(1 << 40)
    with pytest.raises(BlockError, match="File too large") as caught:
        refcounts.allocate_clusters(1)
    assert caught.value.errno == 27


def test_the_header_is_never_given_away_even_if_its_refcount_says_so() -> None:
    refcounts = allocator()
    refcounts.update(0, 1, -1)
    with pytest.raises(CorruptImage, match="offset 0"):
        refcounts.allocate_clusters(1)


@pytest.mark.parametrize(("entry", "words"), [(0x601, "unaligned"), (1 << 40, "beyond the end")])
def test_a_block_that_lies_nowhere_is_corrupt(entry: int, words: str) -> None:
    refcounts = allocator()
    refcounts.blocks.clear()
    refcounts.table = array("Q", [entry])
    with pytest.raises(CorruptImage, match=words):
        refcounts.get(0)


def inner(node: BlockNode) -> Qcow2Image:
    assert isinstance(node.driver, Qcow2Driver)
    return node.driver._image


def test_an_image_with_many_narrow_refcounts_is_made_in_little_memory() -> None:
    size = 2 << 20  # bytes of a cluster, and 16 million refcounts
    tracemalloc.start()
    try:
        qcow2.create(size, {"cluster_size": size, "refcount_bits": 1})
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 64 << 20

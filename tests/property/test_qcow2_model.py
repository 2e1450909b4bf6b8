"""Random operations on qcow2 images beside a byte array; our own check stays clean."""

from __future__ import annotations

import os
import random
import sys
from collections import Counter

import pytest

from support.memory import MemoryDriver
from support.qcow2_workload import Workload, random_options, snapshot_content
from support.tally import tried

__all__ = ["tried"]

SOAK = int(os.environ.get("HOSTEL_SOAK", "1"))
SEEDS = range(60 * SOAK)


def run(workload: Workload, steps: int, tried: Counter[str], *, check_each: bool) -> None:
    """Do ``steps`` operations; judge each, and everything at the end."""
    history = []
    try:
        for _ in range(steps):
            history.append(workload.step())
            tried["operations compared with a byte array"] += 1
            workload.verify()
            if check_each:
                workload.check()
        workload.reopen()
        workload.verify()
        workload.check()
        for id, content in workload.snapshots.items():
            assert snapshot_content(workload.driver.data, id, workload.backing) == content
        workload.node.close()
    except BaseException as error:
        error.add_note(f"options {workload.options}, after {' '.join(history)}")
        raise


@pytest.mark.parametrize("seed", SEEDS)
def test_every_read_is_what_was_written_and_check_is_clean_after_each_step(seed: int, tried: Counter[str]) -> None:
    rng = random.Random(f"each {seed}")
    run(Workload(rng), rng.randrange(10, 60), tried, check_each=True)


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_held_back_over_many_steps_is_never_lost(seed: int, tried: Counter[str]) -> None:
    rng = random.Random(f"late {seed}")
    run(Workload(rng), rng.randrange(20, 150), tried, check_each=False)


@pytest.mark.parametrize("seed", range(3 * SOAK))
def test_clusters_of_two_mebibytes(seed: int, tried: Counter[str]) -> None:
    rng = random.Random(f"large {seed}")
    options = random_options(rng, (2 << 20,))
    workload = Workload(rng, options=options, size=rng.choice((1, 3)) * (2 << 20) + 512, preallocate=False)
    run(workload, 12, tried, check_each=False)


@pytest.mark.parametrize("seed", range(4 * SOAK))
def test_a_refcount_table_that_grows_out_of_its_place(seed: int, tried: Counter[str]) -> None:
    rng = random.Random(f"table {seed}")
    options = {"cluster_size": 512, "refcount_bits": 64, "lazy_refcounts": seed % 4 == 3}
    workload = Workload(rng, MemoryDriver, options=options, size=6 << 20, preallocate=False)
    before = workload.image._image.header.refcount_table_offset
    for start in range(0, 6 << 20, 1 << 20):
        data = rng.randbytes(1 << 20)
        workload.node.pwrite(start, data)
        workload.content[start : start + len(data)] = data
    run(workload, 15, tried, check_each=seed % 2 == 0)
    assert workload.image._image.header.refcount_table_offset != before


@pytest.mark.parametrize("seed", range(8 * SOAK))
def test_what_is_freed_is_used_again_before_the_file_grows(seed: int, tried: Counter[str]) -> None:
    """Refcount blocks that are left behind made others' files grow to twice what they held, and check was clean."""
    workload = Workload(random.Random(f"growth {seed}"), preallocate=False)
    in_use = longest = 0
    for _ in range(250):
        workload.step()
        workload.node.flush()
        tried["operations after which the file's length was looked at"] += 1
        refcounts = workload.image._image.refcounts
        in_use = max(in_use, refcounts.count_used(refcounts.end(), sys.maxsize))
        longest = max(longest, -(-len(workload.driver.data) // workload.cluster_size))
    workload.verify()
    workload.node.close()
    assert longest <= 1.5 * in_use + 16, f"options {workload.options}"

"""The map by columns says what the map says, or nothing."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from hostel.block.formats.qcow2 import columns
from hostel.img.map import map
from hostel.img.map_columns import Rows, rows
from support import qcow2
from support.guest_io import noise
from support.memory import MemoryDriver
from support.qcow2_workload import Workload


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let small images have columns, and more than one piece of them."""
    monkeypatch.setattr(columns, "_ENOUGH", 0)
    monkeypatch.setattr(columns, "_ENTRIES", 100)


def listed(blocks: Iterator[Rows]) -> list[tuple[int, ...]]:
    return [row for block in blocks for row in zip(*(column.tolist() for column in block), strict=True)]


@pytest.mark.parametrize("seed", range(30))
def test_columns_are_the_entries_of_the_map(seed: int) -> None:
    rng = random.Random(f"columns {seed}")
    size = rng.choice((0, 512, 70 * 4096 + 512, 600 * 4096))
    driver = MemoryDriver(qcow2.create(size, {"cluster_size": rng.choice((512, 4096)), "compat": "0.10"}))
    with qcow2.attach(driver) as node:
        for _ in range(rng.randrange(40) if size else 0):
            at = rng.randrange(size)
            node.pwrite(at, noise(rng, min(rng.choice((1, 4096, 20000)), size - at)))
        node.flush()
        found = rows(node)
        if not size:
            assert found is None
            return
        assert found is not None
        joined = listed(found)
        expected = [(each.start, each.length, each.offset or 0) for each in map(node, 0, node.length)]
        assert joined == expected
        assert [bool(host) for *_, host in joined] == [each.data for each in map(node, 0, node.length)]


@pytest.mark.parametrize("seed", range(30))
def test_what_has_more_to_say_has_no_columns(seed: int) -> None:
    workload = Workload(random.Random(f"more {seed}"))
    for _ in range(15):
        workload.step()
    node = workload.node
    node.flush()
    found = rows(node)
    if found is None:
        return
    entries = list(map(node, 0, node.length))
    assert listed(found) == [(each.start, each.length, each.offset or 0) for each in entries]
    assert all(each.data or not each.present for each in entries)


def test_few_runs_have_no_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "_ENOUGH", 1 << 16)
    with qcow2.attach(MemoryDriver(qcow2.create(1 << 20, {}))) as node:
        assert rows(node) is None

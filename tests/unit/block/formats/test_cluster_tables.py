"""Tables in slices: what is found in them, what is written when, and that no entry is lost when slices are dropped."""

from __future__ import annotations

import errno
import random
import struct

import pytest

from hostel.block.formats import cluster_tables, clustered
from hostel.block.formats.cluster_tables import EntryTable
from support.format_crash import judge_image, record
from support.format_subjects import SUBJECTS
from support.format_workload import FormatWorkload
from support.memory import FaultyDriver, Kind, LoggedDriver, MemoryDriver, memory_node

SLICE = 8


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slices of a few entries, and few of them; buffers much smaller than a cluster."""
    monkeypatch.setattr(clustered, "ZEROES", memoryview(bytes(1024)))
    monkeypatch.setattr(clustered, "_ONE_BUFFER", 2048)
    monkeypatch.setattr(cluster_tables, "_SLICE", SLICE)
    monkeypatch.setattr(cluster_tables, "_MIN_SLICES", 3)
    monkeypatch.setattr(cluster_tables, "_CACHE_LIMIT", 3 * 8 * SLICE)


def table(driver: MemoryDriver, entries: int = 100) -> EntryTable:
    return EntryTable(memory_node(driver), 64, entries, "little", "I")


def on_disk(driver: MemoryDriver, entries: int = 100) -> list[int]:
    return list(struct.unpack_from(f"<{entries}I", driver.data.ljust(64 + 4 * entries, b"\0"), 64))


@pytest.mark.usefixtures("tiny")
def test_the_next_entry_is_found_on_the_disk_and_among_what_waits() -> None:
    rng = random.Random("next")
    for _ in range(60):
        expected = [rng.randrange(1, 99) if rng.random() < 0.1 else 0 for _ in range(100)]
        driver = MemoryDriver(bytes(64) + struct.pack("<100I", *expected))
        entries = table(driver)
        for _ in range(rng.randrange(4)):
            index = rng.randrange(100)
            expected[index] = entries[index] = rng.choice((0, 7))
        for start in range(100):
            for end in (start, start + 1, rng.randrange(start, 101), 100):
                found = next((each for each in range(start, end) if expected[each]), max(start, end))
                assert entries.next_used(start, end) == found, (start, end, expected)
        assert [entries[index] for index in range(100)] == expected


@pytest.mark.usefixtures("tiny")
def test_neighbours_are_written_together() -> None:
    driver = LoggedDriver(bytes(64 + 400))
    entries = table(driver)
    for index in (3, 9, 2, 1, 50):
        entries[index] = index + 100
    entries.write()
    assert [(each.kind, each.offset, each.length) for each in driver.log] == [
        (Kind.WRITE, 64 + 4, 12),
        (Kind.WRITE, 64 + 36, 4),
        (Kind.WRITE, 64 + 200, 4),
    ]
    assert [entries[index] for index in (1, 2, 3, 9, 50)] == [101, 102, 103, 109, 150]
    assert not entries.changed


def test_what_could_not_be_written_waits_on() -> None:
    driver = FaultyDriver(bytes(64 + 400))
    entries = table(driver)
    entries[1], entries[50] = 5, 6
    driver.arm(1, errno.EIO)
    with pytest.raises(OSError, match="injected"):
        entries.write()
    assert (on_disk(driver)[1], on_disk(driver)[50]) == (5, 0)
    assert (entries[1], entries[50]) == (5, 6)
    entries.write()
    assert on_disk(driver)[50] == 6


def test_holes_are_not_read() -> None:
    class Hollow(MemoryDriver):
        reads = 0

        def pread(self, offset: int, buf: memoryview) -> None:
            self.reads += 1
            super().pread(offset, buf)

        def extents(self, offset: int, length: int):  # type: ignore[no-untyped-def]
            from hostel.block.extent import Extent, Status

            yield Extent(offset, length, Status.ZERO | Status.ALLOCATED, offset)

    driver = Hollow(bytes(64))
    assert EntryTable(memory_node(driver), 64, 1 << 28, "little", "I").next_used(0, 1 << 28) == 1 << 28
    assert driver.reads == 0


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("format", ["parallels", "qcow", "qed"])
def test_nothing_is_lost_where_slices_come_and_go(format: str, seed: int) -> None:
    workload = FormatWorkload(SUBJECTS[format], random.Random(f"slices {seed}"))
    for _ in range(30):
        workload.step()
        workload.verify()
    workload.reopen()
    workload.verify()
    workload.node.close()


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("format", ["qcow", "qed"])
def test_a_power_cut_harms_nothing_where_slices_are_written_early(format: str, seed: int) -> None:
    rng = random.Random(f"early {seed}")
    recording = record(SUBJECTS[format], rng, 15)
    for state in recording.states(rng, samples=3):
        judge_image(recording, state)

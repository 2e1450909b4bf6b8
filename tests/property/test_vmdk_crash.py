"""Power cuts in what vmdk has and other formats have not: streams, parents, content IDs, disks of several files.

``HOSTEL_SOAK=20`` tries twenty times as many workloads.
"""

from __future__ import annotations

import os
import random
import re
from collections import Counter

import pytest

from hostel.block.driver import OpenMode
from hostel.block.formats.vmdk.driver import VmdkDriver
from hostel.block.node import BlockNode
from hostel.block.options import Value
from hostel.block.powers import Repair
from support import vmdk
from support.crash import crash_states, sample
from support.memory import Kind, LoggedDriver, MemoryDriver
from support.tally import tried
from support.vmdk import GRAIN, SECTOR

__all__ = ["tried"]

SOAK = int(os.environ.get("HOSTEL_SOAK", "1"))
GRAINS = 12


def content_id(data: bytes | bytearray) -> int:
    found = re.search(rb"\nCID=([0-9a-f]+)\n", data)
    assert found is not None
    return int(found[1], 16)


def sound(node: BlockNode) -> None:
    lines: list[str] = []
    assert not node.driver.check(Repair.NOTHING, lines.append).corruptions, lines  # type: ignore[attr-defined]


class Grains:
    """What each grain may read as: as it was when it was flushed last, and as anything since left it."""

    def __init__(self, content: bytes) -> None:
        self.content = bytearray(content)
        self.flushed = bytes(content)
        self.versions: list[tuple[int, bytes]] = []  # entries in the log when it began, and what there was then

    def allows(self, found: bytes, reached: int, flushed: list[tuple[int, bytes]], epoch: int) -> bool:
        safe = max((at for at in flushed if at[0] <= epoch), key=lambda at: at[0])
        later = [content for at, content in self.versions if safe[0] <= at < reached]
        return all(
            found[at : at + SECTOR] in {each[at : at + SECTOR] for each in (safe[1], *later)}
            for at in range(0, len(found), SECTOR)
        )


@pytest.mark.parametrize("seed", range(4 * SOAK))
def test_a_stream_that_is_cut_off_has_what_was_flushed(seed: int, tried: Counter[str]) -> None:
    rng = random.Random(f"stream {seed}")
    size = GRAINS * GRAIN - rng.choice((0, 3 * SECTOR))
    driver = LoggedDriver(vmdk.create(size, {"subformat": "streamOptimized"}))
    initial, disk = bytes(driver.data), Grains(bytes(size))
    flushed = [(0, disk.flushed)]
    with vmdk.attach(driver) as node:
        for number in rng.sample(range(GRAINS), 7):
            offset = number * GRAIN
            piece = rng.randbytes(rng.choice((10, GRAIN // 2)))
            data = (piece * (GRAIN // len(piece) + 1))[: min(GRAIN, size - offset)]
            start = len(driver.log)
            node.pwrite(offset, data)
            disk.content[offset : offset + len(data)] = data
            disk.versions.append((start, bytes(disk.content)))
            if rng.random() < 0.4:
                node.flush()
                flushed.append((len(driver.log), bytes(disk.content)))
    tried["workloads"] += 1
    for state in sample(crash_states(initial, driver.log, rng, samples=6), rng, 25):
        tried["disks after power cuts"] += 1
        with vmdk.attach(MemoryDriver(state.data)) as node:
            found = bytes(node.read(0, size))
            sound(node)
            assert disk.allows(found, state.reached, flushed, state.epoch)
            assert found == bytes(size) or content_id(state.data) != content_id(initial)
            free = next(at for at in range(GRAINS) if not any(found[at * GRAIN : (at + 1) * GRAIN]))
            if not any(extent.status for extent in node.extents(free * GRAIN, 1)):
                more = b"more".ljust(min(GRAIN, size - free * GRAIN), b".")
                node.pwrite(free * GRAIN, more)
                assert node.read(free * GRAIN, len(more)) == more


@pytest.mark.parametrize("seed", range(4 * SOAK))
def test_an_overlay_that_is_cut_off_has_what_was_flushed_and_its_parent(seed: int, tried: Counter[str]) -> None:
    rng = random.Random(f"overlay {seed}")
    size, below = GRAINS * GRAIN, MemoryDriver(vmdk.create((GRAINS - 3) * GRAIN + SECTOR))
    with vmdk.attach(below) as node:
        node.pwrite(GRAIN, rng.randbytes(5 * GRAIN))
    parent = vmdk.attach(below, read_only=True)
    options: dict[str, Value] = {"backing_file": "base.vmdk", "zeroed_grain": rng.random() < 0.5}
    driver = LoggedDriver(vmdk.create(size, options, around=vmdk.Files(parent)))
    initial = bytes(driver.data)

    def opened(data: MemoryDriver) -> BlockNode:
        node = vmdk.attach(data)
        node.driver.children["backing"] = parent.share()
        return node

    with opened(driver) as node:
        disk = Grains(bytes(node.read(0, size)))
        flushed = [(0, disk.flushed)]
        for _ in range(10):
            offset = rng.randrange(size // SECTOR) * SECTOR
            length = min(size - offset, rng.choice((SECTOR, 5 * SECTOR, GRAIN, 2 * GRAIN)))
            start, data = len(driver.log), rng.randbytes(length) if rng.random() < 0.7 else bytes(length)
            if any(data):
                node.pwrite(offset, data)
            else:
                node.write_zeroes(offset, length)
            disk.content[offset : offset + length] = data
            disk.versions.append((start, bytes(disk.content)))
            if rng.random() < 0.3:
                node.flush()
                flushed.append((len(driver.log), bytes(disk.content)))
        assert node.read(0, size) == disk.content
    tried["workloads"] += 1
    for state in sample(crash_states(initial, driver.log, rng, samples=6), rng, 25):
        tried["disks after power cuts"] += 1
        with opened(MemoryDriver(state.data)) as node:
            found = bytes(node.read(0, size))
            sound(node)
            assert disk.allows(found, state.reached, flushed, state.epoch)
            assert found == flushed[0][1] or content_id(state.data) != content_id(initial)
            node.pwrite(7 * SECTOR, b"after")
            assert node.read(0, GRAIN) == found[: 7 * SECTOR] + b"after" + found[7 * SECTOR + 5 : GRAIN]
    parent.close()


@pytest.mark.parametrize("kind", ["twoGbMaxExtentSparse", "monolithicFlat"])
def test_the_descriptor_of_several_files_is_safe_before_any_of_them_changes(kind: str) -> None:
    files = vmdk.Files()
    order: list[str] = []
    text = vmdk.create(3 * GRAIN, {"subformat": kind}, around=files)
    drivers = {"disk.vmdk": Told("disk.vmdk", text, order)}
    drivers |= {name: Told(name, made.data, order) for name, made in files.made.items()}
    nodes = {name: BlockNode(driver, name, read_only=False) for name, driver in drivers.items()}
    opened = VmdkDriver.open(nodes.pop("disk.vmdk"), OpenMode(read_only=False))
    for reference in opened.references():
        opened.children[reference.child] = nodes[reference.filename]
    opened.assembled()
    with BlockNode(opened, "disk.vmdk", read_only=False) as node:
        node.pwrite(0, b"a" * GRAIN)
        node.flush()
    (extent,) = files.made
    assert order[:3] == ["write disk.vmdk", "flush disk.vmdk", f"write {extent}"]
    assert f"flush {extent}" in order
    assert content_id(drivers["disk.vmdk"].data) != content_id(text)


class Told(LoggedDriver):
    """Memory that tells of its writes and syncs in one list with others."""

    def __init__(self, name: str, data: bytes | bytearray, order: list[str]) -> None:
        super().__init__(data)
        self._name, self._order = name, order

    def pwrite(self, offset: int, data: memoryview) -> None:
        self._order.append(f"{Kind.WRITE.value} {self._name}")
        super().pwrite(offset, data)

    def flush(self) -> None:
        self._order.append(f"{Kind.FLUSH.value} {self._name}")
        super().flush()

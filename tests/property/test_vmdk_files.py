"""VMware disks of several files, and streams: power cuts at any moment, and a fault at any call to any of the files.

``HOSTEL_SOAK=20`` tries twenty times as many workloads.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

import pytest

from hostel.block.driver import OpenMode
from hostel.block.formats.vmdk.driver import VmdkDriver
from hostel.block.node import BlockNode
from hostel.block.powers import Repair
from support import vmdk
from support.crash import Version, judge_content, sample, write_on
from support.crash_disks import Disks, disk_states
from support.fault import every_fault
from support.guest_io import GuestIO, noise
from support.memory import MemoryDriver
from support.tally import tried
from support.vmdk import GRAIN, SECTOR

__all__ = ["tried"]

SOAK = int(os.environ.get("HOSTEL_SOAK", "1"))
SIZES: Final = (2 * GRAIN, GRAIN + 3 * SECTOR, 2 * GRAIN)  # of extents, bytes
STREAM: Final = "streamOptimized"
# The kinds of the extents of a disk.
LAYOUTS: Final = {
    "monolithicFlat": ("FLAT",),
    "twoGbMaxExtentFlat": ("FLAT", "FLAT", "FLAT"),
    "twoGbMaxExtentSparse": ("SPARSE", "SPARSE", "SPARSE"),
    "flat among sparse": ("SPARSE", "FLAT", "SPARSE"),
}


def new(layout: str) -> list[bytes]:
    """A disk's descriptor and its extents."""
    lines, files = [], [b""]
    for index, (kind, size) in enumerate(zip(LAYOUTS[layout], SIZES, strict=False)):
        lines.append(f'RW {size // SECTOR} {kind} "disk-{index}.vmdk"' + (" 0" if kind == "FLAT" else ""))
        if kind == "SPARSE":
            around = vmdk.Files()
            vmdk.create(size, {"subformat": "twoGbMaxExtentSparse"}, around=around)
            files.append(bytes(next(iter(around.made.values())).data))
        else:
            files.append(bytes(size))
    create_type = layout if layout in vmdk.SUBFORMATS else "twoGbMaxExtentSparse"
    files[0] = vmdk.descriptor(create_type, *lines).encode()
    return files


def attach(drivers: Sequence[MemoryDriver], *, read_only: bool = False, check: bool = False) -> BlockNode:
    """Open the disk that lies in these files, the descriptor first."""
    text, *extents = (BlockNode(each, "disk", read_only=read_only) for each in drivers)
    opened = VmdkDriver.open(text, OpenMode(read_only=read_only, check=check))
    for reference, extent in zip(opened.references(), extents, strict=True):
        opened.children[reference.child] = extent
    opened.assembled()
    return BlockNode(opened, "disk", read_only=read_only)


def cid(data: bytes | bytearray) -> bytes:
    """The content ID in a descriptor."""
    at = data.index(b"\nCID=") + 5
    return bytes(data[at : at + 8])


class SplitWorkload(GuestIO):
    """Random operations on a disk of several files."""

    def __init__(self, rng: random.Random, layout: str) -> None:
        self.rng, self.aligned, self.cluster_size = rng, True, GRAIN
        self.snapshots, self.bitmaps = {}, {}
        self.disks = Disks(*new(layout))
        self.driver, self.node = self.disks.drivers[0], self.open()
        self.content = bytearray(self.node.length)
        self.flushed = bytes(self.content)

    def open(self) -> BlockNode:
        return attach(self.disks.drivers)

    def operations(self) -> dict[str, int]:
        return {"write": 6, "zero": 2, "unmap": 2, "flush": 3, "reopen": 1}

    def place(self) -> tuple[int, int]:
        """A random range, that may lie across extents."""
        offset = self.rng.randrange(len(self.content) // SECTOR) * SECTOR
        return offset, min(self.rng.choice((SECTOR, 5 * SECTOR, GRAIN, 3 * GRAIN)), len(self.content) - offset)

    def verify(self) -> None:
        assert self.node.read(0, self.node.length) == self.content


def judge(disks: Sequence[bytes | bytearray], allowed: Sequence[Version], fresh: bytes) -> None:
    """The disk opens, is sound, and reads what it must; who stands on it can tell that it has changed; it goes on."""
    drivers = [MemoryDriver(each) for each in disks]
    with attach(drivers, read_only=True) as node:
        content = bytes(node.read(0, node.length))
    judge_content(content, allowed)
    sound(drivers)
    assert [bytes(each.data) for each in drivers] == list(disks)
    assert not any(content) or cid(disks[0]) != cid(fresh)
    with attach(drivers) as node:
        assert isinstance(node.driver, VmdkDriver)
        if not node.driver.always_compresses:
            content = bytes(write_on(node, content))
        assert node.read(0, node.length) == content
    sound(drivers)


def sound(drivers: Sequence[MemoryDriver]) -> None:
    """A check finds nothing worse than grains that nobody has."""
    lines: list[str] = []
    with attach(drivers, read_only=True, check=True) as node:
        assert isinstance(node.driver, VmdkDriver)
        result = node.driver.check(Repair.NOTHING, lines.append)
    assert (result.corruptions, result.check_errors) == (0, 0), lines


@pytest.mark.parametrize("seed", range(3 * SOAK))
@pytest.mark.parametrize("layout", LAYOUTS)
def test_after_a_power_cut_the_files_agree_and_have_what_was_flushed(
    layout: str, seed: int, tried: Counter[str]
) -> None:
    rng = random.Random(f"{layout} {seed}")
    workload = SplitWorkload(rng, layout)
    log, versions = workload.disks.log, [Version(0, 0, bytes(workload.content), {}, {})]
    history: list[str] = []
    for _ in range(rng.randrange(4, 14)):
        start = len(log)
        history.append(workload.step())
        workload.verify()
        durable = len(log) if history[-1] == "flush" else None  # closing does not sync flat extents
        versions.append(Version(start, durable, bytes(workload.content), {}, {}))
    workload.node.close()
    tried["workloads"] += 1
    for state in sample(disk_states(workload.disks, rng), rng, 60):
        tried["disks after power cuts"] += 1
        safe = max(at for at, each in enumerate(versions) if each.durable is not None and each.durable <= state.reached)
        allowed = [versions[safe], *(each for each in versions[safe + 1 :] if each.start < state.reached)]
        try:
            judge(state.disks, allowed, workload.disks.initial[0])
        except BaseException as error:
            error.add_note(f"{history}, after {state.reached} entries")
            raise


# ---- faults


def use(rng: random.Random, unit: int, change: bytearray) -> Callable[[Sequence[MemoryDriver]], None]:
    """What opens a disk, writes here and there in whole ``unit`` bytes, flushes and closes; told in ``change``."""
    places = rng.sample(range(len(change) // unit), 4)
    pieces = [(at * unit, noise(rng, unit)) for at in places[:3]]
    for at, data in pieces:
        change[at : at + unit] = data

    def run(drivers: Sequence[MemoryDriver]) -> None:
        with attach(drivers) as node:
            for at, data in pieces:
                node.pwrite(at, data)
            node.write_zeroes(places[3] * unit, unit)
            node.flush()

    change[places[3] * unit : places[3] * unit + unit] = bytes(unit)
    return run


@pytest.mark.parametrize("layout", [*LAYOUTS, STREAM])
def test_a_fault_at_any_file_is_reported_and_harms_nothing(layout: str, tried: Counter[str]) -> None:
    rng = random.Random(f"faults {layout}")
    files = new(layout) if layout != STREAM else [vmdk.create(6 * GRAIN, {"subformat": layout})]
    drivers = [MemoryDriver(each) for each in files]
    with attach(drivers) as node:
        if layout != STREAM:  # whose grains are written once
            node.pwrite(0, noise(rng, 2 * GRAIN))
        before = bytes(node.read(0, node.length))
    disks, after = [bytes(each.data) for each in drivers], bytearray(before)
    run = use(rng, GRAIN if layout == STREAM else 5 * SECTOR, after)
    versions = [Version(0, 0, bytes(each), {}, {}) for each in (before, after)]
    for victim, fault, failing in every_fault(disks, run):
        tried["faults"] += 1
        # What the disk is opened with is told by its name.
        with pytest.raises(OSError, match=r"injected|[Cc]ould not read|Failed to read") as told:
            run(failing)
        assert told.value.errno == fault.code
        try:
            judge([each.data for each in failing], versions, files[0])
        except BaseException as error:
            error.add_note(f"{fault} in file {victim}")
            raise


class Given(vmdk.Files):
    """A file beside the new disk that is there already."""

    def __init__(self, driver: MemoryDriver) -> None:
        super().__init__()
        self._driver = driver

    def new_file(self, name: str) -> BlockNode:
        return BlockNode(self._driver, name, read_only=False)


@pytest.mark.parametrize("layout", vmdk.SUBFORMATS)
def test_a_fault_at_any_file_of_a_new_disk_is_reported(layout: str, tried: Counter[str]) -> None:
    def run(drivers: Sequence[MemoryDriver]) -> None:
        file, extent = drivers
        VmdkDriver.compose(BlockNode(file, "disk.vmdk", read_only=False), GRAIN, {"subformat": layout}, Given(extent))

    for _, _, failing in every_fault([b"", b""], run):
        tried["faults"] += 1
        with pytest.raises(OSError, match="injected"):
            run(failing)

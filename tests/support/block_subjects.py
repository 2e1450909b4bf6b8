"""Small images of the formats that map a disk block by block: vdi, vpc, vhdx."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Final

from hostel.block.driver import OpenMode
from hostel.block.formats.vhdx import layout
from hostel.block.formats.vhdx.layout import Header
from hostel.block.options import Value
from support.crash import Recording
from support.format_workload import FormatWorkload, Subject
from support.guest_io import SECTOR
from support.memory import LoggedDriver, MemoryDriver, memory_node

MIB: Final = 1 << 20


def _vdi(rng: random.Random) -> dict[str, Value]:
    return {"cluster_size": rng.choice((4096, 8192)), "static": rng.random() < 0.2}


def _vpc(rng: random.Random) -> dict[str, Value]:
    subformat = "fixed" if rng.random() < 0.2 else "dynamic"
    return {"block_size": rng.choice((512, 4096, 8192)), "force_size": True, "subformat": subformat}


def _vhdx(rng: random.Random) -> dict[str, Value]:
    subformat = "fixed" if rng.random() < 0.2 else "dynamic"
    return {"block_size": MIB, "block_state_zero": rng.random() < 0.5, "subformat": subformat}


def _block_size(options: Mapping[str, Value]) -> int:
    return int(options.get("cluster_size", options.get("block_size", 0)))


SUBJECTS: Final = {
    "vdi": Subject("vdi", _vdi, _block_size),
    "vpc": Subject("vpc", _vpc, _block_size),
    "vhdx": Subject("vhdx", _vhdx, _block_size),
}


def workload(name: str, rng: random.Random, driver: type[MemoryDriver] = MemoryDriver) -> FormatWorkload:
    """A new image of a few blocks, or some dozens where they are small."""
    subject = SUBJECTS[name]
    options = subject.options(rng)
    block = _block_size(options)
    size = rng.choice((1, 7, 40, 100)) * block if name != "vhdx" else rng.choice((1, 3)) * block
    return FormatWorkload(subject, rng, driver, options=options, size=size + rng.choice((0, SECTOR)), aligned=True)


def record(name: str, rng: random.Random, steps: int) -> Recording:
    """Run a random workload."""
    return Recording.of(workload(name, rng, LoggedDriver), steps)


def replayed(name: str, data: bytes) -> bytes:
    """The image with its log done, where it has one to do, so that it can be opened for reading only."""
    if name != "vhdx" or not any(Header.unpack(data, each).log_guid.strip(b"\0") for each in layout.HEADER_OFFSETS):
        return data
    driver = MemoryDriver(data)
    SUBJECTS[name].driver.open(memory_node(driver), OpenMode(read_only=False)).close()
    return bytes(driver.data)

"""Damaged vdi, vpc and vhdx images: refused or survived with one clean error, within bounds, unchanged by looking."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostel.block.formats.vhdx import layout as vhdx
from hostel.block.formats.vpc import layout as vpc
from hostel.block.formats.vpc.layout import DynamicHeader, Footer
from support.block_subjects import SUBJECTS, workload
from support.bounded import bounded
from support.format_hostile import cut_off, poke
from support.qcow2_exercise import read_only, repairing, writing
from support.tally import tried

__all__ = ["tried"]

SOAK = int(os.environ.get("HOSTEL_SOAK", "1"))
COUNTS = {"vdi": 60, "vpc": 60, "vhdx": 12}
MIB = 1 << 20
# Where the metadata is, by format: ranges of bytes, of which small ones are hit as often as large ones.
PLACES = {
    "vdi": [(64, 128), (320, 512), (512, 1024)],
    "vpc": [(0, 96), (512, 560), (1536, 2048), (560, 1280), (-512, -400)],
    "vhdx": [
        (64 << 10, (64 << 10) + 80),
        (128 << 10, (128 << 10) + 80),
        (192 << 10, (192 << 10) + 80),
        (256 << 10, (256 << 10) + 80),
        (MIB, MIB + 8192),
        (2 * MIB, 2 * MIB + 64),
        (3 * MIB, 3 * MIB + 200),
        (3 * MIB + (64 << 10), 3 * MIB + (64 << 10) + 40),
    ],
}


def sound(name: str, rng: random.Random) -> bytes:
    """An image with data and zeroes."""
    work = workload(name, rng)
    for each in ("write", "zero", "write", "unmap"):
        getattr(work, each)()
    work.node.close()
    return bytes(work.driver.data)


def resealed(name: str, data: bytearray) -> bytes:
    """The image with checksums that are right again."""
    if name == "vhdx":
        for offset, length in ((64, 4), (128, 4), (192, 64), (256, 64)):
            part = slice(offset << 10, offset + length << 10)
            if len(data[part]) == length << 10:
                data[part] = vhdx.sealed(data[part])
    elif name == "vpc":
        for offset, record in ((0, Footer), (Footer.SIZE, DynamicHeader), (len(data) - Footer.SIZE, Footer)):
            if 0 <= offset <= len(data) - record.SIZE:
                data[offset : offset + record.SIZE] = vpc.sealed(record.unpack(data, offset))
    return bytes(data)


def mutations(name: str, rng: random.Random, count: int) -> Iterator[tuple[str, bytes]]:
    """Damaged images, each with what was done to it."""
    for _ in range(count):
        data, history = bytearray(sound(name, rng)), []
        for _ in range(rng.choice((1, 1, 2, 3))):
            width = rng.choice((4, 8))
            start, end = rng.choice(PLACES[name])
            place = rng.randrange(start, end, 4) % len(data)
            history.append(poke(data, place, width, rng))
        history += cut_off(data, rng)
        yield "; ".join(history), resealed(name, data) if rng.random() < 0.8 else bytes(data)


def survive(folder: Path, name: str, seed: str, count: int) -> int:
    """Do everything with damaged images; returns how many of them opened."""
    path, opened = folder / "disk", 0
    for history, data in mutations(name, random.Random(seed), count):
        path.write_bytes(data)
        try:
            opened += read_only(path, name)
            writing(path, data, name, marked=lambda data: name == "vhdx")  # a log may be done in part
            repairing(path, data, name)
        except BaseException as error:
            error.add_note(f"{name}: {history}")
            raise
    return opened


@pytest.mark.parametrize("part", range(2 * SOAK))
@pytest.mark.parametrize("name", SUBJECTS)
def test_random_damage_raises_nothing_but_clean_errors_in_bounded_memory(
    tmp_path: Path, name: str, part: int, tried: Counter[str]
) -> None:
    opened = bounded(lambda: survive(tmp_path, name, f"{name} {part}", COUNTS[name]), seconds=240)
    assert opened, "all damage was found by opening alone"
    tried["damaged images"] += COUNTS[name]

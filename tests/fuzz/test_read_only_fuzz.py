"""Damaged images of the formats that are only read: refused or survived with one clean error, within bounds."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from support.bounded import bounded
from support.dmg import ADC, BZIP2, LZMA, RAW, ZERO, ZLIB, Part, dmg, part
from support.old_images import bochs, cloop, cow
from support.qcow2_exercise import read_only
from support.qcow2_hostile import WORDS
from support.tally import tried

__all__ = ["tried"]

SOAK = int(os.environ.get("HOSTEL_SOAK", "1"))


def _content(rng: random.Random, length: int) -> bytes:
    return b"".join(rng.choice((rng.randbytes(64), bytes(64))) for _ in range(length // 64))


def _dmg(rng: random.Random, *, fork: bool) -> bytes:
    kinds = (ADC, BZIP2, LZMA, RAW, ZLIB)
    parts = [part(kind, index * 4, _content(rng, 2048)) for index, kind in enumerate(kinds)]
    return dmg([*parts, Part(ZERO, 20, 20)], 40 * 512, fork=fork, tables=2)


def _cow(rng: random.Random, kind: str) -> bytes:
    return cow({number: rng.randbytes(512) for number in range(0, 64, 5)}, 64 * 512, kind=kind, backing=b"nothing")


# The image, and where damage is done more often than elsewhere.
SUBJECTS: dict[str, tuple[Callable[[random.Random], bytes], range]] = {
    "bochs": (lambda rng: bochs({at: rng.randbytes(512) for at in range(0, 200, 3)}, 200 * 512), range(600)),
    "cloop": (lambda rng: cloop(_content(rng, 20 * 4096)), range(120, 300)),
    "cow": (lambda rng: _cow(rng, rng.choice(("qemu", "1", "2", "3"))), range(4200)),
    "dmg": (lambda rng: _dmg(rng, fork=False), range(-512, 0)),
    "dmg with a resource fork": (lambda rng: _dmg(rng, fork=True), range(-2000, 0)),
}


def damaged(rng: random.Random, image: bytes, often: range) -> bytes:
    """The image with a few numbers in it that do not belong there, or cut off."""
    data = bytearray(image)
    for _ in range(rng.randrange(1, 4)):
        at = rng.choice(often) % len(data) if rng.random() < 0.7 else rng.randrange(len(data))
        if rng.random() < 0.3:
            data[at] = rng.randrange(256)
        else:
            word = rng.choice(WORDS).to_bytes(8, rng.choice(("big", "little")))
            width = rng.choice((1, 2, 4, 8))
            data[at : at + width] = word[-width:]
    if rng.random() < 0.1:
        del data[rng.randrange(len(data)) :]
    return bytes(data)


def survive(path: Path, subject: str, seed: str, count: int) -> int:
    """Read damaged images; returns how many of them opened."""
    rng = random.Random(seed)
    make, often = SUBJECTS[subject]
    image, opened = make(rng), 0
    for _ in range(count):
        path.write_bytes(damaged(rng, image, often))
        opened += read_only(path, subject.split()[0])
    return opened


@pytest.mark.parametrize("part", range(2 * SOAK))
@pytest.mark.parametrize("subject", SUBJECTS)
def test_random_damage_raises_nothing_but_clean_errors_in_bounded_memory(
    tmp_path: Path, subject: str, part: int, tried: Counter[str]
) -> None:
    count = 150
    opened = bounded(lambda: survive(tmp_path / "disk", subject, f"{subject} {part}", count), seconds=120)
    assert opened, "all damage was found by opening alone"
    tried["damaged images"] += count

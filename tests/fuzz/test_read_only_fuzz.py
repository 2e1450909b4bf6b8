"""Damaged images of the formats that are only read: refused or survived with one clean error, within bounds."""

from __future__ import annotations

import gzip
import lzma
import os
import random
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from hostel.block import graph
from hostel.img.inspect import inspect
from support.bounded import bounded
from support.dmg import ADC, BZIP2, LZMA, RAW, ZERO, ZLIB, Part, dmg, part
from support.old_images import bochs, cloop, cow
from support.ova import ova
from support.qcow2_exercise import read_only
from support.qcow2_hostile import WORDS
from support.tally import tried

__all__ = ["tried"]
zstandard = pytest.importorskip("zstandard")

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


def damaged(rng: random.Random, image: bytes, often: Sequence[int]) -> bytes:
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


def wrapped(rng: random.Random) -> dict[str, bytes]:
    """Files that are opened through a filter of the first word, or an archive."""
    content = _content(rng, 30_000)
    return {
        "gzip": gzip.compress(content[:15_000]) + gzip.compress(content[15_000:]),
        "xz": lzma.compress(content[:15_000]) + bytes(4) + lzma.compress(content[15_000:]),
        "zstd": b"".join(zstandard.ZstdCompressor().compress(part) for part in (content[:15_000], content[15_000:])),
        "ova": ova({"disk": content[:4096]}),
    }


def unwrap(path: Path, kind: str, seed: str, count: int) -> int:
    """Look at damaged files and read what is in them; returns how many of them opened."""
    rng = random.Random(seed)
    data, opened = wrapped(rng)[kind], 0
    often = list(range(3000) if kind == "ova" else range(-60, 40))
    if kind == "gzip":
        often += 10 * list(range(4, 10))  # when, how and where it was packed: all else is found as it is opened
    for _ in range(count):
        path.write_bytes(damaged(rng, data, often))
        inspect(str(path), max_virtual_size=1 << 30, check_digests=True)
        if kind == "ova":
            opened += 1
            continue
        try:
            with graph.open(f"{kind}:{path}", "raw") as node:
                opened += 1
                node.read(0, min(node.length, 1 << 20))
        except OSError as error:
            assert str(error), "an error without a text"
    return opened


@pytest.mark.parametrize("part", range(2 * SOAK))
@pytest.mark.parametrize("kind", ["gzip", "xz", "zstd", "ova"])
def test_damaged_wrappers_raise_nothing_but_clean_errors_in_bounded_memory(
    tmp_path: Path, kind: str, part: int, tried: Counter[str]
) -> None:
    count = 100
    opened = bounded(lambda: unwrap(tmp_path / "file", kind, f"{kind} {part}", count), memory=768 << 20, seconds=120)
    assert opened, "all damage was found by opening alone"
    tried["damaged images"] += count

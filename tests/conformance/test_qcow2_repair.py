"""Repair beside real ``qemu-img check -r all`` on generated damage: what it makes sound, ours does, losing nothing."""

from __future__ import annotations

import os
import random
import resource
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostel.block.powers import Repair
from support import qcow2
from support.qcow2_hostile import KINDS, WORDS, Place, bitmap_places, places, poked, sound, with_bitmaps
from support.tally import tried

__all__ = ["tried"]
pytestmark = pytest.mark.requires_tool("qemu-img")
SOAK = int(os.environ.get("HOSTEL_SOAK", "1"))
SNAPSHOTS = 2
TABLES = ("L1 entry", "L2 entry", "refcount", "nb_snapshots")
LARGEST = 1 << 26  # bytes: a repair that believes in places beyond fails there


def limited() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST, LARGEST))


def qemu_img(*words: str) -> int:
    return subprocess.run(["qemu-img", *words], capture_output=True, timeout=60, preexec_fn=limited).returncode


def damages(data: bytes, found: list[Place], rng: random.Random, count: int) -> Iterator[tuple[str, bytes]]:
    """Damage to tables, each with what was done."""
    names = sorted({place.name for place in found})
    for _ in range(count):
        damaged, history = data, []
        for _ in range(rng.choice((1, 1, 2, 3))):
            name = rng.choice(names)
            place = rng.choice([each for each in found if each.name == name])
            old = int.from_bytes(damaged[place.offset : place.offset + place.length], "big")
            value = rng.choice((0, old ^ 1 << rng.randrange(8 * place.length), old + 1, rng.choice(WORDS)))
            damaged = poked(damaged, place, value)
            history.append(f"{name} at {place.offset:#x}: {old:#x} is {value:#x}")
        yield ", ".join(history), damaged


def snapshots(data: bytes) -> int:
    return int.from_bytes(data[60:64], "big")


def l1_tables(data: bytes) -> list[int]:
    """Where the snapshots' L1 tables are, as far as the table of snapshots is in the file."""
    found, place = [], int.from_bytes(data[64:72], "big")
    for _ in range(snapshots(data)):
        entry = data[place : place + 40].ljust(40, b"\0")
        found.append(int.from_bytes(entry[:8], "big"))
        lengths = int.from_bytes(entry[36:40], "big"), *(int.from_bytes(entry[at : at + 2], "big") for at in (12, 14))
        place += -(-(40 + sum(lengths)) // 8) * 8
    return found


@pytest.mark.parametrize("seed", range(2 * SOAK))
@pytest.mark.parametrize("kind", KINDS)
def test_what_qemu_img_repairs_is_repaired_and_reads_the_same(
    tmp_path: Path, kind: str, seed: int, tried: Counter[str]
) -> None:
    (tmp_path / "base.raw").write_bytes(b"below" * 1000)
    theirs, ours = tmp_path / "theirs.qcow2", tmp_path / "ours.qcow2"
    data = sound(kind)
    tables = [each for each in places(data) if each.name in TABLES or "table" in each.name or "snapshot" in each.name]
    for history, damaged in damages(data, tables, random.Random(f"repair {kind} {seed}"), 12):
        theirs.write_bytes(damaged)
        if qemu_img("check", "-q", "-f", "qcow2", str(theirs)) == 0:
            continue
        qemu_img("check", "-q", "-r", "all", "-f", "qcow2", str(theirs))
        is_sound = qemu_img("check", "-q", "-f", "qcow2", str(theirs)) == 0
        told = theirs.read_bytes()
        tried["damaged images repaired by both"] += 1
        try:
            repaired = qcow2.check(damaged, Repair.ALL)[2]
        except OSError:
            repaired = damaged
        if "nb_snapshots" not in history:
            assert snapshots(repaired) == SNAPSHOTS, history
        if not is_sound or snapshots(told) != snapshots(repaired) or 0 in l1_tables(told):
            continue
        # As far as QEMU keeps the snapshots, we keep up with it. It makes one of the zeroes beyond the file's end where
        # an entry claims all that follows, and frees what the real one had; we refuse that image, and touch nothing.
        ours.write_bytes(repaired)
        assert qemu_img("check", "-q", "-f", "qcow2", str(ours)) == 0, history
        compare = ("compare", "-q", "-s", "-f", "qcow2", "-F", "qcow2", str(theirs))
        # A compressed cluster whose place is wrong is as unreadable as before.
        assert qemu_img(*compare, str(ours)) == qemu_img(*compare, str(theirs)), history


@pytest.mark.parametrize("seed", range(SOAK))
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "old"])
def test_a_repair_keeps_the_snapshots_of_an_image_with_bitmaps(
    tmp_path: Path, kind: str, seed: int, tried: Counter[str]
) -> None:
    path = tmp_path / "disk.qcow2"
    (tmp_path / "base.raw").write_bytes(b"below" * 1000)
    data = with_bitmaps(kind)
    numbers = [*bitmap_places(data), *(each for each in places(data) if each.name in TABLES[:3])]
    for history, damaged in damages(data, numbers, random.Random(f"bitmaps {kind} {seed}"), 12):
        tried["damaged images with bitmaps repaired"] += 1
        try:
            result, _, repaired = qcow2.check(damaged, Repair.ALL)
        except OSError:
            continue
        assert snapshots(repaired) == SNAPSHOTS, history
        path.write_bytes(repaired)
        if not (result.corruptions or result.leaks or result.check_errors):
            assert qemu_img("check", "-q", "-f", "qcow2", str(path)) == 0, history

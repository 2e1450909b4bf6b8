"""Damaged descriptors, streams and extents of ESX: refused or survived with one clean error, within bounds."""

from __future__ import annotations

import os
import random
from collections import Counter
from pathlib import Path

import pytest

from hostel.img.inspect import inspect
from support import vmdk
from support.bounded import bounded
from support.qcow2_exercise import read_only
from support.tally import tried
from support.vmdk_hostile import KINDS, mutations, sound

__all__ = ["tried"]

SOAK = int(os.environ.get("HOSTEL_SOAK", "1"))


def survive(folder: Path, kind: str, seed: str, count: int) -> int:
    """Look at damaged disks in every way; returns how many of them opened."""
    os.chdir(folder)
    opened = 0
    vmdk.write_files(folder, sound(kind))
    for history, victim, data in mutations(kind, random.Random(seed), count):
        (folder / victim).write_bytes(data)
        try:
            opened += read_only(folder / "d", "vmdk")
            inspect(str(folder / "d"))
        except BaseException as error:
            error.add_note(f"{kind}: {history}")
            raise
    return opened


@pytest.mark.parametrize("part", range(2 * SOAK))
@pytest.mark.parametrize("kind", KINDS)
def test_random_damage_raises_nothing_but_clean_errors_in_bounded_memory(
    tmp_path: Path, kind: str, part: int, tried: Counter[str]
) -> None:
    count = 80
    opened = bounded(lambda: survive(tmp_path, kind, f"{kind} {part}", count), seconds=120)
    assert opened, "all damage was found by opening alone"
    tried["damaged disks"] += count

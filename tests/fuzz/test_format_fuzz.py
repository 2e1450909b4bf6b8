"""Damaged images: refused or survived with one clean error, within bounds, and never changed by looking."""

from __future__ import annotations

import os
import random
from collections import Counter
from pathlib import Path

import pytest

from support.bounded import bounded
from support.format_hostile import mutations
from support.format_subjects import SUBJECTS
from support.qcow2_exercise import read_only, repairing, writing
from support.tally import tried

__all__ = ["tried"]

SOAK = int(os.environ.get("HOSTEL_SOAK", "1"))


def survive(folder: Path, format: str, seed: str, count: int) -> int:
    """Do everything with damaged images; returns how many of them opened."""
    path, opened, subject = folder / "disk", 0, SUBJECTS[format]
    for history, data in mutations(format, random.Random(seed), count):
        path.write_bytes(data)
        try:
            opened += read_only(path, subject.name)
            writing(path, data, subject.name, marked=subject.marked)
            repairing(path, data, subject.name)
        except BaseException as error:
            error.add_note(f"{format}: {history}")
            raise
    return opened


@pytest.mark.parametrize("part", range(2 * SOAK))
@pytest.mark.parametrize("format", SUBJECTS)
def test_random_damage_raises_nothing_but_clean_errors_in_bounded_memory(
    tmp_path: Path, format: str, part: int, tried: Counter[str]
) -> None:
    count = 40
    opened = bounded(lambda: survive(tmp_path, format, f"{format} {part}", count), seconds=120)
    assert opened, "all damage was found by opening alone"
    tried["damaged images"] += count

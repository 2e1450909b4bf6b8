"""Power cuts: what may be on the disk at any moment of a random workload opens, is sound, and has what was flushed.

``HOSTEL_SOAK=20`` tries twenty times as many workloads.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Iterator

import pytest

from support.format_crash import judge_image, record
from support.format_subjects import ENCRYPTED
from support.format_subjects import SUBJECTS as PLAIN
from support.luks import many_volumes
from support.tally import tried

__all__ = ["tried"]

SOAK = int(os.environ.get("HOSTEL_SOAK", "1"))
SUBJECTS = PLAIN | ENCRYPTED


@pytest.fixture(autouse=True)
def passphrases() -> Iterator[None]:
    """Those of encrypted images, and what makes them quick."""
    with many_volumes():
        yield


@pytest.mark.parametrize("seed", range(12 * SOAK))
@pytest.mark.parametrize("name", SUBJECTS)
def test_after_a_power_cut_the_image_is_sound_and_has_what_was_flushed(
    name: str, seed: int, tried: Counter[str]
) -> None:
    rng = random.Random(f"crash {seed}")
    recording = record(SUBJECTS[name], rng, rng.randrange(5, 25))
    tried["workloads"] += 1
    for state in recording.states(rng, samples=6):
        tried["disks after power cuts"] += 1
        try:
            judge_image(recording, state)
        except BaseException as error:
            log = [(each.kind.value, hex(each.offset), each.length) for each in recording.log[: state.reached]]
            error.add_note(f"{recording.workload.options} {recording.history}: {log[state.epoch :]} after a flush")
            raise

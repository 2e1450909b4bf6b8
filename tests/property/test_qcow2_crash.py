"""Power cuts: what may be on the disk at any moment of a random workload opens, is sound, and has what was flushed.

``HOSTEL_SOAK=20`` tries twenty times as many workloads.
"""

from __future__ import annotations

import os
import random
from collections import Counter

import pytest

from hostel.block.options import Value
from support.crash import Recording, State, crash_states, judge, repair, sample
from support.guest_io import SECTOR
from support.luks import CHAINED, FAST, many_volumes
from support.memory import LoggedDriver
from support.qcow2_workload import Workload, random_options
from support.tally import tried

__all__ = ["tried"]

SOAK = int(os.environ.get("HOSTEL_SOAK", "1"))


def judged(recording: Recording, state: State, tried: Counter[str]) -> None:
    """Judge a state, and say of one that fails how it came about."""
    tried["disks after power cuts"] += 1
    try:
        judge(recording, state)
    except BaseException as error:
        log = [(each.kind.value, hex(each.offset), each.length) for each in recording.log[: state.reached]]
        error.add_note(f"{recording.workload.options} {recording.history}: {log[state.epoch :]} after a flush")
        raise


@pytest.mark.parametrize("seed", range(60 * SOAK))
def test_after_a_power_cut_the_image_is_sound_and_has_what_was_flushed(seed: int, tried: Counter[str]) -> None:
    rng = random.Random(f"crash {seed}")
    recording = Recording.random(rng, rng.randrange(5, 30))
    tried["workloads"] += 1
    for state in recording.states(rng, samples=8):
        judged(recording, state, tried)


ENCRYPTED: dict[str, dict[str, Value]] = {
    "aes": {"encrypt.format": "aes", "encrypt.key-secret": "first"},
    "luks": {f"encrypt.{name}": value for name, value in {"format": "luks", **FAST, **CHAINED}.items()},
}


@pytest.mark.parametrize("seed", range(5 * SOAK))
@pytest.mark.parametrize("format", ENCRYPTED)
def test_after_a_power_cut_an_encrypted_image_is_sound_too_and_shows_nothing(
    format: str, seed: int, tried: Counter[str]
) -> None:
    rng = random.Random(f"{format} {seed}")
    with many_volumes():
        recording = Recording.random(rng, rng.randrange(5, 20), random_options(rng) | ENCRYPTED[format])
        tried["workloads"] += 1
        written = {bytes(each.content[at : at + SECTOR]) for each in recording.versions for at in sectors(each.content)}
        written -= {bytes(SECTOR)}
        for state in sample(recording.states(rng, samples=4), rng, 40):
            judged(recording, state, tried)
            assert not any(state.data[at : at + SECTOR] in written for at in sectors(state.data))


def sectors(data: bytes) -> range:
    """Where they begin."""
    return range(0, len(data), SECTOR)


@pytest.mark.parametrize("seed", range(SOAK))
def test_a_power_cut_while_the_refcount_table_moves(seed: int, tried: Counter[str]) -> None:
    rng = random.Random(f"table {seed}")
    options: dict[str, Value] = {"cluster_size": 512, "refcount_bits": 64, "preallocation": "metadata"}
    options["lazy_refcounts"] = seed % 3 == 2
    workload = Workload(rng, LoggedDriver, options=options, size=1950 << 10, aligned=True)
    recording = Recording(workload)
    image = workload.image._image
    place = image.header.refcount_table_offset
    for name in ("compress", "create_snapshot", "write", "grow", "write", "write", "flush", "delete_snapshot"):
        recording.step(name)
    assert image.header.refcount_table_offset != place
    recording.step("reopen")
    recording.workload.node.close()
    tried["workloads"] += 1
    for state in recording.states(rng, samples=2):
        judged(recording, state, tried)


@pytest.mark.parametrize("seed", range(12 * SOAK))
def test_a_power_cut_while_an_image_is_repaired(seed: int, tried: Counter[str]) -> None:
    rng = random.Random(f"repair {seed}")
    options = {"cluster_size": rng.choice((512, 4096)), "lazy_refcounts": seed % 3 > 0}
    recording = Recording.random(rng, rng.randrange(10, 20), options)
    tried["workloads"] += 1
    for state in sample(recording.states(rng, samples=2), rng, 8):
        for cut in crash_states(state.data, repair(state.data), rng, samples=2):
            judged(recording, state._replace(data=cut.data), tried)

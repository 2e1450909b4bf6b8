"""Power cuts: what may be on the disk at any moment of a random workload opens, is sound, and has what was flushed.

``HOSTEL_SOAK=20`` tries twenty times as many workloads.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import pytest

from support.crash import Recording, State, crash_states, judge, repair, sample
from support.memory import LoggedDriver
from support.qcow2_workload import Workload

SOAK = int(os.environ.get("HOSTEL_SOAK", "1"))


class Tally:
    """How many states were judged."""

    def __init__(self) -> None:
        self.states = 0
        self.workloads = 0

    def judge(self, recording: Recording, state: State) -> None:
        self.states += 1
        try:
            judge(recording, state)
        except BaseException as error:
            log = [(each.kind.value, hex(each.offset), each.length) for each in recording.log[: state.reached]]
            error.add_note(f"{recording.workload.options} {recording.history}: {log[state.epoch :]} after a flush")
            raise


@pytest.fixture(scope="module")
def tally(request: pytest.FixtureRequest) -> Iterator[Tally]:
    tally = Tally()
    yield tally
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        print(f"\n{tally.states} disks after power cuts judged, of {tally.workloads} workloads")


@pytest.mark.parametrize("seed", range(60 * SOAK))
def test_after_a_power_cut_the_image_is_sound_and_has_what_was_flushed(seed: int, tally: Tally) -> None:
    rng = random.Random(f"crash {seed}")
    recording = Recording.random(rng, rng.randrange(5, 30))
    tally.workloads += 1
    for state in recording.states(rng, samples=8):
        tally.judge(recording, state)


@pytest.mark.parametrize("seed", range(SOAK))
def test_a_power_cut_while_the_refcount_table_moves(seed: int, tally: Tally) -> None:
    rng = random.Random(f"table {seed}")
    options = {"cluster_size": 512, "refcount_bits": 64, "preallocation": "metadata", "lazy_refcounts": seed % 3 == 2}
    recording = Recording(Workload(rng, LoggedDriver, options=options, size=1950 << 10, aligned=True))
    image = recording.workload.image._image
    place = image.header.refcount_table_offset
    for name in ("compress", "create_snapshot", "write", "grow", "write", "write", "flush", "delete_snapshot"):
        recording.step(name)
    assert image.header.refcount_table_offset != place
    recording.step("reopen")
    recording.workload.node.close()
    tally.workloads += 1
    for state in recording.states(rng, samples=2):
        tally.judge(recording, state)


@pytest.mark.parametrize("seed", range(12 * SOAK))
def test_a_power_cut_while_an_image_is_repaired(seed: int, tally: Tally) -> None:
    rng = random.Random(f"repair {seed}")
    options = {"cluster_size": rng.choice((512, 4096)), "lazy_refcounts": seed % 3 > 0}
    recording = Recording.random(rng, rng.randrange(10, 20), options)
    tally.workloads += 1
    for state in sample(recording.states(rng, samples=2), rng, 8):
        for cut in crash_states(state.data, repair(state.data), rng, samples=2):
            tally.judge(recording, state._replace(data=cut.data))

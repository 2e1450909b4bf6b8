"""vdi, vpc and vhdx: power cuts at any moment, a fault at any call; what was flushed is there, the image goes on.

``HOSTEL_SOAK=20`` tries twenty times as many workloads.
"""

from __future__ import annotations

import os
import random
from collections import Counter

import pytest

from support.block_subjects import SUBJECTS, record, replayed, workload
from support.crash import Recording, State, Version, judge_content, sample
from support.fault import every_fault, faults
from support.format_crash import judge_use
from support.format_fault import let_creation_fail, perform, version
from support.format_workload import FormatWorkload
from support.memory import FaultyDriver, LoggedDriver, MemoryDriver
from support.tally import tried

__all__ = ["tried"]

SOAK = int(os.environ.get("HOSTEL_SOAK", "1"))
# An image of VHDX has 10 MiB at least: so many states of one workload are judged.
STATES = {"vdi": 150, "vpc": 150, "vhdx": 12}
SEEDS = {"vdi": 12, "vpc": 12, "vhdx": 8}
# What an image is opened with is told by its name, and the rest by what was injected.
TOLD = r"injected|Unable to read|Error reading|No valid VHDX header"
CASES = [(name, seed) for name in SUBJECTS for seed in range(SEEDS[name] * SOAK)]


def judge(recording: Recording, state: State, name: str) -> None:
    """A state opens; what was flushed is there; nothing worse than blocks that nobody has; the image can go on."""
    data = replayed(name, state.data)
    subject = SUBJECTS[name]
    with subject.attach(MemoryDriver(data), read_only=True) as node:
        content = bytes(node.read(0, node.length))
    judge_content(content, recording.allowed(state))
    result, lines, after = subject.check(data)
    assert (result.corruptions, result.check_errors) == (0, 0), lines
    assert after == data
    driver = MemoryDriver(state.data)
    with subject.attach(driver) as node:
        judge_use(node, content)
    result, lines, _ = subject.check(driver.data)
    assert (result.corruptions, result.check_errors) == (0, 0), lines


@pytest.mark.parametrize(("name", "seed"), CASES)
def test_after_a_power_cut_the_image_is_sound_and_has_what_was_flushed(
    name: str, seed: int, tried: Counter[str]
) -> None:
    rng = random.Random(f"crash {seed}")
    recording = record(name, rng, rng.randrange(4, 20))
    tried["workloads"] += 1
    for state in sample(recording.states(rng, samples=4), rng, STATES[name]):
        tried["disks after power cuts"] += 1
        try:
            judge(recording, state, name)
        except BaseException as error:
            log = [(each.kind.value, hex(each.offset), each.length) for each in recording.log[: state.reached]]
            error.add_note(f"{recording.workload.options} {recording.history}: {log[state.epoch :]} after a flush")
            raise


@pytest.mark.parametrize("seed", range(3 * SOAK))
def test_a_power_cut_while_a_log_is_done_again(seed: int, tried: Counter[str]) -> None:
    rng = random.Random(f"replay {seed}")
    recording = record("vhdx", rng, 6)
    states = sample(recording.states(rng, samples=1), rng, 60)
    pending = [each for each in states if replayed("vhdx", each.data) != each.data]
    for state in pending[:2]:
        driver = LoggedDriver(state.data)
        SUBJECTS["vhdx"].attach(driver).close()
        for cut in range(len(driver.log) + 1):
            disk = MemoryDriver(state.data)
            for entry in driver.log[:cut]:
                entry.apply(disk)
            tried["disks after power cuts"] += 1
            judge(recording, state._replace(data=bytes(disk.data)), "vhdx")


@pytest.mark.parametrize("seed", range(SOAK))
def test_a_fault_while_a_log_is_done_again_is_reported_and_the_next_does_it(seed: int, tried: Counter[str]) -> None:
    rng = random.Random(f"replay {seed}")
    recording = record("vhdx", rng, 6)
    states = recording.states(rng, samples=1)
    state = next(each for each in states if replayed("vhdx", each.data) != each.data)

    def run(drivers: list[FaultyDriver]) -> None:
        SUBJECTS["vhdx"].attach(drivers[0]).close()

    for _, fault, failing in sample(every_fault([state.data], run), rng, 16):
        tried["faults"] += 1
        with pytest.raises(OSError, match=TOLD) as told:
            run(failing)
        assert told.value.errno == fault.code
        try:
            judge(recording, state._replace(data=bytes(failing[0].data)), "vhdx")
        except BaseException as error:
            error.add_note(str(fault))
            raise


# ---- faults


def judge_fault(format: str, data: bytes | bytearray, versions: list[Version]) -> None:
    """What a fault left on the disk opens and is one of the versions, or between them."""
    sound = replayed(format, bytes(data))
    with SUBJECTS[format].attach(MemoryDriver(sound), read_only=True) as node:
        judge_content(bytes(node.read(0, node.length)), versions)
    result, lines, _ = SUBJECTS[format].check(sound)
    assert (result.corruptions, result.check_errors) == (0, 0), lines


@pytest.mark.parametrize("seed", range(2 * SOAK))
@pytest.mark.parametrize("name", ["write", "zero", "unmap", "reopen"])
@pytest.mark.parametrize("format", SUBJECTS)
def test_a_fault_is_reported_and_harms_nothing(format: str, name: str, seed: int, tried: Counter[str]) -> None:
    work = workload(format, random.Random(f"base {seed}"))
    for each in ("write", "zero", "write"):
        getattr(work, each)()
    work.node.close()
    data = bytes(work.driver.data)

    def fork() -> FormatWorkload:
        return work.fork(FaultyDriver(data), random.Random(f"{name} {seed}"))

    sound = fork()
    before = version(sound)
    assert isinstance(sound.driver, FaultyDriver)
    sound.driver.arm()
    perform(sound, name)
    after, calls = version(sound), list(sound.driver.calls)
    sound.node.close()
    for fault in faults(calls):
        tried["faults"] += 1
        failing = fork()
        driver = failing.driver
        assert isinstance(driver, FaultyDriver)
        driver.arm(fault.at, fault.code, short=fault.short)
        try:
            with pytest.raises(OSError, match=TOLD) as told:
                perform(failing, name)
            assert told.value.errno == fault.code
            judge_fault(format, driver.data, [before, after])
            driver.arm()
            go_on(format, failing, name, [before, after], f"{name} {seed}")
        except BaseException as error:
            error.add_note(f"{fault} is a {calls[fault.at]} of {len(calls)}: {[each.value for each in calls]}")
            raise


def go_on(format: str, work: FormatWorkload, name: str, versions: list[Version], seed: str) -> None:
    """The same operation, on the image as it is open, works now, unless a sync has failed for good."""
    work.open_again()
    work.content = bytearray(work.node.read(0, work.node.length))
    judge_content(bytes(work.content), versions)
    work.rng = random.Random(seed)
    try:
        perform(work, name)
        work.verify()
        work.node.close()
    except OSError as error:
        assert "injected" in str(error)  # the sync that failed, and fails ever after
        judge_fault(format, work.driver.data, [*versions, version(work)])
        return
    judge_fault(format, work.driver.data, [version(work)])
    result, lines, _ = SUBJECTS[format].check(work.driver.data)
    assert not result.leaks, lines


@pytest.mark.parametrize("format", SUBJECTS)
def test_a_fault_while_creating_is_reported(format: str) -> None:
    subject = SUBJECTS[format]
    let_creation_fail(subject, 1 << 20, subject.options(random.Random("creation")))

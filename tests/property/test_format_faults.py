"""A fault at each single call to the file, in each operation: reported, nothing lost, and life goes on."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Iterator

import pytest

from support.crash import Version, judge_content
from support.fault import faults
from support.format_fault import let_creation_fail, perform, version
from support.format_subjects import ENCRYPTED
from support.format_subjects import SUBJECTS as PLAIN
from support.format_workload import FormatWorkload, Subject
from support.luks import many_volumes
from support.memory import FaultyDriver, Kind, MemoryDriver
from support.tally import tried

__all__ = ["tried"]

SOAK = int(os.environ.get("HOSTEL_SOAK", "1"))
SUBJECTS = PLAIN | ENCRYPTED


@pytest.fixture(autouse=True)
def passphrases() -> Iterator[None]:
    """Those of encrypted images, and what makes them quick."""
    with many_volumes():
        yield


def base(subject: Subject, seed: int) -> FormatWorkload:
    """An image with data, over a backing image where the seed is odd; closed."""
    rng = random.Random(f"base {seed}")
    options = subject.options(rng)
    workload = FormatWorkload(
        subject if seed % 2 else subject._replace(backing=False),
        rng,
        options=options,
        size=150 * subject.cluster_size(options),
        aligned=True,
    )
    for name in ("write", "compress", "zero", "write", "unmap", "compress", "write"):
        if name in workload.operations():
            getattr(workload, name)()
    workload.node.close()
    return workload


def judge(workload: FormatWorkload, data: bytes | bytearray, versions: list[Version]) -> None:
    """What a fault left on the disk opens and is one of the versions, or between them."""
    driver = MemoryDriver(workload.subject.mended(data))
    with workload.subject.attach(driver, backing=workload.original_backing) as node:
        judge_content(bytes(node.read(0, node.length)), versions)
    result, lines, _ = workload.subject.check(driver.data)
    assert (result.corruptions, result.check_errors) == (0, 0), lines


@pytest.mark.parametrize("seed", range(3 * SOAK))
@pytest.mark.parametrize("name", ("write", "zero", "unmap", "discard", "compress", "reopen", "grow", "rebase", "empty"))
@pytest.mark.parametrize("format", SUBJECTS)
def test_a_fault_is_reported_and_harms_nothing(format: str, name: str, seed: int, tried: Counter[str]) -> None:
    workload = base(SUBJECTS[format], seed)
    data = bytes(workload.driver.data)

    def fork() -> FormatWorkload:
        return workload.fork(FaultyDriver(data), random.Random(f"{name} {seed}"))

    sound = fork()
    if name not in sound.operations():
        sound.node.close()
        pytest.skip(f"{format} images have no such operation")
    before = version(sound)
    assert isinstance(sound.driver, FaultyDriver)
    sound.driver.arm()
    perform(sound, name)
    after = version(sound)
    calls = list(sound.driver.calls)
    sound.node.close()
    for fault in faults(calls):
        tried["faults"] += 1
        failing = fork()
        driver = failing.driver
        assert isinstance(driver, FaultyDriver)
        driver.arm(fault.at, fault.code, short=fault.short)
        try:
            versions = [before, after]
            try:
                perform(failing, name)
            except OSError:
                assert driver.fired
            else:
                # Giving space back to the host may fail: nothing depends on it.
                assert calls[fault.at] is Kind.DISCARD, "the error was swallowed"
                versions = [after]
            judge(workload, driver.data, versions)
            driver.arm()
            go_on(failing, name, versions, f"{name} {seed}")
        except BaseException as error:
            error.add_note(f"{fault} is a {calls[fault.at]} of {len(calls)}: {[each.value for each in calls]}")
            raise


def go_on(workload: FormatWorkload, name: str, versions: list[Version], seed: str) -> None:
    """The same operation, on the image as it is open, works now, unless a sync has failed for good."""
    workload.open_again()
    workload.content = bytearray(workload.node.read(0, workload.node.length))
    judge_content(bytes(workload.content), versions)
    workload.rng = random.Random(seed)
    try:
        perform(workload, name)
        workload.verify()
        workload.node.close()
    except OSError as error:
        # A sync that failed fails ever after; and where nobody knows what the disk has, nothing is written.
        assert "injected" in str(error) or "is not written any more" in str(error)
        judge(workload, workload.driver.data, [*versions, version(workload)])
        return
    judge(workload, workload.driver.data, [version(workload)])
    result, lines, _ = workload.subject.check(workload.driver.data)
    assert not result.leaks, lines


@pytest.mark.parametrize("format", SUBJECTS)
def test_a_fault_while_creating_is_reported(format: str) -> None:
    subject = SUBJECTS[format]
    options = subject.options(random.Random("creation"))
    let_creation_fail(subject, 100 * subject.cluster_size(options), options)

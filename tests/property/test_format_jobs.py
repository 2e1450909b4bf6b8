"""Commits, rebases and copies with images of all formats: cut off at any write, and with a fault at any call.

``HOSTEL_SOAK=20`` tries twenty times as many.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import pytest

from hostel.block.jobs.backup import BackupJob
from hostel.block.jobs.job import Job
from hostel.block.jobs.mirror import ActiveCommitJob, MirrorJob
from hostel.block.node import BlockNode
from hostel.block.options import Value
from hostel.errors import InvalidImage
from hostel.img import commit, convert, rebase
from support import block_subjects, format_subjects, jobs, qcow2, vmdk
from support.crash import crash_states, sample
from support.crash_disks import Disks, disk_states
from support.fault import every_fault
from support.format_workload import Subject
from support.guest_io import SECTOR, noise
from support.luks import many_volumes
from support.memory import Kind, LoggedDriver, MemoryDriver
from support.tally import tried

__all__ = ["tried"]

SOAK = int(os.environ.get("HOSTEL_SOAK", "1"))
SUBJECTS: Final[dict[str, Subject]] = {
    **format_subjects.SUBJECTS,
    **format_subjects.ENCRYPTED,
    **block_subjects.SUBJECTS,
}
# Images of VHDX have 10 MiB at least.
FEW: Final = {"vhdx": 8}
MANY: Final = 40


@pytest.fixture(autouse=True)
def passphrases() -> Iterator[None]:
    """Those of encrypted images, and what makes them quick."""
    with many_volumes():
        yield


def made(format: str, rng: random.Random, *, size: int = 0, **more: Value) -> bytes:
    """An image with something in it."""
    subject = SUBJECTS[format]
    options = subject.options(rng) | more
    driver = MemoryDriver(subject.create(size or disk_size(format), options))
    with subject.attach(driver) as node:
        scribble(rng, node)
    return bytes(driver.data)


def disk_size(format: str) -> int:
    """Bytes of a disk that is small for the format."""
    return {"vhdx": 1 << 20, "vmdk": 6 << 16}.get(format, 80 * SECTOR)


def scribble(rng: random.Random, node: BlockNode) -> None:
    """Write here and there."""
    for _ in range(5):
        at = rng.randrange(node.length // SECTOR) * SECTOR
        length = min(rng.choice((SECTOR, 8 * SECTOR, 20 * SECTOR)), node.length - at)
        if rng.random() < 0.7:
            node.pwrite(at, noise(rng, length))
        else:
            node.write_zeroes(at, length, unmap=rng.random() < 0.5)


def readable(format: str, data: bytes) -> bytes:
    """The image with what its format does before it is used again after a crash."""
    if format == "qcow2":
        return data
    return block_subjects.replayed(format, data) if format == "vhdx" else SUBJECTS[format].mended(data)


# ---- commit


def attached(format: str, driver: MemoryDriver, *, read_only: bool = False) -> BlockNode:
    """Open an image."""
    if format == "qcow2":
        return qcow2.attach(driver, read_only=read_only)
    return SUBJECTS[format].attach(driver, read_only=read_only)


def stacked(pair: tuple[str, str], drivers: Sequence[MemoryDriver], *, read_only: bool = False) -> BlockNode:
    """An overlay on its base, each of its format, both open for writing."""
    node, base = (attached(each, driver, read_only=read_only) for each, driver in zip(pair, drivers, strict=True))
    node.driver.children["backing"] = base
    return node


def new_overlay(format: str, rng: random.Random, base: BlockNode) -> bytes:
    """An empty overlay."""
    options: dict[str, Value] = {"backing_file": "base"}
    if format == "vmdk":
        return vmdk.create(base.length, options, around=vmdk.Files(base))
    if format == "qcow2":
        return qcow2.create(base.length, options | {"cluster_size": rng.choice((512, 4096)), "backing_fmt": "raw"})
    return SUBJECTS[format].create(base.length, SUBJECTS[format].options(rng) | options)


def overlaid(pair: tuple[str, str], rng: random.Random) -> tuple[tuple[bytes, bytes], bytes]:
    """An overlay and its base; and what the guest reads of them."""
    base = made(pair[1], rng)
    with attached(pair[1], MemoryDriver(base), read_only=True) as node:
        drivers = [MemoryDriver(new_overlay(pair[0], rng, node)), MemoryDriver(base)]
    with stacked(pair, drivers) as node:
        scribble(rng, node)
        content = bytes(node.read(0, node.length))
    return (bytes(drivers[0].data), bytes(drivers[1].data)), content


def commit_all(node: BlockNode) -> None:
    """Commit an overlay into its base."""
    commit.commit(node, 1)


def commit_actively(node: BlockNode) -> None:
    """Commit an overlay into its base, which takes its place."""
    base = node.backing
    assert base is not None
    job = ActiveCommitJob(jobs.settings(), node, base)
    jobs.run(job)
    assert job.error is None


def judge_commit(
    pair: tuple[str, str],
    disks: Sequence[bytes | bytearray],
    content: bytes,
    again: Callable[[BlockNode], None] = commit_all,
) -> None:
    """The guest reads what it read, and the commit can be done again, whole; both images are sound."""
    over, base = (MemoryDriver(readable(each, bytes(data))) for each, data in zip(pair, disks, strict=True))
    with stacked(pair, [over, base]) as node:
        judge_content(pair, node, content)
        again(node)
        judge_content(pair, node, content)
    with attached(pair[1], base, read_only=True) as node:
        assert node.read(0, node.length) == content
    for format, driver in zip(pair, (over, base), strict=True):
        check = qcow2.check if format == "qcow2" else SUBJECTS[format].check
        result, lines, _ = check(driver.data)
        assert (result.corruptions, result.check_errors) == (0, 0), lines


def judge_content(pair: tuple[str, str], node: BlockNode, content: bytes) -> None:
    """The guest reads what it read; but VMware's overlay may say that its parent has changed, as it has."""
    try:
        assert node.read(0, node.length) == content
    except InvalidImage as error:
        assert pair == ("vmdk", "vmdk")
        assert "has changed" in (error.hint or "")


PAIRS: Final = [("qcow2", each) for each in SUBJECTS] + [(each, each) for each in ("qed", "qcow", "vmdk")]


@pytest.mark.parametrize("seed", range(SOAK))
@pytest.mark.parametrize("pair", PAIRS, ids=" on ".join)
def test_a_commit_that_is_cut_off_changes_nothing_that_the_guest_reads(
    pair: tuple[str, str], seed: int, tried: Counter[str]
) -> None:
    rng = random.Random(f"commit {pair} {seed}")
    initial, content = overlaid(pair, rng)
    disks = Disks(*initial)
    with stacked(pair, disks.drivers) as node:
        commit.commit(node, 1)
    for state in sample(disk_states(disks, rng, samples=2), rng, FEW.get(pair[1], MANY)):
        tried["disks after power cuts"] += 1
        judge_commit(pair, state.disks, content)


@pytest.mark.parametrize("seed", range(SOAK))
@pytest.mark.parametrize("pair", PAIRS, ids=" on ".join)
def test_a_fault_while_committing_is_reported_and_loses_nothing(
    pair: tuple[str, str], seed: int, tried: Counter[str]
) -> None:
    rng = random.Random(f"faults {pair} {seed}")
    disks, content = overlaid(pair, rng)

    def run(drivers: Sequence[MemoryDriver]) -> None:
        with stacked(pair, drivers) as node:
            commit.commit(node, 1)

    for victim, fault, failing in sample(every_fault(disks, run), rng, FEW.get(pair[1], MANY)):
        tried["faults"] += 1
        with pytest.raises(OSError, match=r"injected|[Ff]ail|Unable to read|rror|No space"):
            run(failing)
        try:
            judge_commit(pair, [each.data for each in failing], content)
        except BaseException as error:
            error.add_note(f"{fault} in disk {victim}")
            raise


# ---- rebase


@pytest.mark.parametrize("seed", range(3 * SOAK))
def test_a_rebase_of_qed_that_is_cut_off_changes_nothing_that_the_guest_reads(seed: int, tried: Counter[str]) -> None:
    rng, subject = random.Random(f"rebase {seed}"), SUBJECTS["qed"]
    size = disk_size("qed")
    bases = {"old": noise(rng, size), "new": noise(rng, size // 2)}
    bases["new"] = bases["old"][: size // 4] + bases["new"]
    initial = made_overlay(rng, bases["old"])
    with subject.attach(MemoryDriver(initial), backing=bases["old"]) as node:
        content = bytes(node.read(0, node.length))

    def run(drivers: Sequence[MemoryDriver]) -> None:
        with subject.attach(drivers[0], backing=bases["old"]) as node:
            rebase.rebase(node, qcow2.disk(bases["new"]))
            rebase.change_backing(node, "new", "raw")

    def judge(data: bytes | bytearray) -> None:
        driver = MemoryDriver(subject.mended(data))
        with subject.attach(driver) as node:
            node.driver.children["backing"] = qcow2.disk(bases[node.driver.references()[0].filename])
            assert node.read(0, node.length) == content
        result, lines, _ = subject.check(driver.data)
        assert (result.corruptions, result.check_errors) == (0, 0), lines

    driver = LoggedDriver(initial)
    run([driver])
    for state in sample(crash_states(initial, driver.log, rng, samples=4), rng, MANY):
        tried["disks after power cuts"] += 1
        judge(state.data)
    for _, _, failing in sample(every_fault([initial], run), rng, MANY):
        tried["faults"] += 1
        with pytest.raises(OSError, match=r"injected|[Ff]ail|Unable to read|rror|ould not"):
            run(failing)
        judge(failing[0].data)


def made_overlay(rng: random.Random, below: bytes) -> bytes:
    """An overlay of qed with something in it."""
    subject = SUBJECTS["qed"]
    options = subject.options(rng) | {"backing_file": "old", "backing_fmt": "raw"}
    driver = MemoryDriver(subject.create(len(below), options))
    with subject.attach(driver, backing=below) as node:
        scribble(rng, node)
    return bytes(driver.data)


# ---- convert


def settled(before: bytes, driver: LoggedDriver, rng: random.Random) -> Iterator[bytes]:
    """What a power cut leaves of a file that all is done with; after its last sync it may be called closed, no more."""
    synced = 1 + max(at for at, each in enumerate(driver.log) if each.kind is Kind.FLUSH)
    disk = MemoryDriver(before)
    for entry in driver.log[:synced]:
        entry.apply(disk)
    yield from (each.data for each in crash_states(bytes(disk.data), driver.log[synced:], rng))


@pytest.mark.parametrize("seed", range(SOAK))
@pytest.mark.parametrize("format", SUBJECTS)
def test_a_copy_is_on_the_disk_when_it_is_done_and_a_fault_is_reported(
    format: str, seed: int, tried: Counter[str]
) -> None:
    rng, subject = random.Random(f"convert {format} {seed}"), SUBJECTS[format]
    content = noise(rng, disk_size(format) // 2) + bytes(disk_size(format) // 4)
    content += noise(rng, disk_size(format) - len(content))
    target = subject.create(len(content), subject.options(rng))

    def run(drivers: Sequence[MemoryDriver]) -> None:
        convert.convert_into([qcow2.disk(content)], subject.attach(drivers[0]))

    driver = LoggedDriver(target)
    run([driver])
    for data in settled(target, driver, rng):
        tried["disks after power cuts"] += 1
        with subject.attach(MemoryDriver(data), read_only=True) as node:
            assert node.read(0, len(content)) == content
    for _, fault, failing in sample(every_fault([target], run), rng, FEW.get(format, MANY)):
        tried["faults"] += 1
        try:
            run(failing)
        except OSError:
            continue
        pytest.fail(f"{fault} was swallowed")


# ---- block jobs


@pytest.mark.parametrize("seed", range(SOAK))
@pytest.mark.parametrize("pair", PAIRS, ids=" on ".join)
def test_an_active_commit_that_is_cut_off_changes_nothing_that_the_guest_reads(
    pair: tuple[str, str], seed: int, tried: Counter[str]
) -> None:
    rng = random.Random(f"active commit {pair} {seed}")
    initial, content = overlaid(pair, rng)
    disks = Disks(*initial)
    with stacked(pair, disks.drivers) as node:
        commit_actively(node)
        assert node.read(0, node.length) == content
    for state in sample(disk_states(disks, rng, samples=2), rng, FEW.get(pair[1], MANY) // 2):
        tried["disks after power cuts"] += 1
        judge_commit(pair, state.disks, content, commit_actively)


KINDS: Final[dict[str, Callable[[BlockNode, BlockNode], Job]]] = {
    "mirror": lambda source, target: MirrorJob(jobs.settings(), source, target),
    "backup": lambda source, target: BackupJob(jobs.settings(), source, target),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("format", SUBJECTS)
def test_what_a_job_has_copied_is_on_the_disk_once_the_target_is_closed(
    format: str, kind: str, tried: Counter[str]
) -> None:
    rng, subject = random.Random(f"{kind} {format}"), SUBJECTS[format]
    content = noise(rng, disk_size(format))
    source = MemoryDriver(qcow2.create(len(content), {"cluster_size": 4096}))
    empty = subject.create(len(content), subject.options(rng))
    driver = LoggedDriver(empty)
    with qcow2.attach(source) as node:
        node.pwrite(0, content)
        target = subject.attach(driver)
        job = KINDS[kind](node, target)
        jobs.run(job)
        assert job.error is None
    target.close()
    for data in settled(empty, driver, rng):
        tried["disks after power cuts"] += 1
        with subject.attach(MemoryDriver(data), read_only=True) as node:
            assert node.read(0, len(content)) == content

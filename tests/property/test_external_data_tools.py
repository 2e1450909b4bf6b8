"""A fault at each single call while images with external data files are committed, rebased, copied to and repaired.

Four files are written by a commit: an overlay, its base, and what both have their data in.
"""

from __future__ import annotations

import os
import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence

import pytest

from hostel.block import notice
from hostel.block.jobs.backup import BackupJob
from hostel.block.jobs.mirror import ActiveCommitJob, MirrorJob
from hostel.block.jobs.stream import StreamJob
from hostel.block.node import BlockNode
from hostel.block.options import Value
from hostel.block.powers import Preallocation, Repair
from hostel.img import commit, convert, rebase
from support import jobs, qcow2
from support.crash import sample
from support.crash_disks import Disks, disk_states
from support.external_data import open_external
from support.fault import every_fault
from support.guest_io import SECTOR, noise
from support.luks import many_volumes
from support.memory import FaultyDriver, MemoryDriver, memory_node
from support.tally import tried

__all__ = ["tried"]

SOAK = int(os.environ.get("HOSTEL_SOAK", "1"))
MANY = 60 * SOAK
SIZE = 60 * 512
DATA: dict[str, Value] = {"data_file": "data"}
RAW: dict[str, Value] = DATA | {"data_file_raw": True}
LUKS: dict[str, Value] = {"encrypt.format": "luks", "encrypt.key-secret": "first", "encrypt.iter-time": 1}
OVERLAYS: list[dict[str, Value]] = [
    DATA | {"cluster_size": 512},
    DATA | {"cluster_size": 4096, "lazy_refcounts": True},
    DATA | {"cluster_size": 16384, "extended_l2": True},
    DATA | {"cluster_size": 4096} | LUKS,
]
BASES: list[dict[str, Value]] = [
    DATA | {"cluster_size": 4096},
    RAW | {"cluster_size": 512},
    RAW | {"cluster_size": 4096, "lazy_refcounts": True},
    DATA | {"cluster_size": 512} | LUKS,
]


@pytest.fixture(autouse=True)
def passphrases() -> Iterator[None]:
    """Those of encrypted images."""
    with many_volumes():
        yield


def new(options: dict[str, Value]) -> tuple[bytes, bytes]:
    """An empty image and its data file."""
    image, data = MemoryDriver(qcow2.create(SIZE, options)), MemoryDriver()
    with open_external(image, data) as node:
        node.resize(SIZE)
    return bytes(image.data), bytes(data.data)


def written(options: dict[str, Value], rng: random.Random) -> tuple[bytes, bytes]:
    """An image with something in it, and its data file."""
    image, data = map(MemoryDriver, new(options))
    with open_external(image, data) as node:
        for _ in range(6):
            at = rng.randrange(SIZE // SECTOR) * SECTOR
            length = min(3 * SECTOR, SIZE - at)
            if rng.random() < 0.7:
                node.pwrite(at, noise(rng, length))
            else:
                node.write_zeroes(at, length, unmap=rng.random() < 0.5)
    return bytes(image.data), bytes(data.data)


def stacked(disks: Sequence[MemoryDriver]) -> BlockNode:
    """An overlay on its base, each with its data file, both open for writing."""
    node = open_external(disks[0], disks[1])
    node.driver.children["backing"] = open_external(disks[2], disks[3])
    return node


def sound(driver: MemoryDriver) -> None:
    """The image has no corruptions."""
    result, lines, _ = qcow2.check(driver.data)
    assert qcow2.faults(result) == (0, 0), lines


def commit_actively(node: BlockNode) -> None:
    """Commit an overlay into its base, which takes its place."""
    assert node.backing is not None
    job = ActiveCommitJob(jobs.settings(), node, node.backing)
    jobs.run(job)
    if job.error is not None:
        raise OSError(job.error)


def commit_all(node: BlockNode) -> None:
    """Commit an overlay into its base, and empty it."""
    commit.commit(node, 1)


def stream(node: BlockNode) -> None:
    """Copy what an overlay reads from its base into it."""
    job = StreamJob(jobs.settings(), node)
    jobs.run(job)
    if job.error is not None:
        raise OSError(job.error)


WAYS = {"commit": commit_all, "active commit": commit_actively, "stream": stream}
PAIRS = list(zip(OVERLAYS, BASES, strict=True))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_a_fault_at_any_of_four_files_loses_nothing(
    pair: tuple[dict[str, Value], dict[str, Value]], way: str, tried: Counter[str]
) -> None:
    rng = random.Random(f"{way} {pair}")
    disks = [*written(pair[0] | {"backing_file": "base"}, rng), *written(pair[1], rng)]
    with stacked([MemoryDriver(each) for each in disks]) as node:
        content = bytes(node.read(0, SIZE))

    def run(drivers: Sequence[MemoryDriver]) -> None:
        with stacked(drivers) as node:
            WAYS[way](node)

    def judge(files: Sequence[bytes | bytearray]) -> None:
        after = [MemoryDriver(each) for each in files]
        with stacked(after) as node:
            assert node.read(0, SIZE) == content
            WAYS[way](node)
            assert node.read(0, SIZE) == content
        sound(after[0])
        sound(after[2])

    for victim, fault, failing in sample(every_fault(disks, run), rng, MANY):
        tried["faults"] += 1
        try:
            with pytest.raises(OSError, match=r"injected|fail|rror|No space"):
                run(failing)
            assert failing[victim].fired
            judge([each.data for each in failing])
        except BaseException as error:
            error.add_note(f"{fault} in file {victim}, a {failing[victim].calls[fault.at]}")
            raise
    logged = Disks(*disks)
    run(logged.drivers)
    for state in sample(disk_states(logged, rng), rng, MANY):
        tried["disks after power cuts"] += 1
        judge(state.disks)


@pytest.mark.parametrize("options", OVERLAYS, ids=str)
def test_a_fault_while_rebasing_loses_nothing(options: dict[str, Value], tried: Counter[str]) -> None:
    rng = random.Random(f"rebase {options}")
    bases = {"old": noise(rng, SIZE), "new": noise(rng, SIZE // 2)}
    bases["new"] = bases["old"][: SIZE // 4] + bases["new"]
    disks = written(options | {"backing_file": "old", "backing_fmt": "raw"}, rng)
    with open_external(*map(MemoryDriver, disks), backing=bases["old"]) as node:
        content = bytes(node.read(0, SIZE))

    def run(drivers: list[FaultyDriver]) -> None:
        with open_external(*drivers, backing=bases["old"]) as node:
            rebase.rebase(node, qcow2.disk(bases["new"]))
            rebase.change_backing(node, "new", "raw")

    for victim, fault, failing in sample(every_fault(disks, run), rng, MANY):
        tried["faults"] += 1
        with pytest.raises(OSError, match=r"injected|fail|rror|ould not"):
            run(failing)
        after = [MemoryDriver(each.data) for each in failing]
        with open_external(*after) as node:
            named = next(each.filename for each in node.driver.references() if each.child == "backing")
            node.driver.children["backing"] = qcow2.disk(bases[named])
            assert node.read(0, SIZE) == content, (victim, fault)
        sound(after[0])


COPIES = {
    "convert": lambda content, target: convert.convert_into([qcow2.disk(content)], target),
    "mirror": lambda content, target: _run(MirrorJob(jobs.settings(), qcow2.disk(content), target), target),
    "backup": lambda content, target: _run(BackupJob(jobs.settings(), qcow2.disk(content), target), target),
}


def _run(job: MirrorJob | BackupJob, target: BlockNode) -> None:
    jobs.run(job)
    if job.error is not None:
        raise OSError(job.error)
    target.close()


@pytest.mark.parametrize("way", COPIES)
@pytest.mark.parametrize("options", BASES, ids=str)
def test_a_fault_while_copying_to_an_image_is_reported(
    options: dict[str, Value], way: str, tried: Counter[str]
) -> None:
    rng = random.Random(f"{way} {options}")
    content = noise(rng, SIZE // 2) + bytes(SIZE // 4) + noise(rng, SIZE // 4)
    disks = new(options)

    def run(drivers: list[FaultyDriver]) -> None:
        COPIES[way](content, open_external(*drivers))

    for victim, fault, failing in sample(every_fault(disks, run), rng, MANY // 2):
        tried["faults"] += 1
        told: list[str] = []
        with notice.listening(told.append):
            try:
                run(failing)
            except OSError as error:
                told.append(str(error))
            else:  # only what comes after the copy is told and no more
                with open_external(*(MemoryDriver(each.data) for each in failing), read_only=True) as node:
                    assert node.read(0, SIZE) == content, (victim, fault)
        assert any(re.search(r"injected|fail|rror|No space", each) for each in told), (victim, fault)
        again = [MemoryDriver(each.data) for each in failing]
        sound(again[0])
        COPIES["convert"](content, open_external(*again))
        with open_external(*again, read_only=True) as node:
            assert node.read(0, SIZE) == content, (victim, fault)
        sound(again[0])


@pytest.mark.parametrize("mode", Preallocation)
@pytest.mark.parametrize("options", [OVERLAYS[0], OVERLAYS[3], RAW | {"cluster_size": 512}], ids=str)
def test_a_fault_while_a_new_image_gets_its_size_is_reported(
    options: dict[str, Value], mode: Preallocation, tried: Counter[str]
) -> None:
    disks = qcow2.create(SIZE, options | {"preallocation": mode.value}), b""

    def run(drivers: list[FaultyDriver]) -> None:
        with open_external(*drivers) as node:
            node.resize(SIZE, mode)

    for victim, fault, failing in every_fault(disks, run):
        tried["faults"] += 1
        with pytest.raises(OSError, match=r"injected|fail|rror|ould not"):
            run(failing)
        again = [MemoryDriver(each.data) for each in failing]
        sound(again[0])
        run(again)  # type: ignore[arg-type]
        sound(again[0])
        with open_external(*again, read_only=True) as node:
            assert node.read(0, SIZE) == bytes(SIZE), (victim, fault)


@pytest.mark.parametrize("damage", ["leak", "copied flag"])
@pytest.mark.parametrize("options", OVERLAYS[:3], ids=str)
def test_a_fault_while_repairing_leaves_an_image_that_can_be_repaired(
    options: dict[str, Value], damage: str, tried: Counter[str]
) -> None:
    disks = written(options, random.Random(f"repair {options}"))
    with open_external(*map(MemoryDriver, disks), read_only=True) as node:
        content = bytes(node.read(0, SIZE))
    image, header = bytearray(disks[0]), qcow2.header(disks[0])
    if damage == "leak":
        image += bytes(8 << header.cluster_bits)
        table = header.refcount_table_offset
        block = int.from_bytes(image[table : table + 8], "big")
        image[block + 2 * (len(disks[0]) // (1 << header.cluster_bits) + 2) + 1] = 1
    else:
        image[header.l1_table_offset] ^= 0x80

    def run(drivers: list[FaultyDriver]) -> None:
        node = qcow2.attach(drivers[0], check=True)
        node.driver.children["data-file"] = memory_node(drivers[1])
        with node:
            result = qcow2.driver_of(node).check(Repair.ALL, lambda line: None)
        if result.check_errors:  # what could not be read was counted, and the rest gone on with
            raise OSError("an error was counted")

    for _, fault, failing in every_fault((bytes(image), disks[1]), run):
        tried["faults"] += 1
        with pytest.raises(OSError, match=r"injected|fail|rror"):
            run(failing)
        result, lines, repaired = qcow2.check(failing[0].data, Repair.ALL)
        assert (result.leaks, *qcow2.faults(result)) == (0, 0, 0), (fault, lines)
        assert failing[1].data == disks[1]
        with open_external(MemoryDriver(repaired), MemoryDriver(disks[1])) as node:
            assert node.read(0, SIZE) == content, fault

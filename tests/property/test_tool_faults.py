"""A fault at each single call to either file while images are committed, rebased and repaired: nothing is lost."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from hostel.block.node import BlockNode
from hostel.block.options import Value
from hostel.block.powers import Repair
from hostel.img import commit, rebase
from support import qcow2
from support.crash import Recording
from support.fault import every_fault
from support.guest_io import SECTOR, noise
from support.memory import FaultyDriver, LoggedDriver, MemoryDriver
from support.qcow2_workload import Workload, snapshot_content
from support.tally import tried

__all__ = ["tried"]

SIZE = 60 * 512
OPTIONS: list[dict[str, Value]] = [
    {"cluster_size": 512},
    {"cluster_size": 4096, "lazy_refcounts": True},
    {"cluster_size": 1024, "compat": "0.10"},
]


def written(options: dict[str, Value], rng: random.Random) -> bytes:
    """An image with something in it."""
    driver = MemoryDriver(qcow2.create(SIZE, options))
    with qcow2.attach(driver) as node:
        for _ in range(6):
            at = rng.randrange(SIZE // SECTOR) * SECTOR
            node.pwrite(at, noise(rng, min(3 * SECTOR, SIZE - at)))
    return bytes(driver.data)


def sound(driver: MemoryDriver) -> int:
    """The image has no corruptions; returns its leaks."""
    result, lines, _ = qcow2.check(driver.data)
    assert qcow2.faults(result) == (0, 0), lines
    return result.leaks


def stacked(overlay: MemoryDriver, base: MemoryDriver) -> BlockNode:
    node = qcow2.attach(overlay)
    node.driver.children["backing"] = qcow2.attach(base)
    return node


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_fault_while_committing_is_reported_and_loses_nothing(options: dict[str, Value], tried: Counter[str]) -> None:
    rng = random.Random(f"commit {options}")
    disks = written(options | {"backing_file": "base"}, rng), written(options, rng)
    with stacked(*map(MemoryDriver, disks)) as node:
        content = bytes(node.read(0, SIZE))

    def run(drivers: list[FaultyDriver]) -> None:
        with stacked(*drivers) as node:
            commit.commit(node, 1)

    for victim, fault, drivers in every_fault(disks, run):
        tried["faults"] += 1
        with pytest.raises(OSError, match=r"injected|fail|error|No space|Input/output"):
            run(drivers)
        assert drivers[victim].fired, fault
        after = [MemoryDriver(each.data) for each in drivers]
        with stacked(*after) as node:
            assert node.read(0, SIZE) == content, fault
            commit.commit(node, 1)
            assert node.read(0, SIZE) == content, fault
        for driver in after:
            sound(driver)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_fault_while_rebasing_is_reported_and_loses_nothing(options: dict[str, Value], tried: Counter[str]) -> None:
    rng = random.Random(f"rebase {options}")
    bases = {"old": noise(rng, SIZE), "new": noise(rng, SIZE // 2)}
    bases["new"] = bases["old"][: SIZE // 4] + bases["new"]
    overlay = written(options | {"backing_file": "old", "backing_fmt": "raw"}, rng)
    with qcow2.attach(MemoryDriver(overlay), backing=bases["old"]) as node:
        content = bytes(node.read(0, SIZE))

    def run(drivers: list[FaultyDriver]) -> None:
        with qcow2.attach(drivers[0], backing=bases["old"]) as node:
            rebase.rebase(node, qcow2.disk(bases["new"]))
            rebase.change_backing(node, "new", "raw")

    for _, fault, drivers in every_fault((overlay,), run):
        tried["faults"] += 1
        with pytest.raises(OSError, match=r"injected|fail|rror|ould not"):
            run(drivers)
        after = MemoryDriver(drivers[0].data)
        with qcow2.attach(after) as node:
            named = node.driver.references()[0].filename
            node.driver.children["backing"] = qcow2.disk(bases[named])
            assert node.read(0, SIZE) == content, fault
        sound(after)


@pytest.mark.parametrize("repair", [Repair.LEAKS, Repair.ALL])
@pytest.mark.parametrize("damage", ["leak", "refcount", "refcount table", "copied flag"])
def test_a_fault_while_repairing_leaves_an_image_that_can_be_repaired(
    damage: str, repair: Repair, tried: Counter[str]
) -> None:
    workload = damaged(damage)
    data = bytes(workload.driver.data)

    def run(drivers: list[FaultyDriver]) -> None:
        with qcow2.attach(drivers[0], check=True) as node:
            result = node.driver.check(repair, lambda line: None)  # type: ignore[attr-defined]
        if result.check_errors:  # what could not be read was counted, and the rest gone on with
            raise OSError("counted")

    if damage.startswith("refcount") and repair is Repair.LEAKS:
        # That needs more than freeing clusters, and says so.
        with pytest.raises(OSError, match="need to be rebuilt"):
            run([FaultyDriver(data)])
        return
    for _, fault, drivers in every_fault((data,), run):
        tried["faults"] += 1
        try:
            run(drivers)
        except OSError:
            pass
        else:
            pytest.fail(f"{fault} was swallowed")
        result, lines, repaired = qcow2.check(drivers[0].data, Repair.ALL)
        assert (result.leaks, *qcow2.faults(result)) == (0, 0, 0), (fault, lines)
        with qcow2.attach(MemoryDriver(repaired), backing=workload.backing, read_only=True) as node:
            assert node.read(0, node.length) == workload.content
            assert {each.id for each in node.driver.snapshots()} == workload.snapshots.keys()  # type: ignore[attr-defined]
        for id, content in workload.snapshots.items():
            assert snapshot_content(repaired, id, workload.backing) == content


def damaged(damage: str) -> Workload:
    """A closed image with two snapshots, damaged."""
    options: dict[str, Value] = {"cluster_size": 512}
    workload = Workload(random.Random("repair"), LoggedDriver, options=options, size=SIZE, aligned=True)
    recording = Recording(workload)
    for name in ("write", "create_snapshot", "write", "zero", "create_snapshot", "write"):
        recording.step(name)
    workload.node.close()
    data, header = workload.driver.data, qcow2.header(workload.driver.data)
    block = int.from_bytes(data[header.refcount_table_offset : header.refcount_table_offset + 8], "big")
    if damage == "leak":
        free = next(at for at in range(20, 256) if not any(data[block + at * 2 : block + at * 2 + 2]))
        data[block + free * 2 + 1] = 1
    elif damage == "refcount":
        data[block + 2 * 2 + 1] = 3
        data[block + 4 * 2 : block + 6 * 2] = bytes(4)
    elif damage == "refcount table":
        data[header.refcount_table_offset : header.refcount_table_offset + 8] = (12345).to_bytes(8, "big")
    else:
        l2 = int.from_bytes(data[header.l1_table_offset : header.l1_table_offset + 8], "big")
        data[header.l1_table_offset] = l2 >> 56 ^ 0x80
    return workload

"""A fault at each single call to the file, in each operation: reported, nothing lost, no leak, and life goes on.

An interruption at any line of our own code is as a kill: the image lies as it did then, also once it is closed.
"""

from __future__ import annotations

import contextlib
import hashlib
import operator
import os
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import pytest

import hostel
from hostel.block.formats.qcow2.driver import Qcow2Driver
from hostel.block.formats.qcow2.layout import Incompatible
from hostel.block.node import BlockNode
from hostel.block.options import Value
from hostel.block.powers import Preallocation
from hostel.errors import BlockError
from support import qcow2
from support.crash import Recording, Version, judge_bitmaps, judge_content, judge_snapshots, opened
from support.crash import judge as judge_crash
from support.fault import Fault, faults
from support.luks import many_volumes
from support.memory import FaultyDriver, Kind, MemoryDriver, memory_node
from support.qcow2_operations import perform, version_of
from support.qcow2_workload import Workload
from support.tally import tried

__all__ = ["tried"]

FORMATS = str(Path(hostel.__file__).parent / "block/formats")
SOAK = int(os.environ.get("HOSTEL_SOAK", "1"))
IMAGES: dict[str, dict[str, Value]] = {
    "small clusters": {"cluster_size": 512, "refcount_bits": 64},
    "lazy": {"cluster_size": 512, "refcount_bits": 16, "lazy_refcounts": True},
    "version 2": {"cluster_size": 1024, "compat": "0.10"},
    "subclusters": {"cluster_size": 16384, "extended_l2": True, "compression_type": "zstd"},
    "encrypted": {"cluster_size": 512, "refcount_bits": 16, "encrypt.format": "aes", "encrypt.key-secret": "first"},
}
OPERATIONS = (
    "write",
    "zero",
    "unmap",
    "discard",
    "compress",
    "reopen",
    "grow",
    "shrink",
    "create_snapshot",
    "apply_snapshot",
    "delete_snapshot",
    "rebase",
    "add_bitmap",
    "clear_bitmap",
    "remove_bitmap",
    "merge_bitmap",
    "amend to 1.1",
    "amend to 0.10",
    "amend to lazy refcounts",
    "amend to 32 bits",
)
# What writes what the guest has written anew, or in another place.
ENCRYPTING = ("write", "zero", "grow", "create_snapshot", "apply_snapshot", "delete_snapshot", "amend to 0.10")
COMBINATIONS = [
    (image, name)
    for image in IMAGES
    for name in (OPERATIONS if image != "encrypted" else ENCRYPTING)
    if image != "version 2" or not name.endswith("bitmap")
]


# By the digest of what lay on the disk: what it was held against, and the leaks. Most faults leave one of a few images.
_judged: dict[bytes, tuple[list[Version], int]] = {}


@pytest.fixture(autouse=True)
def nothing_judged() -> Iterator[None]:
    """What was found in the images of one test says nothing about those of another."""
    yield
    _judged.clear()


@pytest.fixture(autouse=True)
def passphrases() -> Iterator[None]:
    """Those of the encrypted images."""
    with many_volumes():
        yield


def base(options: dict[str, Value], seed: int, *, resizable: bool, bitmaps: bool = False) -> Workload:
    """An image with data, compressed clusters, zero clusters and snapshots, closed.

    Version 2 has no snapshots where it must be ``resizable``; others have two bitmaps where there shall be ``bitmaps``.
    """
    rng = random.Random(f"base {seed}")
    cluster_size = int(options["cluster_size"])
    # Of small clusters as many as more than two tables map; with subclusters they are large, and more say no more.
    clusters = 40 if options.get("extended_l2") else 150
    workload = Workload(rng, options=options, size=clusters * cluster_size, aligned=True)
    for name in ("write", "compress", "write", "create_snapshot", "write", "zero", "discard", "compress", "write"):
        if name == "compress" and name not in workload.operations():
            continue
        if name != "create_snapshot" or workload.version > 2 or not resizable:
            getattr(workload, name)()
    if workload.version > 2:
        workload.create_snapshot()
        for _ in range(2 * bitmaps):
            workload.add_bitmap()
            workload.write()
    workload.node.close()
    return workload


def forks(image: str, name: str, seed: int) -> Callable[[], Workload]:
    """Makes the same image again and again, in which an operation of this name can be done, opened anew each time."""
    workload = base(
        IMAGES[image], seed, resizable=name in ("grow", "shrink"), bitmaps=name.endswith(("bitmap", "compress"))
    )
    if name == "rebase" and workload.backing is None:
        workload.backing = workload.original_backing = b""
    data = bytes(workload.driver.data)

    def fork() -> Workload:
        return workload.fork(FaultyDriver(data), random.Random(f"{name} {seed}"))

    return fork


def faulty(workload: Workload) -> FaultyDriver:
    """What a fork's image lies in."""
    assert isinstance(workload.driver, FaultyDriver)
    return workload.driver


def judge(workload: Workload, data: bytes | bytearray, versions: list[Version]) -> int:
    """What a fault left on the disk opens and is one of the versions, or between them; returns the leaks."""
    digest = hashlib.sha256(data).digest()
    against, leaks = _judged.get(digest, ([], 0))
    if against and len(against) == len(versions) and all(map(operator.is_, against, versions)):
        return leaks
    backing = workload.original_backing
    driver = MemoryDriver(data)
    with opened(driver, backing, read_only=False) as node:
        content = bytes(node.read(0, node.length))
        judge_content(content, versions)
        judge_snapshots(driver.data, node, versions, backing if node.driver.references() else None)
        judge_bitmaps(node, content, versions)
        names = {each.name for each in qcow2.driver_of(node).bitmaps()}
        assert names in [set(each.bitmaps) for each in versions]
        after = driver.data
    result, lines, _ = qcow2.check(after)
    assert qcow2.faults(result) == (0, 0), lines
    _judged[digest] = versions, result.leaks
    return result.leaks


@pytest.mark.parametrize("seed", range(2 * SOAK))
@pytest.mark.parametrize(("image", "name"), COMBINATIONS)
def test_a_fault_is_reported_and_harms_nothing(image: str, name: str, seed: int, tried: Counter[str]) -> None:
    fork = forks(image, name, seed)
    sound = fork()
    before = version_of(sound)
    faulty(sound).arm()
    perform(sound, name)
    after = version_of(sound)
    calls = list(faulty(sound).calls)
    sound.node.close()
    for fault in faults(calls):
        for go_on in (close, try_again):
            tried["faults"] += 1
            failing = fork()
            faulty(failing).arm(fault.at, fault.code, short=fault.short)
            try:
                done = fails(failing, name, fault)
                versions = [after] if done else [before, after]
                judge(failing, failing.driver.data, versions)
                faulty(failing).arm()
                if not done:
                    go_on(failing, name, versions, f"{name} {seed}")
            except BaseException as error:
                error.add_note(f"{fault} is a {calls[fault.at]} of {len(calls)}: {[each.value for each in calls]}")
                raise


def fails(workload: Workload, name: str, fault: Fault) -> bool:
    """Do an operation that meets a fault and reports it; returns whether it did without."""
    try:
        perform(workload, name)
    except OSError as error:
        assert faulty(workload).fired
        assert error.errno == fault.code or isinstance(error, BlockError)
        return False
    # Giving space back to the host may fail: nothing depends on it.
    assert faulty(workload).calls[fault.at] is Kind.DISCARD, "the error was swallowed"
    return True


def close(workload: Workload, name: str, versions: list[Version], seed: str) -> None:
    """The image is closed: nothing has leaked, unless closing it fails too."""
    try:
        workload.node.close()
    except OSError:
        judge(workload, workload.driver.data, versions)
    else:
        leaks = judge(workload, workload.driver.data, versions)
        assert not leaks or broken(workload)


def try_again(workload: Workload, name: str, versions: list[Version], seed: str) -> None:
    """The same operation, on the image as it is open, works now; or it is refused."""
    workload.open_again()
    workload.content = bytearray(workload.node.read(0, workload.node.length))
    judge_content(bytes(workload.content), versions)
    found = {each.id for each in workload.image.snapshots()}
    workload.snapshots = dict(next(each.snapshots for each in versions if each.snapshots.keys() == found))
    workload.rng = random.Random(seed)
    try:
        perform(workload, name if found or name != "delete_snapshot" else "flush")
    except OSError:
        close(workload, name, versions, seed)
        return
    workload.verify()
    workload.check()
    workload.node.close()
    result, lines, _ = qcow2.check(workload.driver.data)
    assert (result.leaks, *qcow2.faults(result)) == (0, 0, 0), lines


def broken(workload: Workload) -> bool:
    """Whether the image refuses to be written."""
    return workload.image._image.broken is not None


class Interruption:
    """Ctrl-C before the ``at``-th line that is run of a format."""

    def __init__(self, at: int) -> None:
        self.at, self.lines, self.where = at, 0, ""

    def __call__(self, frame: FrameType, event: str, argument: object) -> Interruption | None:
        if not frame.f_code.co_filename.startswith(FORMATS):
            return None
        if event == "line":
            self.lines += 1
            if self.lines == self.at:
                self.where = f"{frame.f_code.co_filename}:{frame.f_lineno}"
                raise KeyboardInterrupt
        return self

    def meets(self, workload: Workload, name: str) -> bool:
        """Perform an operation; whether it was interrupted."""
        before = sys.gettrace()
        sys.settrace(self)
        try:
            with workload.node.hold():
                perform(workload, name)
        except KeyboardInterrupt:
            return True
        finally:
            sys.settrace(before)
        return False


@pytest.mark.parametrize("seed", range(SOAK))
@pytest.mark.parametrize(("image", "name"), COMBINATIONS)
def test_an_interruption_is_as_a_kill(image: str, name: str, seed: int, tried: Counter[str]) -> None:
    fork = forks(image, name, seed)
    for _ in range(2):  # what is done once in a process is done
        sound, counter = fork(), Interruption(0)
        before = version_of(sound)
        assert not counter.meets(sound, name)
        after = version_of(sound)
        sound.node.close()
    chance = random.Random(f"{image} {name} {seed}")
    for at in sorted(chance.sample(range(1, counter.lines), 4)):
        tried["interruptions"] += 1
        broken_off, interruption = fork(), Interruption(at)
        node = broken_off.node  # an operation may open it anew
        assert interruption.meets(broken_off, name)
        try:
            judge(broken_off, broken_off.driver.data, [before, after])
            lies = bytes(broken_off.driver.data)
            with pytest.raises(BlockError, match=r"interrupted in the middle of a request; open it again$|is closed$"):
                node.read(0, 512)
            with contextlib.suppress(BlockError):
                broken_off.node.close()
            assert broken_off.driver.data == lies or broken_off.node is not node
            judge(broken_off, broken_off.driver.data, [before, after])
        except BaseException as error:
            error.add_note(f"line {at} of {counter.lines}: {interruption.where}")
            raise


@pytest.mark.parametrize("mode", Preallocation)
def test_a_fault_while_creating_is_reported(mode: Preallocation) -> None:
    options: dict[str, Value] = {"cluster_size": 512, "preallocation": mode.value}
    sound = FaultyDriver()
    sound.arm()
    Qcow2Driver.create(memory_node(sound), 100 * 512, options)
    for fault in faults(list(sound.calls)):
        driver = FaultyDriver()
        driver.arm(fault.at, fault.code, short=fault.short)
        with pytest.raises(OSError, match=r"injected|Could not"):
            Qcow2Driver.create(memory_node(driver), 100 * 512, options)


@pytest.mark.parametrize("seed", range(4 * SOAK))
def test_a_fault_while_a_dirty_image_is_repaired_leaves_it_repairable(seed: int) -> None:
    rng = random.Random(f"dirty {seed}")
    recording = Recording.random(rng, 12, {"cluster_size": 512, "lazy_refcounts": True})
    states = [
        each
        for each in recording.states(rng, samples=2)
        if qcow2.header(each.data).incompatible_features & Incompatible.DIRTY
    ]
    for state in rng.sample(states, min(len(states), 6)):
        sound = FaultyDriver(state.data)
        sound.arm()
        qcow2.attach(sound).close()
        for fault in faults(list(sound.calls)):
            driver = FaultyDriver(state.data)
            driver.arm(fault.at, fault.code, short=fault.short)
            with pytest.raises(OSError, match=r"injected|repair|Could not|Failed to read"):
                qcow2.attach(driver).close()
            judge_crash(recording, state._replace(data=bytes(driver.data)))


def test_a_fault_while_the_refcount_table_moves_leaves_no_leak_in_the_running_image() -> None:
    options: dict[str, Value] = {"cluster_size": 512, "refcount_bits": 64, "preallocation": "metadata"}
    data = qcow2.create(1950 << 10, options)
    added = bytes([7]) * (100 << 10)

    def grown(driver: FaultyDriver) -> BlockNode:
        node = qcow2.attach(driver)
        node.resize((1950 << 10) + len(added))
        return node

    def write(node: BlockNode) -> None:
        node.pwrite(1950 << 10, added)
        node.flush()

    sound = FaultyDriver(data)
    with grown(sound) as node:
        assert qcow2.header(sound.data).refcount_table_clusters == 1
        sound.arm()
        write(node)
        calls = list(sound.calls)
    assert qcow2.header(sound.data).refcount_table_clusters > 1
    for fault in faults(calls):
        driver = FaultyDriver(data)
        node = grown(driver)
        driver.arm(fault.at, fault.code, short=fault.short)
        with pytest.raises(OSError, match="injected"):
            write(node)
        try:
            write(node)
            node.close()
        except OSError:
            assert calls[fault.at] is Kind.FLUSH or qcow2.driver_of(node)._image.broken is not None
            continue
        result, lines, _ = qcow2.check(driver.data)
        assert (result.leaks, *qcow2.faults(result)) == (0, 0, 0), lines

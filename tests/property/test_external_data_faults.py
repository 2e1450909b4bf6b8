"""A fault at each single call to an image or to its external data file: reported, nothing lost, no leak.

The data file is written before what points to it; what a raw one reads as by itself is judged too.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import pytest

from hostel.block.options import Value
from hostel.errors import BlockError
from support import qcow2
from support.crash import Version, judge_bitmaps, judge_content
from support.external_data import ExternalWorkload, open_external
from support.fault import Fault, faults
from support.guest_io import SECTOR
from support.luks import many_volumes
from support.memory import FaultyDriver, Kind, MemoryDriver
from support.qcow2_operations import perform, version_of
from support.tally import tried

__all__ = ["tried"]

SOAK = int(os.environ.get("HOSTEL_SOAK", "1"))
RAW: dict[str, Value] = {"data_file_raw": True, "preallocation": "off"}
LUKS: dict[str, Value] = {"encrypt.format": "luks", "encrypt.key-secret": "first", "encrypt.iter-time": 1}
IMAGES: dict[str, dict[str, Value]] = {
    "small clusters": {"cluster_size": 512, "refcount_bits": 64},
    "lazy": {"cluster_size": 1024, "lazy_refcounts": True},
    "subclusters": {"cluster_size": 16384, "extended_l2": True},
    "raw": RAW | {"cluster_size": 512},
    "raw subclusters": RAW | {"cluster_size": 16384, "extended_l2": True},
    "aes": {"cluster_size": 512, "encrypt.format": "aes", "encrypt.key-secret": "first"},
    "luks": LUKS | {"cluster_size": 4096},
}
OPERATIONS = (
    "write",
    "zero",
    "unmap",
    "discard",
    "reopen",
    "grow",
    "shrink",
    "rebase",
    "add_bitmap",
    "clear_bitmap",
    "remove_bitmap",
    "merge_bitmap",
    "amend to lazy refcounts",
    "amend to 32 bits",
    "amend to no raw data",
    "empty",
)
ENCRYPTING = ("write", "zero", "unmap", "grow", "shrink", "empty")
COMBINATIONS = [
    (image, name)
    for image, options in IMAGES.items()
    for name in (ENCRYPTING if "encrypt.format" in options else OPERATIONS)
    if not (name in ("rebase", "empty") and image.startswith("raw")) and (image == "raw" or "raw" not in name)
]


class EmptiedWorkload(ExternalWorkload):
    """With what ends a commit."""

    def empty(self) -> None:
        """Drop all data of this layer."""
        with self.node.lock():
            self.image.make_empty()
        self.content = self.below(len(self.content))
        self.flushed = bytes(self.content)


@pytest.fixture(autouse=True)
def passphrases() -> Iterator[None]:
    """Those of the encrypted images."""
    with many_volumes():
        yield


def forks(image: str, name: str, seed: int) -> Callable[[], EmptiedWorkload]:
    """Makes the same image again and again, in which an operation of this name can be done, opened anew each time."""
    rng = random.Random(f"external {seed}")
    options = IMAGES[image] | {"data_file": "data"}
    workload = EmptiedWorkload(
        rng,
        lambda *disks: [MemoryDriver(each) for each in disks],
        options=options,
        size=40 * int(options["cluster_size"]) + SECTOR,
    )
    for each in ("write", "write", "zero", "write", "discard", "unmap", "write"):
        getattr(workload, each)()
    for _ in range(2 * name.endswith("bitmap")):
        workload.add_bitmap()
        workload.write()
    workload.node.close()
    if name == "rebase" and workload.backing is None:
        workload.backing = b""
    stored = [bytes(each.data) for each in workload.disks]

    def fork() -> EmptiedWorkload:
        forked = workload.fork_to([FaultyDriver(each) for each in stored], random.Random(f"{name} {seed}"))
        assert isinstance(forked, EmptiedWorkload)
        return forked

    return fork


def faulty(workload: ExternalWorkload) -> list[FaultyDriver]:
    """What the two files lie in."""
    return [each for each in workload.disks if isinstance(each, FaultyDriver)]


def judge(workload: ExternalWorkload, versions: Sequence[Version]) -> int:
    """What a fault left on the disks opens and is one of the versions, or between them; returns the leaks."""
    image, data = (MemoryDriver(each.data) for each in workload.disks)
    with open_external(image, data, backing=workload.backing) as node:
        content = bytes(node.read(0, node.length))
        judge_content(content, versions)
        judge_bitmaps(node, content, versions)
        names = {each.name for each in qcow2.driver_of(node).bitmaps()}
        assert names in [set(each.bitmaps) for each in versions]
    if workload.raw:
        judge_content(bytes(data.data[: len(content)]), versions)
    result, lines, _ = qcow2.check(image.data)
    assert qcow2.faults(result) == (0, 0), lines
    return result.leaks


@pytest.mark.parametrize("seed", range(SOAK))
@pytest.mark.parametrize(("image", "name"), COMBINATIONS)
def test_a_fault_at_either_file_is_reported_and_harms_nothing(
    image: str, name: str, seed: int, tried: Counter[str]
) -> None:
    fork = forks(image, name, seed)
    sound = fork()
    before = version_of(sound)
    for driver in faulty(sound):
        driver.arm()
    perform(sound, name)
    after = version_of(sound)
    calls = [list(driver.calls) for driver in faulty(sound)]
    sound.verify()
    sound.node.close()
    assert not sound.raw or sound.disks[1].data == sound.content
    for victim, kinds in enumerate(calls):
        for number, fault in enumerate(faults(kinds)):
            for go_on in (close, try_again)[:: 1 if SOAK > 1 or number % 2 else -1][: 1 + (SOAK > 1)]:
                tried["faults"] += 1
                failing = fork()
                faulty(failing)[victim].arm(fault.at, fault.code, short=fault.short)
                try:
                    done = fails(failing, name, victim, fault)
                    versions = [after] if done else [before, after]
                    judge(failing, versions)
                    faulty(failing)[victim].arm()
                    if not done:
                        go_on(failing, name, versions, f"{name} {seed}", kinds[fault.at])
                except BaseException as error:
                    error.add_note(f"{fault} is a {kinds[fault.at]} of file {victim}: {[each.value for each in kinds]}")
                    raise


def fails(workload: ExternalWorkload, name: str, victim: int, fault: Fault) -> bool:
    """Do an operation that meets a fault and reports it; returns whether it did without."""
    driver = faulty(workload)[victim]
    try:
        perform(workload, name)
    except OSError as error:
        assert driver.fired
        assert error.errno == fault.code or isinstance(error, BlockError)
        return False
    # Giving space back to the host may fail: nothing depends on it.
    assert driver.calls[fault.at] is Kind.DISCARD, "the error was swallowed"
    return True


def close(workload: ExternalWorkload, name: str, versions: list[Version], seed: str, kind: Kind) -> None:
    """The image is closed: nothing has leaked, unless closing it fails too."""
    try:
        workload.node.close()
    except OSError:
        judge(workload, versions)
    else:
        leaks = judge(workload, versions)
        assert not leaks or workload.image._image.broken is not None


def try_again(workload: ExternalWorkload, name: str, versions: list[Version], seed: str, kind: Kind) -> None:
    """The same operation, on the image as it is open, works now; or it is refused."""
    workload.open_again()
    workload.content = bytearray(workload.node.read(0, workload.node.length))
    judge_content(bytes(workload.content), versions)
    workload.rng = random.Random(seed)
    try:
        perform(workload, name)
    except OSError:
        close(workload, name, versions, seed, kind)
        return
    workload.verify()
    workload.check()
    workload.node.close()
    result, lines, _ = qcow2.check(workload.disks[0].data)
    assert (result.leaks, *qcow2.faults(result)) == (0, 0, 0), lines
    if workload.raw:
        end = len(workload.content)
        assert workload.disks[1].data[:end] == workload.content
        assert len(workload.disks[1].data) == end or (name in ("grow", "shrink") and kind is Kind.RESIZE)

"""What may be on the disk after a power cut: states made from a write log, and the judgement of each.

A write that a flush followed is on the disk. Of those after the last flush any may be there and any may be missing, in
any order, and one of several sectors may be there in part; a sector, 512 bytes, is there as a whole or not at all.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from random import Random
from typing import NamedTuple, TypeVar

from hostel.block.formats.qcow2.driver import Qcow2Driver
from hostel.block.formats.qcow2.layout import Incompatible
from hostel.block.node import BlockNode
from hostel.block.options import Value
from hostel.block.powers import Repair
from support import qcow2
from support.guest_io import SECTOR, GuestIO
from support.memory import Entry, Kind, LoggedDriver, MemoryDriver
from support.qcow2_workload import Workload, covers, snapshot_content

T = TypeVar("T")
_EXHAUSTIVE = 6  # so many writes between two flushes are tried in every combination


class Version(NamedTuple):
    """What the guest saw between two operations.

    Attributes:
        start: entries in the log when the operation began.
        durable: entries in the log from which on nothing older may come back; None where that was not promised.
        content: what the guest read when it was done.
        snapshots: id to content.
        bitmaps: name to the content that its bits tell the changes from.
    """

    start: int
    durable: int | None
    content: bytes
    snapshots: dict[str, bytes]
    bitmaps: dict[str, bytes]


class State(NamedTuple):
    """A disk after a power cut.

    Attributes:
        data: its bytes.
        epoch: entries in the log up to the last flush that was done.
        reached: entries in the log of which some effect is there.
    """

    data: bytes
    epoch: int
    reached: int


class Recording:
    """A workload's write log, and what the guest saw meanwhile."""

    def __init__(self, workload: GuestIO) -> None:
        assert isinstance(workload.driver, LoggedDriver)
        self.workload = workload
        self.log = workload.driver.log
        self.initial = bytes(workload.driver.data)
        self.history: list[str] = []
        self.versions = [Version(0, 0, bytes(workload.content), {}, {})]

    @classmethod
    def random(
        cls, rng: Random, steps: int, options: Mapping[str, Value] | None = None, size: int | None = None
    ) -> Recording:
        """Run a random workload on a qcow2 image."""
        return cls.of(Workload(rng, LoggedDriver, options=options, size=size, aligned=True), steps)

    @classmethod
    def of(cls, workload: GuestIO, steps: int) -> Recording:
        """Run some random operations, and close the image."""
        recording = cls(workload)
        for _ in range(steps):
            recording.step()
        recording.step("reopen")
        recording.workload.node.close()
        return recording

    def step(self, name: str | None = None) -> None:
        """Do one operation."""
        workload, start, flushed = self.workload, len(self.log), self.workload.flushed
        if name is None:
            name = workload.step()
        else:
            getattr(workload, name)()
        workload.verify()
        self.history.append(name)
        durable = None
        if workload.flushed is not flushed:
            # A flush inside the operation; what comes after it, discards of free clusters, is no part of the promise.
            syncs = [index for index in range(start, len(self.log)) if self.log[index].kind is Kind.FLUSH]
            durable = syncs[-1] + 1 if syncs else None
        self.versions.append(
            Version(start, durable, bytes(workload.content), dict(workload.snapshots), dict(workload.bitmaps))
        )

    def allowed(self, state: State) -> list[Version]:
        """The versions of which a state may show parts: the last that was safe, and all begun since."""
        last = max(
            index
            for index, version in enumerate(self.versions)
            if version.durable is not None and version.durable <= state.epoch
        )
        return [self.versions[last]] + [each for each in self.versions[last + 1 :] if each.start < state.reached]

    def states(self, rng: Random, *, samples: int = 12, prefixes: bool = True) -> Iterator[State]:
        """Disks after a power cut: every prefix of the log, torn writes, and reorderings between two flushes."""
        yield from crash_states(self.initial, self.log, rng, samples=samples, prefixes=prefixes)


def sample(states: Iterator[T], rng: Random, count: int) -> list[T]:
    """At most ``count`` of the states, without keeping all of them in memory."""
    kept: list[T] = []
    for seen, state in enumerate(states):
        if seen < count:
            kept.append(state)
        elif (at := rng.randrange(seen + 1)) < count:
            kept[at] = state
    return kept


def crash_states(
    initial: bytes, log: Sequence[Entry], rng: Random, *, samples: int = 12, prefixes: bool = True
) -> Iterator[State]:
    """The states that a log allows, each once; ``samples`` bounds what is tried between two flushes."""
    base = MemoryDriver(initial)
    start = 0
    while start <= len(log):
        end = next((at for at in range(start, len(log)) if log[at].kind is Kind.FLUSH), len(log))
        epoch = log[start:end]
        seen: set[int] = set()  # hashes, not whole disks
        for chosen, reached in _choices(epoch, rng, samples, prefixes):
            disk = MemoryDriver(base.data)
            for entry in chosen:
                entry.apply(disk)
            data = bytes(disk.data)
            if hash(data) not in seen:
                seen.add(hash(data))
                yield State(data, start, start + reached)
        for entry in epoch:
            entry.apply(base)
        start = end + 1


def _choices(epoch: Sequence[Entry], rng: Random, samples: int, prefixes: bool) -> Iterator[tuple[list[Entry], int]]:
    """What of an epoch is on the disk, and how many of its entries had begun."""
    count = len(epoch)
    for done in range(count + 1) if prefixes else (0, count):
        yield list(epoch[:done]), done
    for done, entry in enumerate(epoch):
        for parts in tears(entry, rng):
            yield [*epoch[:done], *parts], done + 1
    if count <= _EXHAUSTIVE:
        masks: Iterator[int] | list[int] = iter(range(1 << count))
    else:
        whole = (1 << count) - 1
        single = rng.sample(range(count), min(count, samples))
        masks = [whole ^ 1 << at for at in single] + [1 << at for at in single]
        masks += [rng.getrandbits(count) for _ in range(samples)]
        masks += [rng.getrandbits(count) | rng.getrandbits(count) for _ in range(samples)]
    for mask in masks:
        yield [epoch[at] for at in range(count) if mask >> at & 1], count
    for _ in range(min(samples, 4) if count > 1 else 0):
        yield list(_torn_subset(epoch, rng)), count


def tears(entry: Entry, rng: Random) -> Iterator[list[Entry]]:
    """A write cut off inside, and with parts of it missing."""
    if entry.kind is not Kind.WRITE or entry.sectors < 2:
        return
    cuts = range(1, entry.sectors)
    for cut in cuts if len(cuts) <= 3 else rng.sample(cuts, 3):
        yield entry.torn(range(cut))
    yield entry.torn([sector for sector in range(entry.sectors) if rng.random() < 0.5])


def _torn_subset(epoch: Sequence[Entry], rng: Random) -> Iterator[Entry]:
    for entry in epoch:
        fate = rng.random()
        if fate < 0.4:
            yield entry
        elif fate < 0.7:
            for parts in itertools.islice(tears(entry, rng), 1):
                yield from parts


# ---- judging


def opened(driver: MemoryDriver, backing: bytes | None, *, read_only: bool) -> BlockNode:
    """Open an image, over its backing image where its header still names one."""
    node = qcow2.attach(driver, read_only=read_only)
    if node.driver.references() and backing is not None:
        node.driver.children["backing"] = qcow2.disk(backing)
    return node


def judge(recording: Recording, state: State) -> None:
    """A state opens, for reading and for writing; its data and snapshots are there; nothing worse than leaks."""
    allowed = recording.allowed(state)
    backing = recording.workload.original_backing
    with opened(MemoryDriver(state.data), backing, read_only=True) as node:
        content = bytes(node.read(0, node.length))
        judge_content(content, allowed)
        backing = backing if node.driver.references() else None
        judge_snapshots(state.data, node, allowed, backing)
        judge_bitmaps(node, content, allowed)
    dirty = qcow2.header(state.data).incompatible_features & Incompatible.DIRTY
    if not dirty:
        result, lines, after = qcow2.check(state.data)
        assert qcow2.faults(result) == (0, 0), lines
        assert after == state.data
    driver = MemoryDriver(state.data)
    with opened(driver, backing, read_only=False) as node:
        assert node.read(0, node.length) == content
        judge_use(node, content)
        judge_snapshots(driver.data, node, allowed, backing)
    result, lines, _ = qcow2.check(driver.data)
    assert qcow2.faults(result) == (0, 0), lines
    assert not qcow2.header(driver.data).incompatible_features & Incompatible.DIRTY


def judge_content(content: bytes, allowed: Sequence[Version]) -> None:
    """Each sector is as the last safe version had it, or as an operation since then left it."""
    assert len(content) in {len(each.content) for each in allowed}
    if any(content == each.content for each in allowed):
        return
    for start in range(0, len(content), SECTOR):
        sector = content[start : start + SECTOR]
        values = [each.content[start : start + SECTOR] for each in allowed if start < len(each.content)]
        assert sector in values, f"sector {start // SECTOR} is neither what was flushed nor what was written since"


def judge_snapshots(
    data: bytes | bytearray, node: BlockNode, allowed: Sequence[Version], backing: bytes | None
) -> None:
    """The snapshots are those of one version, with their content."""
    assert isinstance(node.driver, Qcow2Driver)
    found = {each.id: snapshot_content(data, each.id, backing) for each in node.driver.snapshots()}
    assert found in [each.snapshots for each in allowed]


def judge_bitmaps(node: BlockNode, content: bytes, allowed: Sequence[Version]) -> None:
    """A bitmap that claims to be consistent tells of every change since it was made or cleared."""
    assert isinstance(node.driver, Qcow2Driver)
    for bitmap in node.driver.bitmaps():
        if "in-use" not in bitmap.flags:
            since = [each.bitmaps[bitmap.name] for each in allowed if bitmap.name in each.bitmaps]
            assert any(covers(node.driver, bitmap.name, before, content) for before in since), bitmap.name


def write_on(node: BlockNode, content: bytes) -> bytearray:
    """Write here and there, and flush; returns what is to be read now."""
    expected = bytearray(content)
    for at in {0, len(content) // 2, len(content) - SECTOR} if content else ():
        start = at // SECTOR * SECTOR
        expected[start : start + SECTOR] = b"after the power cut".ljust(SECTOR)
        node.pwrite(start, expected[start : start + SECTOR])
    node.flush()
    return expected


def judge_use(node: BlockNode, content: bytes) -> None:
    """The image can go on: write, grow, and read back; space that it grows by is zeroes."""
    driver = node.driver
    assert isinstance(driver, Qcow2Driver)
    expected = write_on(node, content)
    for bitmap in driver.bitmaps():
        if "in-use" in bitmap.flags:  # of no use any more, and in the way
            driver.bitmap_remove(bitmap.name)
    if not driver.snapshots() or driver._image.header.version > 2:
        added = 3 * driver.cluster_size
        node.resize(len(content) + added)
        expected += bytes(added)
    assert node.read(0, node.length) == expected


def repair(data: bytes) -> list[Entry]:
    """Repair an image; returns the log of what was written."""
    driver = LoggedDriver(data)
    with qcow2.attach(driver, check=True) as node:
        node.driver.check(Repair.ALL, lambda line: None)  # type: ignore[attr-defined]
    return driver.log

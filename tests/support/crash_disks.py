"""What several disks may hold after a power cut: an image and its other files, or an overlay and its base.

A flush of one disk says nothing of the others: at every moment each has what was flushed to it, and parts of the rest.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from support.crash import tears
from support.memory import Entry, Kind, LoggedDriver, MemoryDriver


class Tagged(list[Entry]):
    """One disk's log, which also enters everything into a log that several disks share."""

    def __init__(self, disk: int, shared: list[tuple[int, Entry]]) -> None:
        super().__init__()
        self._disk, self._shared = disk, shared

    def append(self, entry: Entry) -> None:
        super().append(entry)
        self._shared.append((self._disk, entry))


class Disks:
    """Logged disks with one order of events.

    Attributes:
        drivers: what holds their bytes.
        log: the disk and the entry of everything that happened to any.
    """

    def __init__(self, *initial: bytes) -> None:
        self.log: list[tuple[int, Entry]] = []
        self.initial = initial
        self.drivers = [LoggedDriver(each) for each in initial]
        for index, driver in enumerate(self.drivers):
            driver.log = Tagged(index, self.log)


class DiskStates(NamedTuple):
    """All disks after a power cut, and how many entries of the log were done or begun."""

    disks: tuple[bytes, ...]
    reached: int


def disk_states(disks: Disks, rng: random.Random, *, samples: int = 3) -> Iterator[DiskStates]:
    """The states at every moment: all that was written, only one disk's unflushed part, and random parts."""
    durable = [MemoryDriver(each) for each in disks.initial]
    pending: list[list[Entry]] = [[] for _ in durable]
    seen: set[int] = set()
    for reached in range(len(disks.log) + 1):
        parts: list[Sequence[Sequence[Entry]]] = [pending]
        parts += [[each if at == only else [] for at, each in enumerate(pending)] for only in range(len(pending))]
        parts += [[list(_some(each, rng)) for each in pending] for _ in range(samples)]
        for chosen in parts:
            state = tuple(_applied(disk, entries) for disk, entries in zip(durable, chosen, strict=True))
            if hash(state) not in seen:
                seen.add(hash(state))
                yield DiskStates(state, reached)
        if reached < len(disks.log):
            disk, entry = disks.log[reached]
            if entry.kind is Kind.FLUSH:
                for each in pending[disk]:
                    each.apply(durable[disk])
                pending[disk].clear()
            else:
                pending[disk].append(entry)


def _applied(disk: MemoryDriver, entries: Sequence[Entry]) -> bytes:
    result = MemoryDriver(disk.data)
    for entry in entries:
        entry.apply(result)
    return bytes(result.data)


def _some(entries: Sequence[Entry], rng: random.Random) -> Iterator[Entry]:
    for entry in entries:
        fate = rng.random()
        if fate < 0.4:
            yield entry
        elif fate < 0.7:
            yield from next(tears(entry, rng), [])

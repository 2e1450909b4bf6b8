"""Which single call to a file fails, and how."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from support.memory import FaultyDriver, Kind


class Fault(NamedTuple):
    """Which call fails, and how."""

    at: int
    code: int
    short: bool


def faults(kinds: list[Kind]) -> Iterator[Fault]:
    """Each call fails with EIO; one that may need space also with ENOSPC, and a write half done."""
    for at, kind in enumerate(kinds):
        yield Fault(at, errno.EIO, False)
        if kind in (Kind.WRITE, Kind.ZERO, Kind.RESIZE, Kind.FLUSH):
            yield Fault(at, errno.ENOSPC, False)
        if kind is Kind.WRITE:
            yield Fault(at, errno.ENOSPC, True)


def every_fault(
    disks: Sequence[bytes], run: Callable[[list[FaultyDriver]], None]
) -> Iterator[tuple[int, Fault, list[FaultyDriver]]]:
    """For each call that ``run`` makes to a disk, drivers that fail there; a discard may fail unnoticed."""
    drivers = [FaultyDriver(each) for each in disks]
    for driver in drivers:
        driver.arm()
    run(drivers)
    for victim, driver in enumerate(drivers):
        for fault in faults(list(driver.calls)):
            if driver.calls[fault.at] is Kind.DISCARD:
                continue
            failing = [FaultyDriver(each) for each in disks]
            failing[victim].arm(fault.at, fault.code, short=fault.short)
            yield victim, fault, failing

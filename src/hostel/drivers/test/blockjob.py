"""Block jobs in memory: they are as far as the clock says, and tell when they are there."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from hostel.drivers.base.block import BlockJobInfo
from hostel.drivers.base.domain import Affect
from hostel.drivers.events import BlockJobStatus, BlockJobType
from hostel.drivers.fault import fault
from hostel.errors import ErrorCode, ErrorDomain
from hostel.model.domain.devices.source import DiskSource, SourceType
from hostel.model.domain.domain import Domain
from hostel.units import GiB, MiB

if TYPE_CHECKING:
    from hostel.drivers.test.host import Host, TestDomain

LENGTH: Final = GiB  # bytes that every job is about
_SPEED: Final = 512 * MiB  # bytes a second of a job without a limit
_WAITING: Final = (BlockJobType.COPY, BlockJobType.ACTIVE_COMMIT)


class Job:
    """A job.

    Attributes:
        kind: what it does.
        bandwidth: bytes a second; 0 is no limit.
        target: what the disk stands on after the pivot.
        target_type: and of which type that is.
        ready: all is copied, and what is written goes to both; only of those that wait for a pivot.
    """

    def __init__(
        self,
        kind: BlockJobType,
        bandwidth: int,
        target: DiskSource | None = None,
        target_type: SourceType | None = None,
    ) -> None:
        self.kind = kind
        self.bandwidth = bandwidth
        self.target = target
        self.target_type = target_type
        self.ready = False
        self._done = 0.0
        self._since = time.monotonic()
        self._alarm: threading.Timer | None = None

    def call_when_done(self, look: Callable[[], None]) -> None:
        """Have something called when all is done at the present speed; what was to be called before is not."""
        self.cancel()
        self._alarm = threading.Timer(self.left + 0.01, look)
        self._alarm.daemon = True
        self._alarm.start()

    def cancel(self) -> None:
        """Nobody waits for the end any more."""
        if self._alarm is not None:
            self._alarm.cancel()

    @property
    def progress(self) -> int:
        """How far it is, in bytes."""
        return min(LENGTH, int(self._done + (time.monotonic() - self._since) * self._speed))

    @property
    def left(self) -> float:
        """Seconds until all is done."""
        return (LENGTH - self.progress) / self._speed

    @property
    def _speed(self) -> int:
        return self.bandwidth or _SPEED

    def change_speed(self, bandwidth: int) -> None:
        """Go on at another speed."""
        self._done, self._since = float(self.progress), time.monotonic()
        self.bandwidth = bandwidth


class Jobs:
    """The jobs of a domain; the caller holds the host's lock."""

    def __init__(self, host: Host, domain: TestDomain) -> None:
        self._host = host
        self._domain = domain
        for disk in list(domain.jobs):
            self._settle(disk)

    def begin(self, disk: str, job: Job) -> None:
        """Begin a job.

        Raises:
            VirtError: the disk has one.
        """
        if disk in self._domain.jobs:
            what = f"disk '{disk}' already in active block job"
            raise fault(ErrorCode.OPERATION_UNSUPPORTED, what, ErrorDomain.TEST)
        self._domain.jobs[disk] = job
        self._watch(disk, job)

    def info(self, disk: str) -> BlockJobInfo | None:
        """How far a disk's job is; None where there is none."""
        job = self._domain.jobs.get(disk)
        return None if job is None else BlockJobInfo(int(job.kind), job.bandwidth, job.progress, LENGTH)

    def set_speed(self, disk: str, bandwidth: int) -> None:
        """Limit a job, in bytes a second; 0 takes the limit off."""
        job = self._get(disk)
        job.change_speed(bandwidth)
        self._watch(disk, job)

    def end(self, disk: str, *, pivot: bool) -> None:
        """Give a job up, or go over to where it copies to."""
        job = self._get(disk)
        if pivot and (job.kind not in _WAITING or not job.ready):
            what = (
                f"block copy still active: disk '{disk}' not ready for pivot yet"
                if job.kind in _WAITING
                else f"job type '{job.kind.name.lower()}' does not support pivot"
            )
            code = ErrorCode.BLOCK_COPY_ACTIVE if job.kind in _WAITING else ErrorCode.OPERATION_INVALID
            raise fault(code, what, ErrorDomain.TEST)
        if pivot:
            self._move(disk, job)
        self._over(disk, BlockJobStatus.COMPLETED if pivot else BlockJobStatus.CANCELED)

    def _get(self, disk: str) -> Job:
        job = self._domain.jobs.get(disk)
        if job is None:
            raise fault(ErrorCode.INVALID_ARG, f"disk {disk} does not have an active block job", ErrorDomain.TEST)
        return job

    def _watch(self, disk: str, job: Job) -> None:
        """See to it that the end is told of, whoever looks or not."""
        host, domain = self._host, self._domain

        def look() -> None:
            with host.lock:
                if domain.jobs.get(disk) is job and not job.ready:
                    Jobs(host, domain)
                    if domain.jobs.get(disk) is job and not job.ready:
                        Jobs(host, domain)._watch(disk, job)

        job.call_when_done(look)

    def _settle(self, disk: str) -> None:
        job = self._domain.jobs[disk]
        if job.progress >= LENGTH and not job.ready:
            if job.kind in _WAITING:
                job.ready = True
                self._tell(disk, job, BlockJobStatus.READY)
            else:
                self._move(disk, job)
                self._over(disk, BlockJobStatus.COMPLETED)

    def _over(self, disk: str, status: BlockJobStatus) -> None:
        job = self._domain.jobs.pop(disk)
        job.cancel()
        self._tell(disk, job, status)

    def _tell(self, disk: str, job: Job, status: BlockJobStatus) -> None:
        from hostel.drivers.test.lifecycle import tell_of

        held = next(each for each in self._domain.current.domain.devices.disks if each.target.dev == disk)
        source = held.source
        path = (source.file or source.dev or "") if source is not None else ""
        for kind, name in (("block-job", path), ("block-job-2", disk)):
            tell_of(self._host, self._domain, kind, disk=name, type=int(job.kind), status=int(status))

    def _move(self, disk: str, job: Job) -> None:
        """The disk is what the job has made of it."""
        from hostel.drivers.test.impact import change_documents

        def change(document: Domain) -> None:
            for held in document.devices.disks:
                if held.target.dev != disk:
                    continue
                if job.kind is BlockJobType.PULL:
                    held.backing_store = None
                elif job.target is not None:
                    held.source = job.target.copy()
                    held.type = job.target_type or held.type
                    held.backing_store = None

        both = Affect.LIVE | Affect.CONFIG if self._domain.persistent else Affect.LIVE
        change_documents(self._domain, both, change)

"""Disks of the test driver's domains: sizes and counters are invented, limits kept, block jobs advance by the clock."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Final

from hostel.codec.xmltext import parse
from hostel.drivers.base import DomainRef
from hostel.drivers.base.block import (
    BlockCommitFlag,
    BlockCopyFlag,
    BlockInfo,
    BlockJobAbortFlag,
    BlockJobInfo,
    BlockRebaseFlag,
    BlockResizeFlag,
    DiskError,
)
from hostel.drivers.base.domain import Affect
from hostel.drivers.counting import check_one
from hostel.drivers.document import reading
from hostel.drivers.events import BlockJobType
from hostel.drivers.test.blockjob import Job, Jobs
from hostel.drivers.test.host import Host
from hostel.drivers.test.impact import change_documents, one_document, settled_impact
from hostel.drivers.test.lifecycle import refused, running, tell_of
from hostel.errors import ErrorCode, ErrorDomain
from hostel.model.domain.devices.disk import Disk, IoTune
from hostel.model.domain.devices.source import DiskSource
from hostel.model.domain.domain import Domain
from hostel.model.domain.rules.disk import is_empty
from hostel.units import GiB, MiB

_SIZE: Final = BlockInfo(1099506450432, 1024 * GiB, 1024 * GiB)
_ERRORS: Final = 2  # virDomainDiskErrorCode knows so many
_MOST: Final = 10**15
_LIMITS: Final = tuple(field.name for field in IoTune.FIELDS)
_EXCLUSIVE: Final = ("bytes_sec", "iops_sec", "bytes_sec_max", "iops_sec_max")
_BURSTS: Final = tuple(f"{way}_{what}" for what in ("bytes_sec", "iops_sec") for way in ("total", "read", "write"))


class BlockCalls:
    """Implements :class:`hostel.drivers.base.block.BlockDriver`."""

    _host: Host

    def domain_block_resize(
        self, domain: DomainRef, disk: str, size: int, flags: BlockResizeFlag = BlockResizeFlag.NONE
    ) -> None:
        """Remember another size of a disk."""
        with self._host.lock:
            found = running(self._host, domain)
            target = _disk(found.current.domain, disk, f"invalid path: {disk}").target.dev
            found.sizes[target] = size if flags & BlockResizeFlag.BYTES else size * 1024

    def domain_block_stats_flags(self, domain: DomainRef, disk: str) -> Mapping[str, int]:
        """Numbers made from the time of day, as libvirt's are."""
        if not disk:
            raise refused(ErrorCode.OPERATION_UNSUPPORTED, "summary statistics are not supported yet")
        with self._host.lock:
            _disk(running(self._host, domain).current.domain, disk, f"invalid path: {disk}")
        base = time.time_ns() // 1000
        return {
            "rd_operations": base // 10,
            "rd_bytes": base // 20,
            "wr_operations": base // 30,
            "wr_bytes": base // 40,
            "errs": base // 2_000_000,
        }

    def domain_get_block_info(self, domain: DomainRef, disk: str) -> BlockInfo:
        """The same sizes of every disk, but for those that were changed."""
        with self._host.lock:
            found = self._host.domain(domain)
            held = _disk(found.current.domain, disk, f"invalid path {disk} not assigned to domain")
            if is_empty(held):
                what = f"disk '{disk}' does not currently have a source assigned"
                raise refused(ErrorCode.INVALID_ARG, what)
            return _SIZE._replace(capacity=found.sizes.get(held.target.dev, _SIZE.capacity))

    def domain_get_disk_errors(self, domain: DomainRef) -> list[DiskError]:
        """One for each disk, of each kind in turn."""
        with self._host.lock:
            disks = running(self._host, domain).current.domain.devices.disks
            return [DiskError(disk.target.dev, index % _ERRORS + 1) for index, disk in enumerate(disks)]

    def domain_get_block_io_tune(
        self, domain: DomainRef, disk: str, affect: Affect = Affect.CURRENT
    ) -> Mapping[str, int | str]:
        """The limits in a document."""
        with self._host.lock:
            document = one_document(self._host.domain(domain), affect).domain
            tune = _disk(document, disk, f"disk '{disk}' was not found in the domain config").iotune or IoTune()
        return {name: getattr(tune, name) or (0 if name != "group_name" else "") for name in _LIMITS}

    def domain_set_block_io_tune(
        self, domain: DomainRef, disk: str, limits: Mapping[str, int | str], affect: Affect = Affect.CURRENT
    ) -> None:
        """Change the limits in a document."""
        check_one(affect)

        def change(document: Domain) -> None:
            held = _disk(document, disk, f"missing persistent configuration for disk '{disk}'")
            held.iotune = _limited(held.iotune, limits)

        with self._host.lock:
            found = self._host.domain(domain)
            settled = settled_impact(found, affect)
            change_documents(found, settled, change)
            if settled & Affect.LIVE:
                told = {f"blkdeviotune.{name}": value for name, value in limits.items()}
                tell_of(self._host, found, "tunable", **{"blkdeviotune.disk": disk, **told})

    def domain_set_block_threshold(self, domain: DomainRef, device: str, threshold: int) -> None:
        """Nobody writes: what is asked is checked."""
        with self._host.lock:
            _disk(running(self._host, domain).current.domain, device.partition("[")[0], f"invalid path: {device}")

    def domain_block_rebase(
        self,
        domain: DomainRef,
        disk: str,
        base: str | None = None,
        bandwidth: int = 0,
        flags: BlockRebaseFlag = BlockRebaseFlag.NONE,
    ) -> None:
        """Begin to pull; when all is there the disk stands on nothing, or on ``base``."""
        speed = bandwidth if flags & BlockRebaseFlag.BANDWIDTH_BYTES else bandwidth * MiB
        self._begin(domain, disk, Job(BlockJobType.PULL, speed))

    def domain_block_commit(
        self,
        domain: DomainRef,
        disk: str,
        base: str | None = None,
        top: str | None = None,
        bandwidth: int = 0,
        flags: BlockCommitFlag = BlockCommitFlag.NONE,
    ) -> None:
        """Begin to merge; a merge of what is written to waits for the pivot."""
        speed = bandwidth if flags & BlockCommitFlag.BANDWIDTH_BYTES else bandwidth * MiB
        with self._host.lock:
            held = _disk(running(self._host, domain).current.domain, disk, f"invalid path: {disk}")
            active = top is None or (held.source is not None and top in (held.source.file, held.source.dev))
            if active and not flags & BlockCommitFlag.ACTIVE:
                what = f"commit of '{disk}' active layer requires active flag"
                raise refused(ErrorCode.INVALID_ARG, what)
            below = held.backing_store.source if held.backing_store is not None else None
            kind = BlockJobType.ACTIVE_COMMIT if active else BlockJobType.COMMIT
            wanted = below if base is None else DiskSource(file=base)
            self._begin(domain, disk, Job(kind, speed, wanted if active else None))

    def domain_block_copy(
        self,
        domain: DomainRef,
        disk: str,
        xml: str,
        bandwidth: int = 0,
        granularity: int = 0,
        buf_size: int = 0,
        flags: BlockCopyFlag = BlockCopyFlag.NONE,
    ) -> None:
        """Begin to copy; from when all is copied the job waits for the pivot."""
        with reading(ErrorDomain.DOMAIN):
            node = parse(xml, "disk_definition")
            if node.find("target") is None:  # it is the disk's that is copied
                node.append(node.makeelement("target", {"dev": disk}))
            target = Disk.from_node(node)
        if target.source is None:
            raise refused(ErrorCode.INVALID_ARG, "the destination of the copy has no source")
        self._begin(domain, disk, Job(BlockJobType.COPY, bandwidth, target.source, target.type))

    def _begin(self, domain: DomainRef, disk: str, job: Job) -> None:
        with self._host.lock:
            found = running(self._host, domain)
            held = _disk(found.current.domain, disk, f"invalid path: {disk}")
            if is_empty(held):
                raise refused(ErrorCode.INVALID_ARG, f"disk {disk} has no source file to be copied")
            Jobs(self._host, found).begin(held.target.dev, job)

    def domain_get_block_job_info(self, domain: DomainRef, disk: str) -> BlockJobInfo | None:
        """How far the disk's job is."""
        with self._host.lock:
            found = running(self._host, domain)
            target = _disk(found.current.domain, disk, f"invalid path: {disk}").target.dev
            return Jobs(self._host, found).info(target)

    def domain_block_job_abort(
        self, domain: DomainRef, disk: str, flags: BlockJobAbortFlag = BlockJobAbortFlag.NONE
    ) -> None:
        """End a job: give it up, or go over to the copy."""
        with self._host.lock:
            found = running(self._host, domain)
            target = _disk(found.current.domain, disk, f"invalid path: {disk}").target.dev
            Jobs(self._host, found).end(target, pivot=bool(flags & BlockJobAbortFlag.PIVOT))

    def domain_block_job_set_speed(self, domain: DomainRef, disk: str, bandwidth: int) -> None:
        """Let a job go on faster or slower."""
        with self._host.lock:
            found = running(self._host, domain)
            target = _disk(found.current.domain, disk, f"invalid path: {disk}").target.dev
            Jobs(self._host, found).set_speed(target, bandwidth)


def _disk(document: Domain, name: str, missing: str) -> Disk:
    """The disk with a target, or else with a source."""
    for disk in document.devices.disks:
        if disk.target.dev == name:
            return disk
    for disk in document.devices.disks:
        source = disk.source
        if source is not None and name and name in (source.file, source.dev):
            return disk
    raise refused(ErrorCode.INVALID_ARG, missing)


def _limited(old: IoTune | None, limits: Mapping[str, int | str]) -> IoTune:
    """Limits with some changed; as libvirt's test driver has it, a limit needs a burst that is no less."""
    tune = old.copy() if old is not None else IoTune()
    for name, value in limits.items():
        if name != "group_name" and int(value) > _MOST:
            what = f"block I/O throttle limit value must be no more than {_MOST}"
            raise refused(ErrorCode.ARGUMENT_UNSUPPORTED, what)
        setattr(tune, name, value or None)
    for what in _EXCLUSIVE:
        if getattr(tune, f"total_{what}") and (getattr(tune, f"read_{what}") or getattr(tune, f"write_{what}")):
            raise refused(ErrorCode.INVALID_ARG, f"total and read/write of {what} cannot be set at the same time")
    for name in _BURSTS:
        if (getattr(tune, name) or 0) > (getattr(tune, f"{name}_max") or 0):
            raise refused(ErrorCode.INVALID_ARG, f"{name} cannot be set higher than {name}_max ")
    return tune

"""Disks of running domains: sizes, statistics, limits, and block jobs."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import NamedTuple, Protocol, runtime_checkable

from hostel.drivers.base.domain import Affect, DomainRef


class BlockResizeFlag(enum.IntFlag):
    """``virDomainBlockResizeFlags``."""

    NONE = 0
    BYTES = 1
    CAPACITY = 2


class BlockRebaseFlag(enum.IntFlag):
    """``virDomainBlockRebaseFlags``, as far as it is about pulling."""

    NONE = 0
    RELATIVE = 16
    BANDWIDTH_BYTES = 64


class BlockCommitFlag(enum.IntFlag):
    """``virDomainBlockCommitFlags``."""

    NONE = 0
    SHALLOW = 1
    DELETE = 2
    ACTIVE = 4
    RELATIVE = 8
    BANDWIDTH_BYTES = 16


class BlockCopyFlag(enum.IntFlag):
    """``virDomainBlockCopyFlags``."""

    NONE = 0
    SHALLOW = 1
    REUSE_EXT = 2
    TRANSIENT_JOB = 4
    SYNCHRONOUS_WRITES = 8


class BlockJobAbortFlag(enum.IntFlag):
    """``virDomainBlockJobAbortFlags``."""

    NONE = 0
    ASYNC = 1
    PIVOT = 2


class BlockInfo(NamedTuple):
    """``virDomainBlockInfo``, in bytes: what the guest sees, what is taken on the host, where the file ends."""

    capacity: int
    allocation: int
    physical: int


class BlockJobInfo(NamedTuple):
    """``virDomainBlockJobInfo``.

    Attributes:
        type: :class:`hostel.drivers.events.BlockJobType`.
        bandwidth: bytes a second; 0 is no limit.
        cur: how far it is, in bytes.
        end: how far it will be.
    """

    type: int
    bandwidth: int
    cur: int
    end: int


class DiskError(NamedTuple):
    """An error that stopped a disk: 1 unspecified, 2 no space (``virDomainDiskErrorCode``)."""

    disk: str
    error: int


@runtime_checkable
class BlockDriver(Protocol):
    """Disks of domains; ``disk`` is a target such as ``vda``, or the source of one."""

    def domain_block_resize(
        self, domain: DomainRef, disk: str, size: int, flags: BlockResizeFlag = BlockResizeFlag.NONE
    ) -> None:
        """Change the size that the guest sees: KiB, or bytes with ``BYTES``."""

    def domain_block_stats_flags(self, domain: DomainRef, disk: str) -> Mapping[str, int]:
        """Counters by libvirt's names (``rd_operations``, …); of all disks together where ``disk`` is empty."""

    def domain_get_block_info(self, domain: DomainRef, disk: str) -> BlockInfo:
        """Sizes."""

    def domain_get_disk_errors(self, domain: DomainRef) -> list[DiskError]:
        """Disks that an error has stopped."""

    def domain_get_block_io_tune(
        self, domain: DomainRef, disk: str, affect: Affect = Affect.CURRENT
    ) -> Mapping[str, int | str]:
        """The limits of a disk, by libvirt's names."""

    def domain_set_block_io_tune(
        self, domain: DomainRef, disk: str, limits: Mapping[str, int | str], affect: Affect = Affect.CURRENT
    ) -> None:
        """Set limits; those that are not given stay."""

    def domain_set_block_threshold(self, domain: DomainRef, device: str, threshold: int) -> None:
        """Have an event told once when an image (``vda``, ``vda[3]``) is written past ``threshold`` bytes."""

    def domain_block_rebase(
        self,
        domain: DomainRef,
        disk: str,
        base: str | None = None,
        bandwidth: int = 0,
        flags: BlockRebaseFlag = BlockRebaseFlag.NONE,
    ) -> None:
        """Pull what is in the backing chain down to ``base`` into the disk's image; ``blockpull``."""

    def domain_block_commit(
        self,
        domain: DomainRef,
        disk: str,
        base: str | None = None,
        top: str | None = None,
        bandwidth: int = 0,
        flags: BlockCommitFlag = BlockCommitFlag.NONE,
    ) -> None:
        """Merge ``top`` and what is below it into ``base``."""

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
        """Copy the disk to what a ``<disk>`` describes, and keep it mirrored until the job is ended; bytes a second."""

    def domain_get_block_job_info(self, domain: DomainRef, disk: str) -> BlockJobInfo | None:
        """How far the disk's job is; None where there is none."""

    def domain_block_job_abort(
        self, domain: DomainRef, disk: str, flags: BlockJobAbortFlag = BlockJobAbortFlag.NONE
    ) -> None:
        """End a job: give it up, or with ``PIVOT`` go over to the copy."""

    def domain_block_job_set_speed(self, domain: DomainRef, disk: str, bandwidth: int) -> None:
        """Limit a job, in bytes a second; 0 takes the limit off."""

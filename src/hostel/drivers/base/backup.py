"""Checkpoints, from which on changes of disks are known, and backups."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import NamedTuple, Protocol, runtime_checkable

from hostel.drivers.base.domain import DomainRef


class CheckpointRef(NamedTuple):
    """Names a checkpoint of a domain."""

    name: str
    domain: DomainRef


class CheckpointCreateFlag(enum.IntFlag):
    """``virDomainCheckpointCreateFlags``."""

    NONE = 0
    REDEFINE = 1
    QUIESCE = 2
    REDEFINE_VALIDATE = 4


class CheckpointXmlFlag(enum.IntFlag):
    """``virDomainCheckpointXMLFlags``."""

    NONE = 0
    SECURE = 1
    NO_DOMAIN = 2
    SIZE = 4


class AbortFlag(enum.IntFlag):
    """``virDomainAbortJobFlagsValues``."""

    NONE = 0
    POSTCOPY = 1


class CheckpointListFlag(enum.IntFlag):
    """``virDomainCheckpointListFlags``; the first two are one bit, which means the one or the other."""

    NONE = 0
    ROOTS = 1
    DESCENDANTS = 1
    TOPOLOGICAL = 2
    LEAVES = 4
    NO_LEAVES = 8


class CheckpointDeleteFlag(enum.IntFlag):
    """``virDomainCheckpointDeleteFlags``."""

    NONE = 0
    CHILDREN = 1
    METADATA_ONLY = 2
    CHILDREN_ONLY = 4


class BackupBeginFlag(enum.IntFlag):
    """``virDomainBackupBeginFlags``."""

    NONE = 0
    REUSE_EXTERNAL = 1


@runtime_checkable
class CheckpointDriver(Protocol):
    """Checkpoints of running domains. Lookups raise ``NO_DOMAIN_CHECKPOINT``."""

    def domain_checkpoint_create_xml(
        self, domain: DomainRef, xml: str, flags: CheckpointCreateFlag = CheckpointCreateFlag.NONE
    ) -> CheckpointRef:
        """From now on write down what changes."""

    def domain_list_all_checkpoints(
        self, domain: DomainRef, flags: CheckpointListFlag = CheckpointListFlag.NONE
    ) -> list[CheckpointRef]:
        """The checkpoints that the flags let through."""

    def domain_checkpoint_list_all_children(
        self, checkpoint: CheckpointRef, flags: CheckpointListFlag = CheckpointListFlag.NONE
    ) -> list[CheckpointRef]:
        """The checkpoints after one."""

    def domain_checkpoint_lookup_by_name(self, domain: DomainRef, name: str) -> CheckpointRef:
        """Find by name."""

    def domain_checkpoint_get_parent(self, checkpoint: CheckpointRef) -> CheckpointRef:
        """The checkpoint before."""

    def domain_checkpoint_get_xml_desc(
        self, checkpoint: CheckpointRef, flags: CheckpointXmlFlag = CheckpointXmlFlag.NONE
    ) -> str:
        """The checkpoint's document; with ``SIZE`` how much has changed since."""

    def domain_checkpoint_delete(
        self, checkpoint: CheckpointRef, flags: CheckpointDeleteFlag = CheckpointDeleteFlag.NONE
    ) -> None:
        """Forget what has changed since."""


@runtime_checkable
class BackupDriver(Protocol):
    """Backups of running domains."""

    def domain_backup_begin(
        self,
        domain: DomainRef,
        backup_xml: str,
        checkpoint_xml: str | None = None,
        flags: BackupBeginFlag = BackupBeginFlag.NONE,
    ) -> None:
        """Begin to write a backup, or to serve one, as all disks are now; with a checkpoint at the same moment."""

    def domain_backup_get_xml_desc(self, domain: DomainRef) -> str:
        """The document of the backup that is under way; ``NO_DOMAIN_BACKUP``."""

    def domain_abort_job(self, domain: DomainRef, flags: AbortFlag = AbortFlag.NONE) -> None:
        """End the backup: what was being written is not whole, and what was served is no more."""


class JobType(enum.IntEnum):
    """``virDomainJobType``."""

    NONE = 0
    BOUNDED = 1
    UNBOUNDED = 2
    COMPLETED = 3
    FAILED = 4
    CANCELLED = 5


@runtime_checkable
class JobStatsDriver(Protocol):
    """What a domain is about."""

    def domain_get_job_stats(self, domain: DomainRef, flags: int = 0) -> tuple[JobType, Mapping[str, int]]:
        """How far the job is that runs, or how the last one went, with libvirt's flags; kept of migrations only."""

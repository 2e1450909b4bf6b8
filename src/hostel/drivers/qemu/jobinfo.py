"""What a domain is about: a backup, or its migration (``virDomainGetJobStats``)."""

from __future__ import annotations

from collections.abc import Mapping

from hostel.drivers.base import DomainRef
from hostel.drivers.base.backup import AbortFlag, JobType
from hostel.drivers.qemu.backup.calls import BackupCalls
from hostel.drivers.qemu.migration.calls import MigrationCalls


class DomainJobCalls(BackupCalls, MigrationCalls):
    """See :class:`hostel.drivers.base.backup.JobStatsDriver`."""

    def domain_get_job_stats(self, domain: DomainRef, flags: int = 0) -> tuple[JobType, Mapping[str, int]]:
        """How far the job is, or how the last migration went."""
        found = self.migration_stats(domain, flags)
        return found if found is not None else self.backup_stats(domain)

    def domain_abort_job(self, domain: DomainRef, flags: AbortFlag = AbortFlag.NONE) -> None:
        """End the job."""
        if not self.abort_migration(domain, postcopy=bool(flags & AbortFlag.POSTCOPY)):
            self.abort_backup(domain)

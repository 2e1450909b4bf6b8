"""What a domain is about: its memory is being written, a backup, or its migration (``virDomainGetJobStats``)."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from hostel.drivers.base import DomainRef
from hostel.drivers.base.backup import AbortFlag, JobType
from hostel.drivers.qemu import underway
from hostel.drivers.qemu.backup.calls import BackupCalls
from hostel.drivers.qemu.machines import GLANCE, DomainHeld
from hostel.drivers.qemu.migration.calls import MigrationCalls

_POLL: Final = 0.02  # seconds


class DomainJobCalls(BackupCalls, MigrationCalls):
    """See :class:`hostel.drivers.base.backup.JobStatsDriver`."""

    def domain_get_job_stats(self, domain: DomainRef, flags: int = 0) -> tuple[JobType, Mapping[str, int]]:
        """How far the job is, or how the last migration went."""
        while True:
            run, numbers = self._of_holder(domain) if not flags else (None, None)
            if run is not None:
                return (JobType.NONE if numbers is None else JobType.UNBOUNDED), numbers or {}
            try:
                found = self.migration_stats(domain, flags)
                return found if found is not None else self.backup_stats(domain)
            except DomainHeld:  # since a moment ago
                if flags:
                    raise

    def domain_abort_job(self, domain: DomainRef, flags: AbortFlag = AbortFlag.NONE) -> None:
        """End the job."""
        if not flags & AbortFlag.POSTCOPY:
            run, numbers = self._of_holder(domain)
            if run is not None and numbers is not None and underway.end(run):
                return
        if not self.abort_migration(domain, postcopy=bool(flags & AbortFlag.POSTCOPY)):
            self.abort_backup(domain)

    def _of_holder(self, domain: DomainRef) -> tuple[Path | None, dict[str, int] | None]:
        """What an operation that has the domain's lock is about, if that can be said, and the directory of its run.

        Neither where the lock is free, or soon is.
        """
        deadline = time.monotonic() + GLANCE
        while (known := self._machines.seen(domain.name)) is not None:
            numbers = underway.progress(Path(known.run))
            try:
                with self._machines.locked(domain.name, 0):
                    return None, None
            except DomainHeld:
                if numbers is not None or time.monotonic() >= deadline:
                    return Path(known.run), numbers
            time.sleep(_POLL)
        return None, None

"""The driver's calls about migration."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

from hostel.drivers.base import DomainRef, PausedReason
from hostel.drivers.base.backup import JobType
from hostel.drivers.base.domain import Affect
from hostel.drivers.base.migration import DEST_NAME, DEST_XML, MigrateFlag, Parameters, Tunnel
from hostel.drivers.fault import fault
from hostel.drivers.qemu import jobstats, lease
from hostel.drivers.qemu.calls import Calls, check_still, no_domain
from hostel.drivers.qemu.document import unsupported
from hostel.drivers.qemu.machines import GLANCE, failed, invalid
from hostel.drivers.qemu.migration.tuning import UNLIMITED
from hostel.drivers.qemu.running import Running
from hostel.drivers.qemu.status import read_ending
from hostel.errors import ErrorCode, ErrorDomain, VirtError

if TYPE_CHECKING:
    from hostel.drivers.qemu.migration.destination import Prepared

_MIB: Final = 1 << 20
_POLL: Final = 0.05  # seconds
_MOST_MIB: Final = UNLIMITED // _MIB
_COMPLETED, _KEPT = 1, 2  # of virDomainGetJobStatsFlags


class MigrationCalls(Calls):
    """Migration; see :class:`hostel.drivers.base.migration.MigrationDriver` and ``MigrationSettings``."""

    def domain_migrate_begin3_params(
        self, domain: DomainRef, params: Parameters, flags: MigrateFlag
    ) -> tuple[bytes, str]:
        """Begin."""
        from hostel.drivers.qemu.migration.source import begin

        with self._machines.locked(domain.name), self._held(domain) as machine:
            stored = self._machines.definition(domain.name)
            if machine is None and stored is None:
                raise no_domain(f"name '{domain.name}'")
            if machine is not None:
                check_still(machine)
            platform = self._launcher.platform(machine.domain if machine is not None else stored)
            return begin(self._machines, platform, machine, stored, params, flags)

    def domain_migrate_prepare3_params(
        self, params: Parameters, cookie_in: bytes, flags: MigrateFlag
    ) -> tuple[bytes, str | None]:
        """Prepare."""
        prepared = self._expect(params, cookie_in, flags)
        return prepared.cookie, prepared.uri

    def domain_migrate_prepare_tunnel3_params(
        self, params: Parameters, cookie_in: bytes, flags: MigrateFlag
    ) -> tuple[bytes, Tunnel]:
        """Prepare, where the machine comes through a stream."""
        from hostel.drivers.qemu.migration.tunnel import PipeTunnel

        prepared = self._expect(params, cookie_in, flags, tunnelled=True)
        return prepared.cookie, PipeTunnel(prepared.descriptor)

    def _expect(self, params: Parameters, cookie_in: bytes, flags: MigrateFlag, *, tunnelled: bool = False) -> Prepared:
        from hostel.drivers.qemu import document
        from hostel.drivers.qemu.migration.destination import Incoming
        from hostel.drivers.qemu.migration.settling import pending
        from hostel.drivers.qemu.migration.tuning import text

        name = text(params, DEST_NAME) or document.parse_stored(text(params, DEST_XML) or "").name
        with self._machines.locked(name):
            coming = Incoming(self._machines, self._launcher, params, cookie_in, flags)
            with self._held(DomainRef(name, "")) as machine:
                if machine is not None:
                    raise invalid(f"domain '{name}' is already active")
            if pending(self._machines, name) is None:
                lease.let_go(self._machines.lease(name))  # of one that has ended by itself
            self._check_clash(coming.domain)
            return coming.run(tunnelled=tunnelled)

    def domain_migrate_perform3_params(
        self, domain: DomainRef, dconnuri: str | None, params: Parameters, cookie_in: bytes, flags: MigrateFlag
    ) -> bytes:
        """Perform, or all steps."""
        from hostel.drivers.qemu.migration.peer import lead
        from hostel.drivers.qemu.migration.source import Outgoing

        domain = self._whole(domain)
        if flags & MigrateFlag.PEER2PEER:
            lead(self, self._machines, self._launcher, domain, dconnuri, params, flags)
            return b""
        if dconnuri is not None:
            what = "Unexpected dconnuri parameter with non-peer2peer migration"
            raise fault(ErrorCode.INTERNAL_ERROR, what, ErrorDomain.QEMU)
        return Outgoing(self._machines, self._launcher, domain, params, cookie_in, flags).run()

    def _whole(self, domain: DomainRef) -> DomainRef:
        found = self._machines.ref(domain.name)
        if found is None or (domain.uuid and found.uuid != domain.uuid):
            raise no_domain(f"name '{domain.name}'")
        return found

    def domain_migrate_finish3_params(
        self, params: Parameters, cookie_in: bytes, flags: MigrateFlag, cancelled: bool
    ) -> tuple[DomainRef, bytes]:
        """Finish."""
        from hostel.drivers.qemu.migration.destination import conclude, finish
        from hostel.drivers.qemu.migration.settling import drop, pending
        from hostel.drivers.qemu.migration.tuning import text

        name = text(params, DEST_NAME)
        if name is None:
            raise fault(ErrorCode.INTERNAL_ERROR, "missing domain name", ErrorDomain.QEMU)
        with self._machines.locked(name):
            if pending(self._machines, name) is not None and not self._machines.statuses.has(name):
                return self._finish_offline(name, cancelled=cancelled)
            status = self._machines.live(name)
            if status is None:
                lease.let_go(self._machines.lease(name))
                raise self._never_came(name)
            machine = Running(self._machines, status, self._launcher)
            try:
                if not _is_coming(machine, cancelled=cancelled):
                    raise no_domain(f"name '{name}' that is migrated here")
                with self._left_to_others(name):
                    if cancelled:
                        drop(machine, "the migration was cancelled")
                        raise _finished()
                    came = finish(machine, self._launcher, cookie_in, flags)
            finally:
                machine.close()
        with self._left_to_others(name):
            if came.is_postcopy:
                self._await_rest(name, "in")  # it runs here, with what there is
            with self._machines.locked(name), self._held(DomainRef(name, "")) as found:
                if found is None:
                    raise self._never_came(name)
                return conclude(found, came, flags)

    @contextlib.contextmanager
    def _left_to_others(self, name: str) -> Iterator[None]:
        """Let go of the lease where a step fails: whoever comes next settles what is left."""
        try:
            yield
        except BaseException:
            lease.let_go(self._machines.lease(name))
            raise

    def _await_rest(self, name: str, way: str) -> None:
        """Wait while a guest runs at the destination, and what is missing follows.

        Raises:
            VirtError: ``OPERATION_FAILED``: one of both has ended, or nothing follows any more.
        """
        from hostel.drivers.qemu.migration.source import Progress

        progress = Progress(f"migration {way} job")
        while True:
            with self._machines.locked(name):
                status = self._machines.live(name)
                if status is None:
                    raise failed(f"migration {way} job: domain is not running")
                machine = Running(self._machines, status, self._launcher)
                try:
                    found = machine.ask("query-migrate")
                finally:
                    machine.close()
            match found.get("status"):
                case "completed":
                    return
                case "failed" | "postcopy-paused":
                    raise failed(f"migration {way} job: what was missing of the guest does not come any more")
            progress.look([found.get("ram", {}).get("transferred"), found.get("ram", {}).get("postcopy-bytes")])
            time.sleep(_POLL)

    def _finish_offline(self, name: str, *, cancelled: bool) -> tuple[DomainRef, bytes]:
        from hostel.drivers.qemu.migration.destination import finish_offline

        if not cancelled:
            return finish_offline(self._machines, self._launcher, name)
        self._machines.incoming.remove(name)
        lease.let_go(self._machines.lease(name))
        raise _finished()

    def _never_came(self, name: str) -> VirtError:
        ending = read_ending(self._machines.endings, name)
        if ending.detail:
            what = f"guest unexpectedly quit: {ending.detail}"
            return fault(ErrorCode.INTERNAL_ERROR, what, ErrorDomain.QEMU)
        return no_domain(f"name '{name}'")

    def domain_migrate_confirm3_params(
        self, domain: DomainRef, params: Parameters, cookie_in: bytes, flags: MigrateFlag, cancelled: bool
    ) -> None:
        """Confirm."""
        from hostel.drivers.qemu.migration.settling import undefine

        if not cancelled and self._is_following(domain):
            self._await_rest(domain.name, "out")
        with self._machines.locked(domain.name):
            self._check_is(domain)
            if flags & MigrateFlag.OFFLINE:
                if not cancelled and flags & MigrateFlag.UNDEFINE_SOURCE:
                    undefine(self._machines, domain.name)
                return
            status = self._machines.live(domain.name)
            if status is None or status.migration is None or status.migration.way != "out":
                lease.let_go(self._machines.lease(domain.name))
                raise invalid("domain is not being migrated")
            machine = Running(self._machines, status, self._launcher)
            try:
                self._confirm(machine, cookie_in, cancelled=cancelled)
            except BaseException:
                lease.let_go(machine.lease)  # whoever comes next may try
                raise
            finally:
                machine.close()

    def _is_following(self, domain: DomainRef) -> bool:
        """Whether the guest runs at the destination while something is missing."""
        with self._machines.locked(domain.name):
            status = self._machines.live(domain.name)
        return status is not None and status.migration is not None and status.paused == PausedReason.POSTCOPY

    def _confirm(self, machine: Running, cookie_in: bytes, *, cancelled: bool) -> None:
        from hostel.drivers.qemu.migration.settling import ask_destination, resume, take_back

        mark = machine.status.migration
        assert mark is not None
        is_there: bool | None = not cancelled
        if cancelled and mark.phase == "performed" and (mark.peer or mark.place is not None):
            # Who says that it failed may only not have heard that it did not.
            is_there = ask_destination(machine, mark)
        if is_there is None:
            lease.let_go(machine.lease)
            raise failed("nobody knows whether the guest runs at the destination: it is paused until that answers")
        if is_there and mark.phase == "performed":
            self._gone(machine, cookie_in)
        elif is_there:
            raise invalid("the domain was not migrated: it is still here")
        else:
            take_back(machine)
            self._machines.completed.remove(machine.name)
            lease.let_go(machine.lease)
            resume(machine)

    def _gone(self, machine: Running, cookie_in: bytes) -> None:
        """It runs there: end what is left here, and tell how it went."""
        from hostel.drivers.qemu.migration.cookie import read as read_cookie
        from hostel.drivers.qemu.migration.settling import leave

        said = None
        with contextlib.suppress(VirtError):  # it has only numbers
            said = read_cookie(cookie_in, self._machines.directories, machine.name, machine.domain.uuid or "")
        told = jobstats.completed(self._machines, machine.name, stays=True)
        if said is not None and said.statistics is not None and said.statistics.downtime is not None:
            told["downtime"] = said.statistics.downtime
        jobstats.keep(machine, told)
        machine.publish("job-completed", **told)
        leave(machine)

    def domain_migrate_forsake(self, name: str) -> None:
        """Settle what a client has begun that is gone, as far as it goes without it."""
        from hostel.drivers.qemu.migration.settling import settle_migration

        with contextlib.suppress(VirtError), self._machines.locked(name):
            status = self._machines.live(name)
            mark = status.migration if status is not None else None
            if status is not None and mark is not None and lease.is_leased(self._machines.lease(name)):
                machine = Running(self._machines, status, self._launcher)
                try:
                    if mark.phase == "perform":  # whoever performs it sees that it is asked to end
                        mark.abort = True
                        machine.save(migration=mark)
                        machine.attempt("migrate_cancel")
                        return
                    lease.let_go(machine.lease)
                    settle_migration(machine)
                finally:
                    machine.close()
            elif status is None:
                self._machines.incoming.remove(name)
                lease.let_go(self._machines.lease(name))

    def migration_stats(self, domain: DomainRef, flags: int = 0) -> tuple[JobType, Mapping[str, int]] | None:
        """How far the migration is, or how the last one went; None where none is under way.

        Raises:
            DomainHeld: an operation has the domain.
        """
        from hostel.drivers.qemu.migration import statistics
        from hostel.drivers.qemu.migration.source import now

        if flags & _COMPLETED:
            with self._machines.locked(domain.name), self._held(domain):  # a job that has just ended is told of then
                found = jobstats.completed(self._machines, domain.name, stays=bool(flags & _KEPT))
            kind = JobType.COMPLETED if found.get("success", 1) else JobType.FAILED
            return (kind if found else JobType.NONE), found
        with self._machines.locked(domain.name, GLANCE), self._held(domain, asks=False) as machine:
            mark = machine.status.migration if machine is not None else None
            if machine is None or mark is None or not lease.is_leased(machine.lease):
                return None
            if mark.way == "out" and mark.phase != "begin":
                return JobType.UNBOUNDED, statistics.current(machine, now() - mark.began)
            told = {"operation": statistics.MIGRATION_OUT if mark.way == "out" else statistics.MIGRATION_IN}
            return JobType.UNBOUNDED, {**told, "time_elapsed": now() - mark.began}

    def abort_migration(self, domain: DomainRef, *, postcopy: bool = False) -> bool:
        """End a migration that is under way here; False where there is none.

        Args:
            domain: the machine.
            postcopy: one whose guest runs at the destination already, and needs what is still here.

        Raises:
            VirtError: ``OPERATION_INVALID``: it cannot be ended any more, or by its source only.
        """
        from hostel.drivers.qemu.migration.settling import POSTCOPY

        with self._running(domain, moving=True) as machine:
            mark = machine.status.migration
            is_there = mark is not None and mark.way != "in" and machine.ask("query-migrate").get("status") in POSTCOPY
            if postcopy and not is_there:
                raise invalid("current job is not outgoing migration in post-copy mode")
            if mark is None:
                return False
            if mark.way == "in":
                raise invalid("cannot abort incoming migration; use virDomainDestroy instead")
            if postcopy:
                raise unsupported("a migration in post-copy mode cannot be interrupted, for it could not be resumed")
            if is_there:
                raise invalid("cannot abort migration in post-copy mode")
            if mark.phase != "perform":
                raise invalid("the migration cannot be aborted now")
            mark.abort = True
            machine.save(migration=mark)
            machine.attempt("migrate_cancel")
            return True

    def domain_migrate_get_max_downtime(self, domain: DomainRef) -> int:
        """How long the guest may stand still."""
        with self._running(domain, moving=True) as machine:
            return int(machine.ask("query-migrate-parameters")["downtime-limit"])

    def domain_migrate_set_max_downtime(self, domain: DomainRef, downtime: int) -> None:
        """Set that."""
        with self._running(domain, moving=True) as machine:
            machine.ask("migrate-set-parameters", **{"downtime-limit": downtime})

    def domain_migrate_get_max_speed(self, domain: DomainRef, *, postcopy: bool = False) -> int:
        """How much may be sent; of a machine that does not run what its next run begins with."""
        if not postcopy:
            running = self._written(domain, Affect.CURRENT).running
            return (running.status.speed if running is not None else self._machines.speed_of(domain.name)) or _MOST_MIB
        with self._running(domain, moving=True) as machine:
            return int(machine.ask("query-migrate-parameters")["max-postcopy-bandwidth"]) // _MIB

    def domain_migrate_set_max_speed(self, domain: DomainRef, bandwidth: int, *, postcopy: bool = False) -> None:
        """Set that, for now and for later."""
        if bandwidth > _MOST_MIB:
            raise fault(ErrorCode.OVERFLOW, f"bandwidth must be less than {_MOST_MIB + 1}", ErrorDomain.QEMU)
        with self._machines.locked(domain.name):
            self._check_is(domain)
            is_kept = self._machines.definition(domain.name) is not None
            if is_kept and not postcopy:
                self._machines.speeds.write(domain.name, str(bandwidth))
                if self._machines.live(domain.name) is None:
                    return
        with self._running(domain, moving=True) as machine:
            if postcopy:
                machine.ask("migrate-set-parameters", **{"max-postcopy-bandwidth": bandwidth * _MIB})
                return
            machine.ask("migrate-set-parameters", **{"max-bandwidth": bandwidth * _MIB})
            machine.save(speed=bandwidth)

    def domain_migrate_get_compression_cache(self, domain: DomainRef) -> int:
        """The size of the cache of pages that were sent."""
        with self._running(domain, moving=True) as machine:
            return int(machine.ask("query-migrate-parameters")["xbzrle-cache-size"])

    def domain_migrate_set_compression_cache(self, domain: DomainRef, cache_size: int) -> None:
        """Set that."""
        with self._running(domain, moving=True) as machine:
            machine.ask("migrate-set-parameters", **{"xbzrle-cache-size": cache_size})

    def domain_migrate_start_post_copy(self, domain: DomainRef) -> None:
        """Let the guest run at the destination now."""
        with self._running(domain, moving=True) as machine:
            mark = machine.status.migration
            if mark is None or mark.way != "out" or mark.phase != "perform":
                raise invalid("post-copy can only be started while outgoing migration is in progress")
            if not mark.flags & MigrateFlag.POSTCOPY:
                raise invalid("switching to post-copy requires migration to be started with VIR_MIGRATE_POSTCOPY flag")
            machine.ask("migrate-start-postcopy")


def _is_coming(machine: Running, *, cancelled: bool) -> bool:
    """Whether a machine waits for Finish; one that shall not come any more does also while a Finish has failed."""
    from hostel.drivers.qemu.migration.settling import has_run

    mark = machine.status.migration
    if mark is None or mark.way != "in":
        return False
    if mark.phase == "prepare":
        return True
    return cancelled and not has_run(machine.ask("query-status"))


def _finished() -> VirtError:
    return VirtError(ErrorCode.MIGRATE_FINISH_OK, "migration successfully aborted", domain=ErrorDomain.QEMU)

"""Bringing a migration to one of its ends, by whoever finds that it has been left: here, there, never both.

========== =========== =====================================================================================
way        phase       what is done
========== =========== =====================================================================================
out        begin       nothing has happened yet: the mark goes
out        perform     nobody was told that all was sent: what QEMU sends ends, and the guest goes on here
out        performed   the destination is asked, and what it has not let run yet it drops; where it cannot be
                       asked the guest stays paused, and its owner decides: ``resume`` or ``destroy``
out        confirm     it runs there: what is left here ends
in         prepare     it has not run here yet: it is dropped, with the files that were made for it
in         finish      where its CPUs run, or something stopped them since, it has come, else as above; where QEMU
                       has ended it stays so, and the source pauses, for it may have run
========== =========== =====================================================================================
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from typing import Any, Final

from hostel.drivers.base import DomainState, PausedReason, RunningReason, ShutoffReason
from hostel.drivers.base.migration import DEST_NAME, MigrateFlag, MigrationDriver
from hostel.drivers.events import Lifecycle
from hostel.drivers.qemu import lease, process
from hostel.drivers.qemu.backup.checkpoints import Checkpoints
from hostel.drivers.qemu.lockmanager import holding
from hostel.drivers.qemu.machines import Machines, failed
from hostel.drivers.qemu.migration import copying, encryption
from hostel.drivers.qemu.migration.cookie import directories_of
from hostel.drivers.qemu.migration.tuning import reset
from hostel.drivers.qemu.running import Running
from hostel.drivers.qemu.status import FAILED, Ending, Migration, Pending, read_ending
from hostel.drivers.store import NotText
from hostel.errors import ErrorCode, HostelError, ModelError, VirtError

_CANCEL_SECONDS: Final = 20.0
_POLL: Final = 0.02  # seconds
_ASK_AGAIN: Final = 30  # seconds after which a destination that did not answer is asked again
_MOVING: Final = ("setup", "active", "cancelling", "device", "pre-switchover", "wait-unplug")
_NOT_YET: Final = ("inmigrate", "paused", "prelaunch")  # QEMU's states before a guest that has come was let run
# How what may never have run ends, too; or nobody wrote down how it did.
_MAYBE_CAME: Final = (ShutoffReason.UNKNOWN, ShutoffReason.DESTROYED, ShutoffReason.CRASHED)
POSTCOPY: Final = ("postcopy-active", "postcopy-paused", "postcopy-recover")


def settle_migration(machine: Running) -> None:
    """Settle what a migration has left; see the table above. The caller holds the domain's lock.

    Raises:
        VirtError: QEMU does not answer.
    """
    mark = machine.status.migration
    assert mark is not None
    match mark.way, mark.phase:
        case "out", "begin":
            machine.save(migration=None)
        case "out", "perform":
            with contextlib.suppress(VirtError):  # it stays marked: the next one tries again
                take_back(machine)
                resume(machine)
        case "out", "performed":
            _settle_performed(machine, mark)
        case "out", _:
            leave(machine)
        case _, "finish" if has_run(machine.ask("query-status")):
            arrive(machine)
        case _:
            drop(machine, "the process that let it in died")


def _settle_performed(machine: Running, mark: Migration) -> None:
    if int(time.time()) < mark.asked + _ASK_AGAIN:
        return
    if machine.ask("query-migrate").get("status") in POSTCOPY:
        return  # the guest runs there, and needs what is here
    is_there = ask_destination(machine, mark)
    if is_there is None:
        mark.asked = int(time.time())
        machine.save(migration=mark)
    elif is_there:
        leave(machine)
    else:
        take_back(machine)
        resume(machine)


def ask_destination(machine: Running, mark: Migration) -> bool | None:
    """Whether the destination has the machine; what it has not let run yet it drops. None where nobody can tell."""
    try:
        if mark.place is not None:
            return _ask_here(machine, mark)
        if mark.peer:
            return _ask_peer(machine, mark)
    except (HostelError, OSError):
        return None
    return None


def _ask_here(machine: Running, mark: Migration) -> bool | None:
    """Ask a destination on this host, by its own locks and documents, whether or not its daemon lives."""
    from hostel.drivers.qemu.driver import QemuDriver

    assert mark.place is not None
    directories = directories_of(mark.place)
    driver = QemuDriver(directories)
    is_there = _ask(driver, machine, mark)
    machines = Machines(directories)
    if is_there is None and not machines.statuses.has(mark.name):
        ending = read_ending(machines.endings, mark.name)
        return False if ending.reason is ShutoffReason.FAILED else None
    return is_there


def _ask_peer(machine: Running, mark: Migration) -> bool | None:
    from hostel.drivers.registry import open_drivers

    drivers = open_drivers(mark.peer, machine.machines.directories)
    try:
        return _ask(drivers.hypervisor, machine, mark)
    finally:
        drivers.close()


def _ask(driver: object, machine: Running, mark: Migration) -> bool | None:
    """Have a destination drop what it waits for; where it waits for nothing any more, look what became of it."""
    assert isinstance(driver, MigrationDriver)
    try:
        driver.domain_migrate_finish3_params({DEST_NAME: mark.name}, b"", MigrateFlag(mark.flags), True)
    except VirtError as error:
        if error.code is ErrorCode.MIGRATE_FINISH_OK:
            return False
    hypervisor: object = driver
    try:
        ref = hypervisor.domain_lookup_by_uuid(machine.domain.uuid or "")  # type: ignore[attr-defined]
        state = hypervisor.domain_get_state(ref)  # type: ignore[attr-defined]
    except VirtError as error:
        if error.code is ErrorCode.NO_DOMAIN:
            return None  # never come, or gone again since: these are not the same
        raise
    match state.state, state.reason:
        case DomainState.SHUTOFF, ShutoffReason.FAILED:
            return False
        case DomainState.SHUTOFF, reason if reason in _MAYBE_CAME:
            return None
        case DomainState.PAUSED, PausedReason.MIGRATION:
            return None  # it has not been let run, and may be dropped
    return True


def has_run(status: Mapping[str, Any]) -> bool:
    """Whether QEMU's status is one of a guest that was let run since it came; an error may have stopped it again."""
    return status["status"] not in _NOT_YET


def take_back(machine: Running) -> None:
    """End what QEMU sends, and forget what was made for it.

    Raises:
        VirtError: ``OPERATION_FAILED``: QEMU sends on.
    """
    deadline = time.monotonic() + _CANCEL_SECONDS
    while (found := machine.attempt("query-migrate") or {}).get("status") in _MOVING:
        machine.attempt("migrate_cancel")
        if found["status"] == "cancelling":
            wake(machine)
        if time.monotonic() >= deadline:
            raise failed("QEMU does not end its migration")
        time.sleep(_POLL)
    copying.drop(machine)
    if found.get("status") not in POSTCOPY:
        reset(machine)
        encryption.forget(machine)


def wake(machine: Running) -> None:
    """Have a migration end that is being cancelled.

    QEMU misses it in the moment between stopping the guest and pausing for the switch-over, and then waits for
    ``migrate-continue`` for ever. Where it does not wait, this does nothing.
    """
    machine.attempt("migrate-continue", state="cancelling")


def resume(machine: Running) -> None:
    """Let the guest run on here, if it did before; where QEMU does not let it, somebody else has its disks.

    Raises:
        VirtError: QEMU does not answer.
    """
    mark = machine.status.migration
    if mark is None or not mark.resumes:
        machine.save(migration=None)
        return
    if not machine.ask("query-status").get("running") and not _goes_on(machine):
        machine.save(migration=None, paused=int(PausedReason.MIGRATION))
        return
    machine.save(migration=None, paused=0)


def _goes_on(machine: Running) -> bool:
    """Whether the guest runs again; where it cannot somebody else has its disks, or its locks."""
    with contextlib.suppress(VirtError):
        return holding.go_on(machine, RunningReason.MIGRATION_CANCELED)
    return False


def leave(machine: Running) -> None:
    """End the machine here: it is at the destination.

    Raises:
        VirtError: ``OPERATION_FAILED`` when QEMU does not end.
    """
    mark = machine.status.migration
    assert mark is not None
    if mark.phase != "confirm":
        mark.phase = "confirm"
        machine.save(migration=mark, ending="migrated")
    if mark.flags & MigrateFlag.UNDEFINE_SOURCE:
        undefine(machine.machines, machine.name)
    status = machine.status
    machine.close()
    if not process.end(status.pid, status.started):
        raise failed(f"QEMU, process {status.pid}, does not end")
    process.exit_status(machine.run, 2)
    machine.forget(Ending(ShutoffReason.MIGRATED, ""))
    lease.let_go(machine.lease)


def undefine(machines: Machines, name: str) -> None:
    """Drop the definition of a domain that has moved; one that has none is no mistake."""
    Checkpoints(machines, name).clear()
    with machines.definitions.locked():
        domain = machines.definition(name)
        if domain is None:
            return
        machines.definitions.remove(name)
        machines.autostarts.remove(name)
    machines.publish(domain, "lifecycle", event=int(Lifecycle.UNDEFINED), detail=0)


def arrive(machine: Running) -> None:
    """The machine is here: nothing of its way is left.

    Raises:
        VirtError: QEMU does not answer.
    """
    mark = machine.status.migration
    assert mark is not None
    machine.attempt("nbd-server-stop")
    reset(machine)
    encryption.forget(machine)
    is_paused = not machine.ask("query-status").get("running")
    machine.save(migration=None, paused=int(PausedReason.USER) if is_paused else 0, running=int(RunningReason.MIGRATED))
    lease.let_go(machine.lease)


def drop(machine: Running, why: str) -> None:
    """End a machine that was coming, and what was made for it.

    Raises:
        VirtError: ``OPERATION_FAILED`` when QEMU does not end.
    """
    mark, status = machine.status.migration, machine.status
    assert mark is not None
    machine.close()
    with contextlib.suppress(VirtError):  # what has not come must end on a full disk, too
        machine.save(ending=FAILED)
    if not process.end(status.pid, status.started, grace=1):
        raise failed(f"QEMU, process {status.pid}, does not end")
    process.exit_status(machine.run, 2)
    machine.machines.undo_arrival(machine.name, mark)
    machine.forget(Ending(ShutoffReason.FAILED, why))
    lease.let_go(machine.lease)


def pending(machines: Machines, name: str) -> Pending | None:
    """What is expected under a name, and not there yet."""
    try:
        return Pending.parse(machines.incoming.read(name) or "")
    except (ModelError, NotText):
        return None


def forget_expected(machines: Machines, name: str) -> None:
    """Drop a domain that was expected, unless its migration goes on; the caller holds the domain's lock."""
    found = pending(machines, name)
    if lease.is_leased(machines.lease(name)):
        return
    if found is not None and not machines.statuses.has(name):
        machines.undo_arrival(name, found.migration)
    machines.incoming.remove(name)


def settle_left(machines: Machines, name: str) -> None:
    """Settle what a process that died has left of a domain's migration; the caller holds the domain's lock."""
    status = machines.live(name)
    if status is None or status.migration is None or lease.is_leased(machines.lease(name)):
        return
    machine = Running(machines, status)
    try:
        settle_migration(machine)
    finally:
        machine.close()

"""The locks of a running machine: had before its guest may run, let go of when it does not (``domain_lock.c``).

What is asked of the lock manager is in the machine's state before, and is sure once it has said so. Whoever finds a
lock that is not sure has the lock manager let go of it before anything else, whether or not it has it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from hostel.drivers.base import RunningReason
from hostel.drivers.fault import fault
from hostel.drivers.qemu import process
from hostel.drivers.qemu.lockmanager.claims import claims_of, has_disks_of_its_own
from hostel.drivers.qemu.lockmanager.manager import Claim, LockManager, Owner, open_manager
from hostel.drivers.qemu.status import Lock
from hostel.drivers.store import Directories
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.model.domain.domain import Domain

if TYPE_CHECKING:
    from hostel.drivers.qemu.running import Running

NOBODY: Final = ("", "nop")
# QEMU's states in which a guest runs no more before somebody says so. In others QEMU may let it run by itself: when a
# migration fails in its last moment, when a key wakes it.
_STOPPED: Final = (
    "paused", "postmigrate", "prelaunch", "inmigrate", "io-error", "watchdog", "guest-panicked", "internal-error",
    "shutdown",
)  # fmt: skip


def manager_for(name: str, directories: Directories, domain: Domain) -> LockManager | None:
    """The lock manager for a machine that is about to be started, made ready; None where nobody keeps locks.

    Raises:
        VirtError: it is not there, or the machine is none for it.
    """
    if name in NOBODY:
        return None
    manager = open_manager(name, directories)
    manager.check_action(domain.on_lockfailure)
    _check_leases(manager, domain)
    manager.prepare()
    return manager


def _check_leases(manager: LockManager, domain: Domain) -> None:
    if manager.needs_leases and not domain.devices.leases and has_disks_of_its_own(domain):
        what = "Read/write, exclusive access, disks were present, but no leases specified"
        raise fault(ErrorCode.CONFIG_UNSUPPORTED, what, ErrorDomain.LOCKING)


def hold(machine: Running) -> None:
    """Get what the document wants that is not held yet, before the guest runs or QEMU is given it.

    Raises:
        VirtError: it cannot be had; nothing has changed.
    """
    if (manager := _manager(machine)) is None:
        return
    _check_leases(manager, machine.domain)
    _drop_unsure(manager, machine)
    _acquire(manager, machine, _wanted(manager, machine))


def hold_if_running(machine: Running) -> None:
    """As :func:`hold`, for what QEMU is about to be given: nothing while the guest is stopped.

    Raises:
        VirtError: it cannot be had, or QEMU does not answer.
    """
    if machine.status.lock_manager not in NOBODY and machine.ask("query-status").get("status") not in _STOPPED:
        hold(machine)


def settle(machine: Running, *, gone: bool = False) -> None:
    """Hold what the document wants while the guest may run, and nothing else; what cannot be done is in the log.

    Args:
        machine: which.
        gone: whether its guest runs elsewhere from now on, whatever QEMU says.
    """
    if machine.status.lock_manager in NOBODY:
        return
    said = {"status": _STOPPED[0]} if gone else machine.attempt("query-status")
    if said is None:
        return  # it may run
    try:
        manager = open_manager(machine.status.lock_manager, machine.machines.directories)
        wanted = [] if said.get("status") in _STOPPED else _wanted(manager, machine)
        _drop_unsure(manager, machine)
        _release(manager, machine, [claim for claim in map(_claim, machine.status.locks) if claim not in wanted])
        _acquire(manager, machine, wanted)
    except VirtError as error:
        _note(machine, error)


def run(machine: Running) -> None:
    """Let the guest run, with its locks.

    Raises:
        VirtError: somebody else has one, or QEMU refuses; it does not run then, and has none.
    """
    hold(machine)
    try:
        machine.ask("cont")
    except BaseException:
        settle(machine)
        raise


def go_on(machine: Running, reason: RunningReason) -> bool:
    """Let a guest run again that was stopped for a while; False where somebody else has its locks, which is in the log.

    Args:
        machine: has it.
        reason: why it runs then; written down before, since those who watch it tell it as it runs.

    Raises:
        VirtError: that cannot be written, or QEMU refuses.
    """
    machine.save(running=int(reason))
    try:
        hold(machine)
    except VirtError as error:
        _note(machine, error)
        return False
    run(machine)
    return True


def stop(machine: Running) -> None:
    """Stop the guest, and let go of its locks.

    Raises:
        VirtError: QEMU refuses.
    """
    machine.ask("stop")
    settle(machine)


def state_of(machine: Running) -> str:
    """What goes with a machine that moves: what was said of its locks when they were last held.

    Raises:
        VirtError: the lock manager does not answer.
    """
    manager = _manager(machine)
    if manager is None or not manager.uses_state:
        return ""
    return manager.inquire(_owner(machine)) if machine.status.locks else machine.status.lock_state


def _manager(machine: Running) -> LockManager | None:
    name = machine.status.lock_manager
    return None if name in NOBODY else open_manager(name, machine.machines.directories)


def _owner(machine: Running) -> Owner:
    return Owner(machine.domain.uuid or "", machine.name, machine.status.id, machine.status.pid)


def _wanted(manager: LockManager, machine: Running) -> list[Claim]:
    return list(claims_of(manager, machine.domain, machine.status.plugs, machine.status.jobs))


def _claim(lock: Lock) -> Claim:
    return Claim(lock.space, lock.name, lock.path, lock.offset, lock.shared)


def _acquire(manager: LockManager, machine: Running, wanted: Sequence[Claim]) -> None:
    held = machine.status.locks
    known = [_claim(lock) for lock in held]
    missing = [claim for claim in wanted if claim not in known]
    if not missing:
        return
    machine.save(locks=(*held, *(Lock(**claim._asdict()) for claim in missing)))
    try:
        manager.acquire(_owner(machine), missing)
    except VirtError as error:
        if error.code is ErrorCode.SYSTEM_ERROR:  # what was asked of it may have been done
            with contextlib.suppress(VirtError):
                _drop_unsure(manager, machine)
        else:
            machine.save(locks=held)
        raise
    machine.save(locks=(*held, *(Lock(**claim._asdict(), sure=True) for claim in missing)), lock_state="")


def _drop_unsure(manager: LockManager, machine: Running) -> None:
    if any(not lock.sure for lock in machine.status.locks):
        manager.release(_owner(machine), [_claim(lock) for lock in machine.status.locks if not lock.sure])
        machine.save(locks=tuple(lock for lock in machine.status.locks if lock.sure))


def _release(manager: LockManager, machine: Running, claims: Sequence[Claim]) -> None:
    if not claims:
        return
    state = manager.inquire(_owner(machine)) if manager.uses_state else ""
    for lock in machine.status.locks:
        lock.sure = lock.sure and _claim(lock) not in claims
    machine.save(lock_state=state)
    _drop_unsure(manager, machine)


def _note(machine: Running, error: VirtError) -> None:
    process.write_log(machine.machines.log(machine.name), [f"locks of '{machine.name}': {error.message}"])

"""What is done when QEMU has stopped because its guest has ended by itself, and the call that changes it."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Final

from hostel.drivers.base import DomainRef, RunningReason, ShutoffReason
from hostel.drivers.base.domain import Affect
from hostel.drivers.base.dumping import DumpFlag
from hostel.drivers.lifecycle import check_lifecycle, set_action
from hostel.drivers.qemu import process
from hostel.drivers.qemu.actions import KEPT, PANICKED, POWERED_OFF, apply
from hostel.drivers.qemu.calls import Calls
from hostel.drivers.qemu.document import finish
from hostel.drivers.qemu.dumping import settle_dump, write_dump
from hostel.drivers.qemu.lockmanager import holding
from hostel.drivers.qemu.machines import failed
from hostel.drivers.qemu.running import Running
from hostel.drivers.qemu.status import Ending
from hostel.errors import QmpError
from hostel.model.domain.volumes import name_volumes

_ELF: Final = "elf"


class LifecycleCalls(Calls):
    """Implements :class:`hostel.drivers.base.dumping.LifecycleDriver`."""

    def domain_set_lifecycle_action(self, domain: DomainRef, type: int, action: int, affect: Affect) -> None:
        """Change what follows, of the running machine too."""
        check_lifecycle(type, action)
        with self._both(domain, affect) as both:
            for document in (both.running.domain if both.running is not None else None, both.definition):
                if document is not None:
                    changed = document.copy()
                    name_volumes(changed)
                    set_action(changed, type, action)
                    finish(changed, self._launcher.platform(changed), is_given=False)
            if (machine := both.running) is not None:
                changed = machine.domain.copy()
                set_action(changed, type, action)
                try:
                    apply(changed, machine.qmp)
                except QmpError as error:
                    raise machine.translated(error, "set-action") from error
                set_action(machine.domain, type, action)
                machine.save()
                self._launcher.keep(machine.domain, machine.run)
            if both.definition is not None:
                set_action(both.definition, type, action)
                self._define(both.definition)


def follow(machine: Running, said: str) -> bool:
    """Do what follows of a guest that has ended; False where that is nothing.

    Args:
        machine: the machine, which is held.
        said: QEMU's state of it.

    Raises:
        VirtError: it could not be done; the machine stays as it was.
    """
    domain = machine.domain
    if said == POWERED_OFF and domain.on_poweroff == "restart":
        _restart(machine, RunningReason.BOOTED)
        return True
    if said != PANICKED or domain.on_crash not in (*KEPT, "destroy"):
        return False
    if str(domain.on_crash).startswith("coredump"):
        _dump(machine)
    if str(domain.on_crash).endswith("restart"):
        _restart(machine, RunningReason.CRASHED)
    else:
        _end(machine)
    return True


def _restart(machine: Running, reason: RunningReason) -> None:
    machine.ask("system_reset")
    holding.run(machine)
    machine.save(paused=0, running=int(reason))


def _dump(machine: Running) -> None:
    """Write the memory of a guest that has crashed where all such go, named for the moment."""
    path = machine.dumps / f"{machine.status.id}-{machine.name}-{datetime.datetime.now():%Y-%m-%d-%H:%M:%S}"
    machine.save(dump=str(path), resumes=False)
    try:
        sparing = DumpFlag.BYPASS_CACHE if machine.settings.crashes.bypass_cache else DumpFlag.NONE
        write_dump(machine, path, _ELF, DumpFlag.MEMORY_ONLY | sparing)
    except BaseException:
        settle_dump(machine)
        raise
    machine.save(dump="")


def _end(machine: Running) -> None:
    status = machine.status
    machine.save(ending="crashed")
    machine.close()
    if not process.end(status.pid, status.started):
        machine.save(ending="")
        raise failed(f"QEMU, process {status.pid}, does not end")
    process.exit_status(Path(status.run), 2)
    machine.forget(Ending(ShutoffReason.CRASHED, "the guest panicked"))

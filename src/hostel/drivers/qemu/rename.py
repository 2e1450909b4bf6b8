"""Another name for a domain that does not run.

What is to be done is written down first, and each step may be done again: whoever looks for domains next, after a kill
too, does the rest.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from hostel.drivers.base import DomainRef
from hostel.drivers.events import Defined, Event, Lifecycle, Subject, Undefined
from hostel.drivers.fault import fault
from hostel.drivers.qemu import savefile
from hostel.drivers.qemu.block import switching
from hostel.drivers.qemu.calls import Calls, no_domain
from hostel.drivers.qemu.machines import Machines, invalid
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.model.domain.domain import Domain
from hostel.model.domain.os import Nvram


class RenameCalls(Calls):
    """Renaming; see :class:`hostel.drivers.base.rename.RenameDriver`."""

    def domain_rename(self, domain: DomainRef, new_name: str) -> None:
        """Give a domain another name."""
        from hostel.drivers.qemu.backup.checkpoints import Checkpoints
        from hostel.drivers.qemu.snapshot.catalog import Catalog

        machines, old = self._machines, domain.name
        if "/" in new_name:
            raise fault(ErrorCode.XML_ERROR, f"name {new_name} cannot contain '/'", ErrorDomain.QEMU)
        machines.definitions.path(new_name)
        with both_locked(machines, old, new_name):
            live = machines.live(old)
            self._check_is(domain)
            if live is not None:
                raise invalid("cannot rename active domain")
            definition = machines.definition(old)
            if definition is None:
                raise no_domain(f"name '{old}'")
            if savefile.is_kept(machines.saved(old)):
                raise invalid("domain with a managed saved state can't be renamed")
            if old == new_name:
                raise _refused("Can't rename domain to itself")
            if new_name in machines.names():
                raise _refused(f"domain with name '{new_name}' already exists")
            if Catalog(machines, old).intent() is not None or Checkpoints(machines, old).pending() is not None:
                raise invalid("a snapshot or checkpoint is half done; list them, which settles that")
            switching.check(machines, definition)
            machines.renames.write(old, f"{definition.uuid} {new_name}")
            finish(machines, old, new_name, definition.uuid or "")
        uuid = definition.uuid or ""
        gone = {"event": int(Lifecycle.UNDEFINED), "detail": int(Undefined.RENAMED)}
        there = {"event": int(Lifecycle.DEFINED), "detail": int(Defined.RENAMED)}
        self._bus.publish(Event(Subject.DOMAIN, "lifecycle", old, uuid, -1, gone))
        self._bus.publish(Event(Subject.DOMAIN, "lifecycle", new_name, uuid, -1, there))


def _refused(what: str) -> VirtError:
    return fault(ErrorCode.OPERATION_INVALID, what, ErrorDomain.DOMAIN)


@contextlib.contextmanager
def both_locked(machines: Machines, old: str, new: str) -> Iterator[None]:
    """Hold two domains, always in the same order."""
    with contextlib.ExitStack() as stack:
        for name in sorted({old, new}):
            stack.enter_context(machines.locked(name))
        yield


def settle_renames(machines: Machines) -> None:
    """Do the rest of what a process that died was about."""
    for old in machines.renames.names():
        mark = machines.renames.read(old) or ""
        uuid, _, new = mark.partition(" ")
        if not new:
            continue
        with both_locked(machines, old, new):
            if machines.renames.read(old) == mark:
                finish(machines, old, new, uuid)


def finish(machines: Machines, old: str, new: str, uuid: str) -> None:
    """Do what is left to do; the caller holds both domains."""
    from hostel.drivers.qemu.backup.checkpoints import Checkpoints
    from hostel.drivers.qemu.snapshot.catalog import Catalog

    for kind in ("snapshot", "checkpoint"):
        directory = machines.definitions.directory / kind
        with contextlib.suppress(FileNotFoundError):
            os.rename(directory / old, directory / new)
    catalog = Catalog(machines, new)
    for snapshot in catalog.all().values():
        for document in (snapshot.domain, snapshot.inactive_domain):
            if isinstance(document, Domain):
                _keep_variables(machines, document)
                document.name = new
        catalog.put(snapshot)
    checkpoints = Checkpoints(machines, new)
    for checkpoint in checkpoints.all().values():
        if isinstance(checkpoint.domain, Domain):
            checkpoint.domain.name = new
            checkpoints.put(checkpoint)
    with machines.definitions.locked():
        definition = machines.definition(old)
        if definition is not None and definition.uuid != uuid:
            definition = None  # another domain, which has got the old name since
        if definition is not None:
            _keep_variables(machines, definition)
            definition.name = new
            machines.definitions.write(new, definition.format())
            if machines.autostarts.has(old):
                machines.autostarts.write(new, "")
                machines.autostarts.remove(old)
            machines.endings.remove(old)
            machines.definitions.remove(old)
    machines.renames.remove(old)


def _keep_variables(machines: Machines, definition: Domain) -> None:
    """Have a domain whose UEFI variables are where its old name puts them say so."""
    from hostel.drivers.qemu.firmware.nvram import file_of

    path, found = file_of(definition.os, machines.variables(definition.name)), definition.os
    if found is None or path is None or not path.exists():
        return
    found.nvram = found.nvram or Nvram()
    if found.nvram.source is None:
        found.nvram.path = str(path)

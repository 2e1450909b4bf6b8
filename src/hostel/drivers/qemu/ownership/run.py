"""A run whose QEMU is not all that its starter is: where it makes its files, and how it becomes what it is to be."""

from __future__ import annotations

import os
from pathlib import Path

from hostel.cause.user import User
from hostel.drivers.fault import system_fault
from hostel.drivers.qemu import process
from hostel.drivers.qemu.command.host import LargePages
from hostel.drivers.qemu.confinement import module
from hostel.drivers.qemu.confinement.selinux import kernel
from hostel.drivers.qemu.machines import Machines
from hostel.drivers.qemu.ownership import files, label, user
from hostel.drivers.qemu.ownership.user import ROOT, Identity, Owner, as_user, groups_of
from hostel.drivers.qemu.settings import read
from hostel.drivers.tool import require
from hostel.errors import ErrorDomain
from hostel.model.domain.domain import Domain


def make_ground(machines: Machines, live: Domain, run: Path, identity: Identity | None) -> list[str]:
    """Make room for a QEMU that is to be another user, or is kept to something; returns notes for the machine's log.

    Raises:
        VirtError: ``SYSTEM_ERROR``: the host refused.
    """
    ours = Owner(os.geteuid(), os.getegid())
    owner = ours if identity is None else label.owner_of(live, identity)
    kept = [*module.of_domain(machines, live)]
    if owner not in (ours, ROOT) or kept:
        context = next((found for each, item in kept if (found := each.context(item)) is not None), None)
        try:
            process.give_ground(run, *owner, context)
        except OSError as error:
            raise system_fault(error, f"cannot make '{process.ground(run)}'", ErrorDomain.QEMU) from error
        files.open_way(machines, process.ground(run), owner)
    return [identity.note] if identity is not None and identity.note else []


def place_in(machines: Machines, folder: Path, run: Path) -> Path:
    """A place in a directory for files of a run: one of its own where QEMU is another user.

    Raises:
        VirtError: ``SYSTEM_ERROR``: the host refused.
    """
    if process.home(run) is None:
        return folder
    place = folder / run.name
    try:
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        process.hand_over(run, place)
    except OSError as error:
        raise system_fault(error, f"cannot make '{place}'", ErrorDomain.QEMU) from error
    files.open_way(machines, place, Owner(*(process.user_of(run) or ROOT)))
    return place


def memory_files(machines: Machines, folder: Path, live: Domain, run: Path) -> Path:
    """Where in a directory files are made that are a guest's memory; QEMU gives them no names.

    Raises:
        VirtError: as :func:`place_in`.
    """
    if live.memory_backing is None:
        return folder
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return place_in(machines, folder, run)


def large_pages(machines: Machines, found: LargePages, live: Domain, run: Path) -> LargePages:
    """The host's large pages, where a machine may make files of them.

    Raises:
        VirtError: as :func:`place_in`.
    """
    backing = live.memory_backing
    if backing is None or backing.hugepages is None or process.home(run) is None:
        return found
    places = {size: place_in(machines, Path(mount), run) for size, mount in found.mounts.items()}
    return found._replace(mounts={size: str(place) for size, place in places.items()})


def command(machines: Machines, argv: list[str], domain: Domain, run: Path) -> list[str]:
    """The command that runs QEMU's as who and what it is to be.

    Raises:
        VirtError: the host has no program for it.
    """
    found, words = process.user_of(run), []
    if found is not None:
        is_raw = any(it.rawio for it in domain.devices.disks) or any(it.rawio for it in domain.devices.hostdevs)
        words = as_user(Owner(*found), "sys_rawio" if is_raw else "")
    kept = _kept_to(machines, domain)
    return [*(words or ([require("setpriv", ErrorDomain.QEMU)] if kept else [])), *kept, *argv]


def _kept_to(machines: Machines, domain: Domain) -> list[str]:
    """The options of setpriv(1) for what the kernel keeps a machine to."""
    return [word for each, item in module.of_domain(machines, domain) for word in each.words(item)]


def user_of(run: Path) -> User | None:
    """The user that a run's QEMU is; None where it is who started it."""
    found = process.user_of(run)
    return None if found is None else User(found[0], groups_of(Owner(*found)))


def tpm_owner(machines: Machines, state: Path, log: Path) -> Owner | None:
    """Who a machine's emulated TPM is, whom the way to its state and its log is opened for; None where it is as we are.

    Raises:
        VirtError: ``qemu.conf`` names nobody; ``SYSTEM_ERROR``: the host refused.
    """
    owner = user.tpm_owner(read(machines.directories), machines.directories)
    if owner is None:
        return None
    try:
        for folder in (state, log.parent):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        file = os.open(log, flags, 0o600)
        try:
            os.fchown(file, *owner)
        finally:
            os.close(file)
    except OSError as error:
        raise system_fault(error, f"cannot give '{log}' to swtpm", ErrorDomain.QEMU, path=str(log)) from error
    for path in (state / "state", log):
        files.open_way(machines, path, owner)
    return owner


def as_qemu(machines: Machines, helper: process.Helper, domain: Domain, run: Path) -> process.Helper:
    """A helper that runs as who the QEMU of a run is, and makes its socket where that makes its own.

    Raises:
        VirtError: the host has no program for it.
    """
    found = process.user_of(run)
    if found is not None:
        helper = helper._replace(argv=[*as_user(Owner(*found)), *helper.argv])
    return _kept(machines, helper, domain)


def for_qemu(machines: Machines, helper: process.Helper, domain: Domain, run: Path) -> process.Helper:
    """A helper whose socket is for the QEMU of a run.

    Raises:
        VirtError: the host has no program for it.
    """
    found = process.user_of(run)
    if found is not None:
        helper = helper._replace(owner=":".join(map(str, found)))
    return _kept(machines, helper, domain)


def _kept(machines: Machines, helper: process.Helper, domain: Domain) -> process.Helper:
    """A helper with what the kernel lets it do, where that is to be no more than QEMU may, and its socket for QEMU."""
    for each, item in module.of_domain(machines, domain):
        context = each.context(item)
        if context is None or not kernel.is_valid(context):
            continue
        helper = helper._replace(context=context)
        if helper.is_kept:
            setpriv = require("setpriv", ErrorDomain.QEMU)
            rest = helper.argv[1:] if helper.argv[0] == setpriv else helper.argv
            helper = helper._replace(argv=[setpriv, *each.words(item), *rest])
    return helper

"""The kernel's security modules as machines are kept to something by them: one interface, and which there are here."""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final, Protocol

from hostel.drivers.base.domain import SecurityLabel as ProcessLabel
from hostel.drivers.fault import fault
from hostel.drivers.qemu.machines import Machines
from hostel.drivers.qemu.ownership.label import DAC, NONE, check_models, generate, label_of, wanted
from hostel.drivers.qemu.ownership.user import Identity
from hostel.drivers.qemu.settings import Settings
from hostel.drivers.qemu.status import Status
from hostel.drivers.store import Directories
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.model.domain.devices.seclabel import SecurityLabel
from hostel.model.domain.domain import Domain

# In the order in which they are looked for where qemu.conf names none: how they are opened, and what is there if the
# kernel has them.
_MODULES: Final = {
    "selinux": ("hostel.drivers.qemu.confinement.selinux.module:open_module", "/sys/fs/selinux/enforce"),
    "apparmor": ("hostel.drivers.qemu.confinement.apparmor.module:open_module", "/sys/module/apparmor"),
}
DOI: Final = "0"  # domain of interpretation, which libvirt gives no other


class NotThere(Exception):
    """This host does not have a security module, or not for us; ``str()`` says why."""


class SecurityModule(Protocol):
    """One of the kernel's security modules.

    The caller of what changes a machine holds its lock.
    """

    @property
    def model(self) -> str:
        """Its name in documents."""

    def base_label(self, kind: str) -> str | None:
        """What labels of machines are made from, by the domain's type, ``kvm`` or ``qemu``; None where nothing is."""

    def generate(self, machines: Machines, domain: Domain, label: SecurityLabel) -> None:
        """Complete the label of a machine that is about to run; its type is there.

        Raises:
            VirtError: it is of no use here.
        """

    def give(self, machines: Machines, status: Status, label: SecurityLabel) -> None:
        """Let a machine open what its state names, with the marks of what is under way.

        Raises:
            VirtError: the host refused.
        """

    def settle(self, machines: Machines, status: Status, label: SecurityLabel) -> list[str]:
        """Take back what a machine's state names no more; returns what went wrong, a line each."""

    def take_all_back(self, machines: Machines, name: str, *, keeps_remote: bool = False) -> list[str]:
        """Take back all that a machine had that is no more; result as of :meth:`settle`.

        Args:
            machines: the session's.
            name: the machine's.
            keeps_remote: what other hosts reach stays as it is: the machine has gone to one of them.
        """

    def words(self, label: SecurityLabel) -> list[str]:
        """The options of setpriv(1) with which QEMU becomes what the label says."""

    def context(self, label: SecurityLabel) -> str | None:
        """The SELinux context of files of the run itself; None where they get none."""

    def process_label(self, pid: int) -> ProcessLabel:
        """What a process is kept to, and whether it is."""

    def lend(
        self, machines: Machines, status: Status, label: SecurityLabel, descriptor: int
    ) -> AbstractContextManager[None]:
        """Let a machine use an open file meanwhile that it does not open itself.

        Raises:
            VirtError: the host refused.
        """


def open_module(model: str, machines: Machines) -> SecurityModule:
    """The module of a name.

    Raises:
        NotThere: this host does not have it.
    """
    place, sign = _MODULES[model]
    if not os.path.exists(sign):
        raise NotThere(f"the kernel does not run it (there is no {sign})")
    place, _, name = place.partition(":")
    found: SecurityModule = getattr(importlib.import_module(place), name)(machines)
    return found


def chosen(machines: Machines, settings: Settings) -> list[SecurityModule]:
    """The modules that machines which start are kept by: those that ``qemu.conf`` names, or the first that there is.

    Root's machines in directories of its own are kept to nothing, unless ``qemu.conf`` there names a module.

    Raises:
        VirtError: ``CONFIG_UNSUPPORTED``: one is named that is not there; ``INTERNAL_ERROR``: no such one is known.
    """
    if settings.security_drivers is None:
        if os.geteuid() == 0 and machines.directories != Directories.system():
            return []
        for model in _MODULES:
            try:
                return [open_module(model, machines)]
            except NotThere:
                continue
        return []
    found = []
    for model in settings.security_drivers:
        if model in ("none", "dac"):
            continue
        if model not in _MODULES:
            names = ", ".join(_MODULES)
            what = f"Security driver {model} not found; write one of {names}, or none"
            raise fault(ErrorCode.INTERNAL_ERROR, what, ErrorDomain.QEMU)
        try:
            found.append(open_module(model, machines))
        except NotThere as error:
            what = f'Security driver {model} not enabled: {error}; write security_driver = "none" to do without'
            raise fault(ErrorCode.CONFIG_UNSUPPORTED, what, ErrorDomain.QEMU) from error
    return found


def known(machines: Machines, settings: Settings) -> list[SecurityModule]:
    """As :func:`chosen`, for who only looks: none where ``qemu.conf`` asks for what is not there."""
    try:
        return chosen(machines, settings)
    except VirtError:
        return []


def of_domain(machines: Machines, domain: Domain) -> Iterator[tuple[SecurityModule, SecurityLabel]]:
    """The modules that a machine which runs is kept by, with its label for each."""
    for model in _MODULES:
        label = label_of(domain, model)
        if label is not None and label.type != "none" and label.label is not None:
            try:
                yield open_module(model, machines), label
            except NotThere:
                continue  # the host was started without it: then the machine does not run either


@contextlib.contextmanager
def lent(machines: Machines, status: Status, file: int | Path) -> Iterator[None]:
    """Let a machine use an open file meanwhile, or one that it is given open; by all modules.

    Raises:
        VirtError: the host refused.
    """
    with contextlib.ExitStack() as stack:
        for each, label in of_domain(machines, status.domain):
            if isinstance(file, Path):
                try:
                    file = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
                except OSError:
                    break  # who gives it says so
                stack.callback(os.close, file)
            stack.enter_context(each.lend(machines, status, label, file))
        yield


def take_all_back(machines: Machines, name: str, *, keeps_remote: bool = False) -> list[str]:
    """Take back what a machine had by any module; arguments and result as of :meth:`SecurityModule.take_all_back`."""
    failed: list[str] = []
    for model in _MODULES:
        if machines.ledger(name, model).exists():
            try:
                failed += open_module(model, machines).take_all_back(machines, name, keeps_remote=keeps_remote)
            except NotThere:
                machines.ledger(name, model).unlink(missing_ok=True)
    return failed


def first_model(machines: Machines, settings: Settings) -> str:
    """What a label is for that names no security driver."""
    return next((each.model for each in known(machines, settings)), NONE)


def label(machines: Machines, domain: Domain, identity: Identity | None, settings: Settings) -> None:
    """Write into the document of a machine that is about to run whose it is, and what the kernel keeps it to.

    Raises:
        VirtError: ``CONFIG_UNSUPPORTED``: it is not to be kept to anything, and this host lets no such machine run, or
            a label is for a security driver that is not there; or one is of no use here.
    """
    modules = chosen(machines, settings)
    if settings.requires_confined and not modules:
        raise _unconfined("; nothing confines them")
    check_models(domain, [*(each.model for each in modules), *([DAC] if identity is not None else [])])
    for module in modules:
        found = wanted(domain, module.model, is_usual=settings.is_confined_by_default)
        if settings.requires_confined and (found is None or found.type == "none"):
            raise _unconfined()
        if found is not None:
            module.generate(machines, domain, found)
    generate(domain, identity)


def _unconfined(why: str = "") -> VirtError:
    what = f"Unconfined guests are not allowed on this host (security_require_confined){why}"
    return fault(ErrorCode.CONFIG_UNSUPPORTED, what, ErrorDomain.QEMU)

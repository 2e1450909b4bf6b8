"""SELinux as a security module of machines; see :class:`hostel.drivers.qemu.confinement.module.SecurityModule`."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from typing import Final

from hostel.drivers.base.domain import SecurityLabel as ProcessLabel
from hostel.drivers.fault import fault, system_fault
from hostel.drivers.qemu.confinement.module import NotThere
from hostel.drivers.qemu.confinement.selinux import kernel, reservation
from hostel.drivers.qemu.confinement.selinux.context import Context, categories
from hostel.drivers.qemu.confinement.selinux.mark import MARK, MODEL
from hostel.drivers.qemu.confinement.selinux.policy import Policy, read_policy
from hostel.drivers.qemu.machines import Machines
from hostel.drivers.qemu.output.sinks import replaces_files
from hostel.drivers.qemu.ownership import lending
from hostel.drivers.qemu.ownership.claims import Claim, Return, Terms, claims
from hostel.drivers.qemu.ownership.files import make
from hostel.drivers.qemu.settings import read
from hostel.drivers.qemu.status import Status
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.model.domain.devices.seclabel import SecurityLabel
from hostel.model.domain.domain import Domain


def open_module(machines: Machines) -> Selinux:
    """SELinux of this host.

    Raises:
        NotThere: it does not run, or its policy says nothing of machines.
    """
    if not kernel.is_on():
        raise NotThere("the kernel does not run SELinux")
    try:
        return Selinux(read_policy())
    except OSError as error:
        raise NotThere(f"cannot read the policy's '{error.filename}': {error.strerror}") from error
    except ValueError as error:
        raise NotThere(str(error)) from error


class Selinux:
    """Machines by a policy."""

    model: Final = MODEL

    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    def base_label(self, kind: str) -> str:
        """The context of a process of the policy's."""
        return self._policy.base(kind)

    def generate(self, machines: Machines, domain: Domain, label: SecurityLabel) -> None:
        """Give a machine a range of its own, or take the one that its document says."""
        try:
            image = self._generate(machines, domain, label) if label.type != "none" else None
            label.image_label = image if label.relabel else None
        except ValueError as error:
            raise fault(ErrorCode.INTERNAL_ERROR, f"{domain.name}: {error}", ErrorDomain.QEMU) from error

    def _generate(self, machines: Machines, domain: Domain, label: SecurityLabel) -> str:
        ours = Context.parse(kernel.own_context())
        if label.type == "dynamic":
            range = reservation.reserve(machines, domain.name, categories(ours.range))
            base = Context.parse(label.base_label or self._policy.base(domain.type))
            label.label = str(base.for_machine(ours, range, is_file=False))
            if not kernel.is_valid(label.label) and kernel.enforces():
                reservation.release(machines, domain.name)
                why = "the policy does not know it; see the role and type of the process that starts machines"
                what = f"unable to set security context '{label.label}': {why}"
                raise fault(ErrorCode.SYSTEM_ERROR, what, ErrorDomain.QEMU)
        if label.type == "static":
            _check_form(label.label or "")
        if label.type == "static" and not kernel.is_valid(label.label or ""):
            raise fault(ErrorCode.XML_ERROR, f"Invalid security label {label.label}", ErrorDomain.QEMU)
        return self._image(ours, label)

    def _image(self, ours: Context, label: SecurityLabel) -> str:
        """The context of what a machine writes."""
        range = Context.parse(label.label or "").range
        if range is None:
            raise ValueError(f"unable to get selinux context range of '{label.label}'")
        return str(Context.parse(self._policy.image).for_machine(ours, range, is_file=True))

    def give(self, machines: Machines, status: Status, label: SecurityLabel) -> None:
        """Label what it opens."""
        wanted = self._claims(machines, status, label)
        make(status.domain, wanted)
        log = machines.tpm_log(status.domain.name)
        if str(log) in wanted and not log.exists():
            log.touch(mode=0o600)
        remembers = read(machines.directories).remember_owner
        lending.give(self._ledger(machines, status), MARK, wanted.values(), remembers=remembers)

    def settle(self, machines: Machines, status: Status, label: SecurityLabel) -> list[str]:
        """Label as they were what it does not open any more, and as read only what it does not write any more."""
        ledger, wanted = self._ledger(machines, status), self._claims(machines, status, label)
        failed = lending.settle(ledger, MARK, wanted)
        held = [wanted[path] for path, loan in ledger.loans().items() if loan.back is Return.NEVER and path in wanted]
        try:
            lending.give(ledger, MARK, [claim for claim in held if claim.back is Return.NEVER], remembers=False)
        except VirtError as error:
            failed.append(error.message)
        return failed

    def take_all_back(self, machines: Machines, name: str, *, keeps_remote: bool = False) -> list[str]:
        """Label all files as they were."""
        failed = lending.take_all_back(lending.Ledger(machines.ledger(name, MODEL)), MARK, keeps_remote=keeps_remote)
        reservation.release(machines, name)
        return failed

    def words(self, label: SecurityLabel) -> list[str]:
        """A transition when QEMU is run."""
        if label.label is None or not (kernel.is_valid(label.label) or kernel.enforces()):
            return []
        return [f"--selinux-label={label.label}"]

    def context(self, label: SecurityLabel) -> str:
        """As that of its images, also where no file of others is labelled."""
        return self._image(Context.parse(kernel.own_context()), label)

    def process_label(self, pid: int) -> ProcessLabel:
        """Its context."""
        return ProcessLabel(kernel.context_of_process(pid) or "", kernel.enforces())

    @contextlib.contextmanager
    def lend(self, machines: Machines, status: Status, label: SecurityLabel, descriptor: int) -> Iterator[None]:
        """Label a file or a pipe while QEMU has it."""
        mode = os.fstat(descriptor).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode) or stat.S_ISFIFO(mode)):
            yield
            return
        before = None
        context = self.context(label)
        try:
            before = kernel.context_of(descriptor)
            kernel.label(descriptor, context)
        except OSError as error:
            if not MARK.passes(error):
                what = f"unable to set security context '{context}' on fd {descriptor}"
                raise system_fault(error, what, ErrorDomain.QEMU) from error
        try:
            yield
        finally:
            if before is not None and not stat.S_ISFIFO(mode):
                with contextlib.suppress(OSError):
                    kernel.label(descriptor, before)

    def _ledger(self, machines: Machines, status: Status) -> lending.Ledger:
        return lending.Ledger(machines.ledger(status.domain.name, MODEL))

    def _claims(self, machines: Machines, status: Status, label: SecurityLabel) -> dict[str, Claim]:
        image = self.context(label)
        terms = Terms(MODEL, image, self._policy.image, self._policy.content, str, gives=bool(label.relabel))
        found = claims(status, terms)
        # Where nobody bounds it, what QEMU writes into its log goes into the file itself; swtpm opens its own.
        logs = [] if replaces_files(status.stdio) else [machines.log(status.domain.name)]
        if any(tpm.backend.type == "emulator" for tpm in status.domain.devices.tpms):
            logs.append(machines.tpm_log(status.domain.name))
            state = machines.tpm_state(status.domain.uuid or "")
            found |= {str(path): Claim(str(path), image) for path in (state, *state.glob("**/*"))}
        return found | {str(log): Claim(str(log), image, Return.USUAL) for log in logs}


def _check_form(label: str) -> None:
    """Refuse what is no context at all.

    Raises:
        VirtError: ``SYSTEM_ERROR``, as libvirt has it.
    """
    try:
        Context.parse(label)
    except ValueError as error:
        what = f"unable to allocate socket security context '{label}': Invalid argument"
        raise fault(ErrorCode.SYSTEM_ERROR, what, ErrorDomain.QEMU) from error

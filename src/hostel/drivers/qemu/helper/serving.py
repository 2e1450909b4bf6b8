"""What serves a machine's devices beside QEMU: made ready for its start, or started when a device is plugged in."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

from hostel.drivers.fault import fault
from hostel.drivers.qemu import process
from hostel.drivers.qemu.helper import attached, gpu, passt, reservations, tpm, virtiofs
from hostel.drivers.qemu.machines import Machines
from hostel.drivers.qemu.output.sinks import Sinks
from hostel.drivers.qemu.ownership import run as owned_run
from hostel.drivers.qemu.settings import read as read_settings
from hostel.drivers.qemu.status import Status
from hostel.errors import ErrorCode, ErrorDomain
from hostel.model.authentication import SecretReference
from hostel.model.domain.devices.filesystem import Filesystem
from hostel.model.domain.domain import Domain


class Helpers:
    """Makes helpers ready for one driver."""

    def __init__(self, machines: Machines, secrets: Callable[[SecretReference, str], bytes]) -> None:
        self._machines = machines
        self._secrets = secrets

    def prepare(self, live: Domain, run: Path, given: list[Path]) -> list[process.Helper]:
        """What serves the machine's devices, ready to be run; ``given`` gets the files of secrets that it reads.

        Raises:
            VirtError: a program is not there, or cannot be made ready.
        """
        found: list[process.Helper] = []
        if (module := tpm.emulated(live)) is not None:
            state, log = self._machines.tpm_state(live.uuid or ""), self._machines.tpm_log(live.name)
            owner = owned_run.tpm_owner(self._machines, state, log)
            found.append(tpm.EmulatedTpm(module, live, state, run, log, self._secrets, owner).prepare(given))
        settings = read_settings(self._machines.directories)
        found += [*reservations.helpers(live, run, settings.pr_helper), *virtiofs.helpers(live, run, settings)]
        found = [owned_run.for_qemu(self._machines, it, live, run) for it in found]
        as_qemu = [*gpu.helpers(live, run), *passt.helpers(live, run)]
        return found + [owned_run.as_qemu(self._machines, it, live, run) for it in as_qemu]

    def serve(self, item: Filesystem, live: Domain, status: Status) -> Path | None:
        """Have a directory served that is about to be plugged in; returns the file to make once QEMU has it.

        Returns None where others serve it already.

        Args:
            item: the directory.
            live: the document that has it.
            status: of the machine that runs.

        Raises:
            VirtError: there is no such directory or program, or it does not get ready.
        """
        alone = live.copy()
        alone.devices.filesystems = [item]
        wanted = virtiofs.helpers(alone, Path(status.run), read_settings(self._machines.directories))
        return self._attach(wanted[0], live, status) if wanted else None

    def serve_reservations(self, live: Domain, status: Status) -> Path:
        """Have the helper for persistent reservations beside a QEMU that runs; returns as :meth:`serve`.

        Raises:
            VirtError: there is no such program, we may not run it, or it does not get ready.
        """
        (wanted,) = reservations.helpers(live, Path(status.run), read_settings(self._machines.directories).pr_helper)
        return self._attach(wanted, live, status, beside=(status.pid, status.started))

    def _attach(
        self, helper: process.Helper, live: Domain, status: Status, *, beside: tuple[int, int] | None = None
    ) -> Path:
        run, log = Path(status.run), self._machines.log(live.name)
        helper = owned_run.for_qemu(self._machines, helper, live, run)
        try:
            with Sinks(status.stdio, self._machines.directories, live, run) as sinks:
                output = sinks.open(str(log))
                sinks.begin()
                return attached.start(helper, log, output, beside=beside)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise fault(ErrorCode.INTERNAL_ERROR, str(error), ErrorDomain.QEMU) from error

"""qemu-pr-helper: persistent reservations on SCSI units, for which QEMU itself has not the rights."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

from hostel.drivers.qemu.document import unsupported
from hostel.drivers.qemu.process import Helper
from hostel.model.domain.devices.disk import Disk
from hostel.model.domain.domain import Domain

SOCKET: Final = "pr-helper0.sock"
_PROGRAM: Final = "qemu-pr-helper"


def is_managed(disk: Disk) -> bool:
    """Whether a helper of ours serves a disk."""
    reservations = disk.source.reservations if disk.source is not None else None
    return reservations is not None and bool(reservations.managed)


def are_managed(domain: Domain) -> bool:
    """Whether a helper of ours serves a disk of a document."""
    return any(map(is_managed, domain.devices.disks))


def helpers(domain: Domain, run: Path, program: str = "") -> list[Helper]:
    """The one helper that serves all disks, where one is asked for; ``program`` is another than the usual one.

    Raises:
        VirtError: ``CONFIG_UNSUPPORTED``: it is not there, or we may not run it.
    """
    if not are_managed(domain):
        return []
    if os.geteuid() != 0:
        raise unsupported("<reservations managed='yes'>: the helper needs root; write managed='no' and its <source>")
    found = shutil.which(program or _PROGRAM)
    if found is None:
        raise unsupported(
            f"<reservations managed='yes'> needs {program or _PROGRAM}, which is not there; install qemu-system-common"
        )
    return [Helper(_PROGRAM, [found, "-k", str(run / SOCKET)], run / SOCKET)]

"""What is done to a machine whose leases are lost: sanlock runs a program of ours, before it kills QEMU."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from hostel.drivers.fault import fault
from hostel.drivers.qemu.lockmanager.sanlock_library import HELPER_ROOM
from hostel.drivers.store import Directories
from hostel.errors import ErrorCode, ErrorDomain, VirtError

_PROGRAM: Final = "import sys; from hostel.drivers.qemu.lockmanager.failing import main; main(sys.argv[1:])"
_NAME: Final = "locks-lost"


def make_helper(directories: Directories, name: str, action: str, run: Path) -> Path:
    """Make the program, among what a run of a machine has.

    Raises:
        VirtError: ``INTERNAL_ERROR``: its path is longer than sanlock knows.
        OSError: the host refused.
    """
    path = run / _NAME
    if len(str(path).encode()) >= HELPER_ROOM:
        what = f"Sanlock helper path is longer than {HELPER_ROOM - 1}: '{path}'"
        raise fault(ErrorCode.INTERNAL_ERROR, what, ErrorDomain.LOCKING)
    command = [sys.executable, "-P", "-c", _PROGRAM, name, action, *map(str, directories)]
    path.write_text(f"#!/bin/sh\nexec {shlex.join(command)}\n")
    path.chmod(0o700)
    return path


def main(words: Sequence[str]) -> None:
    """Do what the words say: a machine's name, the action, and the directories."""
    from hostel.drivers.qemu.driver import QemuDriver

    name, action, *directories = words
    driver = QemuDriver(Directories(*map(Path, directories)))
    try:
        domain = driver.domain_lookup_by_name(name)
        if action == "pause":
            driver.domain_suspend(domain)
        else:
            driver.domain_destroy(domain)
    except VirtError as error:
        sys.stderr.write(f"locks of '{name}' are lost: {error}\n")
        sys.exit(1)

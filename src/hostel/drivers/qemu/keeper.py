"""A process that listens to one machine for as long as it runs, so that what its document asks for follows at once.

It does what any listener does: as one it watches machines, and a machine that is watched is brought to where its
document wants it (:mod:`hostel.drivers.qemu.watch`). There is one for each run of a machine at most.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from hostel.drivers.base import DomainRef
from hostel.drivers.qemu import process
from hostel.drivers.store import Directories, take_lock
from hostel.errors import VirtError

_LOOK: Final = 5.0  # seconds
_LOCK: Final = "keeper"
_PROGRAM: Final = "import sys; from hostel.drivers.qemu.keeper import main; main(sys.argv[1:])"


def start(directories: Directories, name: str, run: Path, log: Path) -> None:
    """Start the keeper of a machine, which outlives us; one that has a keeper keeps that.

    Raises:
        OSError: it cannot be started.
    """
    process.detach([sys.executable, "-P", "-c", _PROGRAM, name, str(run), *map(str, directories)], log)


def keep(directories: Directories, name: str, run: Path) -> None:
    """Listen until the machine of this run is gone."""
    try:
        lock = take_lock(run / _LOCK)
    except OSError:
        return  # it is gone
    if lock is None:
        return  # it has a keeper
    from hostel.drivers.qemu.driver import QemuDriver

    driver = QemuDriver(directories)
    with driver.events.listen() as listener:
        # Not whether there is such a file: a later run of the machine has one at the same path, and its own keeper.
        while os.fstat(lock).st_nlink:
            try:
                driver.domain_get_state(DomainRef(name, ""))
            except VirtError as error:
                sys.stderr.write(f"keeper of '{name}': {error}\n")
            listener.get(_LOOK)


def main(words: Sequence[str]) -> None:
    """Keep what the words say: a machine's name, its run, and the directories."""
    name, run, *directories = words
    keep(Directories(*map(Path, directories)), name, Path(run))

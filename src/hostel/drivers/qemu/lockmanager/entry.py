"""What a process is before it is QEMU: it connects to the lock manager, which knows a machine by its process.

The connection stays open in QEMU, and ends with it: then the lock manager lets go of what it has for it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from hostel.drivers.qemu.lockmanager.manager import LockManager, Owner, open_manager
from hostel.drivers.qemu.status import Status
from hostel.drivers.store import Directories
from hostel.errors import HostelError

_PROGRAM: Final = "import sys; from hostel.drivers.qemu.lockmanager.entry import main; main(sys.argv[1:])"


def registered(argv: list[str], manager: LockManager | None, directories: Directories, status: Status) -> list[str]:
    """The command that becomes QEMU's command, once a lock manager knows it; the same where there is none."""
    if manager is None:
        return argv
    domain = status.domain
    told = {
        "manager": manager.name,
        "directories": [*map(str, directories)],
        "owner": {"uuid": domain.uuid, "name": domain.name, "id": status.id},
        "action": domain.on_lockfailure or "",
        "run": status.run,
    }
    return [sys.executable, "-P", "-c", _PROGRAM, json.dumps(told), *argv]


def main(words: Sequence[str]) -> None:
    """Connect, and become what the words say after the first, which tells the rest."""
    told, *argv = words
    asked = json.loads(told)
    try:
        manager = open_manager(asked["manager"], Directories(*map(Path, asked["directories"])))
        connection = manager.register(Owner(**asked["owner"], pid=os.getpid()), asked["action"], Path(asked["run"]))
        os.set_inheritable(connection, True)
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # which Python ignores
        os.execvp(argv[0], argv)
    except (HostelError, OSError) as error:
        sys.stderr.write(f"{asked['manager']}: {error}\n")
        sys.exit(1)

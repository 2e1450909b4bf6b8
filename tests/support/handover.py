"""A process gets a lease of sanlock's as another that had it is killed: run where sanlock sees both."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from hostel.drivers.qemu.lockmanager.manager import Claim, Owner
from hostel.drivers.qemu.lockmanager.sanlock import Sanlock
from hostel.drivers.store import Directories

_WAIT = """
import sys
from hostel.drivers.qemu.lockmanager import sanlock_library
sanlock_library.register()
print("registered", flush=True)
sys.stdin.read()
"""


def process() -> subprocess.Popen[str]:
    """A process that sanlock knows, until its input ends."""
    started = subprocess.Popen([sys.executable, "-c", _WAIT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert started.stdout is not None and started.stdout.readline()
    return started


def main(home: str, space: str, name: str, path: str) -> None:
    """Hand a lease over.

    Args:
        home: of the daemon whose settings count.
        space: the lockspace.
        name: of the lease, which is that of no image.
        path: where it is.
    """
    claims = [Claim(space, name, path)]
    manager = Sanlock(Directories.under(Path(home)))
    with process() as first, process() as second:
        manager.acquire(Owner("", "first", 1, first.pid), claims)
        first.kill()
        first.wait()
        manager.acquire(Owner("", "second", 2, second.pid), claims)
        second.communicate("")


if __name__ == "__main__":
    main(*sys.argv[1:])

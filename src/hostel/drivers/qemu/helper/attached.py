"""A program that serves a device which comes into a machine that runs already.

It ends by itself when QEMU lets go of its socket. Until QEMU has taken it, somebody waits who ends it: the process that
plugs the device in may be killed.
"""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Final

from hostel.drivers.qemu.process import Helper, HelperFailed, last_lines

_POLL: Final = 0.02  # seconds
_SECONDS: Final = 10.0
# $1 is the file that says that QEMU has it.
_SCRIPT: Final = """
taken=$1; shift
"$@" & pid=$!
turn=0
while [ ! -e "$taken" ] && kill -0 $pid 2>/dev/null && [ $turn -lt 60 ]; do sleep 1; turn=$((turn + 1)); done
[ -e "$taken" ] || { kill $pid 2>/dev/null; : > "$taken.failed"; }
wait $pid
"""
_APART: Final = '(exec sh -c "$0" "$@") & exit 0'  # so that it is nobody's zombie here


def start(helper: Helper, log: Path) -> Path:
    """Run a program, and wait until it is ready; returns the file to make when QEMU has it.

    Raises:
        HelperFailed: it does not get ready.
        OSError: it cannot be started.
    """
    taken = Path(f"{helper.socket}.taken")
    failed = Path(f"{taken}.failed")
    for path in (taken, failed, helper.socket):
        path.unlink(missing_ok=True)
    before = log.stat().st_size if log.exists() else 0
    with log.open("ab") as output:
        words = ["sh", "-c", _APART, _SCRIPT, "helper", str(taken), *helper.argv]
        outer = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd="/", start_new_session=True
        )
        outer.wait(_SECONDS)
    deadline = time.monotonic() + _SECONDS
    while not helper.socket.is_socket():
        if failed.exists() or time.monotonic() >= deadline:
            raise HelperFailed(helper.name, next(iter(last_lines(log, 1, since=before)), "it said nothing"))
        time.sleep(_POLL)
    return taken

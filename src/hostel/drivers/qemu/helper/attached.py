"""A program that serves a device which comes into a machine that runs already.

It ends by itself when QEMU lets go of its socket, or is ended: by us (:func:`end`), and with QEMU. Until QEMU has taken
it, somebody waits who ends it: the process that plugs the device in may be killed.
"""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import Final

from hostel.drivers.qemu.confinement.selinux import kernel
from hostel.drivers.qemu.pause import Pause
from hostel.drivers.qemu.process import Helper, HelperFailed, is_listening, last_lines

_SECONDS: Final = 10.0
_WRITING_SECONDS: Final = 1.0  # what it has said may still be on its way into the log
# A number alone says little: it is given away once its process is gone. Fields 3 and 22 of /proc/PID/stat, after a name
# in parentheses that may have any, are its state and when it was started; see :mod:`hostel.drivers.procstat`.
_RUNS: Final = """
started() {
    stat=$(cat "/proc/$1/stat" 2>/dev/null) && set -- ${stat##*)} || return
    case $1 in [ZX]) ;; *) echo "${20}" ;; esac
}
runs() { [ -n "$2" ] && [ "$(started "$1")" = "$2" ]; }
"""
# $1 is the file that says that QEMU has it. Where its directory is gone, ":" would end the shell, as a special command.
_SCRIPT: Final = f"""{_RUNS}
taken=$1; shift
"$@" & pid=$!
began=$(started $pid) turn=0
while [ ! -e "$taken" ] && runs $pid "$began" && [ $turn -lt 60 ]; do sleep 1; turn=$((turn + 1)); done
[ -e "$taken" ] || {{ runs $pid "$began" && kill $pid 2>/dev/null; true > "$taken.failed"; }}
wait $pid
"""
# The same for what serves many, and does not end by itself; $1 is QEMU, which was started at $2.
_LASTING: Final = f"""{_RUNS}
qemu=$1 since=$2 taken=$3; shift 3
"$@" & pid=$!
began=$(started $pid) turn=0
is_wanted() {{ [ ! -e "$taken.end" ] && runs $qemu $since && runs $pid "$began"; }}
while [ ! -e "$taken" ] && is_wanted && [ $turn -lt 120 ]; do sleep 0.5; turn=$((turn + 1)); done
[ -e "$taken" ] || true > "$taken.failed"
while [ -e "$taken" ] && is_wanted; do sleep 0.5; done
runs $pid "$began" && kill $pid 2>/dev/null
wait $pid
"""
_APART: Final = '(exec sh -c "$0" "$@") & exit 0'  # so that it is nobody's zombie here


def end(socket: Path) -> None:
    """End a program that was started to stay with QEMU, by its socket, which is gone then; others are left alone."""
    taken = _taken_by(socket)
    if not taken.exists():
        return
    _end_of(taken).touch()
    deadline, pause = time.monotonic() + _SECONDS, Pause()
    while socket.exists() and time.monotonic() < deadline:  # the program removes it, and must not remove the next one's
        pause()
    taken.unlink()
    if not socket.exists():
        _end_of(taken).unlink()


def _taken_by(socket: Path) -> Path:
    """The file that says that QEMU has a program."""
    return Path(f"{socket}.taken")


def _end_of(taken: Path) -> Path:
    return Path(f"{taken}.end")


def start(helper: Helper, log: Path, output: int, *, beside: tuple[int, int] | None = None) -> Path:
    """Run a program, and wait until it is ready; returns the file to make when QEMU has it.

    Args:
        helper: the program.
        log: where its words are to be read.
        output: a descriptor that they go to.
        beside: the process of the QEMU that it stays with, where it does not end by itself, and when that was started,
            in clock ticks since boot.

    Raises:
        HelperFailed: it does not get ready.
        OSError: it cannot be started.
    """
    taken = _taken_by(helper.socket)
    failed = Path(f"{taken}.failed")
    for path in (taken, failed, _end_of(taken), helper.socket):
        path.unlink(missing_ok=True)
    before = log.stat().st_size if log.exists() else 0
    script = [_LASTING, "helper", *map(str, beside)] if beside else [_SCRIPT, "helper"]
    words = ["sh", "-c", _APART, *script, str(taken), *helper.argv]
    outer = subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd="/", start_new_session=True
    )
    outer.wait(_SECONDS)
    deadline, pause = time.monotonic() + _SECONDS, Pause()
    while not is_listening(helper.socket):
        if failed.exists() or time.monotonic() >= deadline:
            raise HelperFailed(helper.name, _last_words(log, before))
        pause()
    if helper.owner:
        os.chown(helper.socket, *map(int, helper.owner.split(":")), follow_symlinks=False)
    if helper.context:
        kernel.label(helper.socket, helper.context)
    return taken


def _last_words(log: Path, since: int) -> str:
    deadline, pause = time.monotonic() + _WRITING_SECONDS, Pause()
    while not (lines := last_lines(log, 1, since=since)) and time.monotonic() < deadline:
        pause()
    return next(iter(lines), "it said nothing")

"""QEMU as a process: started under a supervisor that outlives us, found again, ended.

Programs that serve QEMU (a TPM, a directory) are the supervisor's, too: they are there before QEMU, and end with it.

The supervisor is a POSIX shell in a session of its own. It holds a lock on ``alive`` for as long as it runs, writes
QEMU's process id to ``pid`` and, when QEMU ends, its status to ``exit`` (the shell's form: 128 + n for signal n).
Any later process of the same user learns from these how QEMU is, or how it died.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from hostel.drivers import procstat, signals
from hostel.drivers.fault import system_fault
from hostel.drivers.qemu.confinement.selinux import kernel
from hostel.drivers.qemu.pause import Pause
from hostel.drivers.store import is_locked, take_lock
from hostel.errors import ErrorDomain

_OURS: Final = " is tainted: "  # of lines that we write into a log while QEMU does, too

# It stands in the run's directory, and names what is there by that: a later run of the machine has another at the same
# path, where what this one writes late must not be found. Descriptor 9 is the lock, which QEMU does not get.
# A helper's process id may be another's once it has ended: what is not our child is left alone.
_FUNCTIONS: Final = """
helpers=
# As is_listening() below; what is connected has the path too, and says nothing.
is_open() {
    bound= accepts=
    while read -r number count protocol flags type state inode path; do
        [ "$path" = "$1" ] && [ "$type" = 0001 ] || continue
        bound=yes
        [ "$state" = 01 ] || continue
        [ "$flags" = 00010000 ] || return 1
        accepts=yes
    done < /proc/net/unix
    [ -n "$accepts" ] || [ -z "$bound" ]
}
ours() {
    while read -r key value; do
        [ "$key" != PPid: ] || { [ "$value" = $$ ]; return; }
    done 2>/dev/null < "/proc/$1/status"
    false
}
helper() {
    failed=$1 socket=$2 owner=$3 context=$4 turn=0; shift 4
    { cd / && exec "$@"; } 9>&- & pid=$!
    helpers="$helpers $pid"
    until [ -S "$socket" ] && is_open "$socket"; do
        ours $pid && [ $turn -lt 200 ] || { echo "$failed" > failed; end_helpers; exit 1; }
        sleep 0.05; turn=$((turn + 1))
    done
    [ -z "$owner" ] || chown -h "$owner" "$socket" || { echo "$failed" > failed; end_helpers; exit 1; }
    [ -z "$context" ] || chcon -h "$context" "$socket" || { echo "$failed" > failed; end_helpers; exit 1; }
}
end_helpers() {
    for signal in TERM KILL; do
        turn=0
        for pid in $helpers; do ours $pid && kill -$signal $pid; done
        for pid in $helpers; do
            while ours $pid && [ $turn -lt 100 ]; do sleep 0.05; turn=$((turn + 1)); done
        done
    done
}
"""
_SUPERVISOR: Final = """
{ cd / && exec "$@"; } 9>&- &
echo $! > pid.new && mv -f pid.new pid
wait $!; status=$?
end_helpers
echo $status > exit.new && mv -f exit.new exit
"""
# Arguments: files, an empty word, a command. Who writes 0 into such a file is put into its group.
_ENTER: Final = """
while [ -n "$1" ]; do echo 0 > "$1" || exit 1; shift; done
shift; exec "$@"
"""
# The outer shell ends at once, so that the supervisor is nobody's zombie here.
# The lock comes as standard input: dash knows no descriptor above 9 by number.
_OUTER: Final = 'umask 077; exec 9<&0 0</dev/null; body=$1; shift; (exec sh -c "$body" supervisor "$@") & exit 0'
_HELPER_SECONDS: Final = 12.0
GRACE_SECONDS: Final = 5.0  # that QEMU has to end by itself when it is told to
RECORDING: Final = 15.0  # seconds in which it is written down how QEMU ended: its helpers are ended before
_ACCEPTS: Final = "00010000"  # __SO_ACCEPTCON of linux/net.h, as /proc/net/unix has it
_UNCONNECTED: Final = "01"  # SS_UNCONNECTED, of those that accept too
_GROUND: Final = "qemu"
WRITER: Final = "writer"  # a lock that is held by what writes the log


class Helper(NamedTuple):
    """A program that serves QEMU while it runs.

    Attributes:
        name: what it is called where it fails.
        argv: the command; it stays in the foreground.
        socket: what it makes once it is ready.
        owner: who the socket is given to then, as chown(1) has it; empty where it stays as it is.
        context: the SELinux context that the socket is given; empty where it stays as it is.
        is_kept: whether it may do no more than QEMU.
    """

    name: str
    argv: Sequence[str]
    socket: Path
    owner: str = ""
    context: str = ""
    is_kept: bool = False


def is_listening(socket: Path) -> bool:
    """Whether a helper's socket is there, and not one whose owner does not listen yet: that refuses whoever comes.

    Not found out by connecting: some helpers serve one client, and end with it.
    """
    if not socket.is_socket():
        return False
    with open("/proc/net/unix", encoding="utf-8", errors="surrogateescape") as lines:
        found = [fields for line in lines if (fields := line.rstrip("\n").split(maxsplit=7))[7:] == [str(socket)]]
    streams = [(flags, state) for _, _, _, flags, kind, state, _, _ in found if kind == "0001"]
    # All of them: one that was at the same path, and is about to end, accepts still.
    accept = [flags == _ACCEPTS for flags, state in streams if state == _UNCONNECTED]
    return not streams or (bool(accept) and all(accept))


class HelperFailed(OSError):
    """A helper did not get ready; ``str()`` has its last words."""

    def __init__(self, name: str, said: str) -> None:
        super().__init__(errno.ECHILD, said)
        self.name = name
        self.said = said

    def __str__(self) -> str:
        return f"{self.name} did not come up: {self.said}"


def ground(run: Path) -> Path:
    """Where QEMU makes its sockets and files: a directory of its own where it is not all that we are, else the run's.

    It is another user then, or the kernel keeps it to something. What is written here by us, and read, is in the run's,
    where QEMU cannot put anything in its place.
    """
    own = run / _GROUND
    return own if own.is_dir() else run


def give_ground(run: Path, uid: int, gid: int, context: str | None = None) -> None:
    """Make that directory.

    Args:
        run: the run's.
        uid: the user that QEMU is to be.
        gid: its group.
        context: the SELinux context of its files; None where it has none of its own.

    Raises:
        OSError: the host refused.
    """
    own = run / _GROUND
    own.mkdir(mode=0o700)
    os.chown(own, uid, gid)
    run.chmod(0o711)
    if context is not None:
        try:
            kernel.label(own, context)
        except OSError:
            if kernel.enforces():
                raise


def user_of(run: Path) -> tuple[int, int] | None:
    """The numbers of the user and the group that a run's QEMU is; None where it is who started it."""
    own = run / _GROUND
    try:
        status = own.stat()
    except FileNotFoundError:
        return None
    found = status.st_uid, status.st_gid
    return None if found == (os.geteuid(), os.getegid()) else found


def home(run: Path) -> Path | None:
    """What is a home to a QEMU that is another user; None where it has ours."""
    own = ground(run)
    return None if own == run else own


def hand_over(run: Path, path: Path) -> None:
    """Give a run's QEMU a file that it is to read or write.

    Raises:
        OSError: the host refused.
    """
    user = user_of(run)
    if user is not None:
        os.chown(path, *user, follow_symlinks=False)
    own = run / _GROUND
    if own.is_dir():
        kernel.copy_label(own, path)


def run_of(ground: Path) -> Path:
    """The run's directory, of the one where QEMU makes its sockets."""
    return ground.parent if ground.name == _GROUND else ground


def spawn(
    argv: Sequence[str],
    run: Path,
    log: Path,
    *,
    helpers: Sequence[Helper] = (),
    files: Sequence[int] = (),
    environment: Mapping[str, str] | None = None,
    entrances: Sequence[Path] = (),
    output: int | None = None,
    timeout: float = 10,
) -> int:
    """Run ``argv`` under a supervisor and return QEMU's process id.

    Args:
        argv: the command.
        run: a fresh directory for ``pid``, ``exit`` and ``alive``.
        log: where QEMU's standard error is appended, and that of the helpers, where ``output`` does not say.
        helpers: what has to be ready before.
        files: open files that QEMU gets, with numbers of at least 20.
        environment: QEMU's, and that of the helpers; None where it is ours.
        entrances: files of control groups, which QEMU enters before it is anything else than a shell.
        output: a descriptor by which that comes into the log.
        timeout: seconds to wait for the process id.

    Raises:
        HelperFailed: a helper did not get ready; QEMU was not started.
        OSError: the shell could not be started, or did not start QEMU in time.
    """
    timeout += _HELPER_SECONDS * len(helpers)
    body, argv = _supervisor(helpers), _entering(entrances, argv)
    for name in ("pid", "exit", "failed"):
        (run / name).unlink(missing_ok=True)
    before = log.stat().st_size if log.exists() else 0
    with contextlib.ExitStack() as closing:
        lock = _held(run / "alive")
        closing.callback(os.close, lock)
        if output is None:
            output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            closing.callback(os.close, output)
        launcher = subprocess.Popen(
            ["sh", "-c", _OUTER, "start", body, *argv],
            stdin=lock,
            stdout=output,
            stderr=output,
            cwd=run,
            start_new_session=True,
            pass_fds=files,
            env=environment,
        )
        launcher.wait(timeout)
    pid = wait_for_pid(run, timeout)
    if pid is None:
        with contextlib.suppress(FileNotFoundError):
            name = (run / "failed").read_text().strip()
            wait_written(run)
            raise HelperFailed(name, next(iter(last_lines(log, 1, since=before)), "it said nothing"))
        raise OSError(errno.ETIMEDOUT, f"QEMU was not started within {timeout:.0f} seconds", str(run))
    return pid


def _held(path: Path) -> int:
    lock = take_lock(path)
    if lock is None:
        raise BlockingIOError(errno.EAGAIN, "Another QEMU runs in its directory", str(path))
    return lock


def detach(command: Sequence[str], log: Path) -> None:
    """Start a process that outlives us; what it says goes into a log.

    Raises:
        OSError, SubprocessError: it cannot be started.
    """
    with log.open("ab") as output:
        # The shell ends at once, so that the process is nobody's zombie here.
        subprocess.run(
            ["sh", "-c", '"$@" & exit 0', "start", *command],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd="/", start_new_session=True, check=True,
            timeout=10,
        )  # fmt: skip


def _supervisor(helpers: Sequence[Helper]) -> str:
    calls = [[item.name, str(item.socket), item.owner, item.context, *item.argv] for item in helpers]
    return _FUNCTIONS + "".join(f"helper {shlex.join(words)}\n" for words in calls) + _SUPERVISOR


def _entering(entrances: Sequence[Path], argv: Sequence[str]) -> Sequence[str]:
    return ["sh", "-c", _ENTER, "enter", *map(str, entrances), "", *argv] if entrances else argv


def wait_for_pid(run: Path, timeout: float) -> int | None:
    """The process id that the supervisor wrote; None when it is not there, or not in time."""
    deadline, pause = time.monotonic() + timeout, Pause()
    while True:
        with contextlib.suppress(OSError, ValueError):
            return int((run / "pid").read_text())
        if time.monotonic() >= deadline or not supervised(run):
            with contextlib.suppress(OSError, ValueError):
                return int((run / "pid").read_text())
            return None
        pause()


def supervised_qemu(run: Path, timeout: float) -> tuple[int, int] | None:
    """The id of the process that a run's supervisor has started, and when that was; None where there is none, or soon.

    Args:
        run: the run's directory.
        timeout: seconds that the supervisor has to say so.
    """
    pid = wait_for_pid(run, timeout)
    started = procstat.start_time(pid) if pid is not None and supervised(run) else None
    return (pid, started) if pid is not None and started is not None else None


def wait_written(run: Path, timeout: float = 2) -> None:
    """Wait until all is written that processes which have ended have said; others may hold their end of a pipe open."""
    deadline, pause = time.monotonic() + timeout, Pause()
    while is_locked(run / WRITER, shared=True) and time.monotonic() < deadline:
        pause()


def supervised(run: Path) -> bool:
    """Whether a supervisor (or the process that is starting one) holds this directory."""
    return is_locked(run / "alive")


def exit_status(run: Path, timeout: float = 0) -> int | None:
    """QEMU's status as the shell has it; None while it runs, or when nobody could record it."""
    deadline, pause = time.monotonic() + timeout, Pause()
    while True:
        with contextlib.suppress(OSError, ValueError):
            return int((run / "exit").read_text())
        if time.monotonic() >= deadline or not supervised(run):
            with contextlib.suppress(OSError, ValueError):
                return int((run / "exit").read_text())
            return None
        pause()


def ended(pid: int, started: int, timeout: float) -> bool:
    """Whether the process ends within ``timeout`` seconds: a dying one closes its sockets before it is gone."""
    deadline, pause = time.monotonic() + timeout, Pause()
    while procstat.runs(pid, started):
        if time.monotonic() >= deadline:
            return False
        pause()
    return True


def end(pid: int, started: int, *, grace: float | None = None, kill: bool = True) -> bool:
    """End the process with SIGTERM, then after ``grace`` seconds SIGKILL; False when it still runs."""
    grace = GRACE_SECONDS if grace is None else grace
    for number, seconds in ((signal.SIGTERM, grace), (signal.SIGKILL, 10.0)):
        if number == signal.SIGKILL and not kill:
            break
        if not signals.send(pid, number, partial(procstat.runs, pid, started)):
            return True
        deadline, pause = time.monotonic() + seconds, Pause()
        while time.monotonic() < deadline:
            if not procstat.runs(pid, started):
                return True
            pause()
    return not procstat.runs(pid, started)


def describe(status: int | None) -> str:
    """Say how QEMU ended."""
    if status is None:
        return "QEMU ended and nobody recorded how"
    if status > 128:
        number = status - 128
        try:
            name = signal.Signals(number).name
        except ValueError:
            name = f"signal {number}"
        return f"QEMU was killed by {name}"
    return f"QEMU ended with status {status}"


def last_lines(log: Path, count: int = 5, *, since: int = 0) -> list[str]:
    """The last lines that QEMU wrote, oldest first; ``since`` is the log's length when it was started."""
    try:
        with log.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            stream.seek(max(since if since <= size else 0, size - 8192))  # a log that was full has begun anew
            text = stream.read().decode(errors="replace")
    except OSError:
        return []
    return [line for line in text.splitlines() if line.strip() and _OURS not in line][-count:]


def write_log(log: Path, notes: Sequence[str], argv: Sequence[str] = ()) -> int:
    """Write into a machine's log, with the time, that it starts and how, or what is to be said of it meanwhile.

    Returns how long the log is then; what follows of a machine that starts is QEMU's own. What is said meanwhile is
    passed over where the host does not take it: what is being done must not fail by that.

    Raises:
        VirtError: ``SYSTEM_ERROR``: the log of a machine that starts cannot be written.
    """
    try:
        return _append(log, notes, argv)
    except OSError as error:
        if not argv:
            return 0
        raise system_fault(error, f"cannot write the log '{log}'", ErrorDomain.QEMU, path=str(log)) from error


def _append(log: Path, notes: Sequence[str], argv: Sequence[str]) -> int:
    log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    stamp = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M:%S%z")
    lines = [f"{stamp}: {note}\n" for note in (("starting up", *notes) if argv else notes)]
    with log.open("a", encoding="utf-8", errors="surrogateescape") as stream:
        stream.write("".join(lines) + (f"{shlex.join(argv)}\n" if argv else ""))
        stream.flush()
        return stream.tell()

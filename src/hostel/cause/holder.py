"""Which processes have a file open or locked, or listen on a port: what ``/proc`` tells of them (proc(5))."""

from __future__ import annotations

import contextlib
import itertools
import os
import shlex
import stat
from typing import Final, NamedTuple

from hostel.cause.mount import mount_of

_INTERPRETERS: Final = ("python", "sh", "bash", "dash", "perl")
_COMMAND: Final = 1 << 20  # bytes read of a command line
_LISTEN: Final = "0A"  # TCP_LISTEN
_UNCONNECTED: Final = "07"  # of a UDP socket that is bound


class _Found(NamedTuple):
    """What was seen of a process: whether it holds locks on the file, or only has it open."""

    pid: int
    locks: bool


def find_holders(path: str) -> list[str]:
    """Name the other processes that have ``path`` open: ``process 812 (qemu-system-x86_64, machine web1)``.

    Where some of them hold locks on it, only those are named. What other users' processes have open is seen only by
    root; of these are named those whose command has the path in it.
    """
    try:
        wanted = os.stat(path)
        pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except (OSError, ValueError):
        return []
    found = [seen for pid in sorted(pids) if pid != os.getpid() and (seen := _look(pid, wanted, path))]
    if any(each.locks for each in found):
        found = [each for each in found if each.locks]
    return [describe(each.pid) for each in found]


def lock_hint(path: str) -> str:
    """Say who holds the locks of an image, or who may where nobody is seen to; a sentence."""
    if holders := find_holders(path):
        return f"It is open in {', '.join(holders)}."
    if _open_here(path) > 1:
        return "It is open in this process, for something else that it does."
    mount = mount_of(path)
    if mount is not None and mount.is_remote:
        return f"No process of this host is seen to have it open: it is on {mount}, and another host may hold the lock."
    if os.geteuid() != 0:
        shown = shlex.quote(path)
        return f"No process of yours has it open; as root, 'fuser -v {shown}' shows those of other users."
    return "No process is seen to have it open: one in another container or PID namespace may."


def _open_here(path: str) -> int:
    """How many times this process has a file open: whoever asks who holds its locks has it once."""
    with contextlib.suppress(OSError):
        wanted = os.stat(path)
        return sum(_is(f"/proc/self/fd/{name}", wanted) for name in os.listdir("/proc/self/fd"))
    return 0


def _is(place: str, wanted: os.stat_result) -> bool:
    with contextlib.suppress(OSError):
        status = os.stat(place)
        return (status.st_dev, status.st_ino) == (wanted.st_dev, wanted.st_ino)
    return False


def kernel_holders(path: str) -> list[str]:
    """What of this host's kernel uses a device or one of its partitions: mounts, and devices made of it."""
    found: list[str] = []
    with contextlib.suppress(OSError):
        status = os.stat(path)
        if not stat.S_ISBLK(status.st_mode):
            return []
        entry = os.path.realpath(f"/sys/dev/block/{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}")
        places = [
            entry,
            *(os.path.join(entry, name) for name in os.listdir(entry) if name.startswith(os.path.basename(entry))),
        ]
        for place in places:
            with open(f"{place}/dev", encoding="ascii") as file:
                number = file.read().strip()
            with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
                rows = [line.split(" ") for line in table]
            found += [f"the mount on {row[4]}" for row in rows if row[2] == number]
            if os.path.isdir(f"{place}/holders"):
                found += [f"/dev/{holder}" for holder in sorted(os.listdir(f"{place}/holders"))]
    return found


def find_listeners(port: int, *, udp: bool = False) -> list[str]:
    """Name who listens on a port of this host: ``process 53 (dnsmasq)``, or the user where only that is told."""
    inodes: dict[str, int] = {}
    for table in ("udp", "udp6") if udp else ("tcp", "tcp6"):
        inodes |= _bound(f"/proc/net/{table}", port, _UNCONNECTED if udp else _LISTEN)
    return _named(inodes)


def find_unix_listeners(path: str) -> list[str]:
    """Name who listens on a Unix socket."""
    inodes: dict[str, int] = {}
    with contextlib.suppress(OSError), open("/proc/net/unix", encoding="utf-8", errors="surrogateescape") as rows:
        for row in rows:
            words = row.rstrip("\n").split(None, 7)
            if len(words) == 8 and words[7] == path and int(words[3], 16) & 0x10000:  # __SO_ACCEPTCON
                inodes[words[6]] = -1
    return [name for name in _named(inodes) if name]


def describe(pid: int) -> str:
    """A process for people: its id, its command, and the machine that it runs."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as stream:
            arguments = stream.read(_COMMAND).decode(errors="replace").split("\0")
        uid = os.stat(f"/proc/{pid}").st_uid
    except OSError:
        return f"process {pid}"
    what = _command(arguments) or _short_name(pid)
    for flag, value in itertools.pairwise(arguments):
        if flag in ("-name", "--name") and (machine := _machine(value)):
            what += f", machine {machine}"
    if uid != os.geteuid():
        from hostel.cause.access import user_name

        what += f", of {user_name(uid)}"
    return f"process {pid} ({what})"


def _machine(value: str) -> str:
    """The machine's name in the value of QEMU's ``-name``: the last ``guest=``, or the first word that is no option."""
    first, *others = (word.replace("\0", ",") for word in value.replace(",,", "\0").split(","))
    is_option = "=" in value.partition(",")[0]
    words = [first if is_option else f"guest={first}", *others]
    return next((word.removeprefix("guest=") for word in reversed(words) if word.startswith("guest=")), "")


def _command(arguments: list[str]) -> str:
    """The program's name; a script's own, and not that of who interprets it."""
    names = [os.path.basename(argument) for argument in arguments]
    if len(names) > 2 and names[0].rstrip("0123456789.") in _INTERPRETERS and not arguments[1].startswith("-"):
        names = names[1:]
    return " ".join(names[:2]) if names[0] == "hostel" else names[0]


def _short_name(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as stream:
            return stream.read().strip()
    except OSError:
        return "unknown"


def _look(pid: int, wanted: os.stat_result, path: str) -> _Found | None:
    """Whether a process has a file open, and with locks; None where it is not seen to."""
    directory = f"/proc/{pid}/fd"
    try:
        descriptors = os.listdir(directory)
    except PermissionError:
        return _Found(pid, locks=False) if _names_it(pid, os.path.realpath(path)) else None
    except OSError:
        return None
    is_open = locks = False
    for descriptor in descriptors:
        if _is(f"{directory}/{descriptor}", wanted):
            is_open, locks = True, locks or _has_locks(pid, descriptor)
    return _Found(pid, locks) if is_open else None


def _has_locks(pid: int, descriptor: str) -> bool:
    try:
        with open(f"/proc/{pid}/fdinfo/{descriptor}", encoding="ascii", errors="replace") as stream:
            return any(line.startswith("lock:") for line in stream)
    except OSError:
        return False


def _names_it(pid: int, path: str) -> bool:
    """Whether a process has a path in its command, as QEMU has those of its disks."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as stream:
            command = stream.read(_COMMAND)
    except OSError:
        return False
    wanted = os.fsencode(path)
    return any(part[:1] in (b"", b"\0", b'"', b",") for part in command.split(wanted)[1:])


def _bound(table: str, port: int, state: str) -> dict[str, int]:
    """The sockets that are bound to a port, as inode and user."""
    found: dict[str, int] = {}
    with contextlib.suppress(OSError), open(table, encoding="ascii") as rows:
        for row in rows:
            words = row.split()
            if len(words) > 9 and words[3] == state and words[1].endswith(f":{port:04X}"):
                found[words[9]] = int(words[7])
    return found


def _named(inodes: dict[str, int]) -> list[str]:
    """The processes that have sockets open; the user of those that nobody is seen to have."""
    links = {f"socket:[{inode}]": inode for inode in inodes}
    named: list[str] = []
    for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdigit()) if links else ():
        mine: set[str] = set()
        with contextlib.suppress(OSError):
            for descriptor in os.scandir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    mine.add(os.readlink(descriptor.path))
        if found := mine & links.keys():
            named.append(describe(pid))
            for link in found:
                inodes.pop(links[link], None)
    if inodes:
        from hostel.cause.access import user_name

        named += sorted({f"a process of {user_name(uid)}" for uid in inodes.values() if uid >= 0})
    return named


def port_hint(port: int, *, udp: bool = False) -> str | None:
    """Say who has a port of this host; a sentence, or None where nobody is seen to."""
    found = find_listeners(port, udp=udp)
    return f"Port {port} is in use by {', '.join(found)}." if found else None

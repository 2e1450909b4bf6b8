"""Why QEMU did not start its guest: the line of what it wrote that says so, and what is behind it.

QEMU's errors begin with the argument they are about, which for a disk is a line of JSON (``error_vreport()`` and
``loc_print()`` of its ``util/qemu-error.c``). Here the reason comes first, then the device in the document's words.
"""

from __future__ import annotations

import errno
import itertools
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from hostel.cause import explain, in_line
from hostel.cause.access import kept_from
from hostel.cause.holder import find_unix_listeners, lock_hint, port_hint
from hostel.cause.user import User, denied_to
from hostel.drivers.fault import printable
from hostel.model.domain.devices.source import BackingStore, DiskSource
from hostel.model.domain.domain import Domain
from hostel.units import format_size

_STAMP: Final = re.compile(r"^\d{4}-\d\d-\d\dT[\d:.]+Z ")
_QUOTED: Final = re.compile(r"'(/[^']*)'")
# Of options, and of the arguments of commands, which are JSON.
_PORT: Final = re.compile(r'(?:(?:^|,)(?:port|tls-port|websocket)=|"port": "?)(\d+)')
_PATH: Final = re.compile(r'(?:(?:^|,)(?:path|mem-path)=|"path": ")([^,"]+)')
_VNC: Final = re.compile(r"^[^,]*:(\d+)(?:,|$)")
_FIRST_VNC: Final = 5900
_NODE: Final = re.compile(r"libvirt-(\d+)-(?:format|storage|slice)")
# Of QEMU's errors, those with a path of the host's that an errno is about.
_MODULES: Final = ("selinux", "apparmor")
_EXPLAINED: Final = (
    errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EROFS, errno.ENOSPC, errno.EDQUOT,
    errno.EMFILE, errno.ENFILE, errno.EBUSY, errno.ETXTBSY,
)  # fmt: skip


class _Said(NamedTuple):
    """An error of QEMU's.

    Attributes:
        message: what it says, without what it is about.
        option: the option it is about, such as ``-blockdev``; empty where it names none.
        value: that option's argument.
    """

    message: str
    option: str = ""
    value: str = ""


def explained(lines: Iterable[str], argv: Sequence[str], domain: Domain, user: User | None = None) -> str | None:
    """What QEMU wrote before it ended, as one line that says why and what to do; None where it gave no reason.

    Args:
        lines: what it wrote.
        argv: how it was started.
        domain: its live document.
        user: who it was, where that is another than we.
    """
    found: _Said | None = None
    for line in lines:
        said = _read(line, argv)
        if said is not None:
            found = said
    if found is None:
        return None
    about, hint = _about(found, domain), _hint(found, domain, user)
    return found.message + (f" ({about})" if about else "") + (f"; {in_line(hint)}" if hint else "")


def behind(desc: str, arguments: Mapping[str, Any], domain: Domain, user: User | None = None) -> str:
    """What is behind a command's refusal, for the end of a message; empty where nothing is known.

    Args:
        desc: QEMU's words.
        arguments: those of the command.
        domain: the live document, with the device that the command is about.
        user: who QEMU is, where that is another than we.
    """
    hint = _hint(_Said(desc, "-blockdev", json.dumps(arguments, default=str)), domain, user)
    return f"; {printable(in_line(hint))}" if hint else ""


def behind_writing(why: str, descriptor: int) -> str:
    """The same for QEMU's writing into a file that we have open."""
    try:
        path = os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:
        return ""
    code = next((code for code in _EXPLAINED if why.endswith(os.strerror(code))), None)
    hint = explain(code, path, write=True) if path.startswith("/") else None
    return f"; {printable(in_line(hint))}" if hint else ""


def _read(line: str, argv: Sequence[str]) -> _Said | None:
    text = _STAMP.sub("", line).strip()
    program = os.path.basename(argv[0]) if argv else ""
    start = next((name for name in (program, "qemu-system", "qemu") if name and text.startswith(name)), None)
    if start is None:
        return _Said(text) if text.startswith(("Could not", "Failed to", "Unable to")) else None
    _, colon, text = text.partition(": ")
    if not colon or text.startswith(("warning: ", "info: ", "terminating on")):
        return None
    for option, value in itertools.pairwise(argv):
        if option.startswith("-") and text.startswith(f"{option} {value}: "):
            return _Said(text.removeprefix(f"{option} {value}: "), option, value)
    return _Said(text)


def _about(said: _Said, domain: Domain) -> str:
    """What of the document an option is about, unless the message says it."""
    if said.option in ("-blockdev", "-device") and (node := _NODE.search(said.value)) is not None:
        target, path = _image(domain, int(node[1]))
        shown = f"disk '{target}'" if target else node[0]
        return f"{shown}, '{path}'" if path and path not in said.message else shown
    name = re.search(r'(?:(?:^|,)id=|"id": ?"|"node-name": ?")([^,"]+)', said.value)
    if said.option and name is not None:
        return f"{said.option[1:]} '{name[1]}'"
    kernel = domain.os.kernel if domain.os is not None else None
    if kernel and "kernel" in said.message and kernel not in said.message:
        return f"kernel '{kernel}'"
    first = said.value.partition(",")[0]
    return f"{said.option} {first}" if said.option and first not in said.message else ""


def _image(domain: Domain, index: int) -> tuple[str, str]:
    """The target of the disk that has an image of this number, and the image's path; empty where there is none."""
    for disk in domain.devices.disks:
        image: DiskSource | BackingStore | None = disk.source
        backing = disk.backing_store
        while image is not None:
            source = image if isinstance(image, DiskSource) else image.source
            if index in (image.index, source.index if source is not None else None):
                return disk.target.dev, (source.file or source.dev or "") if source is not None else ""
            image, backing = backing, backing.backing_store if backing is not None else None
    return "", ""


def _hint(said: _Said, domain: Domain, user: User | None) -> str | None:
    message = said.message
    if message.endswith(" lock") and "Failed to get" in message:
        path = _path(said, domain)
        return lock_hint(path) if path else None
    if message.endswith(os.strerror(errno.EADDRINUSE)):
        return _taken(said)
    if message.endswith(os.strerror(errno.ENOMEM)):
        return _memory(domain)
    for code in _EXPLAINED:
        if message.endswith(os.strerror(code)):
            path = _path(said, domain)
            if path and code in (errno.EACCES, errno.EPERM):
                return _denied(path, domain, user) or explain(code, path)
            return explain(code, path) if path else None
    return None


def _denied(path: str, domain: Domain, user: User | None) -> str | None:
    """What denies a path to a QEMU that is another user than we, or is kept to something."""
    if user is not None and (why := denied_to(path, user)):
        return why
    kept = next((item.label for item in domain.seclabels if item.model in _MODULES and item.label), None)
    if kept is None or (user is None and not os.access(path, os.R_OK | os.W_OK)):
        return None
    return kept_from(path, kept)


def _path(said: _Said, domain: Domain) -> str:
    """The host's file that an error is about."""
    if quoted := _QUOTED.findall(said.message):
        return str(quoted[-1])
    # QEMU takes a raw image's locks only for the device that has its node.
    if (node := _NODE.search(said.value)) is not None and (path := _image(domain, int(node[1]))[1]):
        return path
    if said.option == "-blockdev" and (filename := _json(said.value).get("filename")):
        return str(filename)
    found = _PATH.search(said.value)
    return found[1] if found is not None else ""


def _json(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _taken(said: _Said) -> str | None:
    """Who has a port or a socket that QEMU was to listen on."""
    holders: list[str] = []
    ports = [int(port) for port in _PORT.findall(said.value)]
    if said.option == "-vnc" and (display := _VNC.match(said.value)) is not None:
        ports.append(_FIRST_VNC + int(display[1]))
    holders += [in_line(found) for port in ports if (found := port_hint(port)) is not None]
    if (path := _PATH.search(said.value)) is not None:
        holders += [f"'{path[1]}' is in use by {name}" for name in find_unix_listeners(path[1])]
    return ", and ".join(holders) or None


def _memory(domain: Domain) -> str | None:
    """How much the host has of what the guest's memory is made of."""
    wanted = domain.memory.to_kib() * 1024 if domain.memory is not None else 0
    backing = domain.memory_backing
    if backing is not None and backing.hugepages is not None:
        sizes = [f"{pages} of {name.partition('-')[2]} are free" for name, pages in _free_pages()]
        fix = "write how many there are to be into /proc/sys/vm/nr_hugepages"
        return f"the guest needs {format_size(wanted)} in huge pages, of which {', '.join(sizes) or 'none'}; {fix}"
    found = re.search(r"^MemAvailable: *(\d+) kB", _text(Path("/proc/meminfo")), re.MULTILINE)
    free = f", and the host has {format_size(int(found[1]) * 1024)} available" if found is not None else ""
    return f"the guest needs {format_size(wanted)}{free}"


def _free_pages() -> list[tuple[str, str]]:
    """The sizes of huge pages that the host has, and how many of each are free."""
    places = sorted(Path("/sys/kernel/mm/hugepages").glob("hugepages-*"))
    return [(place.name, _text(place / "free_hugepages").strip()) for place in places]


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""

"""Control groups: found where they are mounted, made for a machine and its threads, and removed (``vircgroup*.c``).

A controller is in one hierarchy: of its own (version 1), or in one that all share (version 2). A host may have both.
A group has the same path in every hierarchy.
"""

from __future__ import annotations

import contextlib
import errno
import re
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from hostel.drivers.fault import fault, system_fault
from hostel.errors import ErrorCode, ErrorDomain, VirtError

MACHINES: Final = "/machine"  # the partition of machines that name none
_TOP: Final = ("machine", "system", "user")
_UNIFIED_NAMES: Final = {"blkio": "io"}
_THREADED: Final = ("cpu", "cpuset")  # what threads of a process can have of their own
_OF_THREADS: Final = (*_THREADED, "cpuacct")
_CONTROLLERS: Final = ("cpu", "cpuacct", "cpuset", "memory", "blkio", "pids", "devices")
_REMOVAL_SECONDS: Final = 2.0
_NAME: Final = re.compile(r"[^A-Za-z0-9.-]+")
_NAME_LENGTH: Final = 64


class Place(NamedTuple):
    """Where a controller is mounted, and in which version."""

    mount: Path
    is_unified: bool


def mounted(controllers: Collection[str], mounts: Path = Path("/proc/self/mounts")) -> dict[str, Place]:
    """Where each of these controllers is that the host has; devices are a matter of every group of version 2."""
    found: dict[str, Place] = {}
    unified: Path | None = None
    with contextlib.suppress(OSError):
        for line in mounts.read_text(errors="surrogateescape").splitlines():
            _, where, kind, options = line.split()[:4]
            place = Path(where.encode("latin-1", "replace").decode("unicode_escape"))
            if kind == "cgroup":
                there = set(options.split(","))
            elif kind == "cgroup2":
                there, unified = _offered(place), unified or place
            else:
                continue
            for name in _CONTROLLERS:
                wanted = _UNIFIED_NAMES.get(name, name) if kind == "cgroup2" else name
                if name in controllers and wanted in there:
                    found.setdefault(name, Place(place, kind == "cgroup2"))
    if "devices" in controllers and unified is not None:
        found.setdefault("devices", Place(unified, True))
    return found


def _offered(folder: Path) -> set[str]:
    with contextlib.suppress(OSError):
        return set((folder / "cgroup.controllers").read_text().split())
    return set()


class Group:
    """A group by its path, as far as its controllers reach.

    Args:
        path: from the root of the hierarchies.
        places: where the controllers are.
    """

    def __init__(self, path: str, places: Mapping[str, Place]) -> None:
        self.path = path
        self._places = dict(places)

    def folder(self, controller: str) -> Path:
        """Where a controller has the group."""
        return self._places[controller].mount / self.path.lstrip("/")

    def has(self, controller: str) -> bool:
        """Whether a controller reaches it."""
        if controller not in self._places:
            return False
        if controller == "devices" or not self.is_unified(controller):
            return self.folder(controller).is_dir()
        return _UNIFIED_NAMES.get(controller, controller) in _offered(self.folder(controller))

    def is_unified(self, controller: str) -> bool:
        """Whether a controller is that of version 2."""
        return self._places[controller].is_unified

    def inode(self) -> int:
        """The number of its directory, by which the kernel knows it.

        Raises:
            VirtError: ``SYSTEM_ERROR``: it is no more.
        """
        folder = self.folder(next(iter(self._places)))
        try:
            return folder.stat().st_ino
        except OSError as error:
            raise system_fault(error, f"failed to get stat for '{folder}'", ErrorDomain.NONE) from error

    def below(self, name: str, controllers: Collection[str] | None = None) -> Group:
        """A group in this one, with all controllers of it or some."""
        places = {key: place for key, place in self._places.items() if controllers is None or key in controllers}
        return Group(f"{self.path.rstrip('/')}/{name}", places)

    def make(self) -> None:
        """Make the group, and have those above it pass their controllers on.

        Raises:
            VirtError: ``SYSTEM_ERROR``: the host refuses.
        """
        above = Group(self.path.rpartition("/")[0] or "/", self._places)
        for controller, place in list(self._places.items()):
            folder, upper = self.folder(controller), above.folder(controller)
            try:
                folder.mkdir(mode=0o755)
            except FileExistsError:
                pass
            except OSError as error:
                if controller == "blkio" and not place.is_unified:
                    continue
                raise system_fault(error, _failed(controller, place, folder), ErrorDomain.NONE) from error
            if place.is_unified and controller != "devices":
                with contextlib.suppress(VirtError):
                    name = _UNIFIED_NAMES.get(controller, controller)
                    write(upper / "cgroup.subtree_control", f"+{name}")
            elif controller == "cpuset":
                _inherit(folder, upper)

    def make_for_thread(self, name: str) -> Group:
        """Make a group for a thread of the process in this one, which is there already.

        Raises:
            VirtError: ``SYSTEM_ERROR``: the host refuses.
        """
        group = self.thread(name)
        for controller, place in group._places.items():
            folder, upper = group.folder(controller), self.folder(controller)
            try:
                folder.mkdir(mode=0o755)
            except FileExistsError:
                continue
            except OSError as error:
                raise system_fault(error, _failed(controller, place, folder), ErrorDomain.NONE) from error
            if not place.is_unified and controller == "cpuset":
                _inherit(folder, upper)
            elif place.is_unified:
                write(folder / "cgroup.type", "threaded")
        for controller, place in group._places.items():
            if place.is_unified:
                write(self.folder(controller) / "cgroup.subtree_control", f"+{controller}")
        return group

    def thread(self, name: str) -> Group:
        """The group of a thread of the process in this one."""
        return self.below(name, [key for key in _OF_THREADS if self.has(key)])

    def check_above(self) -> None:
        """Refuse a group whose parent is not there, and is not made by itself.

        Raises:
            VirtError: ``SYSTEM_ERROR``.
        """
        above = Group(self.path.rpartition("/")[0] or "/", self._places)
        for controller, place in self._places.items():
            folder = above.folder(controller)
            if not folder.is_dir():
                missing = FileNotFoundError(errno.ENOENT, "")
                raise system_fault(missing, _failed(controller, place, folder), ErrorDomain.NONE)

    def entrances(self) -> list[Path]:
        """Files that a process which is to be in the group writes 0 into."""
        return sorted({self.folder(controller) / "cgroup.procs" for controller in self._places if self.has(controller)})

    def add_thread(self, thread: int) -> None:
        """Put a thread into the group.

        Raises:
            VirtError: ``SYSTEM_ERROR``: the host refuses.
        """
        for controller, place in self._places.items():
            write(self.folder(controller) / ("cgroup.threads" if place.is_unified else "tasks"), str(thread))

    def remove(self) -> None:
        """Remove the group and all below it, once those in it have ended; one that is not there is removed."""
        for folder in {self.folder(controller) for controller in self._places}:
            deadline = time.monotonic() + _REMOVAL_SECONDS
            while folder.is_dir() and not _is_removed(folder) and time.monotonic() < deadline:
                time.sleep(0.02)


def write(path: Path, value: str) -> None:
    """Write a value into a file of a group.

    Raises:
        VirtError: ``SYSTEM_ERROR``: the host refuses it.
    """
    try:
        path.write_text(value)
    except OSError as error:
        refused = f"Invalid value '{value}' for '{path.name}'"
        what = refused if error.errno == errno.EINVAL else f"Unable to write to '{path}'"
        raise system_fault(error, what, ErrorDomain.NONE) from error


def read(path: Path) -> str:
    """What a file of a group says.

    Raises:
        VirtError: ``SYSTEM_ERROR``: it cannot be read.
    """
    try:
        return path.read_text().rstrip("\n")
    except OSError as error:
        raise system_fault(error, f"Unable to read from '{path}'", ErrorDomain.NONE) from error


def machine_path(partition: str, driver: str, number: int, name: str) -> str:
    """The path of a machine's group (``virCgroupNewDomainPartition``).

    Raises:
        VirtError: ``CONFIG_UNSUPPORTED``: the partition is no path.
    """
    if not partition.startswith("/"):
        what = f"Resource partition '{partition}' must start with '/'"
        raise fault(ErrorCode.CONFIG_UNSUPPORTED, what, ErrorDomain.QEMU)
    words = []
    for place, word in enumerate(partition.strip("/").split("/")):
        if word in ("", ".", ".."):
            what = f"Resource partition '{partition}' has no name between two '/'"
            raise fault(ErrorCode.CONFIG_UNSUPPORTED, what, ErrorDomain.QEMU)
        is_top = place == 0 and word in _TOP
        words.append(word if is_top or "." in word else f"{word}.partition")
    return "/" + "/".join([*words, f"{machine_name(driver, number, name)}.libvirt-{driver}"])


def machine_name(driver: str, number: int, name: str) -> str:
    """What the host calls a machine that runs (``virDomainDriverGenerateMachineName``)."""
    begin = f"{driver}-{number}-"
    rest = re.sub(r"([.-])[.-]+", r"\1", _NAME.sub("", name)).lstrip(".-")
    return (begin + rest[: max(0, _NAME_LENGTH - len(begin))]).rstrip(".-")


def _failed(controller: str, place: Place, folder: Path) -> str:
    if place.is_unified:
        return f"Failed to create v2 cgroup '{folder}/'"
    return f"Failed to create v1 controller {controller} for group"


def _inherit(folder: Path, upper: Path) -> None:
    """A new group of ``cpuset`` has no processors and no memory: nobody could be in it."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        if not read(folder / name):
            write(folder / name, read(upper / name))


def _is_removed(folder: Path) -> bool:
    try:
        for child in folder.iterdir():
            if child.is_dir() and not _is_removed(child):
                return False
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:  # somebody is in it, perhaps not for long
        return False
    return True

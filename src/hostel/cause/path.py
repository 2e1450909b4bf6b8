"""Where the kernel stops on its way along a path (path_resolution(7))."""

from __future__ import annotations

import enum
import os
import stat
from typing import Final, NamedTuple

_LINKS: Final = 40  # that the kernel follows in one path


class Why(enum.Enum):
    """Why a path leads no further."""

    CLOSED = enum.auto()  # a directory that we may not search
    MISSING = enum.auto()
    NO_DIRECTORY = enum.auto()  # something else where a directory has to be
    LOOP = enum.auto()
    FOUND = enum.auto()  # nothing that can be told: it leads to the end, mostly


class Stop(NamedTuple):
    """How far a path leads.

    Attributes:
        why: what stops it.
        place: the directory or file it is about.
        is_last: it is what the whole path names, and not on the way there.
        link: the last symbolic link that led there; empty where none did.
    """

    why: Why
    place: str
    is_last: bool
    link: str


def walk(path: str) -> Stop:
    """Go along a path as the kernel does, and say where that ends."""
    place, parts, link, links = "/", _parts(absolute(path)), "", 0
    while parts:
        if not allowed(place, os.X_OK):
            return Stop(Why.CLOSED, place, is_last=False, link=link)
        place = os.path.join(place, parts.pop(0)) if parts[0] != ".." else _up(place, parts)
        try:
            mode = os.lstat(place).st_mode
        except FileNotFoundError:
            return Stop(Why.MISSING, place, is_last=not parts, link=link)
        except OSError:  # a name that is too long, a server that is away: the errno says it all
            return Stop(Why.FOUND, os.path.dirname(place), is_last=False, link=link)
        if stat.S_ISLNK(mode):
            links += 1
            if links > _LINKS:
                return Stop(Why.LOOP, place, is_last=not parts, link=link)
            link, target = place, os.readlink(place)
            parts = _parts(target) + parts
            place = "/" if target.startswith("/") else os.path.dirname(place)
        elif parts and not stat.S_ISDIR(mode):
            return Stop(Why.NO_DIRECTORY, place, is_last=False, link=link)
    return Stop(Why.FOUND, place, is_last=True, link=link)


def absolute(path: str) -> str:
    """The same from the root on; its links and dots stay."""
    try:
        return os.path.join(os.getcwd(), path)
    except OSError:  # the current directory has been removed
        return os.path.join("/", path)


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]


def _up(place: str, parts: list[str]) -> str:
    parts.pop(0)
    return os.path.dirname(place)


def allowed(path: str, mode: int) -> bool:
    """Whether this process's effective user may, as far as the kernel says."""
    if os.geteuid() == os.getuid() and os.getegid() == os.getgid():
        return os.access(path, mode)
    return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)


def broken(path: str) -> str | None:
    """Say what of a path is missing or is no directory; None where it is the file itself that is just not there."""
    stop = walk(path)
    through = f", where the link '{stop.link}' leads" if stop.link else ""
    if stop.why is Why.NO_DIRECTORY:
        return f"'{stop.place}'{through} is no directory."
    if stop.why is Why.LOOP:
        return f"The link '{stop.place}' leads to itself."
    if stop.why is Why.MISSING and not stop.is_last:
        return f"There is no directory '{stop.place}'{through}."
    if stop.why is Why.MISSING and os.path.islink(path):
        return f"There is no '{stop.place}'{through}."
    return None


def existing(path: str) -> str:
    """The last directory or file of a path that is there."""
    stop = walk(path)
    return stop.place if stop.why is Why.FOUND else os.path.dirname(stop.place)

"""The mounts of this host, as ``/proc/self/mountinfo`` tells of them (proc(5))."""

from __future__ import annotations

import os
from typing import Final, NamedTuple

from hostel.cause import path as paths

REMOTE: Final = ("nfs", "cifs", "smb", "ceph", "fuse.glusterfs", "ocfs2", "gfs2", "lustre", "9p", "virtiofs")


class Mount(NamedTuple):
    """A mount.

    Attributes:
        point: where it is.
        kind: the file system's type, such as ``ext4``.
        source: what is mounted.
        options: those of the mount and of the file system.
    """

    point: str
    kind: str
    source: str
    options: frozenset[str]

    def __str__(self) -> str:
        if self.source in ("", "none", self.kind):
            return f"{self.kind} on '{self.point}'"
        return f"{self.kind} of {self.source} on '{self.point}'"

    @property
    def is_remote(self) -> bool:
        """Whether other hosts may use the same files."""
        return self.kind.startswith(REMOTE)


def mount_of(path: str) -> Mount | None:
    """The mount that a path, or as much of it as exists, lies in; None where that is not told."""
    try:
        place = os.path.realpath(paths.existing(path))
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
            rows = [line.rstrip("\n").split(" ") for line in table]
    except OSError:
        return None
    best: Mount | None = None
    for row in rows:
        if "-" not in row:
            continue
        point, rest = _unescaped(row[4]), row[row.index("-") + 1 :]
        if not _holds(point, place) or (best is not None and len(point) < len(best.point)):
            continue
        options = frozenset(f"{row[5]},{rest[2] if len(rest) > 2 else ''}".split(","))
        best = Mount(point, rest[0], _unescaped(rest[1]), options)  # of two at one point, the later is on top
    return best


def _holds(point: str, place: str) -> bool:
    return point == "/" or place == point or place.startswith(point + "/")


def _unescaped(text: str) -> str:
    for code, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, char)
    return text

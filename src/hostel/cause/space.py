"""File systems without room, and those that are not written to."""

from __future__ import annotations

import os
from typing import Final

from hostel.cause import path as paths
from hostel.cause.mount import mount_of
from hostel.units import GiB, format_size

_AMPLE: Final = GiB


def full(path: str, needed: int = 0, *, is_quota: bool = False) -> str | None:
    """Say which file system has no room, and how much is missing."""
    mount = mount_of(path)
    where = f"The file system of '{path}'" + (f" ({mount})" if mount is not None else "")
    if is_quota:
        return f"{where} allows {_user()} no more: a quota is reached (quota -v)."
    try:
        found = os.statvfs(paths.existing(path))
    except OSError:
        return None
    if found.f_files and not found.f_favail:
        return f"{where} can hold no more files: all of its {found.f_files} inodes are in use (df -i)."
    size, free = found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize
    if not needed and free > _AMPLE:
        return None  # it is something else that is full: a thin volume below, a store of snapshots
    text = f"{where} has {format_size(size)}, of which {format_size(free)} are free"
    if needed > free:
        text += f": at least {format_size(needed - free)} more are needed"
    if found.f_bfree > found.f_bavail and os.geteuid() != 0:
        text += f"; {format_size((found.f_bfree - found.f_bavail) * found.f_frsize)} besides are kept for root"
    return text + "."


def read_only(path: str) -> str | None:
    """Say which mount is read-only."""
    mount = mount_of(path)
    if mount is None or "ro" not in mount.options:
        return None
    return f"It is in the file system {mount}, which is mounted read-only (mount -o remount,rw '{mount.point}')."


def _user() -> str:
    from hostel.cause.access import user_name

    return user_name(os.geteuid())

"""Limits of this process (getrlimit(2)) and of the host that a call ran into."""

from __future__ import annotations

import resource

from hostel.cause.mount import mount_of
from hostel.units import format_size


def open_files() -> str | None:
    """Say how many files may be open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    shown = "unlimited" if hard == resource.RLIM_INFINITY else str(hard)
    return f"This process may have {soft} files open; raise that with 'ulimit -n' (up to {shown}), or LimitNOFILE=."


def file_size(path: str) -> str | None:
    """Say what limits the size of files: ours, or the file system's."""
    soft, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    if soft != resource.RLIM_INFINITY:
        return f"This process may write files of {format_size(soft)}; raise that with 'ulimit -f'."
    mount = mount_of(path)
    return f"It would be larger than a file may be in the file system {mount}." if mount is not None else None

"""Names of devices that stay: links such as those of ``/dev/disk/by-id`` (``virStorageBackendStablePath``)."""

from __future__ import annotations

import os


def is_stable(folder: str) -> bool:
    """Whether a pool's folder has names of its own for devices: anything below ``/dev``."""
    return folder.startswith("/dev/") and folder.rstrip("/") != "/dev"


def stable_path(folder: str, device: str) -> str:
    """The first link in a folder that leads to a device; the device's own file where there is none."""
    if not is_stable(folder):
        return device
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return device
    wanted = os.path.realpath(device)
    for name in names:
        path = os.path.join(folder, name)
        if os.path.islink(path) and os.path.realpath(path) == wanted:
            return path
    return device

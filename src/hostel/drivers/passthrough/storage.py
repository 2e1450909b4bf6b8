"""What the host does with the disks of a PCI function: whoever took it away from under a file system would lose data.

A disk of NVMe is below its controller, or, where several controllers may have it, below their subsystem.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from hostel.drivers.passthrough.pci import PciFunctions

_SUBSYSTEMS: Final = "nvme-subsystem"


def use_of(name: str, host: PciFunctions) -> str | None:
    """What the host uses a disk of a function for, and how that is ended; None where it uses none.

    Args:
        name: the function's.
        host: the host's functions.
    """
    mounted, swaps = _mounted(host.root), _swaps(host.root)
    for disk, path in _disks(name, host.root):
        with contextlib.suppress(OSError):
            where = mounted.get((path / "dev").read_text().strip())
            if where is not None:
                return f"{disk} is mounted at {where}; unmount it"
        if f"/dev/{disk}" in swaps:
            return f"it swaps to {disk}; swapoff /dev/{disk}"
        with contextlib.suppress(OSError):
            if holders := sorted(os.listdir(path / "holders")):
                return f"{disk} is a part of {', '.join(holders)}; end that (vgchange, mdadm, cryptsetup) first"
    return None


def _disks(name: str, root: Path) -> Iterator[tuple[str, Path]]:
    """The disks of a function, and their partitions."""
    folder = root / "sys/class/block"
    with contextlib.suppress(OSError):
        for disk in sorted(os.listdir(folder)):
            path = Path(os.path.realpath(folder / disk))
            if name in path.parts or any(name in parts for parts in _controllers(path)):
                yield disk, path


def _controllers(path: Path) -> Iterator[tuple[str, ...]]:
    """Where the controllers are that a disk of a subsystem is reached by."""
    if _SUBSYSTEMS in path.parts:
        subsystem = Path(*path.parts[: path.parts.index(_SUBSYSTEMS) + 2])
        for link in subsystem.glob("nvme*"):
            if link.is_symlink():
                yield Path(os.path.realpath(link)).parts


def _mounted(root: Path) -> dict[str, str]:
    """Where devices are mounted, by their numbers: ``259:1`` (proc(5), mountinfo)."""
    rows = (line.split() for line in _lines(root / "proc/self/mountinfo"))
    return {row[2]: row[4] for row in rows if len(row) > 4}


def _swaps(root: Path) -> set[str]:
    return {line.split()[0] for line in _lines(root / "proc/swaps")[1:] if line.strip()}


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()
    except OSError:
        return []

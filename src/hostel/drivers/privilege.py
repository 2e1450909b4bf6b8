"""What the kernel lets this process do (capabilities(7))."""

from __future__ import annotations

import enum
from pathlib import Path


class Capability(enum.IntEnum):
    """A right by its number (``linux/capability.h``)."""

    NET_ADMIN = 12
    IPC_LOCK = 14
    SYS_RESOURCE = 24


def may(capability: Capability) -> bool:
    """Whether this process has a right now."""
    status = Path("/proc/self/status").read_text()
    effective = next((line for line in status.splitlines() if line.startswith("CapEff:")), "CapEff: 0")
    return bool(int(effective.split()[1], 16) >> capability & 1)

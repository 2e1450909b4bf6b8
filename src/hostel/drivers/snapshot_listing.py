"""Which snapshots of a domain are listed, and in which order."""

from __future__ import annotations

from collections.abc import Mapping

from hostel.drivers.base.snapshot import SnapshotListFlag as Flag
from hostel.model.snapshot import Snapshot

_OFFLINE = ("shutoff", "shutdown", "crashed", "nostate")


def is_external(snapshot: Snapshot) -> bool:
    """Whether any of it is in a file of its own (``virDomainSnapshotIsExternal``)."""
    memory = snapshot.memory.snapshot if snapshot.memory is not None else None
    places = [disk.snapshot for disk in snapshot.disks.disks]
    return memory == "external" or "external" in places


def select(found: Mapping[str, Snapshot], names: list[str], flags: Flag) -> list[str]:
    """Those of ``names`` that the flags let through; pairs of flags of which both are given are as none."""
    parents = {snapshot.parent.name for snapshot in found.values() if snapshot.parent is not None}

    def passes(name: str) -> bool:
        snapshot = found[name]
        kind = "inactive" if snapshot.state in _OFFLINE else "active"
        kind = "disk-only" if snapshot.state == "disk-snapshot" else kind
        groups = (
            ((Flag.LEAVES, name not in parents), (Flag.NO_LEAVES, name in parents)),
            ((Flag.METADATA, True), (Flag.NO_METADATA, False)),
            (
                (Flag.INACTIVE, kind == "inactive"),
                (Flag.ACTIVE, kind == "active"),
                (Flag.DISK_ONLY, kind == "disk-only"),
            ),
            ((Flag.INTERNAL, not is_external(snapshot)), (Flag.EXTERNAL, is_external(snapshot))),
        )
        for group in groups:
            asked = [holds for flag, holds in group if flags & flag]
            if asked and not any(asked):
                return False
        return True

    chosen = [name for name in names if passes(name)]
    if flags & Flag.TOPOLOGICAL:
        chosen.sort(key=lambda name: _depth(found, name))
    return chosen


def _depth(found: Mapping[str, Snapshot], name: str) -> int:
    depth, parent = 0, found[name].parent
    while parent is not None and parent.name in found and depth <= len(found):
        depth, parent = depth + 1, found[parent.name].parent
    return depth

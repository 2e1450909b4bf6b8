"""Snapshots of domains."""

from __future__ import annotations

import enum
from typing import NamedTuple, Protocol, runtime_checkable

from hostel.drivers.base.domain import DomainRef, DomainXmlFlag


class SnapshotRef(NamedTuple):
    """Names a snapshot of a domain."""

    name: str
    domain: DomainRef


class SnapshotCreateFlag(enum.IntFlag):
    """``virDomainSnapshotCreateFlags``."""

    NONE = 0
    REDEFINE = 1
    CURRENT = 2
    NO_METADATA = 4
    HALT = 8
    DISK_ONLY = 16
    REUSE_EXT = 32
    QUIESCE = 64
    ATOMIC = 128
    LIVE = 256
    VALIDATE = 512


class SnapshotListFlag(enum.IntFlag):
    """``virDomainSnapshotListFlags``; the first two are one bit, which means the one or the other."""

    NONE = 0
    ROOTS = 1
    DESCENDANTS = 1
    METADATA = 2
    LEAVES = 4
    NO_LEAVES = 8
    NO_METADATA = 16
    INACTIVE = 32
    ACTIVE = 64
    DISK_ONLY = 128
    INTERNAL = 256
    EXTERNAL = 512
    TOPOLOGICAL = 1024


class SnapshotRevertFlag(enum.IntFlag):
    """``virDomainSnapshotRevertFlags``."""

    NONE = 0
    RUNNING = 1
    PAUSED = 2
    FORCE = 4
    RESET_NVRAM = 8


class SnapshotDeleteFlag(enum.IntFlag):
    """``virDomainSnapshotDeleteFlags``."""

    NONE = 0
    CHILDREN = 1
    METADATA_ONLY = 2
    CHILDREN_ONLY = 4


@runtime_checkable
class SnapshotDriver(Protocol):
    """Snapshots. Lookups raise ``NO_DOMAIN_SNAPSHOT``."""

    def domain_snapshot_create_xml(
        self, domain: DomainRef, xml: str, flags: SnapshotCreateFlag = SnapshotCreateFlag.NONE
    ) -> SnapshotRef:
        """Keep the state of a domain, or define again what is known of a snapshot."""

    def domain_list_all_snapshots(
        self, domain: DomainRef, flags: SnapshotListFlag = SnapshotListFlag.NONE
    ) -> list[SnapshotRef]:
        """The snapshots that the flags let through; ``ROOTS``: only those without a parent."""

    def domain_snapshot_num(self, domain: DomainRef, flags: SnapshotListFlag = SnapshotListFlag.NONE) -> int:
        """How many snapshots the flags let through."""

    def domain_snapshot_has_metadata(self, snapshot: SnapshotRef) -> bool:
        """Whether there is a document of it."""

    def domain_snapshot_is_current(self, snapshot: SnapshotRef) -> bool:
        """Whether the domain goes on from it."""

    def domain_snapshot_list_all_children(
        self, snapshot: SnapshotRef, flags: SnapshotListFlag = SnapshotListFlag.NONE
    ) -> list[SnapshotRef]:
        """The children of a snapshot, and with ``DESCENDANTS`` theirs."""

    def domain_snapshot_lookup_by_name(self, domain: DomainRef, name: str) -> SnapshotRef:
        """Find by name."""

    def domain_has_current_snapshot(self, domain: DomainRef) -> bool:
        """Whether a snapshot is the one that the domain goes on from."""

    def domain_snapshot_current(self, domain: DomainRef) -> SnapshotRef:
        """That snapshot."""

    def domain_snapshot_get_parent(self, snapshot: SnapshotRef) -> SnapshotRef:
        """The snapshot before; ``NO_DOMAIN_SNAPSHOT`` where there is none."""

    def domain_snapshot_get_xml_desc(self, snapshot: SnapshotRef, flags: DomainXmlFlag = DomainXmlFlag.NONE) -> str:
        """The snapshot's document."""

    def domain_revert_to_snapshot(
        self, snapshot: SnapshotRef, flags: SnapshotRevertFlag = SnapshotRevertFlag.NONE
    ) -> None:
        """Go back to a snapshot; what the domain has done since is given up."""

    def domain_snapshot_delete(
        self, snapshot: SnapshotRef, flags: SnapshotDeleteFlag = SnapshotDeleteFlag.NONE
    ) -> None:
        """Drop a snapshot; what it keeps apart is merged."""

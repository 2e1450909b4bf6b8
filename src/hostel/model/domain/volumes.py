"""Disks given by pool and volume, in the document of a machine that runs.

What works with a live document wants the file or device that a volume is; whoever reads it wants the volume. A source
that was resolved keeps ``pool`` and ``volume`` (and ``mode``) beside the place, as libvirt's ``virStorageSource`` does,
through every change of the disk's chain; and a document that leaves the driver is named again.
"""

from __future__ import annotations

from collections.abc import Iterator

from hostel.model.domain.devices.disk import Disk
from hostel.model.domain.devices.source import BackingStore, DiskSource, Mirror, SourceType
from hostel.model.domain.domain import Domain


def name_volumes(domain: Domain) -> None:
    """Say of each image that was found as a volume which one it is, and not where."""
    for disk in domain.devices.disks:
        name_volume(disk)


def name_volume(disk: Disk) -> None:
    """Say of a disk's images that were found as volumes which ones they are, and not where."""
    for place in _places(disk):
        source = place.source
        if source is None or not is_resolved(place.type, source):
            continue
        place.type = SourceType.VOLUME
        source.file = source.dev = source.dir = source.protocol = source.name = None
        source.hosts = []
        source.auth = None  # it is the pool that knows who may log in
        if isinstance(place, Mirror):
            place.file = place.format_name = None


def is_resolved(type: SourceType | None, source: DiskSource) -> bool:
    """Whether a source is the place of a volume."""
    return type not in (None, SourceType.VOLUME) and source.pool is not None and source.volume is not None


def _places(disk: Disk) -> Iterator[Disk | BackingStore | Mirror]:
    yield disk
    yield from _below(disk.backing_store)
    if disk.mirror is not None:
        yield disk.mirror
        yield from _below(disk.mirror.backing_store)


def _below(backing: BackingStore | None) -> Iterator[BackingStore]:
    while backing is not None:
        yield backing
        backing = backing.backing_store

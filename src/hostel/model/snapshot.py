"""The document of a domain's snapshot (``virDomainSnapshotDefFormat``)."""

from __future__ import annotations

from typing import Final

from hostel.codec.xml import Element, attr, child, children, choice, enumeration, flag, integer, text
from hostel.errors import ErrorCode, ModelError
from hostel.model.domain.completing.disk import complete_hosts, complete_labels
from hostel.model.domain.devices.source import FORMATS, DiskSource, MetadataCache, SourceType
from hostel.model.domain.domain import Domain
from hostel.model.domain.rules.disk_source import check_source
from hostel.model.moment import CREATION_TIME, DomainReference, InactiveDomain, MomentParent, SaveCookie

_STATES: Final = (
    "running", "blocked", "paused", "shutdown", "shutoff", "crashed", "pmsuspended", "disk-snapshot", "nostate",
)  # fmt: skip
_OFFLINE: Final = ("shutoff", "disk-snapshot")
_PLACES: Final = ("no", "internal", "external", "manual")


class SnapshotMemory(Element, tag="memory"):
    """Where the guest's memory is."""

    snapshot: str | None = attr(choice(*_PLACES), default=None)
    file: str | None = attr(default=None)


class SnapshotDriver(Element, tag="driver", drop_empty=True):
    """The format of an overlay."""

    type: str | None = attr(choice(*FORMATS, code=ErrorCode.CONFIG_UNSUPPORTED), default=None)
    metadata_cache: MetadataCache | None = child(MetadataCache, default=None)


class SnapshotDisk(Element, tag="disk"):
    """What becomes of a disk; ``source`` is the overlay of an external snapshot."""

    name: str = attr()
    snapshot: str | None = attr(choice(*_PLACES), default=None)
    type: SourceType | None = attr(enumeration(SourceType), default=None)
    delete_in_progress: bool = flag(tag="snapshotDeleteInProgress", default=False)
    driver: SnapshotDriver | None = child(SnapshotDriver, default=None)
    source: DiskSource | None = child(DiskSource, default=None)


class SnapshotDisks(Element, tag="disks", drop_empty=True):
    """The disks."""

    disks: list[SnapshotDisk] = children(SnapshotDisk, factory=list)


class Snapshot(Element, tag="domainsnapshot"):
    """A snapshot; ``creation_time`` in seconds since 1970, ``active`` only in a driver's own files."""

    name: str | None = text(default=None)
    description: str | None = text(default=None)
    state: str | None = text(choice(*_STATES, code=ErrorCode.CONFIG_UNSUPPORTED), default=None)
    parent: MomentParent | None = child(MomentParent, default=None)
    creation_time: int | None = text(CREATION_TIME, tag="creationTime", default=None)
    memory: SnapshotMemory | None = child(SnapshotMemory, default=None)
    disks: SnapshotDisks = child(SnapshotDisks, factory=SnapshotDisks)
    domain: Element | None = child(DomainReference, Domain, default=None)
    inactive_domain: InactiveDomain | None = child(InactiveDomain, default=None)
    cookie: SaveCookie | None = child(SaveCookie, default=None)
    active: int | None = text(integer(-(2**31), 2**31 - 1), default=None)


def read_snapshot(xml: str, *, now: int | None, redefine: bool = False, offline: bool = False) -> Snapshot:
    """Read a snapshot's document and complete it: a new one, made ``now``, or one that is defined again.

    An ``offline`` one is of the disks alone.

    Raises:
        ModelError: it is none, or breaks a rule; the path says where.
    """
    snapshot = Snapshot.parse(xml, "domain_snapshot")
    for number, disk in enumerate(snapshot.disks.disks, 1):
        if disk.source is not None:
            check_source(disk.type, disk.source, f"/domainsnapshot/disks/disk[{number}]/source")
    complete(snapshot, now=now, redefine=redefine, offline=offline)
    validate(snapshot, redefine=redefine, offline=offline)
    return snapshot


def complete(snapshot: Snapshot, *, now: int | None, redefine: bool = False, offline: bool = False) -> None:
    """Say what was left out; what a new snapshot cannot know yet is left out."""
    if not redefine:
        snapshot.creation_time = now
        snapshot.name = snapshot.name or (None if now is None else str(now))
        snapshot.state = snapshot.parent = snapshot.domain = snapshot.inactive_domain = None
        snapshot.cookie = snapshot.active = None
    elif isinstance(snapshot.domain, DomainReference):
        snapshot.domain = None
    offline = offline or snapshot.state in _OFFLINE
    _complete_memory(snapshot, redefine=redefine, offline=offline)
    if offline:
        snapshot.cookie = None
    for disk in snapshot.disks.disks:
        _complete_disk(disk, redefine=redefine)


def _complete_memory(snapshot: Snapshot, *, redefine: bool, offline: bool) -> None:
    memory = snapshot.memory or SnapshotMemory()
    if memory.snapshot is None and memory.file is not None:
        memory.snapshot = "external"
    elif memory.snapshot is None and redefine:
        memory.snapshot = "no" if offline else "internal"
    snapshot.memory = memory if memory.snapshot is not None else None


def _complete_disk(disk: SnapshotDisk, *, redefine: bool) -> None:
    source = disk.source
    has_path = source is not None and any(
        value is not None for value in (source.file, source.dev, source.name, source.path, source.volume)
    )
    if source is not None:
        complete_hosts(source)
        complete_labels(source)
        source.index = None
        if source.encryption is not None:
            source.encryption.settle()
    has_format = disk.driver is not None and disk.driver.type is not None
    if disk.driver is not None and disk.driver.metadata_cache is not None:
        cache = disk.driver.metadata_cache
        if cache.max_size is not None:
            cache.max_size.normalise()
    if disk.snapshot is None and (has_path or has_format):
        disk.snapshot = "external"
    if not redefine:
        disk.delete_in_progress = False
    if has_path or has_format:
        disk.type = disk.type or SourceType.FILE


def validate(snapshot: Snapshot, *, redefine: bool = False, offline: bool = False) -> None:
    """Hold a completed snapshot against the rules.

    Raises:
        ModelError: a rule is broken; the words are libvirt's.
    """
    here = "/domainsnapshot"
    if redefine and snapshot.name is None:
        raise ModelError(f"{here}/name", "a redefined snapshot must have a name")
    if redefine and snapshot.creation_time is None:
        reason = "missing creationTime from existing snapshot"
        raise ModelError(f"{here}/creationTime", reason, code=ErrorCode.INTERNAL_ERROR)
    if redefine and snapshot.state is None:
        raise ModelError(f"{here}/state", "missing state from existing snapshot")
    if snapshot.memory is not None:
        _check_memory(snapshot.memory, f"{here}/memory", offline=offline or snapshot.state in _OFFLINE)
    for number, disk in enumerate(snapshot.disks.disks, 1):
        _check_disk(disk, f"{here}/disks/disk[{number}]")


def _check_memory(memory: SnapshotMemory, path: str, *, offline: bool) -> None:
    if memory.snapshot == "manual":
        raise ModelError(f"{path}/@snapshot", "'manual' memory snapshot mode not supported")
    if memory.file is not None and memory.snapshot != "external":
        raise ModelError(f"{path}/@file", f"memory filename '{memory.file}' requires external snapshot")
    if memory.file is None and memory.snapshot == "external":
        raise ModelError(f"{path}/@file", "external memory snapshots require a filename")
    if offline and memory.snapshot != "no":
        raise ModelError(path, "memory state cannot be saved with offline or disk-only snapshot")
    if memory.file is not None and not memory.file.startswith("/"):
        raise ModelError(f"{path}/@file", f"memory snapshot file path ({memory.file}) must be absolute")


def _check_disk(disk: SnapshotDisk, path: str) -> None:
    if disk.type in (SourceType.VOLUME, SourceType.DIR):
        raise ModelError(f"{path}/@type", f"unsupported disk snapshot type '{disk.type}'")
    for name in ("file", "dev"):
        place = getattr(disk.source, name, None)
        if place is not None and not place.startswith("/"):
            raise ModelError(f"{path}/source/@{name}", f"disk snapshot image path '{place}' must be absolute")

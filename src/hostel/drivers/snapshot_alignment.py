"""What a snapshot will do to each disk of a domain (``virDomainSnapshotAlignDisks``)."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import NamedTuple

from hostel.drivers.fault import fault
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.model.domain.devices.disk import Disk
from hostel.model.domain.devices.source import DiskSource, SourceType
from hostel.model.domain.domain import Domain
from hostel.model.domain.rules.disk import is_empty
from hostel.model.snapshot import Snapshot, SnapshotDisk

_WITH_MEMORY = ("running", "paused")


class Plan(NamedTuple):
    """The disks of a snapshot, in both documents: the domain's, with files in place of volumes, and the snapshot's."""

    disks: list[tuple[Disk, SnapshotDisk]]

    def of(self, place: str) -> list[tuple[Disk, SnapshotDisk]]:
        """Those that are kept ``internal`` or ``external``, or by somebody else: ``manual``."""
        return [(disk, wanted) for disk, wanted in self.disks if wanted.snapshot == place]

    def disks_of(self, place: str) -> list[Disk]:
        """Those of the domain's that are kept ``internal`` or ``external``."""
        return [disk for disk, _ in self.of(place)]


def align(snapshot: Snapshot, disks: list[Disk], default: str) -> Plan:
    """Say of every disk what becomes of it, in the snapshot's document.

    Args:
        snapshot: what was asked for; it has every disk afterwards.
        disks: the domain's, with files in place of volumes.
        default: ``internal`` or ``external``.

    Raises:
        VirtError: the document asks for what is not there, or contradicts itself.
    """
    if len(snapshot.disks.disks) > len(disks):
        raise _unsupported("too many disk snapshot requests for domain")
    asked: dict[str, SnapshotDisk] = {}
    for wanted in snapshot.disks.disks:
        disk = next((item for item in disks if wanted.name in (item.target.dev, *_paths(item))), None)
        if disk is None:
            raise _unsupported(f"no disk named '{wanted.name}'")
        if disk.target.dev in asked:
            raise _unsupported(f"disk '{wanted.name}' specified twice")
        _settle(wanted, disk, default)
        wanted.name = disk.target.dev
        asked[disk.target.dev] = wanted
    plan = []
    for disk in disks:
        found = asked.get(disk.target.dev)
        if found is None:
            place = "no" if is_empty(disk) else _own_place(disk) or default
            found = SnapshotDisk(name=disk.target.dev, snapshot=place)
        plan.append((disk, found))
    snapshot.disks.disks = [wanted for _, wanted in plan]
    for disk, wanted in plan:
        if wanted.snapshot == "external":
            _name_overlay(snapshot, disk, wanted)
        else:
            wanted.type = wanted.driver = wanted.source = None
    _check_names(snapshot)
    return Plan(plan)


def prepare_again(snapshot: Snapshot, known: Snapshot | None, uuid: str, *, disk_only: bool = False) -> None:
    """Complete a snapshot that is defined again (``virDomainSnapshotRedefinePrep``).

    Args:
        snapshot: the document.
        known: what is known of the snapshot, where something is.
        uuid: the domain's.
        disk_only: whether it has to be one of disks alone.

    Raises:
        VirtError: it is another domain's, becomes a snapshot of another kind, or says of its disks what cannot be.
    """
    name = snapshot.name or ""
    snapshot.active = None
    if disk_only and snapshot.state != "disk-snapshot":
        raise _wrong(f"disk-only flag for snapshot {name} requires disk-snapshot state")
    if isinstance(snapshot.domain, Domain) and snapshot.domain.uuid not in (None, uuid):
        raise _wrong(f"definition for snapshot {name} must use uuid {uuid}")
    if known is not None:
        if (known.state in _WITH_MEMORY) != (snapshot.state in _WITH_MEMORY):
            raise _wrong(f"cannot change between online and offline snapshot state in snapshot {name}")
        if (known.state == "disk-snapshot") != (snapshot.state == "disk-snapshot"):
            raise _wrong(f"cannot change between disk only and full system in snapshot {name}")
        snapshot.domain = snapshot.domain or known.domain
    if not isinstance(snapshot.domain, Domain):
        raise fault(ErrorCode.INTERNAL_ERROR, "missing domain in snapshot", ErrorDomain.DOMAIN_SNAPSHOT)
    is_external = snapshot.state == "disk-snapshot" or (
        snapshot.memory is not None and snapshot.memory.snapshot == "external"
    )
    is_external = is_external or any(disk.snapshot == "external" for disk in snapshot.disks.disks)
    align(snapshot, snapshot.domain.devices.disks, "external" if is_external else "internal")


def _wrong(message: str) -> VirtError:
    return fault(ErrorCode.INVALID_ARG, message, ErrorDomain.DOMAIN_SNAPSHOT)


def _paths(disk: Disk) -> list[str | None]:
    return [disk.source.file, disk.source.dev] if disk.source is not None else []


def _all_paths(source: DiskSource) -> list[str | None]:
    return [source.file, source.dev, source.name, source.path, source.volume]


def _own_place(disk: Disk) -> str | None:
    """Where a disk is kept where nothing else is said; None where it is like others."""
    return disk.snapshot or ("no" if disk.readonly else None)


def _settle(wanted: SnapshotDisk, disk: Disk, default: str) -> None:
    is_uniform = default == "internal"
    own = _own_place(disk)
    if wanted.snapshot is None:
        wanted.snapshot = own if own is not None and (not is_uniform or own == "no") else default
    elif is_uniform and wanted.snapshot != default and not (wanted.snapshot == "no" and own == "no"):
        raise _unsupported(f"disk '{wanted.name}' must use snapshot mode '{default}'")
    paths = _all_paths(wanted.source) if wanted.source is not None else []
    path = next(filter(None, paths), None)
    if path is not None and wanted.snapshot != "external":
        raise _unsupported(f"file '{path}' for disk '{wanted.name}' requires use of external snapshot mode")


def _name_overlay(snapshot: Snapshot, disk: Disk, wanted: SnapshotDisk) -> None:
    wanted.type = wanted.type or SourceType.FILE
    if wanted.source is not None and any(_all_paths(wanted.source)):
        return
    if wanted.type is not SourceType.FILE:
        raise _unsupported(
            f"cannot generate external snapshot name for disk '{wanted.name}' on a '{wanted.type}' device"
        )
    if disk.source is None:
        raise _unsupported(f"cannot generate external snapshot name for disk '{wanted.name}' without source")
    path = disk.source.file or disk.source.dev
    try:
        is_file = path is not None and stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        is_file = False
    if not is_file or path is None:
        raise _unsupported(
            f"source for disk '{wanted.name}' is not a regular file; refusing to generate external snapshot name"
        )
    name = Path(path).name
    stem = name[: name.rindex(".")] if "." in name[1:] else name
    wanted.source = wanted.source or DiskSource()
    wanted.source.file = str(Path(path).with_name(f"{stem}.{snapshot.name}"))


def _check_names(snapshot: Snapshot) -> None:
    seen: dict[str, str] = {}
    for wanted in snapshot.disks.disks:
        path = wanted.source.file if wanted.source is not None else None
        if path is None:
            continue
        if path in seen:
            raise _unsupported(
                f"cannot generate external snapshot name for disk '{wanted.name}': collision with disk '{seen[path]}'"
            )
        seen[path] = wanted.name


def _unsupported(message: str) -> VirtError:
    return fault(ErrorCode.CONFIG_UNSUPPORTED, message, ErrorDomain.DOMAIN_SNAPSHOT)

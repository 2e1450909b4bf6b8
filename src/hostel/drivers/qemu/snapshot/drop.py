"""Dropping a snapshot: what it keeps apart is merged, and what comes after it stays as it is.

The state of an external snapshot is the image below; what the guest wrote since is in the overlay. Merging the overlay
into that image ends the snapshot. While that goes on the snapshot's document says so for each disk: it cannot be gone
back to any more, and dropping it again does what is left.
"""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hostel.drivers.base import DomainRef
from hostel.drivers.base.block import BlockCommitFlag
from hostel.drivers.base.snapshot import SnapshotDeleteFlag
from hostel.drivers.fault import fault
from hostel.drivers.qemu.block.chain import Image, defined_path, go_over, images
from hostel.drivers.qemu.block.jobs import commit, end
from hostel.drivers.qemu.blockjob import job_of, settle_jobs
from hostel.drivers.qemu.launch import Launcher
from hostel.drivers.qemu.machines import failed
from hostel.drivers.qemu.origin import Origin
from hostel.drivers.qemu.running import Running
from hostel.drivers.qemu.snapshot import inside
from hostel.drivers.qemu.snapshot.catalog import Catalog, Intent, uses
from hostel.drivers.qemu.snapshot.overlay import remove
from hostel.drivers.qemu.snapshot.revert import stop
from hostel.drivers.snapshot_listing import is_external
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.model.domain.devices.disk import Disk
from hostel.model.domain.domain import Domain
from hostel.model.snapshot import Snapshot

if TYPE_CHECKING:
    from hostel.drivers.qemu.snapshot.calls import SnapshotCalls

MERGING: Final = "merging"  # a state's ending while a machine runs only for that
_SECONDS: Final = 3600.0


def delete(
    calls: SnapshotCalls,
    launcher: Launcher,
    catalog: Catalog,
    machine: Running | None,
    name: str,
    domain: DomainRef,
    flags: SnapshotDeleteFlag,
) -> None:
    """Drop a snapshot, its descendants, or both; the caller holds the domain's lock.

    Raises:
        VirtError: one cannot be merged; those before it are gone.
    """
    catalog.get(name)
    names = [name]
    if flags & (SnapshotDeleteFlag.CHILDREN | SnapshotDeleteFlag.CHILDREN_ONLY):
        names = [*reversed(list(catalog.descendants(name)))]
        if flags & SnapshotDeleteFlag.CHILDREN:
            names.append(name)
    for item in names:
        if not flags & SnapshotDeleteFlag.METADATA_ONLY:
            snapshot = catalog.get(item)
            if is_external(snapshot):
                _merge(calls, launcher, catalog, machine, snapshot, domain)
            _drop_inside(calls, machine, snapshot)
            if snapshot.memory is not None and snapshot.memory.file is not None:
                remove([snapshot.memory.file])
        catalog.remove(item)


def _drop_inside(calls: SnapshotCalls, machine: Running | None, snapshot: Snapshot) -> None:
    names = {disk.name for disk in snapshot.disks.disks if disk.snapshot == "internal"}
    if not names:
        return
    document = machine.domain if machine is not None else snapshot.domain
    if not isinstance(document, Domain):
        return
    disks = document.devices.disks if machine is not None else calls.resolved_disks(document)
    tops = calls.kept(document, [disk for disk in disks if disk.target.dev in names])
    if machine is not None:
        inside.drop(machine, tops, snapshot.name or "")
    else:
        inside.drop_stored(tops, snapshot.name or "")


def _merge(
    calls: SnapshotCalls,
    launcher: Launcher,
    catalog: Catalog,
    machine: Running | None,
    snapshot: Snapshot,
    domain: DomainRef,
) -> None:
    """Merge every overlay of a snapshot into what it stands on."""
    definition = calls.definition_of(domain.name)
    document = machine.domain if machine is not None else definition
    if document is None:
        raise failed("the domain has no definition")
    disks = document.devices.disks if machine is not None else calls.resolved_disks(document)
    assert isinstance(snapshot.domain, Domain)
    states = {disk.target.dev: defined_path(disk) for disk in calls.resolved_paths(snapshot.domain)}
    work = []
    for wanted in snapshot.disks.disks:
        if wanted.snapshot != "external":
            continue
        disk = next((item for item in disks if item.target.dev == wanted.name), None)
        base = states.get(wanted.name, "")
        overlay = _standing_on(disk, base) if disk is not None else None
        if disk is None or overlay is None:
            _check_gone(catalog, snapshot, wanted.source.file if wanted.source is not None else None)
            continue
        _check_alone(calls, catalog, snapshot, disk, base)
        work.append((disk.target.dev, overlay, base))
    if not work:
        return
    for wanted in snapshot.disks.disks:
        wanted.delete_in_progress = wanted.delete_in_progress or any(dev == wanted.name for dev, _, _ in work)
    catalog.put(snapshot)
    catalog.begin(Intent("drop", snapshot.name or "", merges=tuple(work)))
    if machine is not None:
        _merge_live(machine, work)
    else:
        assert definition is not None
        origin = Origin(ending=MERGING)
        started = calls.machine_of(launcher.start(definition, paused=True, origin=origin))
        try:
            _merge_live(started, work)
        finally:
            stop(started)
    after_merges(catalog, tuple(work))
    catalog.over(snapshot.name or "")


def after_merges(catalog: Catalog, merges: tuple[tuple[str, str, str], ...]) -> None:
    """Do what follows from overlays that are merged; may be done again."""
    for dev, overlay, base in merges:
        _rewrite(catalog, dev, overlay, base)
        remove([overlay])


def _standing_on(disk: Disk, base: str) -> str | None:
    """The overlay in a disk's chain that stands on an image; None where the chain has it not, or on top."""
    for top, below in itertools.pairwise(images(disk)):
        if below.path == base and top.file is not None:
            return top.file
    return None


def _check_gone(catalog: Catalog, snapshot: Snapshot, overlay: str | None) -> None:
    """An overlay that the domain is not on may be needed by other snapshots."""
    if overlay is None or any(disk.delete_in_progress for disk in snapshot.disks.disks):
        return  # it was merged before
    for name, other in catalog.all().items():
        if name != snapshot.name and isinstance(other.domain, Domain) and uses(other.domain, overlay):
            raise _unsupported(
                f"snapshot '{snapshot.name}' is on another branch than the domain: its disk '{overlay}' is what "
                f"snapshot '{name}' kept; delete that first, or only what is known of it with --metadata"
            )


def _check_alone(calls: SnapshotCalls, catalog: Catalog, snapshot: Snapshot, disk: Disk, base: str) -> None:
    """Refuse to write into an image that another snapshot, or another branch, stands on."""
    active = {item.path for item in images(disk)}
    for name, other in catalog.all().items():
        if name == snapshot.name or not isinstance(other.domain, Domain) or not is_external(other):
            continue
        try:
            chains = [[item.path for item in images(held)] for held in calls.resolved_disks(other.domain)]
        except VirtError:
            continue  # what it kept is not there any more
        for chain in chains:
            if base in chain and (chain[0] == base or chain[0] not in active):
                raise _unsupported(
                    f"snapshot '{name}' stands on '{base}' as well, which merging would change; delete it first"
                )


def _unsupported(message: str) -> VirtError:
    return fault(ErrorCode.OPERATION_UNSUPPORTED, message, ErrorDomain.QEMU)


def _merge_live(machine: Running, work: list[tuple[str, str, str]]) -> None:
    """Merge by jobs of QEMU's, one disk after the other."""
    for dev, overlay, base in work:
        disk = next(item for item in machine.domain.devices.disks if item.target.dev == dev)
        is_top = next(images(disk)).file == overlay
        flags = BlockCommitFlag.ACTIVE if is_top else BlockCommitFlag.NONE
        job = commit(machine, disk, base, None if is_top else overlay, 0, flags)
        deadline = time.monotonic() + _SECONDS
        while (found := job_of(machine, disk)) is not None:
            settle_jobs(machine)
            found = job_of(machine, disk)
            if found is not None and found.announced:
                end(machine, found, pivot=True)
                break
            if time.monotonic() >= deadline:
                raise failed(f"disk '{dev}' is not merged after {_SECONDS:.0f} seconds; the job goes on")
            machine.qmp.wait(0.2, "JOB_STATUS_CHANGE", "BLOCK_JOB_READY")
        if job.ended == "failed":
            raise failed(f"disk '{dev}' cannot be merged: {job.error}")


def _rewrite(catalog: Catalog, dev: str, overlay: str, base: str) -> None:
    """What stood on the overlay stands on the image that it was merged into."""
    for snapshot in catalog.all().values():
        changed = False
        for document in (snapshot.domain, snapshot.inactive_domain):
            if not isinstance(document, Domain):
                continue
            for disk in document.devices.disks:
                if disk.target.dev == dev and disk.source is not None and disk.source.file == overlay:
                    source = disk.source.copy()
                    source.file = base
                    go_over(disk, Image(0, disk.type, source, _format(base), None))
                    if disk.source is not None:
                        disk.source.index = None
                    changed = True
        if changed:
            catalog.put(snapshot)


def _format(path: str) -> str:
    """The format of an image that was opened before as what it is."""
    from hostel.drivers.storage.inspect import inspect

    facts = inspect(Path(path).name, path)
    return facts.format if facts is not None else "qcow2"

"""Dropping a snapshot: what it keeps apart is merged, and what comes after it stays as it is.

The state of an external snapshot is the image below; what the guest wrote since is in the overlay. Merging the overlay
into that image ends the snapshot. Where other snapshots need the one or the other as it is, both stay, and the snapshot
is dropped all the same. While that goes on the snapshot's document says so for each disk: it cannot be gone
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
from hostel.drivers.qemu.block.chain import Image, defined_path, go_over, images, untold
from hostel.drivers.qemu.block.jobs import commit, end
from hostel.drivers.qemu.blockjob import job_of, settle_jobs
from hostel.drivers.qemu.launch import Launcher
from hostel.drivers.qemu.machines import failed
from hostel.drivers.qemu.origin import Origin
from hostel.drivers.qemu.running import Running
from hostel.drivers.qemu.snapshot import inside
from hostel.drivers.qemu.snapshot.catalog import Catalog, Intent
from hostel.drivers.qemu.snapshot.overlay import remove
from hostel.drivers.qemu.snapshot.revert import stop
from hostel.drivers.qemu.snapshot.settle import spare, sweep
from hostel.drivers.qemu.status import MERGING
from hostel.drivers.snapshot_listing import is_external
from hostel.model.domain.devices.disk import Disk
from hostel.model.domain.devices.source import BackingStore
from hostel.model.domain.domain import Domain
from hostel.model.snapshot import Snapshot

if TYPE_CHECKING:
    from hostel.drivers.qemu.snapshot.calls import SnapshotCalls

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
        snapshot = catalog.get(item)
        if flags & SnapshotDeleteFlag.METADATA_ONLY:
            _disown(calls, catalog, machine, domain.name, item)
            catalog.remove(item)
            continue
        files = spare(calls, catalog, machine, domain.name)
        if is_external(snapshot):
            _merge(calls, launcher, catalog, machine, snapshot, domain)
        _drop_inside(calls, catalog, machine, snapshot)
        catalog.begin(Intent("sweep", item, files))
        if snapshot.memory is not None and snapshot.memory.file is not None:
            remove([snapshot.memory.file])
        catalog.remove(item)
        sweep(calls, catalog, machine, domain.name, files)


def _disown(calls: SnapshotCalls, catalog: Catalog, machine: Running | None, domain: str, name: str) -> None:
    """What a snapshot is made of is its owner's from now on."""
    own = catalog.own()
    if own:
        states = calls.standing(catalog, machine, domain).kept
        catalog.set_own(own.difference(path for state in states if state.snapshot == name for path in state.chain))


def _drop_inside(calls: SnapshotCalls, catalog: Catalog, machine: Running | None, snapshot: Snapshot) -> None:
    """Drop what images keep of it inside; later, where a machine has one open below an overlay."""
    names = {disk.name for disk in snapshot.disks.disks if disk.snapshot == "internal"}
    if not names or not isinstance(snapshot.domain, Domain):
        return
    disks = calls.resolved_paths(snapshot.domain)
    tops = calls.kept(snapshot.domain, [disk for disk in disks if disk.target.dev in names])
    tops = [top for top in tops if Path(top.path).exists()]
    if machine is not None:
        live = calls.kept(machine.domain, machine.domain.devices.disks)
        inside.drop(machine, [top for top in live if top.path in {item.path for item in tops}], snapshot.name or "")
        below = {item.path for disk in machine.domain.devices.disks for item in images(disk)}
        below -= {top.path for top in live}
        left = [(top.path, top.format, snapshot.name or "") for top in tops if top.path in below]
        if left:
            catalog.set_left([*catalog.left(), *left])
        tops = [top for top in tops if top.path not in below and top.path not in {item.path for item in live}]
    inside.drop_stored(tops, snapshot.name or "")


def _merge(
    calls: SnapshotCalls,
    launcher: Launcher,
    catalog: Catalog,
    machine: Running | None,
    snapshot: Snapshot,
    domain: DomainRef,
) -> None:
    """Merge the overlays of a snapshot into what they stand on; where that would change others, they stay apart."""
    definition = calls.definition_of(domain.name)
    document = machine.domain if machine is not None else definition
    if document is None:
        raise failed("the domain has no definition")
    disks = document.devices.disks if machine is not None else calls.resolved_disks(document)
    assert isinstance(snapshot.domain, Domain)
    states = {disk.target.dev: defined_path(disk) for disk in calls.resolved_paths(snapshot.domain)}
    standing = calls.standing(catalog, machine, domain.name)
    work = []
    for wanted in snapshot.disks.disks:
        disk = next((item for item in disks if item.target.dev == wanted.name), None)
        base = states.get(wanted.name, "")
        overlay = _standing_on(disk, base) if disk is not None and wanted.snapshot == "external" else None
        if disk is None or overlay is None:
            continue  # merged before, or on a branch that the domain is not on: what needs its images keeps them
        if not standing.who_holds_back(overlay, base, snapshot.name or "") and not _keeps_inside(overlay):
            work.append((disk.target.dev, overlay, base))
    if not work:
        return
    if machine is None:
        calls.check_no_saved_memory(domain.name)
    else:
        machine.check_disks_held()
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
    after_merges(calls, catalog, tuple(work))
    catalog.over(snapshot.name or "")


def after_merges(calls: SnapshotCalls, catalog: Catalog, merges: tuple[tuple[str, str, str], ...]) -> None:
    """Do what follows from overlays that are merged; may be done again."""
    for dev, overlay, base in merges:
        _rewrite(calls, catalog, dev, overlay, base)
        remove([overlay])


def _standing_on(disk: Disk, base: str) -> str | None:
    """The overlay in a disk's chain that stands on an image; None where the chain has it not, or on top."""
    for top, below in itertools.pairwise(images(disk)):
        if below.path == base and top.file is not None:
            return top.file
    return None


def _keeps_inside(overlay: str) -> bool:
    """Whether an overlay has snapshots inside, which would end with it."""
    return inside.has_any(inside.Kept("", overlay, _format(overlay)))


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


def _rewrite(calls: SnapshotCalls, catalog: Catalog, dev: str, overlay: str, base: str) -> None:
    """What stood on the overlay stands on the image that it was merged into."""
    for snapshot in catalog.all().values():
        changed = False
        for document in (snapshot.domain, snapshot.inactive_domain):
            if not isinstance(document, Domain):
                continue
            for disk in document.devices.disks:
                if disk.target.dev == dev and _leave_out(disk, overlay):
                    changed = True
                elif disk.target.dev == dev and disk.source is not None and disk.source.file == overlay:
                    below = next((item for item in images(calls.resolved_path(disk)) if item.file == base), None)
                    if below is None:
                        source = disk.source.copy()
                        source.file = base
                        below = Image(0, disk.type, source, _format(base), None)
                    go_over(disk, below._replace(number=0, below=untold(below.below)))
                    changed = True
        if changed:
            catalog.put(snapshot)


def _leave_out(disk: Disk, overlay: str) -> bool:
    """Take an image out of what a disk's document says that its top stands on; False where it is not there."""
    place: Disk | BackingStore = disk
    while (below := place.backing_store) is not None:
        if below.source is not None and below.source.file == overlay:
            place.backing_store = below.backing_store
            return True
        place = below
    return False


def _format(path: str) -> str:
    """The format of an image that was opened before as what it is."""
    from hostel.drivers.storage.inspect import inspect

    facts = inspect(Path(path).name, path)
    return facts.format if facts is not None else "qcow2"

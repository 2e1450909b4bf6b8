"""What was begun with a domain's snapshots and not ended: ended, or taken back."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from hostel.drivers.base import PausedReason, RunningReason
from hostel.drivers.qemu.agent import thaw
from hostel.drivers.qemu.block.chain import Image, go_over, images, over, untold
from hostel.drivers.qemu.lockmanager import holding
from hostel.drivers.qemu.snapshot.catalog import Catalog, Intent, uses
from hostel.drivers.qemu.snapshot.inside import (
    Kept,
    drop,
    drop_stored,
    finish_jobs,
    has_stored,
    tags,
)
from hostel.drivers.qemu.snapshot.overlay import drop_marks, image_of, is_overlay, remove, settle_overlays
from hostel.errors import InvalidImage, UnknownFormat, VirtError
from hostel.model.domain.devices.source import SourceType
from hostel.model.domain.domain import Domain
from hostel.model.snapshot import Snapshot, SnapshotDisk

if TYPE_CHECKING:
    from hostel.drivers.qemu.running import Running
    from hostel.drivers.qemu.snapshot.calls import SnapshotCalls


def settle(calls: SnapshotCalls, catalog: Catalog, machine: Running | None, name: str) -> None:
    """End what another process began; the caller holds the domain's lock.

    Raises:
        VirtError: an image cannot be opened, or QEMU does not answer.
    """
    intent = catalog.intent()
    if machine is None:
        drop_left(catalog)
    if intent is None:
        if machine is not None and any(plug.way == "overlay" for plug in machine.status.plugs):
            settle_overlays(machine)
            drop_marks(machine)
        return
    if machine is not None and intent.frozen:
        with contextlib.suppress(VirtError):
            thaw(machine)
    if intent.kind.startswith("create"):
        snapshot = catalog.pending(intent.snapshot)
        is_there = snapshot is not None and _is_there(calls, snapshot, machine, name, intent)
        if is_there:
            catalog.keep(intent.snapshot, metadata=intent.kind == "create")
        else:
            remove(intent.files)
            catalog.over(intent.snapshot)
    elif intent.kind == "apply":
        calls.apply(catalog, intent.snapshot, name)
        catalog.over(intent.snapshot)
    elif intent.kind == "drop":
        _settle_merges(calls, catalog, machine, name, intent)
    else:
        remove_unused(calls, catalog, machine, name, intent.files)
        catalog.over(intent.snapshot)
    if machine is not None:
        resume(machine)


def remove_unused(
    calls: SnapshotCalls, catalog: Catalog, machine: Running | None, name: str, files: Iterable[str]
) -> None:
    """Remove those of the files that neither the domain nor a snapshot is made of; none where that cannot be told."""
    files = list(files)
    reached = calls.standing(catalog, machine, name).reached() if files else None
    if reached is not None:
        gone = [path for path in files if path not in reached]
        remove(gone)
        catalog.set_own(catalog.own().difference(gone))


def spare(calls: SnapshotCalls, catalog: Catalog, machine: Running | None, name: str) -> tuple[str, ...]:
    """The images made here that something is made of now: what is about to be done may leave some to nobody."""
    own = catalog.own()
    reached = calls.standing(catalog, machine, name).reached() if own else None
    return tuple(sorted(own & reached)) if reached is not None else ()


def sweep(calls: SnapshotCalls, catalog: Catalog, machine: Running | None, domain: str, files: tuple[str, ...]) -> None:
    """Remove what is left to nobody, as the end of what was done; what else was begun is over."""
    remove_unused(calls, catalog, machine, domain, files)
    intent = catalog.intent()
    if intent is not None:
        catalog.over(intent.snapshot)


def drop_left(catalog: Catalog) -> None:
    """Drop what could not be dropped inside images while a machine ran on them."""
    left = catalog.left()
    if not left:
        return
    remaining = []
    for path, fmt, tag in left:
        try:
            if Path(path).exists():
                drop_stored([Kept("", path, fmt)], tag)
        except VirtError:  # somebody has it open
            remaining.append((path, fmt, tag))
    catalog.set_left(remaining)


def _settle_merges(calls: SnapshotCalls, catalog: Catalog, machine: Running | None, name: str, intent: Intent) -> None:
    """Do what follows from the overlays that were merged before their process died; the others are still there."""
    from hostel.drivers.qemu.snapshot.drop import after_merges

    if machine is not None and machine.status.jobs:
        return  # it is still being merged
    definition = calls.definition_of(name)
    disks = machine.domain.devices.disks if machine is not None else []
    if machine is None and definition is not None:
        disks = calls.resolved_disks(definition)
    there = {item.path for disk in disks for item in images(disk)}
    after_merges(calls, catalog, tuple(merge for merge in intent.merges if merge[1] not in there))
    catalog.over(intent.snapshot)


def resume(machine: Running) -> None:
    """Let a guest run on that was stopped for a snapshot, and take away the marks of overlays."""
    drop_marks(machine)
    if machine.status.paused == PausedReason.SNAPSHOT:
        runs = machine.status.resumes and holding.go_on(machine, RunningReason.UNPAUSED)
        machine.save(paused=0 if runs else int(PausedReason.USER), resumes=False)


def _is_there(calls: SnapshotCalls, snapshot: Snapshot, machine: Running | None, name: str, intent: Intent) -> bool:
    """Whether all of a snapshot was made; what was made of it is taken back where not."""
    external = [disk for disk in snapshot.disks.disks if disk.snapshot == "external"]
    internal = [disk.name for disk in snapshot.disks.disks if disk.snapshot == "internal"]
    if machine is not None:
        if external:
            has_marks = any(plug.way == "overlay" for plug in machine.status.plugs)
            document = machine.domain
            return settle_overlays(machine) if has_marks else all(uses(document, _file(it)) for it in external)
        finish_jobs(machine)
        disks = [disk for disk in machine.domain.devices.disks if disk.target.dev in internal]
        tops = calls.kept(machine.domain, disks)
        if {top.node for top in tops} <= tags(machine, intent.snapshot):
            return True
        drop(machine, tops, intent.snapshot)
        return False
    if external:
        return _are_whole(calls, snapshot, external, intent) and _adopt(calls, external, name)
    stored = calls.definition_of(name)
    disks = calls.resolved_disks(stored) if stored is not None else []
    chosen = [disk for disk in disks if disk.target.dev in internal]
    tops = calls.kept(stored, chosen) if stored is not None else []
    having = [top for top in tops if _keeps(top, intent.snapshot)]
    if tops and len(having) == len(tops):
        return True
    drop_stored(having, intent.snapshot)
    return False


def _keeps(top: Kept, name: str) -> bool:
    """Whether an image has a snapshot inside: none where it is none of its format, or is not there any more.

    Raises:
        VirtError: it cannot be opened now.
    """
    try:
        return has_stored(top, name)
    except VirtError as error:
        if isinstance(error.__cause__, UnknownFormat | InvalidImage | FileNotFoundError):
            return False
        raise


def _are_whole(calls: SnapshotCalls, snapshot: Snapshot, external: list[SnapshotDisk], intent: Intent) -> bool:
    """Whether all overlays of a snapshot are there, and no maker died in the middle of one."""
    document = snapshot.domain
    disks = calls.resolved_paths(document) if isinstance(document, Domain) else []
    below = {disk.target.dev: next(images(disk), None) for disk in disks}
    return all(
        is_overlay(image_of(disk), below.get(disk.name) if _file(disk) in intent.files else None) for disk in external
    )


def _adopt(calls: SnapshotCalls, external: list[SnapshotDisk], name: str) -> bool:
    """Have a definition start from overlays that are there: a guest may have written to them before it died."""
    definition = calls.definition_of(name)
    if definition is None:
        return True
    changed = False
    before = {disk.target.dev: disk for disk in calls.resolved_paths(definition)}
    for wanted in external:
        for disk in definition.devices.disks:
            if disk.target.dev == wanted.name and not uses(definition, _file(wanted)) and wanted.source is not None:
                image = Image(0, wanted.type or SourceType.FILE, wanted.source, _format(wanted), None)
                below = untold(over(before[wanted.name], image).backing_store)
                go_over(disk, image._replace(below=below))
                changed = True
    if changed:
        calls.define(definition)
    return True


def _file(disk: SnapshotDisk) -> str:
    return (disk.source.file or "") if disk.source is not None else ""


def _format(disk: SnapshotDisk) -> str:
    return (disk.driver.type if disk.driver is not None else None) or "qcow2"

"""Going back to a snapshot.

Disks that were kept inside their images go back in place. Disks that were left on files of their own go on in new
overlays on these, so that the snapshot, and whatever else stands on it, stays as it is.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from hostel.drivers.base import PausedReason, RunningReason, ShutoffReason
from hostel.drivers.base.snapshot import SnapshotRevertFlag
from hostel.drivers.events import Started, Suspended
from hostel.drivers.fault import fault
from hostel.drivers.qemu import process, savefile
from hostel.drivers.qemu.block.chain import Image, go_over, images
from hostel.drivers.qemu.launch import Launcher
from hostel.drivers.qemu.machines import failed, invalid
from hostel.drivers.qemu.origin import Origin
from hostel.drivers.qemu.running import Running
from hostel.drivers.qemu.snapshot import inside
from hostel.drivers.qemu.snapshot.catalog import Catalog, Intent, as_kind
from hostel.drivers.qemu.snapshot.overlay import make_stored
from hostel.drivers.qemu.snapshot.settle import remove_unused
from hostel.drivers.qemu.status import Ending
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.model.domain.devices.disk import Disk
from hostel.model.domain.devices.source import DiskSource, SourceType
from hostel.model.domain.domain import Domain
from hostel.model.snapshot import Snapshot, SnapshotDisk, SnapshotDriver

if TYPE_CHECKING:
    from hostel.drivers.qemu.snapshot.calls import SnapshotCalls


def revert(
    calls: SnapshotCalls,
    launcher: Launcher,
    catalog: Catalog,
    machine: Running | None,
    name: str,
    flags: SnapshotRevertFlag,
) -> None:
    """Go back to a snapshot; the caller holds the domain's lock.

    Raises:
        VirtError: it cannot be gone back to, and nothing is changed; or the machine does not start from it.
    """
    snapshot = catalog.get(name)
    document = _check(snapshot, machine, flags)
    external = [disk for disk in snapshot.disks.disks if disk.snapshot == "external"]
    memory = snapshot.memory.snapshot if snapshot.memory is not None else "no"
    runs = bool(flags & SnapshotRevertFlag.RUNNING) or (
        snapshot.state == "running" and not flags & SnapshotRevertFlag.PAUSED
    )
    starts = runs or snapshot.state == "paused" or bool(flags & SnapshotRevertFlag.PAUSED)
    saved = None
    if memory == "external" and snapshot.memory is not None:
        saved = savefile.read(Path(snapshot.memory.file or ""))
    if memory == "internal" and machine is not None and not inside.tags(machine, name):
        _check_stored(calls, document, snapshot)
    if machine is not None:
        stop(machine)
    abandoned = _overlays_of(calls.definition_of(document.name), catalog) if external else []
    if external:
        document = _onto_overlays(calls, catalog, snapshot, document, abandoned)
    elif memory == "internal":
        _define(calls, snapshot, document)
    else:
        catalog.begin(Intent("apply", name))
        apply_internal(calls, catalog, snapshot)
        catalog.over(name)
    catalog.set_current(name)
    if starts:
        origin = Origin(
            RunningReason.FROM_SNAPSHOT,
            Started.FROM_SNAPSHOT,
            None,
            0,
            PausedReason.FROM_SNAPSHOT,
            Suspended.FROM_SNAPSHOT,
        )
        if saved is not None and snapshot.memory is not None:
            origin = origin._replace(memory=Path(snapshot.memory.file or ""), offset=saved.start)
        if memory == "internal":
            origin = origin._replace(prepare=_loading(calls, snapshot))
        origin = origin._replace(reset_nvram=bool(flags & SnapshotRevertFlag.RESET_NVRAM))
        launcher.start(document, paused=not runs, origin=origin)
    if external:
        remove_unused(calls, catalog, document.name, abandoned)
        catalog.over(name)


def _check(snapshot: Snapshot, machine: Running | None, flags: SnapshotRevertFlag) -> Domain:
    name = snapshot.name
    if not isinstance(snapshot.domain, Domain):
        if not flags & SnapshotRevertFlag.FORCE:
            message = f"revert requires force: snapshot '{name}' lacks domain rollback info"
            raise VirtError(ErrorCode.SNAPSHOT_REVERT_RISKY, message, domain=ErrorDomain.QEMU)
        raise invalid(f"snapshot '{name}' does not say what the domain was; define it again with its domain")
    if any(disk.delete_in_progress for disk in snapshot.disks.disks):
        raise invalid(f"snapshot '{name}' is being deleted: what it kept may be merged already; delete it again")
    if snapshot.state == "pmsuspended":
        what = "qemu doesn't support reversion of snapshot taken in PMSUSPENDED state"
        raise fault(ErrorCode.OPERATION_UNSUPPORTED, what, ErrorDomain.QEMU)
    if machine is not None and machine.status.jobs:
        raise invalid("domain has active block job")
    return snapshot.domain.copy()


def _check_stored(calls: SnapshotCalls, document: Domain, snapshot: Snapshot) -> None:
    """Make sure before the machine is stopped that there is something to go back to."""
    for top in _internal(calls, document, snapshot):
        if not _has(top, snapshot.name or ""):
            raise failed(f"'{top.path}' has no snapshot '{snapshot.name}': it was made anew, or the snapshot removed")


def _has(top: inside.Kept, name: str) -> bool:
    from hostel.block import graph
    from hostel.errors import BlockError
    from hostel.img import snapshot

    try:
        with graph.open(top.path, top.format, force_share=True) as node:
            return any(item.name == name for item in snapshot.snapshots(node))
    except (BlockError, OSError) as error:
        raise failed(f"cannot open '{top.path}': {error}") from error


def stop(machine: Running) -> None:
    """End a machine whose state is given up.

    Raises:
        VirtError: it does not end.
    """
    status = machine.status
    machine.save(ending="from snapshot")
    machine.close()
    if not process.end(status.pid, status.started):
        raise failed(f"QEMU, process {status.pid}, does not end")
    process.exit_status(machine.run, 2)
    machine.forget(Ending(ShutoffReason.FROM_SNAPSHOT, ""))


def _internal(calls: SnapshotCalls, document: Domain, snapshot: Snapshot) -> list[inside.Kept]:
    names = {disk.name for disk in snapshot.disks.disks if disk.snapshot == "internal"}
    return calls.kept(document, [disk for disk in calls.resolved_disks(document) if disk.target.dev in names])


def apply_internal(calls: SnapshotCalls, catalog: Catalog, snapshot: Snapshot) -> None:
    """Go back inside the images of a domain that does not run; may be done again after half of it.

    Raises:
        VirtError: an image cannot be opened, or has no such snapshot.
    """
    assert isinstance(snapshot.domain, Domain)
    inside.apply_stored(_internal(calls, snapshot.domain, snapshot), snapshot.name or "")
    _define(calls, snapshot, snapshot.domain)
    catalog.set_current(snapshot.name)


def _define(calls: SnapshotCalls, snapshot: Snapshot, document: Domain) -> None:
    """The domain's definition is what it was then."""
    if calls.definition_of(document.name) is None:
        return
    kept = snapshot.inactive_domain
    if kept is not None:
        calls.define(as_kind(Domain, kept))
    else:
        calls.define(document)


def _onto_overlays(
    calls: SnapshotCalls, catalog: Catalog, snapshot: Snapshot, document: Domain, abandoned: list[str]
) -> Domain:
    """The snapshot's document with new overlays on its disks; they are made, and the definition starts from them."""
    names = {disk.name for disk in snapshot.disks.disks if disk.snapshot == "external"}
    stamp = int(time.time())
    wanted: dict[str, tuple[Disk, SnapshotDisk]] = {}
    for disk in calls.resolved_disks(document):
        top = next(images(disk), None)
        if disk.target.dev in names and top is not None:
            path = _free(top, f"{snapshot.name}-{stamp}")
            source = DiskSource(file=path)
            overlay = SnapshotDisk(
                name=disk.target.dev, type=SourceType.FILE, driver=SnapshotDriver(type="qcow2"), source=source
            )
            wanted[disk.target.dev] = (disk, overlay)
    files = [item.source.file or "" for _, item in wanted.values() if item.source is not None]
    catalog.begin(Intent("revert", snapshot.name or "", (*files, *abandoned)))
    try:
        for disk, overlay in wanted.values():
            make_stored(disk, overlay)
        _put(document, wanted)
        kept = snapshot.inactive_domain.copy() if snapshot.inactive_domain is not None else None
        if kept is not None:
            _put(kept, wanted)
        changed = Snapshot(name=snapshot.name, inactive_domain=kept)
        _define(calls, changed, document)
    except BaseException:
        remove_unused(calls, catalog, document.name, files)
        catalog.over(snapshot.name or "")
        raise
    return document


def _free(top: Image, suffix: str) -> str:
    """A name for an overlay beside the image, that no file has."""
    path = Path(top.path)
    stem = path.name[: path.name.rindex(".")] if "." in path.name[1:] else path.name
    found, number = path.with_name(f"{stem}.{suffix}"), 0
    while found.exists():
        number += 1
        found = path.with_name(f"{stem}.{suffix}-{number}")
    return str(found)


def _put(document: Domain, wanted: dict[str, tuple[Disk, SnapshotDisk]]) -> None:
    for disk in document.devices.disks:
        found = wanted.get(disk.target.dev)
        if found is not None and found[1].source is not None:
            go_over(disk, Image(0, SourceType.FILE, found[1].source, "qcow2", None))
            if disk.source is not None:
                disk.source.index = None


def _loading(calls: SnapshotCalls, snapshot: Snapshot) -> Load:
    """What takes disks and memory from the snapshot once QEMU is there."""
    return Load(calls, snapshot.name or "", frozenset(d.name for d in snapshot.disks.disks if d.snapshot == "internal"))


class Load:
    """Loads an internal snapshot into a machine that was just started for it."""

    def __init__(self, calls: SnapshotCalls, name: str, disks: frozenset[str]) -> None:
        self._calls = calls
        self._name = name
        self._disks = disks

    def __call__(self, machine: Running) -> None:
        """Load it.

        Raises:
            VirtError: ``OPERATION_FAILED``.
        """
        disks = [disk for disk in machine.domain.devices.disks if disk.target.dev in self._disks]
        inside.load(machine, self._calls.kept(machine.domain, disks), self._name)


def _overlays_of(definition: Domain | None, catalog: Catalog) -> list[str]:
    """The overlays that a definition is on: made by a snapshot, or by going back to one."""
    if definition is None:
        return []
    found = catalog.all()
    made = {
        disk.source.file
        for snapshot in found.values()
        for disk in snapshot.disks.disks
        if disk.snapshot == "external" and disk.source is not None
    }
    tops = [disk.source.file for disk in definition.devices.disks if disk.source is not None]
    return [path for path in tops if path and (path in made or any(f".{name}-" in Path(path).name for name in found))]

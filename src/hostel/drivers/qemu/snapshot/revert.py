"""Going back to a snapshot.

Disks that were kept inside their images go back in place. Disks that were left on files of their own go on in new
overlays on these, so that the snapshot, and whatever else stands on it, stays as it is. Where other snapshots stand on
an image, it does not go back in place either: the domain goes on in a copy.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from hostel.drivers.base import PausedReason, RunningReason, ShutoffReason
from hostel.drivers.base.snapshot import SnapshotRevertFlag
from hostel.drivers.events import Started, Suspended
from hostel.drivers.fault import fault
from hostel.drivers.qemu import process, savefile
from hostel.drivers.qemu.block.chain import Image, go_over, images, over, untold
from hostel.drivers.qemu.block.create import create_over
from hostel.drivers.qemu.block.standing import Standing
from hostel.drivers.qemu.launch import Launcher
from hostel.drivers.qemu.machines import failed, invalid
from hostel.drivers.qemu.origin import Origin
from hostel.drivers.qemu.running import Running
from hostel.drivers.qemu.saving import may_have_run
from hostel.drivers.qemu.snapshot import inside, lengths
from hostel.drivers.qemu.snapshot.catalog import Catalog, Intent
from hostel.drivers.qemu.snapshot.copies import define, free, onto, onto_copies
from hostel.drivers.qemu.snapshot.overlay import remove
from hostel.drivers.qemu.snapshot.settle import drop_left, spare, sweep
from hostel.drivers.qemu.status import Ending
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.model.domain.devices.disk import Disk
from hostel.model.domain.devices.source import DiskSource, SourceType
from hostel.model.domain.domain import Domain
from hostel.model.domain.rules.disk import is_empty
from hostel.model.domain.volumes import name_volumes
from hostel.model.snapshot import Snapshot

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
        VirtError: it cannot be gone back to, and nothing is changed; or the machine does not start from it: its disks
            are as they were then, where it was to go on in files that were made for it.
    """
    snapshot = catalog.get(name)
    document = _check(snapshot, machine, flags)
    saved_memory = _check_start(calls, snapshot, document.name, flags)
    external = [disk for disk in snapshot.disks.disks if disk.snapshot == "external"]
    memory = snapshot.memory.snapshot if snapshot.memory is not None else "no"
    runs = bool(flags & SnapshotRevertFlag.RUNNING) or (
        snapshot.state == "running" and not flags & SnapshotRevertFlag.PAUSED
    )
    starts = runs or snapshot.state == "paused" or bool(flags & SnapshotRevertFlag.PAUSED)
    saved = None
    if memory == "external" and snapshot.memory is not None:
        saved = savefile.read_of(Path(snapshot.memory.file or ""), document)
    before = machine.domain if machine is not None else calls.definition_of(document.name)
    if external:
        lengths.check(calls, catalog, snapshot, force=bool(flags & SnapshotRevertFlag.FORCE))
        document = _with_excluded(document, snapshot, before)
    elif machine is None or not inside.tags(machine, name):
        _check_stored(calls, document, snapshot)
    _check_others(launcher, document, {disk.name for disk in external}, starts=starts)
    files = spare(calls, catalog, machine, document.name)
    standing = calls.standing(catalog, machine, document.name)
    if machine is not None:
        stop(machine)
        drop_left(catalog)
    copies: list[str] = []
    started = _Started()
    with _given_up(saved_memory, catalog), _taken_back(calls, catalog, document.name, files, started):
        if external:
            document = _onto_overlays(calls, catalog, snapshot, document, files)
        elif copied := _shared(calls, document, snapshot, standing):
            copies = onto_copies(calls, catalog, snapshot, document, copied, files)
        elif memory == "internal":
            define(calls, snapshot, document)
            catalog.begin(Intent("sweep", name, files))
        else:
            catalog.begin(Intent("apply", name))
            apply_internal(calls, catalog, snapshot)
            catalog.begin(Intent("sweep", name, files))
        catalog.set_current(name)
        if starts:
            started.load = Load(calls, snapshot, copies) if memory == "internal" else None
            origin = _from_snapshot(snapshot, saved)._replace(prepare=started)
            origin = origin._replace(reset_nvram=bool(flags & SnapshotRevertFlag.RESET_NVRAM))
            launcher.start(document, paused=not runs, origin=origin)
    calls.tell_defined(document)
    sweep(calls, catalog, None, document.name, files)


@contextlib.contextmanager
def _given_up(path: Path, catalog: Catalog) -> Iterator[None]:
    """Saved memory fits no disk that has gone back: it is out of the way before, and lost unless nothing was done."""
    aside = savefile.aside(path)
    with contextlib.suppress(FileNotFoundError):
        path.replace(aside)
    try:
        yield
    except BaseException:
        if catalog.intent() is None:
            with contextlib.suppress(FileNotFoundError):
                aside.replace(path)
        else:
            savefile.remove(path)
        raise
    savefile.remove(path)


class _Started:
    """Done before the CPUs of a machine run that was started from a snapshot; remembers that they may run then.

    Attributes:
        load: what loads its memory, where that is inside an image.
        is_past: whether it was done.
    """

    def __init__(self) -> None:
        self.load: Load | None = None
        self.is_past = False

    def __call__(self, machine: Running) -> None:
        if self.load is not None:
            self.load(machine)
        self.is_past = True


@contextlib.contextmanager
def _taken_back(
    calls: SnapshotCalls, catalog: Catalog, name: str, abandoned: tuple[str, ...], started: _Started
) -> Iterator[None]:
    """Leave a domain on the files that it was on, where it does not start from those that were made for it.

    Args:
        calls: the driver's.
        catalog: of the domain.
        name: of the domain.
        abandoned: what it was on, and would not be any more.
        started: knows whether its guest may have run.
    """
    definition, current = calls.definition_of(name), catalog.current()
    try:
        yield
    except VirtError as error:
        intent = catalog.intent()
        if intent is None or intent.kind != "revert" or (started.is_past and may_have_run(error)):
            raise
        if definition is not None:
            calls.define(definition)
        catalog.set_current(current)
        made = [path for path in intent.files if path not in abandoned]
        remove(made)
        catalog.set_own(catalog.own().difference(made))
        catalog.over(intent.snapshot)
        raise


def _from_snapshot(snapshot: Snapshot, saved: savefile.Saved | None) -> Origin:
    origin = Origin(
        RunningReason.FROM_SNAPSHOT,
        Started.FROM_SNAPSHOT,
        None,
        0,
        PausedReason.FROM_SNAPSHOT,
        Suspended.FROM_SNAPSHOT,
    )
    if saved is None or snapshot.memory is None:
        return origin
    return origin._replace(memory=Path(snapshot.memory.file or ""), offset=saved.start, unpack=saved.unpack)


def _check(snapshot: Snapshot, machine: Running | None, flags: SnapshotRevertFlag) -> Domain:
    name = snapshot.name
    if not isinstance(snapshot.domain, Domain):
        if not flags & SnapshotRevertFlag.FORCE:
            message = f"revert requires force: snapshot '{name}' lacks domain rollback info"
            raise VirtError(ErrorCode.SNAPSHOT_REVERT_RISKY, message, domain=ErrorDomain.QEMU)
        raise invalid(f"snapshot '{name}' does not say what the domain was; define it again with its domain")
    if any(disk.delete_in_progress for disk in snapshot.disks.disks):
        what = f"snapshot '{name}' is being deleted, or its overlays were committed"
        raise invalid(f"{what}: what it kept may be merged already; delete it")
    if snapshot.state == "pmsuspended":
        what = "qemu doesn't support reversion of snapshot taken in PMSUSPENDED state"
        raise fault(ErrorCode.OPERATION_UNSUPPORTED, what, ErrorDomain.QEMU)
    if machine is not None and machine.status.jobs:
        raise invalid("domain has active block job")
    name_volumes(snapshot.domain)  # where they are now is for their pools to say
    return snapshot.domain.copy()


def _check_others(launcher: Launcher, document: Domain, kept: set[str], *, starts: bool) -> None:
    """Make sure before the machine is stopped that there is what it has besides: what it cannot start without.

    Raises:
        VirtError: as its start would.
    """
    for disk in document.devices.disks:
        is_optional = disk.source is not None and disk.source.startup_policy == "optional"
        if disk.target.dev not in kept and (disk.type == SourceType.VOLUME or (starts and not is_optional)):
            launcher.prepare(disk.copy())


def _check_start(calls: SnapshotCalls, snapshot: Snapshot, name: str, flags: SnapshotRevertFlag) -> Path:
    """Refuse what would leave no domain, or memory of other disks; gives where saved memory would be.

    Raises:
        VirtError: in libvirt's words.
    """
    is_off = snapshot.state not in ("running", "paused")
    starts = flags & (SnapshotRevertFlag.RUNNING | SnapshotRevertFlag.PAUSED)
    if is_off and not starts and calls.definition_of(name) is None:
        raise invalid("transient domain needs to request run or pause to revert to inactive snapshot")
    path = calls.saved_memory_of(name)
    if is_off and path.exists() and not flags & SnapshotRevertFlag.FORCE:
        what = "revert requires force: snapshot without memory state, removal of existing managed saved state strongly "
        what += "recommended to avoid corruption; with --force it is removed"
        raise VirtError(ErrorCode.SNAPSHOT_REVERT_RISKY, what, domain=ErrorDomain.QEMU)
    return path


def _check_stored(calls: SnapshotCalls, document: Domain, snapshot: Snapshot) -> None:
    """Make sure before the machine is stopped that there is something to go back to."""
    for top in _internal(calls, document, snapshot):
        if not inside.has_stored(top, snapshot.name or ""):
            raise failed(f"'{top.path}' has no snapshot '{snapshot.name}': it was made anew, or the snapshot removed")


def stop(machine: Running) -> None:
    """End a machine whose state is given up.

    Raises:
        VirtError: it does not end.
    """
    status = machine.status
    machine.save(ending=status.ending or "from snapshot")
    machine.close()
    if not process.end(status.pid, status.started):
        raise failed(f"QEMU, process {status.pid}, does not end")
    process.exit_status(machine.run, 2)
    machine.forget(Ending(ShutoffReason.FROM_SNAPSHOT, ""))


def _internal(calls: SnapshotCalls, document: Domain, snapshot: Snapshot) -> list[inside.Kept]:
    names = {disk.name for disk in snapshot.disks.disks if disk.snapshot == "internal"}
    return calls.kept(document, calls.resolved_disks(document, names))


def apply_internal(calls: SnapshotCalls, catalog: Catalog, snapshot: Snapshot) -> None:
    """Go back inside the images of a domain that does not run; may be done again after half of it.

    Raises:
        VirtError: an image cannot be opened, or has no such snapshot.
    """
    assert isinstance(snapshot.domain, Domain)
    inside.apply_stored(_internal(calls, snapshot.domain, snapshot), snapshot.name or "")
    define(calls, snapshot, snapshot.domain)
    catalog.set_current(snapshot.name)


def _with_excluded(document: Domain, snapshot: Snapshot, before: Domain | None) -> Domain:
    """The snapshot's document with the disks that it leaves out as they are now: what it was may be others' by now."""
    chosen = {disk.name for disk in snapshot.disks.disks if disk.snapshot in ("external", "internal")}
    now = {disk.target.dev: disk for disk in before.devices.disks} if before is not None else {}
    for found in (document, snapshot.inactive_domain):
        for disk in found.devices.disks if found is not None else []:
            held = now.get(disk.target.dev)
            if disk.target.dev in chosen or disk.readonly or is_empty(disk) or held is None:
                continue
            top = next(images(held), None)
            if top is not None:
                go_over(disk, top._replace(number=0, below=untold(top.below)))
                disk.auth, disk.encryption = held.auth, held.encryption
    return document


def _onto_overlays(
    calls: SnapshotCalls, catalog: Catalog, snapshot: Snapshot, document: Domain, abandoned: tuple[str, ...]
) -> Domain:
    """The snapshot's document with new overlays on its disks; they are made, and the definition starts from them."""
    names = {disk.name for disk in snapshot.disks.disks if disk.snapshot == "external"}
    stamp = int(time.time())
    wanted: dict[str, Image] = {}
    below: dict[str, Disk] = {}
    for disk in calls.resolved_disks(document, names):
        top = next(images(disk), None)
        if top is not None:
            source = DiskSource(file=free(top, f"{snapshot.name}-{stamp}"))
            after = over(disk, Image(0, SourceType.FILE, source, "qcow2", None))
            wanted[disk.target.dev] = Image(0, SourceType.FILE, source, "qcow2", untold(after.backing_store))
            below[disk.target.dev] = disk
    with onto(calls, catalog, snapshot, document, wanted, abandoned):
        for name, disk in below.items():
            create_over(next(images(disk)), wanted[name])
    return document


def _shared(
    calls: SnapshotCalls, document: Domain, snapshot: Snapshot, standing: Standing
) -> list[tuple[Disk, Image, list[str]]]:
    """The disks of a snapshot inside images, where other snapshots need one of these as it is; with who needs it."""
    names = {disk.name for disk in snapshot.disks.disks if disk.snapshot == "internal"}
    found = []
    for disk in calls.resolved_disks(document, names):
        top = next(images(disk), None)
        if top is not None:
            found.append((disk, top, standing.who_needs(top.path, snapshot.name or "")))
    return found if any(who for _, _, who in found) else []


class Load:
    """Loads an internal snapshot into a machine that was just started for it."""

    def __init__(self, calls: SnapshotCalls, snapshot: Snapshot, copies: list[str]) -> None:
        self._calls = calls
        self._name = snapshot.name or ""
        self._disks = {disk.name for disk in snapshot.disks.disks if disk.snapshot == "internal"}
        self._copies = copies

    def __call__(self, machine: Running) -> None:
        """Load it; copies need it no more.

        Raises:
            VirtError: ``OPERATION_FAILED``.
        """
        disks = [disk for disk in machine.domain.devices.disks if disk.target.dev in self._disks]
        tops = self._calls.kept(machine.domain, disks)
        inside.load(machine, tops, self._name)
        inside.drop(machine, [top for top in tops if top.path in self._copies], self._name)

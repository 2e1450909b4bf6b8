"""The driver's calls about snapshots: making, listing, showing; going back and dropping are modules of their own."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from hostel.drivers.base import DomainRef, DomainXmlFlag, PausedReason, RunningReason
from hostel.drivers.base.snapshot import (
    SnapshotCreateFlag,
    SnapshotDeleteFlag,
    SnapshotListFlag,
    SnapshotRef,
    SnapshotRevertFlag,
)
from hostel.drivers.document import reading
from hostel.drivers.events import Defined, Lifecycle
from hostel.drivers.fault import fault
from hostel.drivers.moment import check_parent
from hostel.drivers.qemu import savefile
from hostel.drivers.qemu.backup.checkpoints import Checkpoints
from hostel.drivers.qemu.balloon import refresh
from hostel.drivers.qemu.block.chain import images
from hostel.drivers.qemu.block.create import create_over
from hostel.drivers.qemu.block.jobs import check_without_job
from hostel.drivers.qemu.calls import Calls, no_domain
from hostel.drivers.qemu.machines import invalid
from hostel.drivers.qemu.running import Running
from hostel.drivers.qemu.snapshot.catalog import Catalog, Intent, as_kind
from hostel.drivers.qemu.source import leave_out_told
from hostel.drivers.qemu.status import Status
from hostel.drivers.qemu.transient import check_can_be_saved, take_off
from hostel.drivers.snapshot_listing import select
from hostel.drivers.together import check_together
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.model.domain.completing.disk import drop_other_places
from hostel.model.domain.devices.disk import Disk
from hostel.model.domain.domain import Domain
from hostel.model.domain.inactive import forget_run
from hostel.model.domain.secure import hide_passwords
from hostel.model.domain.volumes import name_volumes
from hostel.model.moment import InactiveDomain, MomentParent
from hostel.model.snapshot import Snapshot, SnapshotMemory, read_snapshot

if TYPE_CHECKING:
    from hostel.drivers.qemu.block.standing import Standing
    from hostel.drivers.qemu.snapshot import inside
    from hostel.drivers.snapshot_alignment import Plan


class SnapshotCalls(Calls):
    """Snapshots; see :class:`hostel.drivers.base.snapshot.SnapshotDriver`."""

    @contextlib.contextmanager
    def _snapshots(
        self, domain: DomainRef, *, asks: bool = True, talks: bool = False
    ) -> Iterator[tuple[Catalog, Running | None]]:
        """Hold a domain and what is known of its snapshots; what another process began is ended first.

        Args:
            domain: which.
            asks: whether QEMU is to be asked; else it is only for the sake of what was begun.
            talks: whether the agent is, likewise.
        """
        from hostel.drivers.qemu.snapshot.settle import settle

        catalog = Catalog(self._machines, domain.name)
        intent = catalog.intent()
        with (
            self._machines.talking(domain.name, talks=talks or (intent is not None and intent.frozen)),
            self._machines.locked(domain.name),
            self._held(domain, asks=asks or catalog.intent() is not None) as machine,
        ):
            if machine is None and self._machines.definition(domain.name) is None:
                raise no_domain(f"name '{domain.name}'")
            settle(self, catalog, machine, domain.name)
            yield catalog, machine

    def definition_of(self, name: str) -> Domain | None:
        """The definition of a domain."""
        return self._machines.definition(name)

    def tell_defined(self, domain: Domain) -> None:
        """Say that a domain's definition is that of a snapshot again."""
        if self.definition_of(domain.name) is not None:
            detail = {"event": int(Lifecycle.DEFINED), "detail": int(Defined.FROM_SNAPSHOT)}
            self._machines.publish(domain, "lifecycle", **detail)

    def saved_memory_of(self, name: str) -> Path:
        """Where a domain's memory is, where it is saved."""
        return self._machines.saved(name)

    def check_no_saved_memory(self, name: str) -> None:
        """Refuse what would take a disk from saved memory, whose own document says what the next start is on.

        Raises:
            VirtError: ``OPERATION_INVALID``.
        """
        if savefile.is_kept(self._machines.saved(name)):
            what = "domain has a managed save image, whose memory fits its disks as they are; "
            raise invalid(f"{what}start it, or remove the image with managedsave-remove")

    def define(self, definition: Domain) -> None:
        """Replace a definition; the caller holds the domain's lock."""
        self._define(definition)

    def kept(self, document: Domain, disks: Iterable[Disk]) -> list[inside.Kept]:
        """The images that keep a snapshot inside them, of these disks of a document."""
        from hostel.drivers.qemu.snapshot import inside

        return inside.kept(document, disks, self._machines.variables(document.name))

    def resolved_disks(self, document: Domain, names: Collection[str] | None = None) -> list[Disk]:
        """The disks of a document, all or those with these targets, with files in place of volumes and their chains."""
        disks = [disk.copy() for disk in document.devices.disks if names is None or disk.target.dev in names]
        for disk in disks:
            self._launcher.prepare(disk)
        return disks

    def resolved_paths(self, document: Domain) -> list[Disk]:
        """The disks of a document, with files in place of volumes that can be found."""
        return [self.resolved_path(disk) for disk in document.devices.disks]

    def resolved_path(self, disk: Disk) -> Disk:
        """A copy of a disk with files in place of volumes that can be found."""
        copy = disk.copy()
        with contextlib.suppress(VirtError):
            self._launcher.prepare(copy)
        return copy

    def standing(self, catalog: Catalog, machine: Running | None, name: str) -> Standing:
        """What the domain and its snapshots are made of; the caller holds the domain's lock."""
        from hostel.drivers.qemu.block.standing import Standing

        documents = [document for document in (self.definition_of(name), machine and machine.domain) if document]
        return Standing(documents, catalog.all(), self._launcher.prepare)

    def domain_snapshot_create_xml(
        self, domain: DomainRef, xml: str, flags: SnapshotCreateFlag = SnapshotCreateFlag.NONE
    ) -> SnapshotRef:
        """Keep the state of a domain."""
        check_together(flags)
        if flags & SnapshotCreateFlag.QUIESCE and not flags & SnapshotCreateFlag.DISK_ONLY:
            what = (
                "Flag 'VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY' is required by flag 'VIR_DOMAIN_SNAPSHOT_CREATE_QUIESCE'"
            )
            raise VirtError(ErrorCode.INVALID_ARG, what, domain=ErrorDomain.QEMU)
        if flags & SnapshotCreateFlag.LIVE and flags & SnapshotCreateFlag.REDEFINE:
            what = "Flags 'VIR_DOMAIN_SNAPSHOT_CREATE_LIVE' and 'VIR_DOMAIN_SNAPSHOT_CREATE_REDEFINE' are mutually "
            raise VirtError(ErrorCode.INVALID_ARG, f"{what}exclusive", domain=ErrorDomain.QEMU)
        with self._snapshots(domain, talks=bool(flags & SnapshotCreateFlag.QUIESCE)) as (catalog, machine):
            is_offline = bool(flags & SnapshotCreateFlag.DISK_ONLY) or machine is None
            redefine = bool(flags & SnapshotCreateFlag.REDEFINE)
            with reading(ErrorDomain.DOMAIN_SNAPSHOT):
                snapshot = read_snapshot(xml, now=int(time.time()), redefine=redefine, offline=is_offline)
            memory = snapshot.memory.snapshot if snapshot.memory is not None else None
            if flags & SnapshotCreateFlag.LIVE and (machine is None or memory != "external"):
                what = "live snapshot creation is supported only during full system snapshots"
                raise fault(ErrorCode.OPERATION_UNSUPPORTED, what, ErrorDomain.QEMU)
            if redefine:
                return self._redefine_snapshot(catalog, domain, snapshot, flags)
            name = snapshot.name or ""
            if not (flags & SnapshotCreateFlag.NO_METADATA and flags & SnapshotCreateFlag.DISK_ONLY):
                catalog.check_name(name)  # which images keep inside them too
            if flags & SnapshotCreateFlag.HALT and self._machines.definition(domain.name) is None:
                raise invalid("cannot halt after transient domain snapshot")
            plan = self._plan(snapshot, domain, machine, flags)
            current = catalog.current()
            snapshot.parent = MomentParent(name=current) if current is not None else None
            self._make(catalog, snapshot, plan, machine, flags)
            if flags & SnapshotCreateFlag.HALT and machine is not None:
                self._stop(machine)
        return SnapshotRef(name, domain)

    def _plan(self, snapshot: Snapshot, domain: DomainRef, machine: Running | None, flags: SnapshotCreateFlag) -> Plan:
        """Complete the snapshot's document, and say what becomes of each disk."""
        from hostel.drivers.qemu.snapshot.plan import check
        from hostel.drivers.snapshot_alignment import align

        definition = self._machines.definition(domain.name)
        if machine is not None:
            refresh(machine)
            held = machine.domain.copy()
            take_off(held)
            for disk in held.devices.disks:
                leave_out_told(disk)
            forget_run(held)
            if definition is not None:
                snapshot.inactive_domain = as_kind(InactiveDomain, definition)
            disks = machine.domain.devices.disks
            runs = bool(machine.ask("query-status").get("running"))
            snapshot.state = "running" if runs else "paused"
        else:
            assert definition is not None
            held, disks = definition.copy(), self.resolved_disks(definition)
            snapshot.state = "shutoff"
        snapshot.domain = held
        place = (snapshot.memory or SnapshotMemory()).snapshot
        default = "internal"
        if flags & SnapshotCreateFlag.DISK_ONLY:
            default, place = "external", "no"
            snapshot.state = "disk-snapshot" if machine is not None else "shutoff"
        elif place == "external":
            default = "external"
            if machine is not None:
                check_can_be_saved(machine.domain)
        elif machine is not None and place == "no":
            what = "internal snapshot of a running VM must include the memory state"
            raise fault(ErrorCode.OPERATION_UNSUPPORTED, what, ErrorDomain.QEMU)
        else:
            place = "internal" if machine is not None else "no"
        if machine is not None and place != "no":
            from hostel.drivers.qemu.hostdevs import check_movable

            check_movable(machine.domain)
        file = snapshot.memory.file if snapshot.memory is not None else None
        snapshot.memory = SnapshotMemory(snapshot=place, file=file if place == "external" else None)
        plan = align(snapshot, disks, default)
        if machine is not None:
            for disk, wanted in plan.disks:
                if wanted.snapshot != "no":
                    check_without_job(machine, disk)
            if place != "no" and machine.status.jobs:
                raise invalid("domain has active block job; end it with blockjob --abort or --pivot")
        if machine is None and plan.of("external"):
            self.check_no_saved_memory(domain.name)
        check(snapshot, plan, is_active=machine is not None, flags=flags)
        return plan

    def _make(
        self, catalog: Catalog, snapshot: Snapshot, plan: Plan, machine: Running | None, flags: SnapshotCreateFlag
    ) -> None:
        """Do it; whatever fails or dies in between is settled by the record that is written first."""
        from hostel.drivers.qemu.agent import freeze
        from hostel.drivers.qemu.snapshot import inside, lengths
        from hostel.drivers.qemu.snapshot.overlay import image_of
        from hostel.drivers.qemu.snapshot.settle import settle

        name = snapshot.name or ""
        kind = "create-without-metadata" if flags & SnapshotCreateFlag.NO_METADATA else "create"
        quiesce = bool(flags & SnapshotCreateFlag.QUIESCE) and machine is not None
        reuse = bool(flags & SnapshotCreateFlag.REUSE_EXT)
        files = (
            [] if reuse else [w.source.file for _, w in plan.of("external") if w.source is not None and w.source.file]
        )
        below = [disk.copy() for disk in plan.disks_of("external")]
        memory = snapshot.memory.file if snapshot.memory is not None else None
        if memory is not None and Path(memory).exists():
            what = f"the file '{memory}' of the snapshot's memory exists; remove it, or name another"
            raise fault(ErrorCode.CONFIG_UNSUPPORTED, what, ErrorDomain.QEMU)
        made = [*files, *([memory] if memory is not None else [])]
        if files and kind == "create":
            catalog.set_own(catalog.own().union(files))
        catalog.begin(Intent(kind, name, tuple(made), frozen=quiesce), snapshot)
        failure: BaseException | None = None
        try:
            if machine is not None:
                if quiesce:
                    freeze(machine)
                self._make_live(machine, snapshot, plan, flags)
            elif plan.of("internal"):
                assert isinstance(snapshot.domain, Domain)
                inside.create_stored(self.kept(snapshot.domain, plan.disks_of("internal")), name)
            else:
                for disk, wanted in plan.of("external"):
                    if not reuse:
                        create_over(next(images(disk)), image_of(wanted), self._launcher.find_secret)
        except Exception as error:
            failure = error
            if machine is None:
                for path in made:
                    Path(path).unlink(missing_ok=True)
        settle(self, catalog, machine, machine.name if machine is not None else self._name_of(snapshot))
        if name in catalog.names():
            lengths.remember(catalog, name, below)
        if failure is not None and (flags & SnapshotCreateFlag.NO_METADATA or name not in catalog.names()):
            raise failure

    def _name_of(self, snapshot: Snapshot) -> str:
        assert isinstance(snapshot.domain, Domain)
        return snapshot.domain.name

    def _make_live(self, machine: Running, snapshot: Snapshot, plan: Plan, flags: SnapshotCreateFlag) -> None:
        """Make it of a machine that runs; where a disk is ``manual`` the guest waits for whoever keeps that one."""
        from hostel.drivers.qemu import savefile
        from hostel.drivers.qemu.saving import SNAPSHOT, lasting, write_memory
        from hostel.drivers.qemu.snapshot import inside
        from hostel.drivers.qemu.snapshot.overlay import take

        memory = snapshot.memory.file if snapshot.memory is not None else None
        runs = machine.runs()
        waits = runs and bool(plan.of("manual")) and not flags & SnapshotCreateFlag.LIVE
        if plan.of("internal"):
            if runs:  # QEMU stops it meanwhile
                machine.save(running=int(RunningReason.UNPAUSED))
            inside.save(machine, self.kept(machine.domain, plan.disks_of("internal")), snapshot.name or "")
            return
        if memory is not None:
            way = savefile.packing(machine.settings.formats.snapshot, "snapshot")
            machine.check_disks_held()
            with savefile.opened(Path(memory)) as file:
                if runs:
                    machine.save(paused=int(PausedReason.SNAPSHOT), resumes=True)
                write_memory(machine, file, lasting(machine.domain), runs=runs, way=way, operation=SNAPSHOT)
        elif waits:
            machine.save(paused=int(PausedReason.SNAPSHOT), resumes=True)
            machine.ask("stop")
        take(machine, plan.of("external"), reuse=bool(flags & SnapshotCreateFlag.REUSE_EXT))
        if waits:
            machine.save(resumes=False)

    def _stop(self, machine: Running) -> None:
        from hostel.drivers.qemu.snapshot.revert import stop

        stop(machine)

    def _redefine_snapshot(
        self, catalog: Catalog, domain: DomainRef, snapshot: Snapshot, flags: SnapshotCreateFlag
    ) -> SnapshotRef:
        """Take a document as what is known of a snapshot."""
        from hostel.drivers.snapshot_alignment import prepare_again

        name = snapshot.name or ""
        check_parent(name, snapshot.parent, catalog.names(), catalog.descendants)
        known = catalog.get(name) if name in catalog.names() else None
        disk_only = bool(flags & SnapshotCreateFlag.DISK_ONLY)
        for disk in snapshot.domain.devices.disks if isinstance(snapshot.domain, Domain) else []:
            drop_other_places(disk)
        prepare_again(snapshot, known, domain.uuid, disk_only=disk_only)
        catalog.put(snapshot)
        if flags & SnapshotCreateFlag.CURRENT:
            catalog.set_current(name)
        return SnapshotRef(name, domain)

    def domain_list_all_snapshots(
        self, domain: DomainRef, flags: SnapshotListFlag = SnapshotListFlag.NONE
    ) -> list[SnapshotRef]:
        """The snapshots that the flags let through."""
        with self._snapshots(domain, asks=False) as (catalog, _):
            found = catalog.readable()
            names = [name for name in found if not flags & SnapshotListFlag.ROOTS or found[name].parent is None]
            return [SnapshotRef(name, domain) for name in select(found, names, flags)]

    def domain_snapshot_num(self, domain: DomainRef, flags: SnapshotListFlag = SnapshotListFlag.NONE) -> int:
        """How many snapshots the flags let through."""
        return len(self.domain_list_all_snapshots(domain, flags))

    def domain_snapshot_has_metadata(self, snapshot: SnapshotRef) -> bool:
        """Always: what has no document is no snapshot that we know of."""
        with self._snapshots(snapshot.domain, asks=False) as (catalog, _):
            catalog.get(snapshot.name)
        return True

    def domain_snapshot_list_all_children(
        self, snapshot: SnapshotRef, flags: SnapshotListFlag = SnapshotListFlag.NONE
    ) -> list[SnapshotRef]:
        """The children of a snapshot, or all that come after it."""
        with self._snapshots(snapshot.domain, asks=False) as (catalog, _):
            catalog.get(snapshot.name)
            descend = flags & SnapshotListFlag.DESCENDANTS
            names = list(catalog.descendants(snapshot.name) if descend else catalog.children(snapshot.name))
            return [SnapshotRef(name, snapshot.domain) for name in select(catalog.all(), names, flags)]

    def domain_snapshot_lookup_by_name(self, domain: DomainRef, name: str) -> SnapshotRef:
        """Find by name."""
        with self._snapshots(domain, asks=False) as (catalog, _):
            catalog.get(name)
        return SnapshotRef(name, domain)

    def domain_has_current_snapshot(self, domain: DomainRef) -> bool:
        """Whether there is a current one."""
        with self._snapshots(domain, asks=False) as (catalog, _):
            return catalog.current() is not None

    def domain_snapshot_current(self, domain: DomainRef) -> SnapshotRef:
        """The current one."""
        with self._snapshots(domain, asks=False) as (catalog, _):
            name = catalog.current()
        if name is None:
            message = "Domain snapshot not found: the domain does not have a current snapshot"
            raise VirtError(ErrorCode.NO_DOMAIN_SNAPSHOT, message, domain=ErrorDomain.QEMU)
        return SnapshotRef(name, domain)

    def domain_snapshot_get_parent(self, snapshot: SnapshotRef) -> SnapshotRef:
        """The one before."""
        with self._snapshots(snapshot.domain, asks=False) as (catalog, _):
            parent = catalog.get(snapshot.name).parent
        if parent is None:
            message = f"Domain snapshot not found: snapshot '{snapshot.name}' does not have a parent"
            raise VirtError(ErrorCode.NO_DOMAIN_SNAPSHOT, message, domain=ErrorDomain.QEMU)
        return SnapshotRef(parent.name, snapshot.domain)

    def domain_snapshot_get_xml_desc(self, snapshot: SnapshotRef, flags: DomainXmlFlag = DomainXmlFlag.NONE) -> str:
        """The document, without passwords unless ``SECURE``."""
        with self._snapshots(snapshot.domain, asks=False) as (catalog, _):
            found = catalog.get(snapshot.name)
        if isinstance(found.domain, Domain):
            name_volumes(found.domain)  # what is kept says where they were, whatever becomes of their pool
        if not flags & DomainXmlFlag.SECURE:
            hide_passwords(found)
        return found.format()

    def domain_snapshot_is_current(self, snapshot: SnapshotRef) -> bool:
        """Whether the domain goes on from it."""
        with self._snapshots(snapshot.domain, asks=False) as (catalog, _):
            catalog.get(snapshot.name)
            return catalog.current() == snapshot.name

    def domain_revert_to_snapshot(
        self, snapshot: SnapshotRef, flags: SnapshotRevertFlag = SnapshotRevertFlag.NONE
    ) -> None:
        """Go back to a snapshot."""
        check_together(flags)
        from hostel.drivers.qemu.snapshot.revert import revert

        with self._snapshots(snapshot.domain) as (catalog, machine):
            found = catalog.get(snapshot.name)
            is_inside = any(disk.snapshot == "internal" for disk in found.disks.disks)
            if is_inside and (names := list(Checkpoints(self._machines, snapshot.domain.name).all())):
                what = f"domain has checkpoints ({', '.join(names)}), which do not see disks go back; delete them first"
                raise fault(ErrorCode.OPERATION_UNSUPPORTED, what, ErrorDomain.QEMU)
            revert(self, self._launcher, catalog, machine, snapshot.name, flags)

    def apply(self, catalog: Catalog, snapshot: str, name: str) -> None:
        """Do again what going back to a snapshot inside images does to a domain that does not run."""
        from hostel.drivers.qemu.snapshot.revert import apply_internal

        del name
        apply_internal(self, catalog, catalog.get(snapshot))

    def domain_snapshot_delete(
        self, snapshot: SnapshotRef, flags: SnapshotDeleteFlag = SnapshotDeleteFlag.NONE
    ) -> None:
        """Drop a snapshot."""
        check_together(flags)
        from hostel.drivers.qemu.snapshot.drop import delete

        with self._snapshots(snapshot.domain) as (catalog, machine):
            delete(self, self._launcher, catalog, machine, snapshot.name, snapshot.domain, flags)

    def machine_of(self, status: Status) -> Running:
        """A machine that the caller has just started; close it when done."""
        return Running(self._machines, status, self._launcher)

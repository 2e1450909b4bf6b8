"""Snapshots of the test driver's domains: their documents, and what they do to a domain's state."""

from __future__ import annotations

import time
from typing import Final

from hostel.drivers.adapters import check_flags
from hostel.drivers.base import DomainRef, DomainState, DomainXmlFlag, PausedReason, RunningReason, ShutoffReason
from hostel.drivers.base.domain import StateInfo
from hostel.drivers.base.snapshot import (
    SnapshotCreateFlag,
    SnapshotDeleteFlag,
    SnapshotListFlag,
    SnapshotRef,
    SnapshotRevertFlag,
)
from hostel.drivers.document import reading
from hostel.drivers.events import Lifecycle, Started, Stopped, Suspended
from hostel.drivers.moment import check_parent
from hostel.drivers.snapshot_alignment import align, prepare_again
from hostel.drivers.snapshot_listing import select
from hostel.drivers.test.document import DomainDefinition, complete_snapshot
from hostel.drivers.test.host import Host, TestDomain
from hostel.drivers.test.lifecycle import end, refused, tell
from hostel.drivers.together import check_together
from hostel.errors import ErrorCode, ErrorDomain
from hostel.model.domain.domain import Domain
from hostel.model.domain.inactive import forget_run
from hostel.model.domain.secure import hide_passwords
from hostel.model.moment import DomainReference
from hostel.model.snapshot import Snapshot, SnapshotMemory, read_snapshot

_STATES: Final = {
    DomainState.RUNNING: "running",
    DomainState.PAUSED: "paused",
    DomainState.SHUTOFF: "shutoff",
    DomainState.CRASHED: "crashed",
}
_WITH_MEMORY: Final = ("running", "paused")
_CREATE: Final = (
    SnapshotCreateFlag.REDEFINE
    | SnapshotCreateFlag.CURRENT
    | SnapshotCreateFlag.HALT
    | SnapshotCreateFlag.QUIESCE
    | SnapshotCreateFlag.ATOMIC
    | SnapshotCreateFlag.LIVE
    | SnapshotCreateFlag.VALIDATE
)


class SnapshotCalls:
    """Implements :class:`hostel.drivers.base.snapshot.SnapshotDriver`."""

    _host: Host

    def domain_snapshot_create_xml(
        self, domain: DomainRef, xml: str, flags: SnapshotCreateFlag = SnapshotCreateFlag.NONE
    ) -> SnapshotRef:
        """Remember the domain's document and state."""
        check_together(flags)
        check_flags(flags, _CREATE, "testDomainSnapshotCreateXML")
        with self._host.lock:
            found = self._host.domain(domain)
            if found.checkpoints.documents:
                what = "cannot create snapshot while checkpoint exists"
                raise refused(ErrorCode.OPERATION_UNSUPPORTED, what)
            if flags & SnapshotCreateFlag.HALT and not found.persistent:
                raise refused(ErrorCode.OPERATION_INVALID, "cannot halt after transient domain snapshot")
            redefine = bool(flags & SnapshotCreateFlag.REDEFINE)
            with reading(ErrorDomain.DOMAIN_SNAPSHOT):
                snapshot = read_snapshot(xml, now=int(time.time()), redefine=redefine)
            if redefine:
                with reading(ErrorDomain.DOMAIN):
                    complete_snapshot(snapshot)
                self._redefine(found, snapshot, current=bool(flags & SnapshotCreateFlag.CURRENT))
            else:
                _complete(found, snapshot)
                found.snapshots.add(snapshot)
                if flags & SnapshotCreateFlag.HALT and found.live is not None:
                    end(found, ShutoffReason.FROM_SNAPSHOT)
                    tell(self._host, found, Lifecycle.STOPPED, Stopped.FROM_SNAPSHOT)
            return SnapshotRef(snapshot.name or "", domain)

    def _redefine(self, found: TestDomain, snapshot: Snapshot, *, current: bool) -> None:
        known, name = found.snapshots, snapshot.name or ""
        check_parent(name, snapshot.parent, known.documents, known.descendants)
        prepare_again(snapshot, known.documents.get(name), found.definition.uuid)
        snapshot.cookie = None  # of which libvirt's test driver knows none
        known.redefine(snapshot, current=current)

    def domain_list_all_snapshots(
        self, domain: DomainRef, flags: SnapshotListFlag = SnapshotListFlag.NONE
    ) -> list[SnapshotRef]:
        """The snapshots that the flags let through."""
        with self._host.lock:
            known = self._host.domain(domain).snapshots
            names = known.names(roots=bool(flags & SnapshotListFlag.ROOTS))
            return [SnapshotRef(name, domain) for name in select(known.documents, names, flags)]

    def domain_snapshot_num(self, domain: DomainRef, flags: SnapshotListFlag = SnapshotListFlag.NONE) -> int:
        """How many snapshots the flags let through."""
        return len(self.domain_list_all_snapshots(domain, flags))

    def domain_snapshot_has_metadata(self, snapshot: SnapshotRef) -> bool:
        """Always: a snapshot is nothing else here."""
        self._get(snapshot)
        return True

    def domain_snapshot_is_current(self, snapshot: SnapshotRef) -> bool:
        """Whether the next one comes after it."""
        with self._host.lock:
            self._get(snapshot)
            return self._host.domain(snapshot.domain).snapshots.current == snapshot.name

    def domain_snapshot_list_all_children(
        self, snapshot: SnapshotRef, flags: SnapshotListFlag = SnapshotListFlag.NONE
    ) -> list[SnapshotRef]:
        """Those after one."""
        with self._host.lock:
            self._get(snapshot)
            known = self._host.domain(snapshot.domain).snapshots
            descend = flags & SnapshotListFlag.DESCENDANTS
            names = list(known.descendants(snapshot.name) if descend else known.children(snapshot.name))
            return [SnapshotRef(name, snapshot.domain) for name in select(known.documents, names, flags)]

    def domain_snapshot_lookup_by_name(self, domain: DomainRef, name: str) -> SnapshotRef:
        """Find by name."""
        self._get(SnapshotRef(name, domain))
        return SnapshotRef(name, domain)

    def domain_has_current_snapshot(self, domain: DomainRef) -> bool:
        """Whether there is a current one."""
        with self._host.lock:
            return self._host.domain(domain).snapshots.current is not None

    def domain_snapshot_current(self, domain: DomainRef) -> SnapshotRef:
        """The current one."""
        with self._host.lock:
            known = self._host.domain(domain).snapshots
            if known.current is None:
                raise known.missing("the domain does not have a current snapshot")
            return SnapshotRef(known.current, domain)

    def domain_snapshot_get_parent(self, snapshot: SnapshotRef) -> SnapshotRef:
        """The one before."""
        with self._host.lock:
            known = self._host.domain(snapshot.domain).snapshots
            return SnapshotRef(known.parent_of(snapshot.name), snapshot.domain)

    def domain_snapshot_get_xml_desc(self, snapshot: SnapshotRef, flags: DomainXmlFlag = DomainXmlFlag.NONE) -> str:
        """The document, without passwords unless ``SECURE``."""
        check_flags(flags, DomainXmlFlag.SECURE, "testDomainSnapshotGetXMLDesc")
        found = self._get(snapshot).copy()
        if not flags & DomainXmlFlag.SECURE:
            hide_passwords(found)
        if found.domain is None:
            found.domain = DomainReference(uuid=snapshot.domain.uuid)
        return found.format()

    def domain_revert_to_snapshot(
        self, snapshot: SnapshotRef, flags: SnapshotRevertFlag = SnapshotRevertFlag.NONE
    ) -> None:
        """Go back to the document and the state; a snapshot without memory leaves the domain off, as in libvirt's."""
        check_together(flags)
        allowed = SnapshotRevertFlag.RUNNING | SnapshotRevertFlag.PAUSED | SnapshotRevertFlag.FORCE
        check_flags(flags, allowed, "testDomainRevertToSnapshot")
        chosen = flags & (SnapshotRevertFlag.RUNNING | SnapshotRevertFlag.PAUSED)
        with self._host.lock:
            found, document = self._host.domain(snapshot.domain), self._get(snapshot)
            if not found.persistent and document.state not in _WITH_MEMORY and not chosen:
                what = "transient domain needs to request run or pause to revert to inactive snapshot"
                raise refused(ErrorCode.OPERATION_INVALID, what)
            if not isinstance(document.domain, Domain):
                what = f"snapshot '{snapshot.name}' lacks domain '{found.definition.name}' rollback info"
                raise refused(ErrorCode.SNAPSHOT_REVERT_RISKY, what)
            if found.live is not None:
                end(found, ShutoffReason.FROM_SNAPSHOT)
                tell(self._host, found, Lifecycle.STOPPED, Stopped.FROM_SNAPSHOT)
            found.definition = DomainDefinition(document.domain.copy())
            if document.state in _WITH_MEMORY:
                paused = document.state == "paused" or bool(flags & SnapshotRevertFlag.PAUSED)
                self._go_on(found, paused=paused and not flags & SnapshotRevertFlag.RUNNING)
            elif chosen:
                tell(self._host, found, Lifecycle.STARTED, Started.FROM_SNAPSHOT)
                if flags & SnapshotRevertFlag.PAUSED:
                    tell(self._host, found, Lifecycle.SUSPENDED, Suspended.FROM_SNAPSHOT)
            found.snapshots.current = snapshot.name

    def _go_on(self, found: TestDomain, *, paused: bool) -> None:
        self._host.boot(found)
        found.state = StateInfo(DomainState.RUNNING, RunningReason.FROM_SNAPSHOT)
        tell(self._host, found, Lifecycle.STARTED, Started.FROM_SNAPSHOT)
        if paused:
            found.state = StateInfo(DomainState.PAUSED, PausedReason.FROM_SNAPSHOT)
            tell(self._host, found, Lifecycle.SUSPENDED, Suspended.FROM_SNAPSHOT)

    def domain_snapshot_delete(
        self, snapshot: SnapshotRef, flags: SnapshotDeleteFlag = SnapshotDeleteFlag.NONE
    ) -> None:
        """Forget one."""
        check_together(flags)
        allowed = SnapshotDeleteFlag.CHILDREN | SnapshotDeleteFlag.CHILDREN_ONLY
        check_flags(flags, allowed, "testDomainSnapshotDelete")
        with self._host.lock:
            self._host.domain(snapshot.domain).snapshots.delete(
                snapshot.name,
                children=bool(flags & SnapshotDeleteFlag.CHILDREN),
                children_only=bool(flags & SnapshotDeleteFlag.CHILDREN_ONLY),
            )

    def _get(self, snapshot: SnapshotRef) -> Snapshot:
        with self._host.lock:
            return self._host.domain(snapshot.domain).snapshots.get(snapshot.name)


def _complete(found: TestDomain, snapshot: Snapshot) -> None:
    """Say in a new snapshot's document what it keeps of the domain (``testDomainSnapshotAlignDisks``)."""
    if any(disk.snapshot == "manual" for disk in snapshot.disks.disks):
        what = "'manual' snapshot mode is not supported by the test driver"
        raise refused(ErrorCode.OPERATION_UNSUPPORTED, what)
    document = found.current.domain.copy()
    forget_run(document)
    snapshot.domain = document
    snapshot.state = _STATES[found.state.state]
    external = snapshot.memory is not None and snapshot.memory.snapshot == "external"
    if not external:
        snapshot.memory = SnapshotMemory(snapshot="no" if snapshot.state == "shutoff" else "internal")
    align(snapshot, document.devices.disks, "external" if external else "internal")

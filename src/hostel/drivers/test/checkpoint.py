"""Checkpoints of the test driver's domains: their documents, and nothing that would be written down."""

from __future__ import annotations

import time

from hostel.drivers.adapters import check_flags
from hostel.drivers.base import DomainRef
from hostel.drivers.base.backup import (
    CheckpointCreateFlag,
    CheckpointDeleteFlag,
    CheckpointListFlag,
    CheckpointRef,
    CheckpointXmlFlag,
)
from hostel.drivers.document import reading
from hostel.drivers.moment import check_parent
from hostel.drivers.schema import check_schema
from hostel.drivers.test.document import complete_kept
from hostel.drivers.test.host import Host, TestDomain
from hostel.drivers.test.lifecycle import refused, running
from hostel.drivers.test.moments import Moments
from hostel.drivers.together import check_together
from hostel.errors import ErrorCode, ErrorDomain
from hostel.model.checkpoint import Checkpoint, align, prepare_again, read_checkpoint
from hostel.model.domain.domain import Domain
from hostel.model.domain.inactive import forget_run
from hostel.model.domain.secure import hide_passwords


class CheckpointCalls:
    """Implements :class:`hostel.drivers.base.backup.CheckpointDriver`."""

    _host: Host

    def domain_checkpoint_create_xml(
        self, domain: DomainRef, xml: str, flags: CheckpointCreateFlag = CheckpointCreateFlag.NONE
    ) -> CheckpointRef:
        """Remember the domain's document."""
        check_together(flags)
        allowed = CheckpointCreateFlag.REDEFINE | CheckpointCreateFlag.QUIESCE
        check_flags(flags, allowed, "testDomainCheckpointCreateXML")
        redefine = bool(flags & CheckpointCreateFlag.REDEFINE)
        with self._host.lock:
            found = self._host.domain(domain)
            if found.snapshots.documents:
                what = "cannot create checkpoint while snapshot exists"
                raise refused(ErrorCode.OPERATION_UNSUPPORTED, what)
            if found.live is None:
                what = "cannot create checkpoint for inactive domain"
                raise refused(ErrorCode.OPERATION_UNSUPPORTED, what)
            check_schema(xml, "checkpoint")
            with reading(ErrorDomain.DOMAIN_CHECKPOINT):
                checkpoint = read_checkpoint(xml, now=int(time.time()), redefine=redefine)
            if redefine:
                if isinstance(checkpoint.domain, Domain):
                    with reading(ErrorDomain.DOMAIN):
                        complete_kept(checkpoint.domain)
                known = found.checkpoints
                check_parent(checkpoint.name or "", checkpoint.parent, known.documents, known.descendants)
                with reading(ErrorDomain.DOMAIN_CHECKPOINT):
                    prepare_again(checkpoint, found.definition.uuid)
                parent = checkpoint.parent.name if checkpoint.parent is not None else None
                known.redefine(checkpoint, current=known.current is None or known.current == parent)
            else:
                _complete(found, checkpoint)
                found.checkpoints.add(checkpoint)
            return CheckpointRef(checkpoint.name or "", domain)

    def domain_list_all_checkpoints(
        self, domain: DomainRef, flags: CheckpointListFlag = CheckpointListFlag.NONE
    ) -> list[CheckpointRef]:
        """The checkpoints that the flags let through."""
        with self._host.lock:
            known = self._host.domain(domain).checkpoints
            names = known.names(roots=bool(flags & CheckpointListFlag.ROOTS))
            return [CheckpointRef(name, domain) for name in _select(known, names, flags)]

    def domain_checkpoint_list_all_children(
        self, checkpoint: CheckpointRef, flags: CheckpointListFlag = CheckpointListFlag.NONE
    ) -> list[CheckpointRef]:
        """Those after one."""
        with self._host.lock:
            known = self._known(checkpoint)
            descend = flags & CheckpointListFlag.DESCENDANTS
            names = list(known.descendants(checkpoint.name) if descend else known.children(checkpoint.name))
            return [CheckpointRef(name, checkpoint.domain) for name in _select(known, names, flags)]

    def domain_checkpoint_lookup_by_name(self, domain: DomainRef, name: str) -> CheckpointRef:
        """Find by name."""
        self._known(CheckpointRef(name, domain))
        return CheckpointRef(name, domain)

    def domain_checkpoint_get_parent(self, checkpoint: CheckpointRef) -> CheckpointRef:
        """The one before."""
        with self._host.lock:
            return CheckpointRef(self._known(checkpoint).parent_of(checkpoint.name), checkpoint.domain)

    def domain_checkpoint_get_xml_desc(
        self, checkpoint: CheckpointRef, flags: CheckpointXmlFlag = CheckpointXmlFlag.NONE
    ) -> str:
        """The document; nobody writes down what has changed, so that ``SIZE`` adds nothing, as in libvirt's."""
        with self._host.lock:
            found = self._known(checkpoint).get(checkpoint.name).copy()
            if flags & CheckpointXmlFlag.SIZE:
                running(self._host, checkpoint.domain)
        if flags & CheckpointXmlFlag.NO_DOMAIN:
            found.domain = None
        elif not flags & CheckpointXmlFlag.SECURE:
            hide_passwords(found)
        return found.format()

    def domain_checkpoint_delete(
        self, checkpoint: CheckpointRef, flags: CheckpointDeleteFlag = CheckpointDeleteFlag.NONE
    ) -> None:
        """Forget one."""
        check_together(flags)
        with self._host.lock:
            self._known(checkpoint).delete(
                checkpoint.name,
                children=bool(flags & CheckpointDeleteFlag.CHILDREN),
                children_only=bool(flags & CheckpointDeleteFlag.CHILDREN_ONLY),
            )

    def _known(self, checkpoint: CheckpointRef) -> Moments[Checkpoint]:
        """The domain's checkpoints, this one among them."""
        with self._host.lock:
            known = self._host.domain(checkpoint.domain).checkpoints
            known.get(checkpoint.name)
            return known


def _select(known: Moments[Checkpoint], names: list[str], flags: CheckpointListFlag) -> list[str]:
    leaves, others = bool(flags & CheckpointListFlag.LEAVES), bool(flags & CheckpointListFlag.NO_LEAVES)
    if leaves != others:
        names = [name for name in names if bool(known.children(name)) == others]
    if flags & CheckpointListFlag.TOPOLOGICAL:
        order = [each for root in known.names(roots=True) for each in (root, *known.descendants(root))]
        names.sort(key=order.index)
    return names


def _complete(found: TestDomain, checkpoint: Checkpoint) -> None:
    """Say in a new checkpoint's document what it keeps of the domain."""
    document = found.current.domain.copy()
    forget_run(document)
    with reading(ErrorDomain.DOMAIN_CHECKPOINT):
        align(checkpoint, document.devices.disks)
    checkpoint.domain = document

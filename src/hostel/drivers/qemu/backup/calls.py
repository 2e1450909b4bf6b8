"""The driver's calls about checkpoints and backups.

A checkpoint is a bitmap of its name in each disk's image, which QEMU keeps up to date from then on: what changed since
the checkpoint. A bitmap that is missing or not to be trusted (QEMU was killed, the disk was replaced) does not end in a
wrong backup: that disk is backed up whole, and the backup's document says so.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from hostel.drivers.base import DomainRef
from hostel.drivers.base.backup import (
    BackupBeginFlag,
    CheckpointCreateFlag,
    CheckpointDeleteFlag,
    CheckpointListFlag,
    CheckpointRef,
    CheckpointXmlFlag,
    JobType,
)
from hostel.drivers.document import reading
from hostel.drivers.fault import fault
from hostel.drivers.moment import check_parent
from hostel.drivers.qemu.block.chain import check_jobs_supported, images
from hostel.drivers.qemu.calls import Calls, no_domain
from hostel.drivers.qemu.machines import GLANCE, invalid, not_running
from hostel.drivers.qemu.running import Running
from hostel.drivers.schema import check_schema
from hostel.drivers.together import check_together
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.model.checkpoint import Checkpoint, align, prepare_again, read_checkpoint
from hostel.model.domain.inactive import forget_run
from hostel.model.domain.secure import hide_passwords
from hostel.model.domain.volumes import name_volumes
from hostel.model.moment import MomentParent

if TYPE_CHECKING:
    from hostel.drivers.qemu.backup.checkpoints import Checkpoints


class BackupCalls(Calls):
    """Implements the protocols of :mod:`hostel.drivers.base.backup`."""

    @contextlib.contextmanager
    def _checkpoints(
        self, domain: DomainRef, *, asks: bool = True, talks: bool = False
    ) -> Iterator[tuple[Checkpoints, Running | None]]:
        """Hold a domain and what is known of its checkpoints; ``asks`` and ``talks`` as with snapshots."""
        from hostel.drivers.qemu.backup.checkpoints import Checkpoints

        found = Checkpoints(self._machines, domain.name)
        with (
            self._machines.talking(domain.name, talks=talks),
            self._machines.locked(domain.name),
            self._held(domain, asks=asks or found.pending() is not None) as machine,
        ):
            if machine is None and self._machines.definition(domain.name) is None:
                raise no_domain(f"name '{domain.name}'")
            pending = found.pending()
            if pending is not None:
                found.over(keep=machine is not None and _has_bitmaps(machine, pending))
            yield found, machine

    def domain_checkpoint_create_xml(
        self, domain: DomainRef, xml: str, flags: CheckpointCreateFlag = CheckpointCreateFlag.NONE
    ) -> CheckpointRef:
        """From now on write down what changes."""
        check_together(flags)
        from hostel.drivers.qemu.agent import freeze, thaw

        quiesces = bool(flags & CheckpointCreateFlag.QUIESCE)
        with self._checkpoints(domain, talks=quiesces) as (found, machine):
            redefine = bool(flags & CheckpointCreateFlag.REDEFINE)
            if machine is None and not redefine:
                what = "cannot create checkpoint for inactive domain"
                raise fault(ErrorCode.OPERATION_UNSUPPORTED, what, ErrorDomain.QEMU)
            check_schema(xml, "checkpoint")
            with reading(ErrorDomain.DOMAIN_CHECKPOINT):
                checkpoint = read_checkpoint(xml, now=int(time.time()), redefine=redefine)
            if machine is None or redefine:
                check_parent(checkpoint.name or "", checkpoint.parent, found.all(), found.descendants)
                with reading(ErrorDomain.DOMAIN_CHECKPOINT):
                    prepare_again(checkpoint, domain.uuid)
                found.put(checkpoint)
                return CheckpointRef(checkpoint.name or "", domain)
            prepare_checkpoint(found, machine, checkpoint)
            found.begin(checkpoint)
            is_made = False
            try:
                if quiesces:
                    freeze(machine)
                machine.ask("transaction", actions=bitmap_actions(machine, checkpoint))
                is_made = True
            finally:
                if quiesces:
                    with contextlib.suppress(VirtError):
                        thaw(machine)
                found.over(keep=is_made or _has_bitmaps(machine, checkpoint))
            found.remember_images(checkpoint.name or "", machine.domain.devices.disks)
        return CheckpointRef(checkpoint.name or "", domain)

    def domain_list_all_checkpoints(
        self, domain: DomainRef, flags: CheckpointListFlag = CheckpointListFlag.NONE
    ) -> list[CheckpointRef]:
        """The checkpoints that the flags let through."""
        with self._checkpoints(domain, asks=False) as (found, _):
            documents = found.readable()
            names = [n for n, it in documents.items() if not flags & CheckpointListFlag.ROOTS or it.parent is None]
            return [CheckpointRef(name, domain) for name in _select(documents, names, flags)]

    def domain_checkpoint_list_all_children(
        self, checkpoint: CheckpointRef, flags: CheckpointListFlag = CheckpointListFlag.NONE
    ) -> list[CheckpointRef]:
        """The checkpoints after one."""
        with self._checkpoints(checkpoint.domain, asks=False) as (found, _):
            found.get(checkpoint.name)
            descend = flags & CheckpointListFlag.DESCENDANTS
            names = list(found.descendants(checkpoint.name) if descend else found.children(checkpoint.name))
            return [CheckpointRef(name, checkpoint.domain) for name in _select(found.all(), names, flags)]

    def domain_checkpoint_lookup_by_name(self, domain: DomainRef, name: str) -> CheckpointRef:
        """Find by name."""
        with self._checkpoints(domain, asks=False) as (found, _):
            found.get(name)
        return CheckpointRef(name, domain)

    def domain_checkpoint_get_parent(self, checkpoint: CheckpointRef) -> CheckpointRef:
        """The checkpoint before."""
        with self._checkpoints(checkpoint.domain, asks=False) as (found, _):
            parent = found.get(checkpoint.name).parent
        if parent is None:
            message = f"Domain checkpoint not found: checkpoint '{checkpoint.name}' does not have a parent"
            raise VirtError(ErrorCode.NO_DOMAIN_CHECKPOINT, message, domain=ErrorDomain.QEMU)
        return CheckpointRef(parent.name, checkpoint.domain)

    def domain_checkpoint_get_xml_desc(
        self, checkpoint: CheckpointRef, flags: CheckpointXmlFlag = CheckpointXmlFlag.NONE
    ) -> str:
        """The document."""
        with self._checkpoints(checkpoint.domain) as (found, machine):
            document = found.get(checkpoint.name)
            if flags & CheckpointXmlFlag.SIZE:
                if machine is None:
                    raise not_running()
                sizes = bitmap_sizes(machine, checkpoint.name)
                for disk in document.disks.disks:
                    disk.size = sizes.get(disk.name)
        if flags & CheckpointXmlFlag.NO_DOMAIN:
            document.domain = None
        elif not flags & CheckpointXmlFlag.SECURE:
            hide_passwords(document)
        return document.format()

    def domain_checkpoint_delete(
        self, checkpoint: CheckpointRef, flags: CheckpointDeleteFlag = CheckpointDeleteFlag.NONE
    ) -> None:
        """Forget what has changed since; children before their parents."""
        check_together(flags)
        from hostel.drivers.qemu.backup.bitmap import remove

        with self._checkpoints(checkpoint.domain) as (found, machine):
            found.get(checkpoint.name)
            names = [checkpoint.name]
            if flags & (CheckpointDeleteFlag.CHILDREN | CheckpointDeleteFlag.CHILDREN_ONLY):
                names = [*reversed(list(found.descendants(checkpoint.name)))]
                names += [] if flags & CheckpointDeleteFlag.CHILDREN_ONLY else [checkpoint.name]
            for name in names:
                if not flags & CheckpointDeleteFlag.METADATA_ONLY:
                    if machine is None:
                        what = "cannot delete checkpoint for inactive domain; start it, or give --metadata"
                        raise fault(ErrorCode.OPERATION_UNSUPPORTED, what, ErrorDomain.QEMU)
                    remove(machine, found.get(name))
                found.remove(name)

    def domain_backup_begin(
        self,
        domain: DomainRef,
        backup_xml: str,
        checkpoint_xml: str | None = None,
        flags: BackupBeginFlag = BackupBeginFlag.NONE,
    ) -> None:
        """Begin a backup."""
        from hostel.drivers.qemu.backup.job import begin
        from hostel.model.backup import read_backup

        check_schema(backup_xml, "backup")
        with reading(ErrorDomain.DOMAIN):
            backup = read_backup(backup_xml)
        checkpoint = None
        if checkpoint_xml is not None:
            check_schema(checkpoint_xml, "checkpoint")
            with reading(ErrorDomain.DOMAIN_CHECKPOINT):
                checkpoint = read_checkpoint(checkpoint_xml, now=int(time.time()))
        with self._checkpoints(domain) as (found, machine):
            if machine is None:
                raise not_running()
            actions: list[dict[str, Any]] = []
            if checkpoint is not None:
                prepare_checkpoint(found, machine, checkpoint)
                actions = bitmap_actions(machine, checkpoint)
                found.begin(checkpoint)
            for name in {backup.incremental, *(disk.incremental for disk in backup.disks.disks)} - {None}:
                found.get(name or "")
            suffix = checkpoint.name if checkpoint is not None else None
            is_begun = False
            try:
                reuse = bool(flags & BackupBeginFlag.REUSE_EXTERNAL)
                begin(machine, backup, actions, suffix or str(int(time.time())), reuse=reuse, knows=found.knows)
                is_begun = True
            finally:
                if checkpoint is not None:
                    found.over(keep=is_begun or _has_bitmaps(machine, checkpoint))
            if checkpoint is not None:
                found.remember_images(checkpoint.name or "", machine.domain.devices.disks)

    def domain_backup_get_xml_desc(self, domain: DomainRef) -> str:
        """The document of the backup that is under way."""
        with self._checkpoints(domain) as (_, machine):
            if machine is None or machine.status.backup is None:
                message = "Domain backup job id not found: no domain backup job present"
                raise VirtError(ErrorCode.NO_DOMAIN_BACKUP, message, domain=ErrorDomain.QEMU)
            return machine.status.backup.format()

    def backup_stats(self, domain: DomainRef) -> tuple[JobType, Mapping[str, int]]:
        """How far the backup is.

        Raises:
            DomainHeld: an operation has the domain.
        """
        from hostel.drivers.qemu.backup.job import progress

        known = self._machines.seen(domain.name)
        asks = known is not None and known.backup is not None
        with self._machines.locked(domain.name, GLANCE), self._held(domain, asks=asks) as machine:
            if machine is None:
                raise not_running()
            if machine.status.backup is None:
                return JobType.NONE, {}
            return JobType.UNBOUNDED, progress(machine)

    def abort_backup(self, domain: DomainRef) -> None:
        """End the backup."""
        from hostel.drivers.qemu.backup.job import abort

        with self._running(domain) as machine:
            if machine.status.backup is None:
                raise invalid("no job is active on the domain")
            abort(machine)


def prepare_checkpoint(found: Checkpoints, machine: Running, checkpoint: Checkpoint) -> None:
    """Complete a new checkpoint: every disk that can, unless disks are named; its parent is the newest one.

    Raises:
        VirtError: a disk is not there, or its image keeps no bitmaps.
    """
    found.check_name(checkpoint.name or "")
    disks = {disk.target.dev: disk for disk in machine.domain.devices.disks}
    with reading(ErrorDomain.DOMAIN_CHECKPOINT):
        align(checkpoint, machine.domain.devices.disks)
    for wanted in checkpoint.disks.disks:
        if wanted.checkpoint == "bitmap":
            disk = disks[wanted.name]
            check_jobs_supported(disk)
            if wanted.bitmap != checkpoint.name:
                what = f"bitmap for disk '{wanted.name}' must match checkpoint name '{checkpoint.name}'"
                raise fault(ErrorCode.CONFIG_UNSUPPORTED, what, ErrorDomain.QEMU)
            if disk.image_format != "qcow2":
                what = f"checkpoint for disk {wanted.name} unsupported for storage type {disk.image_format}"
                raise fault(ErrorCode.CONFIG_UNSUPPORTED, what, ErrorDomain.QEMU)
    if set(_tracked(machine, checkpoint)) & set(_nodes_with(machine, checkpoint.name or "")):
        # QEMU says so too, but then it looks as if the bitmap were the new checkpoint's.
        what = f"unable to execute QEMU command 'transaction': Bitmap already exists: {checkpoint.name}"
        raise fault(ErrorCode.INTERNAL_ERROR, what, ErrorDomain.QEMU)
    newest = found.newest()
    checkpoint.parent = MomentParent(name=newest) if newest is not None else None
    held = machine.domain.copy()
    name_volumes(held)
    forget_run(held)
    checkpoint.domain = held


def _tracked(machine: Running, checkpoint: Checkpoint) -> list[str]:
    from hostel.drivers.qemu.command.disk import format_node

    names = {disk.name for disk in checkpoint.disks.disks if disk.checkpoint == "bitmap"}
    disks = [disk for disk in machine.domain.devices.disks if disk.target.dev in names]
    return [format_node(top.number) for disk in disks if (top := next(images(disk), None)) is not None]


def bitmap_actions(machine: Running, checkpoint: Checkpoint) -> list[dict[str, Any]]:
    """What of a transaction begins to write down changes of all disks of a checkpoint."""
    name = checkpoint.name
    return [
        {"type": "block-dirty-bitmap-add", "data": {"node": node, "name": name, "persistent": True}}
        for node in _tracked(machine, checkpoint)
    ]


def _nodes_with(machine: Running, name: str) -> list[str]:
    from hostel.drivers.qemu.backup.bitmap import nodes_with

    return nodes_with(machine, name)


def _has_bitmaps(machine: Running, checkpoint: Checkpoint) -> bool:
    wanted = set(_tracked(machine, checkpoint))
    return bool(wanted) and wanted <= set(_nodes_with(machine, checkpoint.name or ""))


def bitmap_sizes(machine: Running, name: str) -> dict[str, int]:
    """How many bytes of each disk have changed since a checkpoint."""
    from hostel.drivers.qemu.command.disk import format_node

    nodes = {node["node-name"]: node for node in machine.ask("query-named-block-nodes", flat=True)}
    sizes = {}
    for disk in machine.domain.devices.disks:
        top = next(images(disk), None)
        node = nodes.get(format_node(top.number)) if top is not None else None
        for bitmap in node.get("dirty-bitmaps", []) if node is not None else []:
            if bitmap.get("name") == name:
                sizes[disk.target.dev] = int(bitmap["count"])
    return sizes


def _select(documents: dict[str, Checkpoint], names: list[str], flags: CheckpointListFlag) -> list[str]:
    parents = {item.parent.name for item in documents.values() if item.parent is not None}
    if flags & CheckpointListFlag.LEAVES and not flags & CheckpointListFlag.NO_LEAVES:
        names = [name for name in names if name not in parents]
    if flags & CheckpointListFlag.NO_LEAVES and not flags & CheckpointListFlag.LEAVES:
        names = [name for name in names if name in parents]
    return names

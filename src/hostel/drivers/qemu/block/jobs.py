"""The driver's calls that start, watch and end block jobs (``qemu_driver.c``, ``qemu_block.c`` for what is refused)."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final

from hostel.drivers.base import DomainRef
from hostel.drivers.base.block import BlockCommitFlag, BlockJobAbortFlag, BlockJobInfo, BlockRebaseFlag
from hostel.drivers.fault import fault
from hostel.drivers.qemu.backup.carrying import go_over, make_one
from hostel.drivers.qemu.block.chain import Image, check_jobs_supported, find_disk, find_image, images
from hostel.drivers.qemu.block.naming import backing_name
from hostel.drivers.qemu.blockjob import TYPES, job_of, start, target_of, wait
from hostel.drivers.qemu.calls import Calls
from hostel.drivers.qemu.command.disk import format_node, top_node
from hostel.drivers.qemu.machines import GLANCE, failed, invalid
from hostel.drivers.qemu.running import Running
from hostel.drivers.qemu.status import BlockJob
from hostel.errors import ErrorCode, ErrorDomain, QmpError, VirtError
from hostel.model.domain.devices.disk import Disk
from hostel.model.domain.devices.source import ImageFormat, Mirror
from hostel.model.snapshot import Snapshot

_MIB: Final = 1 << 20
_END_SECONDS: Final = 120.0
_MOST: Final = 2**63 - 1


class JobCalls(Calls):
    """Block jobs; see :class:`hostel.drivers.base.block.BlockDriver`."""

    def domain_block_rebase(
        self,
        domain: DomainRef,
        disk: str,
        base: str | None = None,
        bandwidth: int = 0,
        flags: BlockRebaseFlag = BlockRebaseFlag.NONE,
    ) -> None:
        """Pull the backing chain into the disk's image."""
        if flags & BlockRebaseFlag.RELATIVE and base is None:
            raise _invalid_arg("flag VIR_DOMAIN_BLOCK_REBASE_RELATIVE is valid only with non-null base")
        speed = _bytes(bandwidth, in_bytes=bool(flags & BlockRebaseFlag.BANDWIDTH_BYTES))
        with self._running(domain) as machine:
            found = find_disk(machine.domain, disk)
            check_free(machine, found)
            top = next(images(found))
            target = find_image(found, base, beneath=top) if base is not None else None
            _check_inside(machine, [top])
            backing: dict[str, Any] = {}
            if target is not None:
                relative = bool(flags & BlockRebaseFlag.RELATIVE)
                backing = {
                    "base_node": format_node(target.number),
                    "backing_file": _name(top, target, relative=relative),
                }
            make_one(machine, found)
            job = _record(found, "pull", "pull", base=target.number if target else 0)
            start(machine, job, "block-stream", device=format_node(top.number), speed=speed, **backing)

    def domain_block_commit(
        self,
        domain: DomainRef,
        disk: str,
        base: str | None = None,
        top: str | None = None,
        bandwidth: int = 0,
        flags: BlockCommitFlag = BlockCommitFlag.NONE,
    ) -> None:
        """Merge images of the chain into one below."""
        speed = _bytes(bandwidth, in_bytes=bool(flags & BlockCommitFlag.BANDWIDTH_BYTES))
        with self._running(domain) as machine:
            found = find_disk(machine.domain, disk)
            commit(machine, found, base, top, speed, flags, self._without_snapshots)

    @contextlib.contextmanager
    def _without_snapshots(self, machine: Running, merged: Sequence[str], base: str, removed: bool) -> Iterator[None]:
        """What begins within ends the states of external snapshots: their documents say so before, unless it fails."""
        from hostel.drivers.qemu.block.standing import Standing
        from hostel.drivers.qemu.snapshot.catalog import Catalog

        catalog = Catalog(self._machines, machine.name)
        known = catalog.all()
        lost = Standing([], known, self._launcher.prepare).who_loses(merged, base, removed=removed)
        before = {name: known[name].format() for name, _ in lost}
        for name in before:
            for wanted in known[name].disks.disks:
                wanted.delete_in_progress = wanted.delete_in_progress or (name, wanted.name) in lost
            catalog.put(known[name])
        try:
            yield
        except VirtError as error:
            if error.code is ErrorCode.INTERNAL_ERROR:  # QEMU refused, and has not begun
                for text in before.values():
                    catalog.put(Snapshot.parse(text, "domain_snapshot"))
            raise

    def domain_get_block_job_info(self, domain: DomainRef, disk: str) -> BlockJobInfo | None:
        """How far the disk's job is."""
        with self._running(domain) as machine:
            job = job_of(machine, find_disk(machine.domain, disk))
            if job is None:
                return None
            found = next((item for item in machine.ask("query-block-jobs") if item["device"] == job.name), None)
            if found is None:
                return BlockJobInfo(int(TYPES[job.kind]), 0, 0, 1)
            done, end = int(found["offset"]), int(found["len"])
            if not done and not end and "ready" in found:
                done, end = int(found["ready"]), 1
            if done == end > 0 and not found.get("ready", True):
                done -= 1
            return BlockJobInfo(int(TYPES[job.kind]), int(found.get("speed", 0)), done, end)

    def domain_block_job_abort(
        self, domain: DomainRef, disk: str, flags: BlockJobAbortFlag = BlockJobAbortFlag.NONE
    ) -> None:
        """End a job, and with ``PIVOT`` go over to its target."""
        with self._running(domain) as machine:
            job = _job(machine, find_disk(machine.domain, disk))
            end(
                machine,
                job,
                pivot=bool(flags & BlockJobAbortFlag.PIVOT),
                wait_for_it=not flags & BlockJobAbortFlag.ASYNC,
            )

    def domain_block_job_set_speed(self, domain: DomainRef, disk: str, bandwidth: int) -> None:
        """Limit a job."""
        with self._running(domain) as machine:
            job = _job(machine, find_disk(machine.domain, disk))
            machine.ask("block-job-set-speed", device=job.name, speed=bandwidth)


def _bytes(bandwidth: int, *, in_bytes: bool) -> int:
    if in_bytes:
        return bandwidth
    if bandwidth > _MOST // _MIB:
        raise fault(ErrorCode.OVERFLOW, f"bandwidth must be less than {_MOST // _MIB}", ErrorDomain.QEMU)
    return bandwidth * _MIB


def _record(disk: Disk, kind: str, word: str, *, top: int = 0, base: int = 0, delete: bool = False) -> BlockJob:
    first = next(images(disk))
    name = f"{word}-{disk.target.dev}-libvirt-{first.number}-format"
    old, pool, volume = first.place
    return BlockJob(
        name=name, kind=kind, disk=disk.target.dev, top=top, base=base, delete=delete, old=old, pool=pool, volume=volume
    )


def check_without_job(machine: Running, disk: Disk) -> None:
    """Refuse a disk that has a job already.

    Raises:
        VirtError: ``BLOCK_COPY_ACTIVE``, with what to do first.
    """
    if job_of(machine, disk) is not None:
        what = f"disk '{disk.target.dev}' already in active block job; end it with blockjob --abort or --pivot"
        raise fault(ErrorCode.BLOCK_COPY_ACTIVE, f"block copy still active: {what}", ErrorDomain.QEMU)


def check_free(machine: Running, disk: Disk) -> None:
    """Refuse a disk that has a job already, or no image.

    Raises:
        VirtError: with what to do first.
    """
    check_jobs_supported(disk)
    check_without_job(machine, disk)
    if next(images(disk), None) is None:
        raise fault(ErrorCode.CONFIG_UNSUPPORTED, f"disk {disk.target.dev} has no source file", ErrorDomain.QEMU)


def commit(
    machine: Running,
    disk: Disk,
    base: str | None,
    top: str | None,
    speed: int,
    flags: BlockCommitFlag,
    prepared: Callable[[Running, Sequence[str], str, bool], AbstractContextManager[None]] | None = None,
) -> BlockJob:
    """Start to merge ``top`` into ``base``.

    Args:
        machine: whose.
        disk: whose chain.
        base: the image that is merged into, as ``virDomainBlockCommit`` names it.
        top: the first image that is merged.
        speed: bytes a second.
        flags: how.
        prepared: within what QEMU is asked; is told of the images merged, top first, the one below, and whether they
            are removed.

    Raises:
        VirtError: the chain does not have them in this order, or QEMU refused.
    """
    check_free(machine, disk)
    machine.check_disks_held()
    chain = list(images(disk))
    source = chain[0] if top in (None, disk.target.dev) else find_image(disk, top)
    position = next(index for index, item in enumerate(chain) if item.number == source.number)
    is_active = source.number == chain[0].number
    target = _committed_to(disk, chain[position:], base, flags, is_active=is_active)
    end_position = next(index for index, item in enumerate(chain) if item.number == target.number)
    _check_inside(machine, chain[position:end_position])  # those above show the same as before
    kind = "active-commit" if is_active else "commit"
    delete = bool(flags & BlockCommitFlag.DELETE)
    job = _record(disk, kind, "commit", top=0 if is_active else source.number, base=target.number, delete=delete)
    arguments: dict[str, Any] = {"top_node": format_node(source.number), "base_node": format_node(target.number)}
    if is_active:
        mirror = Mirror(type=target.type, job="active-commit", source=target.source.copy())
        mirror.image_format = ImageFormat(type=target.format)
        assert mirror.source is not None
        mirror.source.index = target.number
        disk.mirror = mirror
    else:
        make_one(machine, disk)
        relative = bool(flags & BlockCommitFlag.RELATIVE)
        arguments["backing_file"] = _name(chain[position - 1], target, relative=relative)
    with contextlib.ExitStack() as stack:
        if prepared is not None:
            merged = [item.path for item in chain[position:end_position]]
            stack.enter_context(prepared(machine, merged, target.path, delete))
        start(machine, job, "block-commit", device=top_node(disk), speed=speed, **arguments)
    return job


def _committed_to(
    disk: Disk, chain: Sequence[Image], base: str | None, flags: BlockCommitFlag, *, is_active: bool
) -> Image:
    """What the first of these images of a disk is merged into."""
    source, named = chain[0], f"'{chain[0].path}'"
    is_shallow = base is None and bool(flags & BlockCommitFlag.SHALLOW)
    target = chain[1] if is_shallow and len(chain) > 1 else None
    if not is_shallow:
        target = find_image(disk, base, beneath=source)
    if is_active and not flags & BlockCommitFlag.ACTIVE:
        raise _invalid_arg(f"commit of '{disk.target.dev}' active layer requires active flag")
    if not is_active and flags & BlockCommitFlag.ACTIVE:
        raise _invalid_arg(f"active commit requested but {named} is not active")
    path = next(images(disk)).path
    if target is None:
        raise _invalid_arg(f"top {named} in chain for '{path}' has no backing file")
    if flags & BlockCommitFlag.SHALLOW and target.number != chain[1].number:
        raise _invalid_arg(f"base '{target.path}' is not immediately below {named} in chain for '{path}'")
    return target


def _check_inside(machine: Running, standing: Sequence[Image]) -> None:
    """Refuse a job that changes what is below images with snapshots inside: these show it too."""
    wanted = {format_node(item.number): item for item in standing}
    for node in machine.ask("query-named-block-nodes", flat=True):
        names = [str(item["name"]) for item in node["image"].get("snapshots", [])]
        if names and node["node-name"] in wanted:
            what = f"'{wanted[node['node-name']].path}' has snapshots inside ({', '.join(names)}), "
            what += "which need what is below it; delete them first"
            raise fault(ErrorCode.OPERATION_UNSUPPORTED, what, ErrorDomain.QEMU)


def _name(over: Image, base: Image, *, relative: bool) -> str:
    """What the metadata of the image that will stand on ``base`` is to say of it."""
    if not relative:
        return backing_name(base)
    if over.file is None or base.file is None:
        raise invalid("can't keep relative backing relationship")
    return os.path.relpath(base.file, os.path.dirname(over.file))


def _job(machine: Running, disk: Disk) -> BlockJob:
    job = job_of(machine, disk)
    if job is None:
        raise _invalid_arg(f"disk {disk.target.dev} does not have an active block job")
    return job


def end(machine: Running, job: BlockJob, *, pivot: bool, wait_for_it: bool = True) -> None:
    """End a job.

    Raises:
        VirtError: ``OPERATION_INVALID`` when it cannot be pivoted, ``BLOCK_COPY_ACTIVE`` when it is not ready yet,
            ``OPERATION_FAILED`` with QEMU's reason when pivoting failed.
    """
    if pivot:
        if job.kind not in ("copy", "active-commit"):
            raise invalid(f"job type '{job.kind}' does not support pivot")
        if not job.announced:
            what = f"block copy still active: disk '{job.disk}' not ready for pivot yet; wait until blockjob says 100 %"
            raise VirtError(ErrorCode.BLOCK_COPY_ACTIVE, what, domain=ErrorDomain.QEMU)
    job.intent = "pivot" if pivot else "abort"
    disk = next((item for item in machine.domain.devices.disks if item.target.dev == job.disk), None)
    if disk is not None and disk.mirror is not None:
        disk.mirror.ready = job.intent
    machine.save()
    try:
        if pivot:
            if disk is not None:
                go_over(machine, disk, format_node(target_of(job, disk)))
            machine.ask("job-complete", id=job.name)
        else:
            machine.ask("block-job-cancel", device=job.name)
    except BaseException as error:
        if isinstance(error.__cause__, QmpError) and error.__cause__.error_class == "Disconnected":
            raise  # it may have done it before it ended
        job.intent = ""
        if disk is not None and disk.mirror is not None:
            disk.mirror.ready = "yes" if job.announced else None
        machine.save()
        raise
    if not wait_for_it:
        if pivot:  # perhaps nobody looks any more while the machine runs
            wait(machine, job.name, GLANCE)
        return
    last = wait(machine, job.name, _END_SECONDS)
    if last is None:
        what = f"block job on disk '{job.disk}' has not ended within {_END_SECONDS:.0f} seconds; it goes on"
        raise fault(ErrorCode.OPERATION_TIMEOUT, what, ErrorDomain.QEMU)
    if pivot and last.ended != "completed":
        raise failed(f"block job '{job.name}' failed while pivoting" + (f": {last.error}" if last.error else ""))


def _invalid_arg(message: str) -> VirtError:
    return fault(ErrorCode.INVALID_ARG, message, ErrorDomain.QEMU)

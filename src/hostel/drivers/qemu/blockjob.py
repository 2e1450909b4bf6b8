"""Block jobs from their start to the last of what follows from their end, whoever is there to do it.

A job's record is in the machine's state before QEMU hears of it, and QEMU remembers a job that has ended until it is
told that we know (``auto-dismiss`` is off). So at any moment a process that finds a record can tell what is left:

=================  ======================================================================================
record, in QEMU    it was, and what is to be done
=================  ======================================================================================
open, unknown      never started: the record goes, with what had been prepared
open, running      nothing
open, pending      what it wrote is synced, and QEMU may end it
open, concluded    the document is changed and the end recorded, in one write; then as below
ended, concluded   the definition is changed, QEMU may forget it; then as below
ended, unknown     nodes and files that nobody needs go, and then the record
=================  ======================================================================================
"""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from hostel.drivers.events import BlockJobStatus, BlockJobType
from hostel.drivers.qemu.block import switching
from hostel.drivers.qemu.block.chain import Place, drop_below, go_over, images, mirror_image, replace_source, retell
from hostel.drivers.qemu.command.disk import format_node
from hostel.drivers.qemu.lockmanager import holding
from hostel.drivers.qemu.machines import Machines
from hostel.drivers.qemu.plug.graph import images_inside, sweep_nodes, sync
from hostel.drivers.qemu.running import Running
from hostel.drivers.qemu.status import BlockJob, Status
from hostel.errors import VirtError
from hostel.model.domain.devices.disk import Disk
from hostel.model.domain.domain import Domain

TYPES: Final = {
    "pull": BlockJobType.PULL,
    "copy": BlockJobType.COPY,
    "commit": BlockJobType.COMMIT,
    "active-commit": BlockJobType.ACTIVE_COMMIT,
    "backup": BlockJobType.BACKUP,
}
_STATUSES: Final = {
    "completed": BlockJobStatus.COMPLETED,
    "failed": BlockJobStatus.FAILED,
    "canceled": BlockJobStatus.CANCELED,
}
_CANCELED: Final = "Operation canceled"  # what QEMU says of a job that was given up
# Their end is written into the header of an image, which from then on does without others: QEMU does not sync before
# that what was copied out of these, and would lose it where it is killed next.
_SYNCED_BEFORE_END: Final = ("pull", "commit")


def job_of(machine: Running, disk: Disk) -> BlockJob | None:
    """The disk's job."""
    return next((job for job in machine.status.jobs if job.disk == disk.target.dev), None)


def disk_of(machine: Running, job: BlockJob) -> Disk | None:
    """The disk that a job works on."""
    return next((disk for disk in machine.domain.devices.disks if disk.target.dev == job.disk), None)


def start(machine: Running, job: BlockJob, command: str, **arguments: Any) -> None:
    """Record a job, and start it.

    Raises:
        VirtError: QEMU refused; record, mirror and nodes are gone again.
    """
    others = tuple(item for item in machine.status.jobs if item.name != job.name)
    machine.save(jobs=(*others, job))
    try:
        holding.hold_if_running(machine)
        if job.kind in ("commit", "active-commit"):
            machine.give_files()  # what it only read until now
        given = {"job-id": job.name, "auto-dismiss": False, **arguments}
        given |= {"auto-finalize": False} if job.kind in _SYNCED_BEFORE_END else {}
        machine.ask(command, **{key.replace("_", "-"): value for key, value in given.items() if value is not None})
    except BaseException:
        withdraw(machine, job)
        raise


def withdraw(machine: Running, job: BlockJob) -> None:
    """Take back a job that was never started."""
    disk = disk_of(machine, job)
    if disk is not None and job.kind in ("copy", "active-commit"):
        disk.mirror = None
    job.ended = job.ended or "failed"  # its target is not needed
    sweep_nodes(machine)
    if job.kind in ("copy", "backup") and not job.reuse:
        _remove(job.stale)
    began = 0 if job.kind == "backup" else machine.status.backup_began
    machine.save(jobs=tuple(item for item in machine.status.jobs if item.name != job.name), backup_began=began)
    holding.settle(machine)


def settle_jobs(machine: Running) -> None:
    """Bring every record into line with QEMU; see the table above.

    Raises:
        VirtError: QEMU does not answer.
    """
    known = {str(job["id"]): job for job in machine.ask("query-jobs")}
    ready = {str(job["device"]) for job in machine.ask("query-block-jobs") if job.get("ready")}
    for job in machine.status.jobs:
        found = known.get(job.name)
        if not job.ended:
            if found is None:
                withdraw(machine, job)
                continue
            if found["status"] == "pending":
                found = _finalize(machine, job)
            if found["status"] != "concluded":
                if job.name in ready and not job.announced:
                    _announce(machine, job)
                continue
            _end(machine, job, found)
        _follow(machine, job, is_known=found is not None)
    if machine.status.backup is not None:
        from hostel.drivers.qemu.backup.job import end

        end(machine)


def settle_switches(machine: Running) -> None:
    """Find out which image a guest will have written to last that is to go over to another one; its CPUs stop.

    Where QEMU has not gone over by then it may do so until it ends: both images are the same.

    Raises:
        VirtError: QEMU does not answer.
    """
    machine.ask("stop")
    settle_jobs(machine)
    for job in machine.status.jobs:
        job.intent = ""
    machine.save()


def _finalize(machine: Running, job: BlockJob) -> dict[str, Any]:
    """End a job that waits for that, once what it wrote is synced, or give it up; how it is then."""
    disk = disk_of(machine, job)
    try:
        if disk is not None:
            sync(machine, disk, job.base if job.kind == "commit" else next(images(disk)).number)
        machine.ask("job-finalize", id=job.name)
    except VirtError as error:
        job.error = error.message
        machine.attempt("block-job-cancel", device=job.name)
    return next(item for item in machine.ask("query-jobs") if item["id"] == job.name)


def _announce(machine: Running, job: BlockJob) -> None:
    """Say that a copy is as new as its origin."""
    disk = disk_of(machine, job)
    job.announced = True
    if disk is not None and disk.mirror is not None:
        disk.mirror.ready = "yes"
    machine.save()
    _tell(machine, job, BlockJobStatus.READY)


def _end(machine: Running, job: BlockJob, found: Mapping[str, Any]) -> None:
    """Record how a job ended, and what the disk's chain is now; in one write."""
    disk, error = disk_of(machine, job), job.error or found.get("error")
    has_moved = disk is not None and _has_moved(machine, job, disk)
    if error == _CANCELED or (job.kind in ("copy", "active-commit") and not error and not has_moved):
        job.ended = "canceled"
    else:
        job.ended, job.error = ("failed", error) if error and not has_moved else ("completed", "")
    if disk is not None:
        if job.ended == "completed":
            _change_chain(job, disk)
        disk.mirror = None
    status = machine.status
    if job.kind == "backup":
        is_pull = status.backup is not None and status.backup.mode == "pull"
        why = "" if is_pull and error == _CANCELED else error or ""  # it is how that one ends
        done = status.backup_done + int(found.get("current-progress", 0))
        total = status.backup_total + int(found.get("total-progress", 0))
        machine.save(backup_done=done, backup_total=total, backup_error=status.backup_error or why)
    else:
        machine.save()


def _has_moved(machine: Running, job: BlockJob, disk: Disk) -> bool:
    """Whether QEMU's device is on the image that the job was to bring it to: the truth about a pivot."""
    if job.kind not in ("copy", "active-commit"):
        return False
    return images_inside(machine).get(disk.alias or "") == format_node(target_of(job, disk))


def target_of(job: BlockJob, disk: Disk) -> int:
    """The number of the image that a copy or an active commit brings the disk to."""
    if job.kind == "active-commit":
        return job.base
    source = disk.mirror.source if disk.mirror is not None else None
    return 0 if source is None else source.index or 0


def _change_chain(job: BlockJob, disk: Disk) -> None:
    """What the job has done, in the document."""
    chain = list(images(disk))
    match job.kind:
        case "pull":
            between = drop_below(disk, chain[0].number, job.base)
        case "commit":
            position = next(index for index, item in enumerate(chain) if item.number == job.top)
            between = drop_below(disk, chain[position - 1].number, job.base)
        case "backup":
            return
        case "active-commit":
            position = next(index for index, item in enumerate(chain) if item.number == job.base)
            between = chain[:position]
            go_over(disk, chain[position])
        case _:
            target, between = mirror_image(disk), []
            if target is not None:
                go_over(disk, target)
    job.stale = [item.file for item in between if item.file is not None] if job.delete else []


def _follow(machine: Running, job: BlockJob, *, is_known: bool) -> None:
    """Do what is left once the end is recorded."""
    disk = disk_of(machine, job)
    if disk is not None:
        machine.redefine(lambda definition: _redefine(definition, job, disk, machine.resolved))
    if job.ended == "completed" and job.intent == "pivot":
        machine.machines.switches.remove(machine.name)  # of an earlier run
    if is_known:
        machine.attempt("job-dismiss", id=job.name)
    if job.kind == "backup":
        _after_backup(machine, job, disk)
    sweep_nodes(machine)
    _remove_stale(job)
    machine.save(jobs=tuple(item for item in machine.status.jobs if item.name != job.name))
    holding.settle(machine)
    _tell(machine, job, _STATUSES[job.ended])


def _redefine(definition: Domain, job: BlockJob, disk: Disk, resolved: Callable[[Disk], Disk]) -> bool:
    """Have the definition start from what a job has brought the disk to; False where that changes nothing."""
    top = next(images(disk), None)
    if job.ended != "completed" or top is None:
        return False
    if job.kind in ("copy", "active-commit"):
        return replace_source(definition, job.disk, Place(job.old, job.pool, job.volume), top, resolved)
    return job.kind in ("pull", "commit") and retell(definition, disk)


def _remove_stale(job: BlockJob) -> None:
    """Remove what was merged away, and what is no whole backup."""
    if (job.ended == "completed") != (job.kind == "backup"):
        _remove(job.stale)


def settle_gone(machines: Machines, status: Status) -> None:
    """Do what is left of the jobs of a machine that is no more: it may have ended before anybody came to that.

    What it was on last is what the definition starts from; where that was not recorded it does not start. Backups are
    given up.

    Raises:
        VirtError: it cannot be written down.
    """
    switching.keep(machines, status)
    for job in status.jobs:
        disk = next((item for item in status.domain.devices.disks if item.target.dev == job.disk), None)
        if disk is not None:
            change = functools.partial(_redefine, job=job, disk=disk, resolved=lambda item: item)
            machines.redefine(status.domain.name, change)
        if job.ended or job.kind == "backup":
            _remove_stale(job)


def _after_backup(machine: Running, job: BlockJob, disk: Disk | None) -> None:
    """Drop what only the backup needed; where one disk fails the others are given up."""
    machine.attempt("block-export-del", id=job.name, mode="hard")
    top = next(images(disk), None) if disk is not None else None
    backup = machine.status.backup
    items = [item for item in backup.disks.disks if item.name == job.disk] if backup is not None else []
    if top is not None and items:
        from hostel.drivers.qemu.backup.carrying import is_passing, known_nodes
        from hostel.drivers.qemu.backup.job import bitmap_of

        node, name = format_node(top.number), bitmap_of(items[0])
        if is_passing(known_nodes(machine), node, name):  # and no checkpoint's that has this name
            machine.attempt("block-dirty-bitmap-remove", node=node, name=name)
    if job.ended == "failed":
        for other in machine.status.jobs:
            if other.kind == "backup" and not other.ended:
                machine.attempt("block-job-cancel", device=other.name, force=True)


def _remove(paths: list[str]) -> None:
    """Remove images, but for those that somebody has open.

    Another job may have made its own target of the name in the moment between our look and our making it.
    """
    from hostel.block import permission

    for path in paths:
        with contextlib.suppress(OSError):
            if not permission.is_used(path):
                os.unlink(path)


def _tell(machine: Running, job: BlockJob, status: BlockJobStatus) -> None:
    kind = int(TYPES[job.kind])
    disk = disk_of(machine, job)
    top = next(images(disk), None) if disk is not None else None  # where it is now, as libvirt has it
    machine.publish("block-job", disk=top.path if top is not None else job.old, type=kind, status=int(status))
    machine.publish("block-job-2", disk=job.disk, type=kind, status=int(status))


def wait(machine: Running, name: str, seconds: float) -> BlockJob | None:
    """Wait until a job has ended and all that follows is done; returns its last record, None where it still runs."""
    deadline = time.monotonic() + seconds
    while True:
        job = next((item for item in machine.status.jobs if item.name == name), None)
        assert job is not None
        settle_jobs(machine)
        if all(item.name != name for item in machine.status.jobs):
            return job
        left = deadline - time.monotonic()
        if left <= 0:
            return None
        machine.qmp.wait(min(left, 1.0), "JOB_STATUS_CHANGE")

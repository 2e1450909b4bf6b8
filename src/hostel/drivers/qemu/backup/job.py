"""A backup while it runs: written to files (push), or served as the disks were (pull).

All disks are kept as they are at one moment, by one transaction. Each has a job with a record like other block jobs, so
that what is left by a process that died is dealt with by the next one.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from hostel.drivers.document import reading
from hostel.drivers.fault import fault
from hostel.drivers.qemu import credentials
from hostel.drivers.qemu.backup.carrying import Nodes, chain_of, is_passing, known_nodes, sources
from hostel.drivers.qemu.block.chain import Image, check_jobs_supported, disk_of, find_disk, images
from hostel.drivers.qemu.block.create import create_image
from hostel.drivers.qemu.block.jobs import check_free
from hostel.drivers.qemu.blockjob import settle_jobs, withdraw
from hostel.drivers.qemu.command.disk import format_node, image_nodes
from hostel.drivers.qemu.jobstats import keep
from hostel.drivers.qemu.machines import invalid
from hostel.drivers.qemu.plug.graph import add_nodes
from hostel.drivers.qemu.running import Running
from hostel.drivers.qemu.status import BlockJob
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.model.backup import Backup, BackupDisk, BackupServer, align
from hostel.model.domain.devices.disk import Disk
from hostel.model.domain.devices.source import DiskSource, SourceType
from hostel.model.domain.rules.disk_source import unusable_format

_SECONDS: Final = 60.0
OPERATION: Final = 9  # VIR_DOMAIN_JOB_OPERATION_BACKUP
_NEVER_MADE: Final = ("bochs", "cloop", "dmg")  # formats that QEMU only reads
_PORT: Final = "10809"
_TLS: Final = "objlibvirt_backup_tls0"


def begin(
    machine: Running,
    backup: Backup,
    checkpoint: list[dict[str, Any]],
    suffix: str,
    *,
    reuse: bool,
    knows: Callable[[str, Disk], bool],
) -> None:
    """Begin a backup, and a checkpoint at the same moment.

    Args:
        machine: which.
        backup: what is asked for; it says everything afterwards.
        checkpoint: what of a transaction makes a checkpoint.
        suffix: what names of new files end with.
        reuse: whether the files are there.
        knows: whether a checkpoint of a name can say what has changed of a disk.

    Raises:
        VirtError: nothing has begun then, and what was made is gone.
    """
    if machine.status.backup is not None:
        raise invalid("another backup is under way; end it with domjobabort")
    is_pull = backup.mode == "pull"
    if is_pull and backup.server is None:
        raise fault(ErrorCode.XML_ERROR, "a pull backup needs a <server>", ErrorDomain.DOMAIN)
    _align(machine, backup, suffix)
    sizes = known_nodes(machine)
    for item in backup.disks.disks:
        if item.backup and item.incremental and not knows(item.incremental, find_disk(machine.domain, item.name)):
            item.incremental = item.export_bitmap = None  # all of it
    chosen = [(find_disk(machine.domain, item.name), item) for item in backup.disks.disks if item.backup]
    if not chosen:
        raise fault(ErrorCode.CONFIG_UNSUPPORTED, "no disk is to be backed up", ErrorDomain.QEMU)
    for disk, item in chosen:
        _check_format(item, reuse=reuse)
        check_free(machine, disk)
    jobs = [_record(machine, disk, item, reuse=reuse) for disk, item in chosen]
    began = int(time.time() * 1000)
    _clear_away(machine, [(disk, bitmap_of(item)) for disk, item in chosen], jobs, sizes)
    machine.save(jobs=(*machine.status.jobs, *jobs), backup=backup, backup_began=began)
    try:
        actions = list(checkpoint)
        for (disk, item), job in zip(chosen, jobs, strict=True):
            actions += _disk_actions(machine, disk, item, job, sizes, is_pull=is_pull, reuse=reuse)
        if is_pull and backup.server is not None:
            _serve(machine, backup.server)
        machine.ask("transaction", actions=actions)
        for (_, item), job in zip(chosen, jobs, strict=True):
            if is_pull:
                _export(machine, item, job)
    except BaseException:
        _take_back(machine, jobs)
        raise
    machine.save()


def _clear_away(machine: Running, bitmaps: list[tuple[Disk, str]], jobs: list[BlockJob], nodes: Nodes) -> None:
    """Have QEMU forget what is left of an earlier backup, where it would not when that ended: its names are ours again.

    Raises:
        VirtError: it will not.
    """
    names = {job.name for job in jobs}
    if any(export["id"] in names for export in machine.ask("query-block-exports")):
        machine.ask("nbd-server-stop")  # it serves backups only, and closes all
    for known in machine.ask("query-jobs"):
        if known["id"] in names and known["status"] == "concluded":
            machine.ask("job-dismiss", id=known["id"])
    for disk, name in bitmaps:
        node = format_node(next(images(disk)).number)
        if is_passing(nodes, node, name):
            machine.ask("block-dirty-bitmap-remove", node=node, name=name)


def _check_format(item: BackupDisk, *, reuse: bool) -> None:
    """Refuse a format that QEMU does not write, before anything is made."""
    kind = item.type or SourceType.FILE
    reason = unusable_format(item.format_type, kind)
    if reason is not None:
        raise fault(ErrorCode.CONFIG_UNSUPPORTED, reason, ErrorDomain.QEMU)
    if item.format_type in _NEVER_MADE and kind == SourceType.FILE and not reuse:
        raise fault(
            ErrorCode.OPERATION_UNSUPPORTED, f"can't create storage format '{item.format_type}'", ErrorDomain.QEMU
        )


def _take_back(machine: Running, jobs: list[BlockJob]) -> None:
    with contextlib.suppress(VirtError):
        known = {str(job["id"]) for job in machine.ask("query-jobs")}
        if any(job.name in known for job in jobs):
            abort(machine)
            return
    for job in jobs:
        withdraw(machine, job)
    end(machine)


def _align(machine: Running, backup: Backup, suffix: str) -> None:
    """Say of every disk what becomes of it."""
    disks = machine.domain.devices.disks
    with reading(ErrorDomain.DOMAIN):
        align(backup, disks, suffix)
    for item in backup.disks.disks:
        if not item.backup:
            continue
        check_jobs_supported(find_disk(machine.domain, item.name))
        item.format_type = item.format_type or "qcow2"
        if item.mode != "incremental":
            item.incremental = None
        if backup.mode == "pull":
            item.export_name = item.export_name or item.name
            if item.incremental is not None:
                item.export_bitmap = item.export_bitmap or f"backup-{item.name}"


def bitmap_of(item: BackupDisk) -> str:
    """The bitmap that says what changed, while the backup goes on; it is served under the same name."""
    return item.export_bitmap or f"backup-{item.name}"


def _record(machine: Running, disk: Disk, item: BackupDisk, *, reuse: bool) -> BlockJob:
    top = next(images(disk))
    item.index = machine.next_node()
    path = _path(item)
    job = BlockJob(
        name=f"backup-{disk.target.dev}-{format_node(top.number)}", kind="backup", disk=disk.target.dev,
        base=item.index, reuse=reuse or not _is_new(path), old=top.path,
    )  # fmt: skip
    job.stale = [] if job.reuse else [path]
    return job


def _path(item: BackupDisk) -> str:
    store = item.store
    return (store.file or store.dev or "") if store is not None else ""


def _is_new(path: str) -> bool:
    return not Path(path).exists()


def _disk_actions(
    machine: Running,
    disk: Disk,
    item: BackupDisk,
    job: BlockJob,
    nodes: Nodes,
    *,
    is_pull: bool,
    reuse: bool,
) -> list[dict[str, Any]]:
    top = next(images(disk))
    node = format_node(top.number)
    store = item.store or DiskSource()
    target = Image(item.index or 0, item.type or SourceType.FILE, store, item.format_type or "qcow2", None)
    if not reuse and target.type == SourceType.FILE:
        if Path(target.path).exists() and os.path.getsize(target.path):
            what = f"store '{target.path}' for backup of '{item.name}' exists; remove it, or give --reuse-external"
            raise fault(ErrorCode.INVALID_ARG, what, ErrorDomain.QEMU)
        size = int(nodes[node]["image"]["virtual-size"])
        create_image(target, size, machine.find_secret, backing=top if is_pull else None)
    specs = image_nodes(disk, target.type, target.source, target.format, target.number)
    if target.format == "qcow2":
        specs[-1]["backing"] = node if is_pull else None
    with machine.supplied(disk_of(target, disk)):
        add_nodes(machine, specs)
    bitmap = bitmap_of(item)
    actions: list[dict[str, Any]] = []
    found = sources(nodes, chain_of(disk), item.incremental) if item.incremental is not None else []
    usable = bool(found)
    item.mode = "incremental" if usable else "full"
    if usable:
        merge = {"node": node, "target": bitmap, "bitmaps": [{"node": it, "name": item.incremental} for it in found]}
        add = {"node": node, "name": bitmap, "disabled": True}
        actions += [
            {"type": "block-dirty-bitmap-add", "data": add},
            {"type": "block-dirty-bitmap-merge", "data": merge},
        ]
    elif item.incremental is not None:
        item.incremental = item.export_bitmap = None  # what changed is not known: all of it
    data: dict[str, Any] = {
        "job-id": job.name, "device": node, "target": format_node(item.index), "auto-dismiss": False,
        "sync": "none" if is_pull else "bitmap" if usable else "full",
    }  # fmt: skip
    if usable and not is_pull:
        data |= {"bitmap": bitmap, "bitmap-mode": "never"}
    return [*actions, {"type": "blockdev-backup", "data": data}]


def _serve(machine: Running, server: BackupServer) -> None:
    if server.transport == "unix":
        if not server.socket:
            raise fault(ErrorCode.XML_ERROR, "a server on a unix socket needs <server socket='…'>", ErrorDomain.DOMAIN)
        address: dict[str, Any] = {"type": "unix", "data": {"path": server.socket}}
    else:
        host = server.name or "localhost"
        address = {"type": "inet", "data": {"host": host, "port": str(server.port or _PORT)}}
    if server.tls:
        settings = machine.settings.backup
        credentials.check_folder(settings, "backup", "server", "backup")
        credentials.give(machine, _TLS, settings, "server")
    machine.ask("nbd-server-start", addr=address, **({"tls-creds": _TLS} if server.tls else {}))


def _export(machine: Running, item: BackupDisk, job: BlockJob) -> None:
    export: dict[str, Any] = {"type": "nbd", "id": job.name, "node-name": format_node(item.index), "writable": False}
    export["name"] = item.export_name or item.name
    if item.mode == "incremental":
        export["bitmaps"] = [{"node": _node_of(machine, item), "name": bitmap_of(item)}]
    machine.ask("block-export-add", **export)


def _node_of(machine: Running, item: BackupDisk) -> str:
    return format_node(next(images(find_disk(machine.domain, item.name))).number)


def abort(machine: Running) -> None:
    """End a backup now.

    Raises:
        VirtError: ``OPERATION_TIMEOUT`` when its jobs do not end.
    """
    machine.attempt("nbd-server-stop")
    for job in machine.status.jobs:
        if job.kind == "backup":
            machine.attempt("block-job-cancel", device=job.name, force=True)
    deadline = time.monotonic() + _SECONDS
    while machine.status.backup is not None:
        settle_jobs(machine)
        if time.monotonic() >= deadline:
            raise fault(ErrorCode.OPERATION_TIMEOUT, "the backup does not end", ErrorDomain.QEMU)
        if machine.status.backup is not None:
            machine.qmp.wait(0.2, "JOB_STATUS_CHANGE")


def progress(machine: Running) -> dict[str, int]:
    """How far a backup is, by libvirt's names."""
    known = {str(job["id"]): job for job in machine.ask("query-jobs")}
    jobs = [known[job.name] for job in machine.status.jobs if job.kind == "backup" and job.name in known]
    total = sum(int(job["total-progress"]) for job in jobs)
    done = sum(int(job["current-progress"]) for job in jobs)
    return _told(machine, done, total)


def _serve_rest(machine: Running, backup: Backup) -> None:
    """Serve what the process that began a backup has not come to."""
    served = {str(export["id"]) for export in machine.ask("query-block-exports")}
    jobs = {job.disk: job for job in machine.status.jobs if job.kind == "backup" and not job.ended}
    for item in backup.disks.disks:
        if item.name in jobs and jobs[item.name].name not in served:
            with contextlib.suppress(VirtError):
                _export(machine, item, jobs[item.name])


def _told(machine: Running, done: int = 0, total: int = 0) -> dict[str, int]:
    """What is known of a backup; ``done`` and ``total`` are bytes of those of its jobs that go on."""
    status = machine.status
    done += status.backup_done
    total = max(done, total + status.backup_total)
    told = {"operation": OPERATION, "time_elapsed": max(0, int(time.time() * 1000) - status.backup_began)}
    if not total:
        return told
    if status.backup is not None and status.backup.mode == "pull":
        return told | {"disk_temp_used": done, "disk_temp_total": total}
    return told | {"disk_total": total, "disk_processed": done, "disk_remaining": total - done}


def end(machine: Running) -> None:
    """Of a backup that goes on see that all is served; where no job of it is left, it is over."""
    backup = machine.status.backup
    if backup is None:
        return
    if any(job.kind == "backup" for job in machine.status.jobs):
        if backup.mode == "pull":
            _serve_rest(machine, backup)
        return
    if backup.mode == "pull":
        machine.attempt("nbd-server-stop")
        if backup.server is not None and backup.server.tls:
            credentials.take(machine, _TLS)
        for item in backup.disks.disks:
            if item.backup and item.scratch is not None and item.scratch.file:
                with contextlib.suppress(OSError):
                    os.unlink(item.scratch.file)
    status = machine.status
    told = {**_told(machine), "success": int(not status.backup_error)}
    detail = {"errmsg": status.backup_error} if status.backup_error else {}
    if status.backup_began:
        keep(machine, told)
    machine.save(backup=None, backup_done=0, backup_total=0, backup_error="")
    if status.backup_began:
        machine.publish("job-completed", **told, **detail)

"""The document of a backup (``virDomainBackupDefFormat``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from hostel.codec.xml import YES_NO, Element, attr, child, children, choice, enumeration, integer, setting, text
from hostel.errors import ErrorCode, ModelError
from hostel.model.domain.devices.disk import Disk
from hostel.model.domain.devices.source import FORMATS, DiskSource, SourceType

_FORMAT: Final = choice(*FORMATS)


class BackupServer(Element, tag="server"):
    """Where a pull backup is served."""

    transport: str | None = attr(choice("tcp", "unix", "rdma"), default=None)
    tls: bool | None = attr(YES_NO, default=None)
    name: str | None = attr(default=None)
    port: int | None = attr(integer(maximum=65535), default=None)
    socket: str | None = attr(default=None)


class BackupTarget(DiskSource, tag="target", drop_empty=True):
    """Where a push backup is written."""


class BackupScratch(DiskSource, tag="scratch", drop_empty=True):
    """Where what changes is kept while a pull backup is served."""


class BackupDisk(Element, tag="disk"):
    """What becomes of a disk; ``state`` and ``index`` only in a driver's own files."""

    name: str = attr()
    backup: bool | None = attr(YES_NO, default=None)
    state: str | None = attr(choice("running", "complete", "failed", "cancelling", "cancelled"), default=None)
    type: SourceType | None = attr(enumeration(SourceType), default=None)
    mode: str | None = attr(choice("full", "incremental"), name="backupmode", default=None)
    incremental: str | None = attr(default=None)
    export_name: str | None = attr(name="exportname", default=None)
    export_bitmap: str | None = attr(name="exportbitmap", default=None)
    index: int | None = attr(integer(), default=None)
    format_type: str | None = setting(_FORMAT, tag="driver", name="type", default=None)
    target: BackupTarget | None = child(BackupTarget, default=None)
    scratch: BackupScratch | None = child(BackupScratch, default=None)

    @property
    def store(self) -> DiskSource | None:
        """Where its data goes."""
        return self.target or self.scratch


class BackupDisks(Element, tag="disks", drop_empty=True):
    """The disks."""

    disks: list[BackupDisk] = children(BackupDisk, factory=list)


class BackupSecret(Element, tag="secret"):
    """QEMU's object with a passphrase."""

    type: str = attr()
    alias: str = attr()


class BackupObjects(Element, tag="objects", drop_empty=True):
    """QEMU's objects."""

    secrets: list[BackupSecret] = children(BackupSecret, factory=list)
    tls: str | None = setting(tag="TLSx509", name="alias", default=None)


class BackupPrivate(Element, tag="privateData", drop_empty=True):
    """What a driver keeps for itself."""

    objects: BackupObjects | None = child(BackupObjects, default=None)


class Backup(Element, tag="domainbackup"):
    """A backup; ``incremental`` names the checkpoint since which."""

    mode: str | None = attr(choice("push", "pull", code=ErrorCode.CONFIG_UNSUPPORTED), default=None)
    incremental: str | None = text(default=None)
    server: BackupServer | None = child(BackupServer, default=None)
    disks: BackupDisks = child(BackupDisks, factory=BackupDisks)
    private: BackupPrivate | None = child(BackupPrivate, default=None)


def read_backup(xml: str, *, internal: bool = False) -> Backup:
    """Read a backup's document, and complete it; an ``internal`` one is a driver's own.

    Raises:
        ModelError: it is none, or breaks a rule; the path says where.
    """
    backup = Backup.parse(xml, "domain_backup")
    complete(backup, internal=internal)
    validate(backup)
    return backup


def complete(backup: Backup, *, internal: bool = False) -> None:
    """Say what was left out, and leave out what a backup of the mode does not have."""
    backup.mode = backup.mode or "push"
    is_push = backup.mode == "push"
    if backup.server is not None:
        backup.server.transport = backup.server.transport or "tcp"
        backup.server.port = backup.server.port or None
    if not internal:
        backup.private = None
    for disk in backup.disks.disks:
        disk.backup = disk.backup is not False
        if not internal:
            disk.state = disk.index = None
        if not disk.backup:
            disk.type = disk.mode = disk.incremental = disk.format_type = disk.target = disk.scratch = None
        if not disk.backup or is_push:
            disk.export_name = disk.export_bitmap = disk.scratch = None
        if not is_push:
            disk.target = None
        if disk.backup:
            disk.type = disk.type or SourceType.FILE


def validate(backup: Backup) -> None:
    """Hold a completed backup against the rules.

    Raises:
        ModelError: a rule is broken; the words are libvirt's.
    """
    here = "/domainbackup"
    server = backup.server
    if server is not None:
        path = f"{here}/server"
        if backup.mode != "pull":
            raise ModelError(path, "use of <server> requires pull mode backup", code=ErrorCode.CONFIG_UNSUPPORTED)
        if server.transport == "rdma":
            reason = "transport rdma is not supported for <server>"
            raise ModelError(f"{path}/@transport", reason, code=ErrorCode.CONFIG_UNSUPPORTED)
        if server.transport == "tcp" and server.name is None:
            raise ModelError(f"{path}/@name", "missing name for host")
        if server.transport == "unix" and server.socket is None:
            raise ModelError(f"{path}/@socket", "missing socket for unix transport")
        if server.transport == "unix" and not (server.socket or "").startswith("/"):
            raise ModelError(f"{path}/@socket", f"backup socket path '{server.socket}' must be absolute")
    for number, disk in enumerate(backup.disks.disks, 1):
        if disk.backup and disk.type not in (SourceType.FILE, SourceType.BLOCK):
            path = f"{here}/disks/disk[{number}]/@type"
            raise ModelError(path, f"unsupported disk backup type '{disk.type}'")


def align(backup: Backup, disks: Sequence[Disk], suffix: str) -> None:
    """Say of every disk of the domain what becomes of it; new files are named after the disks' own, and ``suffix``.

    Raises:
        ModelError: a disk is not the domain's, is named twice, or nothing can be made up for it.
    """
    here = "/domainbackup/disks"
    by_name = {disk.target.dev: disk for disk in disks}
    if not by_name:
        raise _impossible(here, "domain must have at least one disk to perform backup")
    named: set[str] = set()
    for number, disk in enumerate(backup.disks.disks, 1):
        path = f"{here}/disk[{number}]"
        if disk.name not in by_name:
            raise _impossible(path, f"no disk named '{disk.name}'")
        if disk.name in named:
            raise _impossible(path, f"disk '{disk.name}' specified twice")
        named.add(disk.name)
        if disk.mode == "incremental" and disk.incremental is None and backup.incremental is None:
            reason = f"'incremental' backup mode of disk '{disk.name}' requires setting 'incremental' field for disk"
            raise _impossible(path, f"{reason} or backup")
        if disk.backup:
            _assign_store(disk, by_name[disk.name], suffix, path, is_push=backup.mode == "push")
    everything = not named
    for name, domain_disk in by_name.items():
        if name in named:
            continue
        added = BackupDisk(name=name, backup=everything and not domain_disk.readonly and _path(domain_disk) is not None)
        if added.backup:
            added.type = SourceType.FILE
            _assign_store(added, domain_disk, suffix, here, is_push=backup.mode == "push")
        backup.disks.disks.append(added)
    for disk in backup.disks.disks:
        if not disk.backup:
            continue
        is_incremental = backup.incremental is not None or disk.incremental is not None
        disk.mode = disk.mode or ("incremental" if is_incremental else "full")
        if disk.mode == "incremental":
            disk.incremental = disk.incremental or backup.incremental


def _path(disk: Disk) -> str | None:
    source = disk.source
    return None if source is None else source.file or source.dev or source.name or source.volume or source.path


def _assign_store(disk: BackupDisk, domain_disk: Disk, suffix: str, path: str, *, is_push: bool) -> None:
    if _path(domain_disk) is None:
        raise _impossible(path, f"disk '{disk.name}' has no media")
    if disk.store is not None:
        return
    if domain_disk.source is None or domain_disk.source.file is None:
        raise _impossible(path, f"refusing to generate file name for disk '{disk.name}'")
    file = f"{domain_disk.source.file}.{suffix}"
    if is_push:
        disk.target = BackupTarget(file=file)
    else:
        disk.scratch = BackupScratch(file=file)


def _impossible(path: str, reason: str) -> ModelError:
    return ModelError(path, reason, code=ErrorCode.CONFIG_UNSUPPORTED)
